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
from rekindle.envs.host.worlds import HostObs, HostWorlds
from rekindle.envs.registry import Hosted

SIZE, STACK, SKIP = 84, 4, 4
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

    def opened(rows: int) -> ale_py.AtariVectorEnv:
        return ale_py.AtariVectorEnv(
            game, rows, repeat_action_probability=float(chosen["sticky"]),
            full_action_space=bool(chosen["full_actions"]), episodic_life=bool(chosen["life_loss"]),
            max_num_frames_per_episode=SKIP * int(chosen["longest"]), frameskip=SKIP, maxpool=True, img_height=SIZE,
            img_width=SIZE, grayscale=True, stack_num=STACK, noop_max=0, use_fire_reset=False, reward_clipping=False,
            autoreset_mode=AutoresetMode.NEXT_STEP, num_threads=min(rows, os.cpu_count() or 1),
        )  # fmt: skip

    actions = int(opened(1).single_action_space.n)
    shown: dict[str, Space] = {"obs": Box((SIZE, SIZE, STACK), 0, 255, "uint8")}
    spec = EnvSpec(id, 5, shown, Discrete(actions), kind="host", stack=STACK)
    return Hosted(spec, lambda rows: HostWorlds(lambda: opened(rows), spec, _named, partial_seeds=True))


def _game(id: str) -> str:
    """The name of its ROM."""
    gymnasium.register_envs(ale_py)
    known = {name: spec for name, spec in gymnasium.registry.items() if name.startswith("ALE/") and "-ram" not in name}
    if id not in known:
        raise ConfigError(f"no Atari game {id!r}; {did_you_mean(id, sorted(known))}")
    return str(known[id].kwargs["game"])


def _named(obs: np.ndarray) -> HostObs:
    return {"obs": np.ascontiguousarray(np.moveaxis(obs, 1, -1))}
