"""What is to be trained, as data of a manifest, and the worlds that this means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rekindle.core.errors import ConfigError
from rekindle.core.types import Agent
from rekindle.envs import registry
from rekindle.envs.host.worlds import HostWorlds
from rekindle.reincarnation.methods.registry import BEGIN_TAUGHT, DISTILS
from rekindle.train.off_policy import Worlds

EPISODES, HOST_EPISODES = 64, 8
"""Of an evaluation of a student, unless the order says how many. Worlds that are not compiled are slow."""
AnyMade = registry.Made | registry.Hosted
EXPLORES = 50
"""One part in so many of its steps is over before a student explores as little as it ever will, or before one that
knows something already learns from its own sequences; learning from data counts, too, so that after that the former is
over at once."""


@dataclass(frozen=True)
class Order:
    """What is to be trained, as JSON data in the manifest's config."""

    agent: str
    settings: dict[str, Any]
    """The agent's whole config."""
    env: str
    budget: str
    curriculum: str = "none"
    """See curriculum/make.py."""
    pool: dict[str, Any] = field(default_factory=dict)
    """Options of the environment's pool, such as the number of games."""
    choice: dict[str, Any] = field(default_factory=dict)
    """Settings of the curriculum, such as the size of its archive."""
    partners: dict[str, Any] = field(default_factory=dict)
    """Settings of the pool of co-players, in worlds for two."""
    init: str | None = None
    """A run whose policy training goes on from."""
    min_trials: int = 1
    max_trials: int | None = None
    """Trials per episode are drawn from this range; by default up to the environment's own number."""
    chunk_updates: int = 8
    checkpoint_seconds: float = 60.0
    """Between checkpoints; a crash loses what came after the last."""
    log: tuple[str, ...] = ()
    """Trackers that the curves go to, too: `tensorboard`, `wandb`, `mlflow`."""
    teacher: str | None = None
    """What a student is reincarnated from."""
    data: str | None = None
    """A run whose replay it learns from in place of the teacher's own; of no meaning without a teacher."""
    method: str = "qdagger"
    """How, as in reincarnation/methods; of no meaning without a teacher."""
    method_settings: dict[str, Any] = field(default_factory=dict)
    trust: bool = False
    """Whether a foreign teacher may be loaded by its own library, which executes what is in its file."""
    valued: bool = False
    """Whether the numbers of a foreign teacher are action values; else they are logits."""
    evaluate_steps: int = 0
    """Environment steps between two evaluations of whole episodes without exploration; 0: there are none."""
    episodes: int = 10
    """Of an evaluation."""
    student_episodes: int | None = None
    """Of an evaluation beside a teacher; None: 64, or 8 in worlds that are not compiled."""
    teacher_sha256: str | None = None
    """The fingerprint of a foreign teacher as it was at first; None for an agent of the library."""


LOOKS_AHEAD = 3
"""Rewards of a student's returns where it is taught by distillation, as published; DQN by itself has one."""


def in_world(env: str) -> dict[str, Any]:
    """The settings that a world asks of an agent that learns from single steps, whatever its size."""
    return {"reward_clip": 1.0} if registry.is_atari(env) else {}


def as_student(steps: int, *, kind: str = "transition", method: str = "qdagger") -> dict[str, Any]:
    """What a student has in place of the settings of one that learns from nothing: brief exploration, longer returns.

    It is evaluated as its teacher is, by its best actions. Returns have three steps where the released code of Agarwal
    et al. 2022 has them, whatever the algorithm's own.

    Args:
        steps: that it has.
        kind: of the data that it needs.
        method: by which it is taught; one that begins with weights which know something is not begun at random.
    """
    brief = max(steps // EXPLORES, 1)
    if kind == "transition":
        looks_ahead = {"n_step": LOOKS_AHEAD} if method in DISTILS else {}
        return {"epsilon_steps": brief, "epsilon_warmup": 0} | looks_ahead
    return {"eval_discrete": "greedy"} | ({"warmup": brief} if method in BEGIN_TAUGHT else {})


def order_of(config: Mapping[str, Any]) -> Order:
    """The order in a manifest's config; what an older version did not know has its default."""
    return Order(**{**config, "log": tuple(config.get("log", ()))})


def made_for(order: Order) -> AnyMade:
    """The environment of an order."""
    if registry.is_hosted(order.env):
        return registry.host(order.env, **order.pool)
    return registry.make(order.env, **(order.pool if made_by_options(order.env) else {}))


def episodes_of(made: AnyMade, asked: int | None = None) -> int:
    """Of an evaluation of a student: as many as were asked for, if it was said."""
    if asked is not None:
        return asked
    return HOST_EPISODES if isinstance(made, registry.Hosted) else EPISODES


def made_by_options(env: str) -> bool:
    """Whether the options of `--pool` go to the environment itself, as its worlds have no pool of tasks."""
    return env.startswith(("minatar/", "gymnax/")) or registry.is_hosted(env)


def refuse_tasks(order: Order, made: AnyMade) -> None:
    """ConfigError where an agent that learns from a replay is to have other tasks than come."""
    if order.curriculum != "none":
        raise ConfigError(f"{order.agent} learns from a replay and takes tasks as they come; leave --curriculum out.")
    if order.choice:
        raise ConfigError(f"{order.agent} learns from a replay, without a curriculum to be set; leave --choose out.")
    if made.spec.players != 1:
        raise ConfigError(f"{order.agent} plays alone; {made.spec.id} has {made.spec.players} players.")
    if isinstance(made, registry.Hosted) and (order.min_trials, order.max_trials) != (1, None):
        raise ConfigError(f"{order.env} has no trials, only episodes; leave --trials out.")


def rows_of(order: Order, made: AnyMade, agent: Agent) -> tuple[Worlds | HostWorlds, Any]:
    """Worlds side by side, and what their tasks are drawn from."""
    refuse_tasks(order, made)
    if isinstance(made, registry.Hosted):
        return made.open(agent.needs.rows), ()
    most = order.max_trials or made.trials
    draw = partial(made.draw, min_trials=min(order.min_trials, most), max_trials=most)
    return Worlds(made.env, draw, agent.needs.rows), pool_of(order)


def pool_of(order: Order) -> Any:
    """What tasks for training are drawn from."""
    options = {} if made_by_options(order.env) else order.pool
    return jax.tree.map(jnp.asarray, registry.make(order.env, **options).pool(split="train", seed=0))
