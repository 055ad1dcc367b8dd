"""Atari's games as Dopamine plays them: 84 x 84 greys, four frames, sticky actions, true rewards.

An action goes on for four frames, of which the last two are joined; with probability 0.25 a frame repeats the action
before. An episode ends when the game does, not when a life is lost, or after 27,000 steps. No no-ops at first, no
button is pressed, rewards are not clipped (agents do that).
Source: Machado et al. 2018 (1709.06009); Castro et al. 2018 (1812.06110).
"""

import os
from typing import Any

import ale_py
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from rekindle.core.checks import SHARE, checked, one_of, whole
from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.core.spaces import Box, Discrete, Space
from rekindle.core.types import EnvSpec
from rekindle.envs.host.worlds import HostObs, HostWorlds, Vector
from rekindle.envs.registry import Hosted

SIZE, STACK, SKIP = 84, 4, 4
SCREEN = {"img_height": 210, "img_width": 160, "grayscale": False, "stack_num": 1}
"""What the console showed."""
LONGEST_FRAMES = 108_000
DEFAULTS = {"sticky": 0.25, "life_loss": 0, "full_actions": 0, "longest": LONGEST_FRAMES // SKIP}
OPTIONS = {"sticky": SHARE, "life_loss": one_of(0, 1), "full_actions": one_of(0, 1),
           "longest": whole(1, LONGEST_FRAMES // SKIP)}  # fmt: skip
"""Probability that a frame repeats the last action; whether an episode ends with a life; all 18 actions or the game's
own; steps of an episode at most."""


def make(id: str, **options: Any) -> Hosted:
    """`ALE/Game-v5`.

    Raises:
        ConfigError: no such game, or options that it does not have.
    """
    checked(id, options, OPTIONS)
    chosen = DEFAULTS | options
    game = _game(id)

    def games(rows: int, **shown: Any) -> ale_py.AtariVectorEnv:
        return ale_py.AtariVectorEnv(
            game, rows, repeat_action_probability=float(chosen["sticky"]),
            full_action_space=bool(chosen["full_actions"]), episodic_life=bool(chosen["life_loss"]),
            max_num_frames_per_episode=SKIP * int(chosen["longest"]), frameskip=SKIP, maxpool=True, noop_max=0,
            use_fire_reset=False, reward_clipping=False, autoreset_mode=AutoresetMode.NEXT_STEP,
            num_threads=min(rows, os.cpu_count() or 1), **shown,
        )  # fmt: skip

    def played(rows: int) -> ale_py.AtariVectorEnv:
        return games(rows, img_height=SIZE, img_width=SIZE, grayscale=True, stack_num=STACK)

    def opened(rows: int, *, seen: bool = False) -> HostWorlds:
        def vector() -> Vector:
            return Seen(played(rows), games(rows, **SCREEN)) if seen else played(rows)

        return HostWorlds(vector, spec, _named, partial_seeds=True)

    actions = int(played(1).single_action_space.n)
    shown: dict[str, Space] = {"obs": Box((SIZE, SIZE, STACK), 0, 255, "uint8")}
    spec = EnvSpec(id, 5, shown, Discrete(actions), kind="host", stack=STACK)
    return Hosted(spec, opened)


class Seen:
    """Games with others beside them that show their screens: from the same seeds and actions they are the same games.

    The emulator's own picture is not to be had of games that are stepped side by side.
    """

    def __init__(self, games: ale_py.AtariVectorEnv, screens: ale_py.AtariVectorEnv):
        """Take both, not yet begun."""
        self.num_envs, self._games, self._screens = games.num_envs, games, screens
        self._pictures = np.zeros((games.num_envs, 1, 1, 3), np.uint8)

    def reset(self, *, seed: Any, options: Any) -> tuple[Any, Any]:
        """Begin in both."""
        self._pictures = self._screens.reset(seed=seed, options=options)[0][:, 0]
        return self._games.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        """One step in both."""
        self._pictures = self._screens.step(actions)[0][:, 0]
        return self._games.step(actions)

    def render(self) -> np.ndarray:
        """The screens."""
        return self._pictures

    def close(self, **kwargs: Any) -> None:
        """Close both."""
        self._screens.close(**kwargs)
        self._games.close(**kwargs)


def names() -> list[str]:
    """Ids of all games."""
    gymnasium.register_envs(ale_py)
    return sorted(name for name in gymnasium.registry if name.startswith("ALE/") and "-ram" not in name)


def _game(id: str) -> str:
    """The name of its ROM."""
    if id not in names():
        raise ConfigError(f"no Atari game {id!r}; {did_you_mean(id, names())}")
    return str(gymnasium.registry[id].kwargs["game"])


def _named(obs: np.ndarray) -> HostObs:
    return {"obs": np.ascontiguousarray(np.moveaxis(obs, 1, -1))}
