"""One of our worlds that are not written in JAX as Gymnasium's, so that others train in the very world that ours do.

Needs `pip install -e '.[gym]'`.
"""

from itertools import count
from typing import Any

import gymnasium
import numpy as np

from rekindle.envs.gymnasium_spaces import to_space
from rekindle.envs.host.worlds import HostWorlds


class HostEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A row of them that shows one array; actions, rewards and ends are its own."""

    def __init__(self, worlds: HostWorlds, seed: int):
        """Of one row; where no seed is given it begins from this one."""
        (self._name, shown), *_ = worlds.spec.obs.items()
        self.observation_space, self.action_space = to_space(shown), to_space(worlds.spec.action)
        self._worlds, self._seeds, self._shown, self._begun = worlds, count(seed), np.zeros(0), False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[np.ndarray, dict[str, Any]]:  # fmt: skip
        """Begin; behind an episode that ended the next has begun already."""
        del options
        if seed is not None or not self._begun:
            self._shown = self._worlds.reset(next(self._seeds) if seed is None else seed)[self._name][0]
            self._begun = True
        return self._shown, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step."""
        step = self._worlds.step(np.asarray(action)[None])
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        self._shown, self._begun = step.obs[self._name][0], terminated or truncated
        return step.final_obs[self._name][0], float(step.reward[0]), terminated, truncated, {}

    def close(self) -> None:
        """Let go of it."""
        self._worlds.close()
