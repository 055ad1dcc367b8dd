"""The task families by their ids: which rooms, and which benchmark's rulesets."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rekindle.core.checks import Option, checked, one_of, whole
from rekindle.core.errors import ConfigError
from rekindle.envs.minigrid.env import MiniGrid
from rekindle.envs.minigrid.rulesets import RulesetPool, draw, make_rulesets, recipe_of
from rekindle.envs.registry import Made, resolve
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.games import Split


@dataclass(frozen=True)
class Preset:
    """A task family; every part of it is an option of `make`."""

    rulesets: str
    """Name of the benchmark."""
    rooms: str
    size: int
    trials: int = 4
    """Trials per episode when nothing else is said."""


PRESETS = {
    "minigrid/x-trivial-v1": Preset("trivial-21k", "R1", 9),
    "minigrid/x-small-v1": Preset("small-1m", "R1", 9),
    "minigrid/x-medium-v1": Preset("medium-1m", "R4", 13),
    "minigrid/x-high-v1": Preset("high-1m", "R4", 13),
}


def make(
    id: str,
    *,
    rooms: str | None = None,
    size: int | None = None,
    rulesets: str | None = None,
    view: int = 5,
    heading: bool = True,
    show_task: bool = False,
    trials: int | None = None,
    **pool: Any,
) -> Made:
    """The registry's factory.

    Args:
        id: of the family.
        rooms: layout, R1, R2, R4, R6 or R9.
        size: side of the square in cells; with `rooms`, one of the registered ones.
        rulesets: name of a benchmark, such as `medium-3m`.
        view: side of the crop that is shown, in cells.
        heading: whether the heading is shown.
        show_task: whether goal and rules are shown.
        trials: per episode when nothing else is said.
        pool: options of the pool, see `pool_for`.

    Raises:
        ConfigError: an option that there is not, or that is of another type or range.
    """
    id = resolve(id, PRESETS)
    preset = PRESETS[id]
    given = {"rooms": rooms, "size": size, "rulesets": rulesets, "trials": trials, "view": view, "heading": heading,
             "show_task": show_task, **pool}  # fmt: skip
    checked(id, {name: value for name, value in given.items() if value is not None}, OPTIONS)
    name = rulesets or preset.rulesets
    most = trials or preset.trials
    env = MiniGrid(
        id,
        int(id.rpartition("-v")[2]),
        rooms=rooms or preset.rooms,
        size=size or preset.size,
        view=view,
        heading=heading,
        show_task=show_task,
        max_rules=recipe_of(name).max_rules,
    )
    some = partial(draw, min_trials=1, max_trials=most)
    return Made(Trials(env), partial(pool_for, name, env.size, **pool), some, most)


OPTIONS: dict[str, Option] = {
    "rooms": one_of("R1", "R2", "R4", "R6", "R9"),
    "size": whole(5, 64),
    "rulesets": Option("the name of a benchmark, such as medium-3m", lambda x: isinstance(x, str)),
    "trials": whole(1, 1000),
    "view": whole(1, 63),
    "heading": one_of(True, False),
    "show_task": one_of(True, False),
    "count": whole(1, 10_000_000),
    "repeats": one_of(True, False),
    "trial_length": whole(1, int(np.iinfo(np.int16).max)),
}
"""What each takes; `view` has to be odd, rooms and sizes to fit each other."""


def pool_for(
    name: str, size: int, *, split: Split = "train", seed: int = 42, count: int | None = None, repeats: bool = False,
    trial_length: int | None = None
) -> RulesetPool:  # fmt: skip
    """A pool of rulesets, all from one side of the held-out split.

    Args:
        name: of the benchmark.
        size: side of the square, which decides how long a trial is by default: 3 times its area.
        split: train or test.
        seed: of the draws.
        count: how many rulesets; see `make_rulesets`.
        repeats: let equal rulesets occur; see `make_rulesets`.
        trial_length: steps per trial.

    Raises:
        ConfigError: an unknown benchmark, more rulesets than exist, or a trial without steps.
    """
    length = 3 * size * size if trial_length is None else trial_length
    if not 1 <= length <= np.iinfo(np.int16).max:
        raise ConfigError(f"trial_length must lie in 1..{np.iinfo(np.int16).max} steps; got {length!r}.")
    return RulesetPool(
        make_rulesets(name, split=split, seed=seed, count=count, repeats=repeats), np.asarray(length, np.int16)
    )
