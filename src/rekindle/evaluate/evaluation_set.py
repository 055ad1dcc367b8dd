"""An evaluation set: held-out tasks with the planner's best reward beside each, on which any policy can be scored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from rekindle.core.errors import GoalError
from rekindle.core.stats import Interval, bootstrap
from rekindle.core.types import Policy
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import planner, pools
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import Task
from rekindle.envs.xland.pools import TaskPool
from rekindle.evaluate.rollout import trial_rewards


class EvaluationSet(NamedTuple):
    """Tasks (stacked) that can be solved for certain, and the best possible reward of a trial of each."""

    env: Trials
    tasks: Task
    optimum: Float[np.ndarray, " n"]
    left_out: int
    """Tasks that cannot be solved, or for which the planner found only a bound."""

    def first(self, count: int | None) -> "EvaluationSet":
        """Its first `count` tasks only; None leaves it whole."""
        return self._replace(tasks=jax.tree.map(lambda leaf: leaf[:count], self.tasks), optimum=self.optimum[:count])

    def steps(self, trials: int, repetitions: int) -> int:
        """Environment steps that playing all of it takes."""
        return int(self.tasks.trial_length.astype(np.int64).sum()) * trials * repetitions


class Result(NamedTuple):
    """What a policy reached: rewards over the planner's by task, repetition and trial, and what that took."""

    scores: Float[np.ndarray, "n repetitions K"]
    env_steps: int

    @property
    def last(self) -> Interval:
        """Mean score of the last trial with its 95 % interval, tasks drawn anew."""
        return bootstrap(self.scores[:, :, -1].mean(axis=1)[None])

    def by_trial(self) -> list[Interval]:
        """The same for every trial of the episodes."""
        means = self.scores.mean(axis=1)
        return [bootstrap(means[None, :, trial]) for trial in range(means.shape[1])]


def make_evaluation_set(env: Trials, pool: TaskPool, *, tasks: int, cache: Path | None = None, seed: int = 0,
              progress: Callable[[int, int], None] | None = None) -> EvaluationSet:  # fmt: skip
    """A set of `tasks` tasks of a pool (all, if it has fewer), less those the planner leaves out.

    Raises:
        GoalError: it leaves out all.
    """
    chosen, each = choose_tasks(pool, tasks, seed)
    world = env.env
    assert isinstance(world, XLand)
    plans = planner.plan_many(world, each, cache=cache, progress=progress)
    good = np.flatnonzero([plan.solvable and plan.exact and plan.optimum_exact for plan in plans])
    if not len(good):
        raise GoalError(
            f"the best possible reward is known for none of {len(each)} worlds: the goal cannot be reached in them, "
            "or does not last once it is reached (a rule takes its objects)."
        )
    kept = jax.tree.map(lambda leaf: leaf[good], chosen)
    return EvaluationSet(env, kept, np.asarray([plans[i].optimum for i in good]), len(each) - len(good))


def choose_tasks(pool: TaskPool, tasks: int, seed: int) -> tuple[Task, list[Task]]:
    """At most so many tasks of a pool, drawn without repetition: stacked, and one by one."""
    numbers = np.random.default_rng(seed).permutation(pools.num_tasks(pool))[:tasks]
    unpack = jax.jit(jax.vmap(lambda pool, i: pools.task(pool, i, 1), in_axes=(None, 0)))
    chosen = jax.tree.map(np.asarray, unpack(jax.tree.map(jnp.asarray, pool), jnp.asarray(numbers)))
    return chosen, [jax.tree.map(lambda leaf, i=i: leaf[i], chosen) for i in range(len(numbers))]


def evaluate(held_out: EvaluationSet, policy: Policy | Any, key: Key[Array, ""], *, trials: int, repetitions: int,
        explore: bool = True) -> Result:  # fmt: skip
    """`repetitions` independent episodes of `trials` trials for each task."""
    rewards = trial_rewards(
        held_out.env, policy, held_out.tasks, key, trials=trials, repetitions=repetitions, explore=explore
    )
    return Result(rewards / held_out.optimum[:, None, None], held_out.steps(trials, repetitions))
