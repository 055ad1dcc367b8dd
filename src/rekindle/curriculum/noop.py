"""The no-op filter of AdA: train on tasks that are neither hopeless, nor solved, nor solved by doing nothing.

Adaptive Agents Team 2023 (2301.07608, section 3.3 and App. D.4). Rows that do not train play ten episodes of one trial
of a new task, and ten in which they do nothing; what is accepted is queued for the rows that train.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.errors import ConfigError
from rekindle.core.types import Proposal, Rollout
from rekindle.curriculum.base import Chooser, asked_when_free, offer


class Thresholds(NamedTuple):
    """AdA's epsilons. Those of rewards are per step of a trial."""

    gain: float = 0.01
    """epsilon 0."""
    idle: float = 1.1
    """epsilon 1; above what can be earned, so that it rejects nothing."""
    good: float = 0.4
    """epsilon 2."""
    most_good: int = 5
    """epsilon 3."""
    least_better: int = 1
    """epsilon 4."""
    least_worse: int = 3
    """epsilon 5."""
    spread: float = 0.01
    """epsilon 6."""


ADA = Thresholds()
"""As published."""


def accept(agent: Float[Array, "*n r"], idle: Float[Array, "*n r"], t: Thresholds = ADA) -> Bool[Array, "*n"]:
    """Whether a task is worth training on, by rewards per step of ten trials with the agent and ten of doing nothing.

    All of: (1) doing nothing earns at most epsilon 1; (2) the agent does well in at most epsilon 3 trials; (3) in at
    least epsilon 4 it does better than nothing ever does, or in at least epsilon 5 worse; (4) its trials differ.
    """
    best, worst = idle.max(axis=-1, keepdims=True), idle.min(axis=-1, keepdims=True)

    def count(which: Bool[Array, "*n r"]) -> Int32[Array, "*n"]:
        return jnp.sum(which, axis=-1, dtype=jnp.int32)

    not_idle = best[..., 0] <= t.idle
    not_solved = count(agent >= t.good) <= t.most_good
    matters = (count(agent >= best + t.gain) >= t.least_better) | (count(agent <= worst - t.gain) >= t.least_worse)
    return not_idle & not_solved & matters & (agent.max(axis=-1) - agent.min(axis=-1) >= t.spread)


class State(NamedTuple):
    """Everything between two rollouts."""

    number: Int32[Array, " n"]
    """The row's task, on trial or trained on; -1 for none."""
    left: Int32[Array, " n"]
    """Episodes that the row still plays of it."""
    rewards: Float[Array, "n r2"]
    """Rewards per step of a task on trial: the agent's episodes, then those of doing nothing."""
    running: Float[Array, " n"]
    steps: Float[Array, " n"]
    ready: Int32[Array, " Q"]
    """Accepted tasks that nobody trains on yet, oldest first; -1 for none."""
    free: Bool[Array, " n"]
    """Rows that were done with their task when the last proposal was made."""
    tried: Float[Array, ""]
    accepted: Float[Array, ""]


