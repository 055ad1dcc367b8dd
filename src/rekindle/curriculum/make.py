"""Curricula by name: what is drawn from, and how it is chosen from that."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.core.types import Agent
from rekindle.curriculum import mixtures
from rekindle.curriculum.base import Curriculum, Uniform
from rekindle.curriculum.noop import NoOpFilter
from rekindle.curriculum.plr import PLR
from rekindle.envs import registry
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import planner, pools
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import NOOP
from rekindle.envs.xland.pools import TaskPool

CHOOSERS = ("plr", "no-op", "regret")
NAMES = ("none", "doors", "foundation", "ramp", *CHOOSERS)
"""`none`: the environment's tasks as they are drawn. `doors`, `foundation`: mixtures that lead somewhere. `ramp`: the
environment's tasks, with fixed headings at first and random ones from the middle of training on. The others choose
among the environment's tasks: by what is still surprising, by a no-op filter, by the planner's true regret."""


class Made(NamedTuple):
    """A curriculum, and what it draws from at each share of training in [0, 1]."""

    curriculum: Curriculum
    source: Callable[[float], Any]


def make(
    name: str, env_id: str, agent: Agent, *, seed: int, trials: tuple[int, int], pool: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None, groups: int = 1, cache: Path | None = None,
) -> Made:  # fmt: skip
    """A curriculum for an agent in an environment.

    Args:
        name: one of NAMES.
        env_id: the environment.
        agent: what is trained: its batch, discount and scale of rewards.
        seed: of the pool.
        trials: fewest and most trials of an episode.
        pool: options of the environment's pool.
        groups: of co-players, in worlds for two.
        settings: of the curriculum (`plr`, `no-op`, `regret`), such as capacity.
        cache: folder of finished plans, for `regret`.

    Raises:
        ConfigError: an unknown name, one that does not lead to this environment, settings that it does not have, or a
            pool that is too small to choose from, too large to plan, or that nothing can be learnt in.
    """
    if name not in NAMES:
        raise ConfigError(f"no curriculum {name!r}; {did_you_mean(name, NAMES)}")
    made = registry.make(env_id, **(pool or {}))
    low, high = trials
    if name not in CHOOSERS:
        if settings:
            raise ConfigError(f"the curriculum {name!r} has no settings; got {', '.join(settings)}.")
        if name == "none":
            tasks = jax.tree.map(jnp.asarray, made.pool(split="train", seed=seed))
            source: Callable[[float], Any] = lambda share: tasks  # noqa: E731
        else:
            source = mixtures.source(name, env_id, seed=seed, **(pool or {}))
        return Made(Uniform(partial(made.draw, min_trials=low, max_trials=high), agent.needs.batch), source)

    tasks = made.pool(split="train", seed=seed)
    if not isinstance(tasks, TaskPool):
        raise ConfigError(f"the curriculum {name!r} chooses among numbered tasks, as xland has; {env_id} has none.")
    if pools.num_tasks(tasks) < agent.needs.batch:
        raise ConfigError(
            f"the curriculum {name!r} chooses tasks for {agent.needs.batch} worlds side by side; the pool has "
            f"{pools.num_tasks(tasks)}. Give a larger pool (--pool pairs=...), or fewer worlds (--set num_envs=...)."
        )
    common: dict[str, Any] = {"task": pools.task, "size": pools.num_tasks, "batch": agent.needs.batch,
                              "min_trials": low, "max_trials": high, **(settings or {})}  # fmt: skip
    known = NoOpFilter if name == "no-op" else PLR
    refuse_unknown(name, settings or {}, known)
    try:
        if name == "no-op":
            curriculum: Curriculum = NoOpFilter(noop=NOOP, **common)
        else:
            scale = {"gamma": agent.config.gamma, "reward_scale": agent.config.reward_scale}
            regret: dict[str, Any] = {}
            if name == "regret":
                assert isinstance(made.env, Trials) and isinstance(made.env.env, XLand)
                regret = {"kind": "regret", "optimum": optima(made.env.env, tasks, cache=cache)}
            curriculum = PLR(groups=groups, **scale, **regret, **common)
    except TypeError as error:
        raise ConfigError(f"the curriculum {name!r} takes numbers where it expects them: {error}.") from None
    tasks = jax.tree.map(jnp.asarray, tasks)
    return Made(curriculum, lambda share: tasks)


def refuse_unknown(name: str, settings: Mapping[str, Any], known: type) -> None:
    """ConfigError for a setting that a curriculum does not have, or of another type than its default."""
    bound = ("groups", "kind") if name == "regret" else ("groups",)
    defaults = {field.name: field.default for field in dataclasses.fields(known)
                if isinstance(field.default, int | float | str) and field.name not in bound}  # fmt: skip
    for setting, value in settings.items():
        if setting not in defaults:
            raise ConfigError(f"the curriculum {name!r} has no setting {setting!r}; {did_you_mean(setting, defaults)}")
        kind = type(defaults[setting])
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            raise ConfigError(f"{name}'s setting {setting} takes a {kind.__name__}; got {value!r}.")


MOST_PLANNED = 4096
"""Tasks of a pool that the planner's regret is asked for."""


def optima(env: XLand, tasks: TaskPool, *, cache: Path | None = None) -> tuple[float, ...]:
    """The planner's best reward of a trial of each task; 0 where there is no way to the goal, or none that is proved.

    Raises:
        ConfigError: more tasks than one wants to plan, or none that can be solved.
    """
    if (n := pools.num_tasks(tasks)) > MOST_PLANNED:
        raise ConfigError(
            f"the curriculum 'regret' plans every task of the pool, at most {MOST_PLANNED}; this one has {n}. Give "
            "--pool pairs=2048, or fewer worlds and games."
        )
    plans = planner.plan_many(env, tasks, cache=cache)
    best = tuple(float(np.float32(plan.optimum)) if plan.optimum_exact else 0.0 for plan in plans)
    if not any(best):
        raise ConfigError("the curriculum 'regret' has nothing to choose: no task of the pool can be solved.")
    return best
