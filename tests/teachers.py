"""A teacher as a user writes one: a function of a batch of observations."""

import numpy as np

_asked = 0


def tires(obs: dict[str, np.ndarray]) -> np.ndarray:
    """Catches the ball (a board of ten rows, `[B, 10, 5]`) while it is asked; after 40 questions it has enough."""
    global _asked
    _asked += 1
    if _asked > 40:
        raise IndexError("no more answers")
    board = next(iter(obs.values()))
    ball, paddle = board[:, :-1].sum(axis=1).argmax(axis=1), board[:, -1].argmax(axis=1)
    return 1 + np.sign(ball - paddle)


def swing(obs: dict[str, np.ndarray]) -> np.ndarray:
    """A pendulum's torque: energy is pumped until it stands, where it is held; in [-1, 1], as `[B, 1]`."""
    upright, side, speed = obs["obs"].T
    energy = speed**2 / 6 - 5.0 * (1.0 - upright)
    pump = np.where(energy < 0, np.sign(speed), -np.sign(speed))
    hold = -(8.0 * np.arctan2(side, upright) + 1.5 * speed) / 2.0
    return np.clip(np.where(upright > 0.8, hold, pump), -1.0, 1.0)[:, None]
