"""A teacher of Pong that was never trained: it reads the screen and waits where the ball will be.

rekindle reincarnate --teacher examples.pong_teacher:act --student dqn --env ALE/Pong-v5 --budget 20000steps
"""

import sys

import numpy as np

from rekindle.envs import registry

STAY, UP, DOWN = 0, 2, 3
TOP, BOTTOM = 14, 77
"""Rows of the field; scores are above it."""
PADDLE = slice(72, 77)
BALL = slice(13, 72)
"""Columns where the right paddle is, and where the ball is looked for."""
NEAR, GLIDES = 4.0, 2.0
"""Rows that the paddle may be off; steps that it glides on for, at the speed that it has."""


def act(obs: dict[str, np.ndarray]) -> np.ndarray:
    """Actions for pictures `obs` [B, 84, 84, 4]."""
    return np.array([one(frames) for frames in obs["obs"]], np.int32)


def one(frames: np.ndarray) -> int:
    """Towards the row at which the ball will cross the paddle's column, walls reflected; to the middle without one."""
    paddle, was = (centre(frames[TOP:BOTTOM, PADDLE, at], 100) for at in (-1, -2))
    now, before = (centre(frames[TOP:BOTTOM, BALL, at], 150) for at in (-1, -2))
    if paddle is None:
        return STAY
    goal = (BOTTOM - TOP) / 2
    if now is not None:
        goal = now[0]
        if before is not None and (speed := now[1] - before[1]) > 0.5:
            goal = reflected(now[0] + (now[0] - before[0]) / speed * (PADDLE.start - BALL.start - now[1]))
    glides = 0.0 if was is None else GLIDES * (paddle[0] - was[0])
    off = goal - (paddle[0] + glides)
    return STAY if abs(off) <= NEAR else DOWN if off > 0 else UP


def centre(picture: np.ndarray, above: int) -> tuple[float, float] | None:
    """Mean row and column of the pixels brighter than that, if there are any."""
    rows, columns = np.nonzero(picture > above)
    return (float(rows.mean()), float(columns.mean())) if len(rows) else None


def reflected(row: float) -> float:
    """A row beyond a wall, folded back into the field."""
    height = BOTTOM - TOP - 1
    row = abs(row) % (2 * height)
    return min(row, 2 * height - row)


if __name__ == "__main__":
    worlds = registry.host("ALE/Pong-v5").open(4)
    obs, points = worlds.reset(seed=0), np.zeros(4)
    for _ in range(500):
        step = worlds.step(act(obs))
        obs, points = step.obs, points + step.reward
    sys.stdout.write(f"points after 500 steps: {points.mean():.1f}\n")
