"""DeepMind's control suite as MR.Q plays it: `dmc/walker-stand`, and seen by a camera `dmc/walker-stand-visual`.

An action goes on for two steps of the suite, whose rewards are summed. An episode is cut after 500 actions; of itself
none ends but where a task says so, as none of MR.Q's 28 does. What is shown are the suite's numbers, one after the
other in the suite's order; or the last three pictures, the first one repeated at first. A world begins every episode
from a seed of its own, so that never more than one is played again.
Source: Tassa et al. 2018 (1801.00690); Fujimoto et al. 2025 (2501.16142), appendix B.

Needs the extra: `pip install -e '.[dmc]'`.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from math import inf, prod
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from rekindle.core.checks import checked
from rekindle.core.errors import ConfigError, did_you_mean, in_a_line
from rekindle.core.extras import optional
from rekindle.core.spaces import Box
from rekindle.core.types import EnvSpec
from rekindle.envs.host import mujoco
from rekindle.envs.host.worlds import HostObs, HostWorlds, within_bounds
from rekindle.envs.registry import Hosted

REPEAT, LONGEST = 2, 500
"""Steps of the suite for an action; actions of an episode."""
SIZE, STACK = 84, 3
SCREEN = 480
"""Height and width of the pictures for people."""
CAMERAS = {"quadruped": 2}
"""Those that see the body, by domain; elsewhere it is the first."""
VISUAL = "-visual"
UNBOUNDED = 1e10
"""What the suite gives as the bound of actions that have none."""


def make(id: str, **options: Any) -> Hosted:
    """`dmc/DOMAIN-TASK` or `dmc/DOMAIN-TASK-visual`.

    Raises:
        ConfigError: the suite is not installed or has no such task, its actions have no bounds, or pictures are asked
            for where none can be drawn.
    """
    checked(id, options, {})
    suite = _suite(id)
    name = id.removeprefix("dmc/").removesuffix(VISUAL)
    domain, _, task = name.partition("-")
    if (domain, task) not in suite.ALL_TASKS:
        raise ConfigError(f"no task {id!r}; {did_you_mean(name, ['-'.join(one) for one in suite.ALL_TASKS])}")
    visual = id.endswith(VISUAL)

    def worlds(rows: int) -> "Suite":
        return Suite([_loaded(suite, domain, task) for _ in range(rows)], visual=visual, camera=CAMERAS.get(domain, 0))

    first = worlds(1)
    low, high, size = first.low, first.high, first.size
    first.close()
    if np.abs([low, high]).max() >= UNBOUNDED:
        raise ConfigError(f"{id} takes actions without bounds, which no agent here has; take another task.")
    shown = Box((SIZE, SIZE, 3 * STACK), 0, 255, "uint8") if visual else Box((size,), -inf, inf)
    spec = EnvSpec(id, 1, {"obs": shown}, Box(low.shape, -1.0, 1.0), kind="host", stack=STACK if visual else 1)

    def opened(rows: int, *, seen: bool = False) -> HostWorlds:
        if visual or seen:
            refuse_unseen(id, worlds(1))
        return HostWorlds(
            lambda: worlds(rows), spec, _named, taken=lambda a: within_bounds(a, low, high), reseed=1
        )  # fmt: skip

    return Hosted(spec, opened)


class Suite:
    """Worlds of one task, stepped one after the other."""

    def __init__(self, worlds: Sequence[Any], *, visual: bool, camera: int):
        """Take them, not yet begun; `camera` makes what is shown, if that is `visual`, and pictures for people."""
        self.num_envs, self._worlds, self._visual, self._camera = len(worlds), worlds, visual, camera
        self._steps = np.zeros(self.num_envs, np.int32)
        of = worlds[0].action_spec()
        self.low, self.high = (
            np.broadcast_to(bound, of.shape).astype(np.float64) for bound in (of.minimum, of.maximum)
        )
        self.size = sum(prod(part.shape) for part in worlds[0].observation_spec().values())
        shape, dtype = ((SIZE, SIZE, 3 * STACK), np.uint8) if visual else ((self.size,), np.float32)
        self._obs = np.zeros((self.num_envs, *shape), dtype)

    def reset(self, *, seed: Any, options: Any) -> tuple[Any, Any]:
        """Begin episodes of all worlds, or of some, from new seeds where there are any."""
        which = np.ones(self.num_envs, bool) if options is None else options["reset_mask"]
        for row in map(int, np.flatnonzero(which)):
            world = self._worlds[row]
            if seed is not None and seed[row] is not None:
                world.task.random.seed(seed[row])
            now = world.reset()
            self._steps[row] = 0
            self._obs[row] = np.tile(self._frame(row), STACK) if self._visual else _flat(now)
        return self._obs, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        """One action in every world."""
        reward, over, ended = np.zeros(self.num_envs), np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for row, (world, action) in enumerate(zip(self._worlds, actions, strict=True)):
            now, reward[row] = _repeated(world, action)
            over[row], ended[row] = now.last(), now.last() and now.discount == 0
            self._obs[row] = self._with_frame(row) if self._visual else _flat(now)
        self._steps += 1
        return self._obs, reward, ended, over | (self._steps >= LONGEST), {}

    def render(self) -> list[UInt8[np.ndarray, "H W 3"]]:
        """What a person would see."""
        return [self._frame(row, SCREEN) for row in range(self.num_envs)]

    def close(self, **kwargs: Any) -> None:
        """Let go of the engine and what draws."""
        for world in self._worlds:
            world.close()

    def _frame(self, row: int, size: int = SIZE) -> UInt8[np.ndarray, "H W 3"]:
        return self._worlds[row].physics.render(size, size, camera_id=self._camera)

    def _with_frame(self, row: int) -> UInt8[np.ndarray, "H W C"]:
        return np.concatenate([self._obs[row][..., 3:], self._frame(row)], axis=-1)


def refuse_unseen(id: str, suite: Suite) -> None:
    """ConfigError where nothing can be drawn; closes the worlds that it is tried with."""
    try:
        suite.render()
    except Exception as error:  # whatever a driver raises
        raise ConfigError(f"{id} cannot be drawn here ({in_a_line(error)}); {mujoco.MEND}.") from error
    finally:
        suite.close()


def _suite(id: str) -> Any:
    """The suite; without what draws, where that cannot be loaded."""
    mujoco.ready(id, "dmc")
    optional("dm_control", what=id, extra="dmc")
    try:
        return import_module("dm_control.suite")
    except Exception:  # whatever is raised where no driver answers
        os.environ[mujoco.RENDERER] = mujoco.NO_RENDERER
        return import_module("dm_control.suite")


def _loaded(suite: Any, domain: str, task: str) -> Any:
    """A world without a time limit of its own."""
    return suite.load(domain, task, task_kwargs={"time_limit": inf, "random": 0})


def _repeated(world: Any, action: Float[np.ndarray, " A"]) -> tuple[Any, float]:
    """The last of the steps of one action, and their rewards' sum."""
    now = world.step(action)
    reward = float(now.reward)
    for _ in range(REPEAT - 1):
        if not now.last():
            now = world.step(action)
            reward += float(now.reward)
    return now, reward


def _flat(now: Any) -> Float[np.ndarray, " D"]:
    return np.concatenate([np.ravel(part) for part in now.observation.values()]).astype(np.float32)


def _named(obs: np.ndarray) -> HostObs:
    return {"obs": obs.copy()}
