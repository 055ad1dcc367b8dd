"""A training as a run: everything that decides it is in the manifest, so that it repeats and resumes from there."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
from jaxtyping import Array, Key

from rekindle.agents.registry import config_from_json, export, load, make_agent
from rekindle.core.budget import Budget, parse_budget
from rekindle.core.errors import LibraryError
from rekindle.core.types import Agent, Policy
from rekindle.curriculum.make import make as make_curriculum
from rekindle.envs import registry
from rekindle.envs.seats import seat_spec
from rekindle.library.artefact import save_policy
from rekindle.library.library import Library
from rekindle.library.manifest import Parent
from rekindle.library.run import Run
from rekindle.train.loop import Plan, Progress, Trained, train
from rekindle.train.worlds import Pairs, Solo


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


def begin(order: Order, library: Library, *, name: str, seed: int, command: list[str] | None = None) -> Run:
    """Open a run folder for an order."""
    named = {"init": order.init, "partner": order.partners.get("begin_with")}
    records = {role: library.find(which) for role, which in named.items() if which is not None}
    parents = [Parent(id=record.id, role=role, sha256=record.row.weights) for role, record in records.items()]
    return Run.create(library, "train", name=name, config=order.__dict__, seed=seed, parents=parents, env_id=order.env,
                      command=command)  # fmt: skip


def carry_out(
    run: Run,
    library: Library,
    *,
    show: Callable[[Progress], None] | None = None,
    evaluate: Callable[[Policy, int, Key[Array, ""]], Mapping[str, float]] | None = None,
) -> Trained:
    """Train, or go on training, as the run's manifest says; the policy is kept whenever it stops.

    Raises:
        LibraryError: another process is at work on it, or the disk refuses.
        ConfigError, CheckpointError, DivergedError: an order or a parent that cannot be used, or a loss that is no
            longer a number; the run is then marked as failed.
    """
    with run.held():
        try:
            return _carry_out(run, library, show, evaluate)
        except KeyboardInterrupt:
            run.finish("interrupted")
            raise KeyboardInterrupt(run.how_to_go_on()) from None
        except Exception as error:
            run.fail(str(error))
            if isinstance(error, LibraryError):
                raise LibraryError(f"{error} Then `rekindle resume {run.id}` goes on.") from None
            raise


def _carry_out(
    run: Run,
    library: Library,
    show: Callable[[Progress], None] | None,
    evaluate: Callable[[Policy, int, Key[Array, ""]], Mapping[str, float]] | None,
) -> Trained:
    told: dict[str, Any] = dict(run.manifest.config)
    order = Order(**{**told, "log": tuple(told.get("log", ()))})
    run.log_to(order.log)
    made = registry.make(order.env)
    agent = make_agent(order.agent, config_from_json(order.agent, order.settings))
    most = order.max_trials or made.trials
    seed = run.manifest.seed or 0
    key = jax.random.key(seed)
    state = None
    if order.init is not None:
        parent = load(library.find(order.init).fetch("policy"), env_spec=seat_spec(made.spec))
        state = parent.state_for(agent, jax.random.fold_in(key, 1))
    budget: Budget = parse_budget(order.budget)
    worlds = Solo(made.env) if made.spec.players == 1 else pairs(made, agent, order, library, key)
    groups = worlds.slots if isinstance(worlds, Pairs) else 1
    tasks, source = make_curriculum(order.curriculum, order.env, agent, seed=seed, groups=groups, pool=order.pool,
                                    trials=(min(order.min_trials, most), most), settings=order.choice,
                                    cache=library.folder / "planned")  # fmt: skip
    updates = order.chunk_updates
    if budget.env_steps is not None:  # a small budget is not overrun by a whole chunk
        updates = min(updates, math.ceil(budget.env_steps / (tasks.rows * agent.needs.length)))
    plan = Plan(budget, chunk_updates=updates, checkpoint_seconds=order.checkpoint_seconds)
    trained = train(agent, worlds, tasks, source, key, plan, run=run, state=state, show=show, evaluate=evaluate)
    save_policy(run.path / "policy", **export(agent, trained.state, worlds.spec), provenance={"run": run.id})
    status = "interrupted" if trained.status == "interrupted" else "done"
    run.finish(status, env_steps=trained.env_steps, wall_s=trained.wall_s)
    return trained


def pairs(made: registry.Made, agent: Agent, order: Order, library: Library, key: Key[Array, ""]) -> Pairs:
    """Worlds for two; the pool of co-players may begin with an agent of the library.

    Raises:
        CheckpointError: that agent was made for another world, or has another network than the learner.
    """
    settings = dict(order.partners)
    which = settings.pop("begin_with", None)
    if which is None:
        return Pairs(made.env, agent, **settings)
    partner = load(library.find(which).fetch("policy"), env_spec=seat_spec(made.spec))
    state = partner.state_for(agent, jax.random.fold_in(key, 2))
    return Pairs(made.env, agent, first=agent.policy(state), **settings)