@dataclass(frozen=True, kw_only=True)
class NoOpFilter(Chooser):
    """Ten trials decide, thirty episodes are learnt from; the defaults are AdA's."""

    noop: int
    """The action that does nothing."""
    episodes: int = 30
    """Episodes of an accepted task; a row whose queue is empty goes on with the task it has."""
    repetitions: int = 10
    thresholds: Thresholds = ADA
    patience: int = 2_000
    """After so many tasks without an accepted one there is nothing to learn."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        if min(self.episodes, self.repetitions) < 1:
            raise ConfigError("no-op filter: episodes and repetitions must be at least 1.")

    def init(self, source: PyTree) -> State:
        """Nothing tried."""
        del source
        none, no, zero = jnp.full(self.rows, -1, jnp.int32), jnp.zeros(self.rows), jnp.zeros(())
        rewards = jnp.zeros((self.rows, 2 * self.repetitions))
        ready = jnp.full(self.rows, -1, jnp.int32)
        return State(none, jnp.zeros(self.rows, jnp.int32), rewards, no, no, ready, no == 0, zero, zero)

    def propose(self, key: Key[Array, ""], state: State, source: PyTree) -> Proposal:
        """Rows that train go on with their task or take an accepted one; the others try their task or a new one."""
        new_key, trials_key = jax.random.split(key)
        new = jax.random.randint(new_key, (self.rows,), 0, self.size(source))
        trains = jnp.arange(self.rows) < self.batch
        spare = self._spare(state)
        again = jnp.where(trains, (state.number >= 0) & ((state.left > 0) | (spare < 0)), state.left > 0)
        number = jnp.where(again, state.number, jnp.where(trains & (spare >= 0), spare, new))
        learn = trains & ((state.number >= 0) | (spare >= 0))
        idle = ~trains & again & (state.left <= self.repetitions)
        k = jax.random.randint(trials_key, (self.rows,), self.min_trials, self.max_trials + 1)
        tasks = jax.vmap(self.task, in_axes=(None, 0, 0))(source, number, jnp.where(trains, k, 1))
        forced = jnp.where(idle, self.noop, -1).astype(jnp.int32)
        return jax.tree.map(lambda x: x[:, None], offer(tasks, learn=learn, number=number, forced=forced))

    def _spare(self, state: State) -> Int32[Array, " n"]:
        """The accepted task that each row may take: the first for the first row that wants one, and so on; -1: none."""
        wants = (jnp.arange(self.rows) < self.batch) & ((state.left <= 0) | (state.number < 0))
        place = jnp.cumsum(wants, dtype=jnp.int32) - 1
        return jnp.where(wants, state.ready[jnp.minimum(jnp.maximum(place, 0), self.rows - 1)], -1)

    def report(self, state: State, rollout: Rollout) -> State:
        """Count episodes, and decide on tasks that have been tried often enough."""
        trains = jnp.arange(self.rows) < self.batch
        ended, free = rollout.terminated | rollout.truncated, state.left <= 0
        asked = asked_when_free(state.free, free, rollout.start.shape[0])

        def step(state: State, now: tuple[Array, ...]) -> tuple[State, None]:
            reward, over, begun, number, learn, forced = now
            state = self._begin(state, begun & (learn | ~trains), number, trains)
            state = state._replace(running=state.running + reward, steps=state.steps + 1)
            same: Callable[..., State] = lambda state, *_: state  # noqa: E731
            return jax.lax.cond(jnp.any(over), self._end, same, state, over, number, forced >= 0, trains), None

        steps = (rollout.reward, ended, rollout.start & asked, rollout.number, rollout.learn, rollout.forced)
        return jax.lax.scan(step, state._replace(free=free), steps)[0]

    def _begin(self, state: State, begun: Bool[Array, " n"], number: Int32[Array, " n"], trains: Array) -> State:
        """Rows that are done with theirs and begin another task; what they take from the queue is gone from it."""
        queued = jnp.any(state.ready[None] == number[:, None], axis=1)
        fresh = begun & (state.left <= 0) & (queued | ~trains)
        taken = jnp.any((state.ready[None] == number[:, None]) & (fresh & trains)[:, None], axis=0)
        ready = _front(jnp.where(taken, -1, state.ready))
        taken_over = jnp.where(trains, self.episodes, 2 * self.repetitions)
        return state._replace(
            number=jnp.where(fresh, number, state.number), left=jnp.where(fresh, taken_over, state.left), ready=ready
        )

    def _end(self, state: State, over: Bool[Array, " n"], number: Int32[Array, " n"], idle: Bool[Array, " n"],
             trains: Bool[Array, " n"]) -> State:  # fmt: skip
        """Rows whose episode ended. One that was proposed before the row had enough of its kind does not count."""
        counts = over & (number == state.number) & (state.left > 0)
        counts = counts & (trains | (idle == (state.left <= self.repetitions)))
        per_step = state.running / jnp.maximum(state.steps, 1.0)
        turn = 2 * self.repetitions - state.left  # the agent's episodes come first
        hot = jax.nn.one_hot(turn, 2 * self.repetitions) > 0
        rewards = jnp.where(hot & (counts & ~trains)[:, None], per_step[:, None], state.rewards)
        left = jnp.where(counts, state.left - 1, state.left)
        decided = counts & ~trains & (left == 0)
        good = decided & accept(rewards[:, : self.repetitions], rewards[:, self.repetitions :], self.thresholds)
        at = jnp.sum(state.ready >= 0) + jnp.cumsum(good, dtype=jnp.int32) - 1
        ready = state.ready.at[jnp.where(good, at, self.rows)].set(state.number, mode="drop")
        return state._replace(
            left=left,
            rewards=rewards,
            running=jnp.where(over, 0.0, state.running),
            steps=jnp.where(over, 0.0, state.steps),
            ready=ready,
            tried=state.tried + jnp.sum(decided.astype(jnp.float32)),
            accepted=state.accepted + jnp.sum(good.astype(jnp.float32)),
        )

    def stats(self, state: State) -> dict[str, Array]:
        """Tasks tried and accepted, and those that wait."""
        waiting = jnp.sum((state.ready >= 0).astype(jnp.float32))
        return {"tried": state.tried, "accepted": state.accepted, "waiting": waiting}

    def trouble(self, state: State) -> str:
        """When many tasks were tried and none is worth training on."""
        if float(state.accepted) > 0 or float(state.tried) < self.patience:
            return ""
        return (
            f"the no-op filter accepted none of {int(state.tried)} tasks: none of them is solved now and then but not "
            "always. Choose easier or harder tasks, or another curriculum."
        )


def _front(ready: Int32[Array, " Q"]) -> Int32[Array, " Q"]:
    """The same tasks in the same order, without gaps."""
    there = ready >= 0
    place = jnp.where(there, jnp.cumsum(there, dtype=jnp.int32) - 1, ready.shape[0])
    return jnp.full_like(ready, -1).at[place].set(ready, mode="drop")
