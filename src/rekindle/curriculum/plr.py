"""Prioritised level replay as AdA uses it: robust, on the last trial, normalised by the number of trials.

Jiang et al. 2021 (2010.03934, 2110.02439); Adaptive Agents Team 2023 (2301.07608, section 3.3 and App. D.4). Evaluation
and replay run side by side: the first rows train on tasks from an archive, the others find out, without gradients,
whether new tasks belong there. Differs from AdA: its p, the probability of training, is a share of rows; and in worlds
for two an entry is a task with a place in the pool of co-players, whoever holds it, and every place gets as many rows.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.core.returns import generalized_advantage
from rekindle.core.types import Proposal, Rollout, given
from rekindle.curriculum.base import Chooser, asked_when_free, offer

KINDS = ("td", "value-model", "action-model", "positive-value-loss", "l1-value-loss", "max-mc", "regret")
"""What is averaged over the steps of a trial.

AdA's: absolute TD errors; how far the model's next value, or its next policy (Jensen-Shannon), is from what came. Of
others: the advantage where it is positive (Jiang et al. 2021, 2110.02439), its size (2010.03934), and the best reward
of a trial so far less the value (2110.02439). Ours: the planner's best reward less the trial's.
"""
WHICH = ("last", "first", "mean")
MAX_TRIALS = 16
"""Numbers of trials that are normalised apart; more count as the last."""


class Archive(NamedTuple):
    """Tasks worth training on. A slot without a task has number -1."""

    number: Int32[Array, " N"]
    fitness: Float[Array, " N"]
    sampled: Float[Array, " N"]
    """When it was last drawn for training, in draws."""
    best: Float[Array, " N"]
    """Highest reward of a trial of it."""


class Tally(NamedTuple):
    """The running episode of every row."""

    number: Int32[Array, " n"]
    learn: Bool[Array, " n"]
    trials: Int32[Array, " n"]
    """Trials that have ended."""
    steps: Float[Array, " n"]
    """Of the running trial."""
    total: Float[Array, " n"]
    """Sum of its steps' fitness."""
    reward: Float[Array, " n"]
    best: Float[Array, " n"]
    """Highest reward of a trial that has ended."""
    first: Float[Array, " n"]
    """Fitness of the first, of the last and of all trials that have ended."""
    last: Float[Array, " n"]
    every: Float[Array, " n"]


class Moments(NamedTuple):
    """Rolling mean and second moment of fitness by number of trials, not yet debiased."""

    weight: Float[Array, " K"]
    mean: Float[Array, " K"]
    square: Float[Array, " K"]


class State(NamedTuple):
    """Everything between two rollouts."""

    archive: Archive
    moments: Moments
    tally: Tally
    left: Int32[Array, " n"]
    """Trials that a row still trains on its task."""
    task: Int32[Array, " n"]
    """The row's task of the archive; -1 for none."""
    free: Bool[Array, " n"]
    """Rows that were done with their task when the last proposal was made."""
    draws: Float[Array, ""]
    evaluated: Float[Array, ""]
    inserted: Float[Array, ""]


@dataclass(frozen=True, kw_only=True)
class PLR(Chooser):
    """Prioritised level replay over a pool of numbered tasks; the defaults are AdA's, but for `share`, its p.

    AdA trains with probability 0.2, with evaluation on machines of its own.
    """

    gamma: float
    reward_scale: float
    """The agent's: values are in its units."""
    capacity: int = 1000
    """Tasks in the archive (N_max)."""
    fill: float = 0.9
    """Training begins when so much of the archive is full (N_min / N_max)."""
    train_trials: int = 30
    """A chosen task is trained on for at least so many trials (N_train)."""
    staleness: float = 0.2
    """Weight of what was not trained on for long (s)."""
    temperature: float = 1.0
    """Ranks are weighted as rank^(-1 / temperature); AdA's is not published."""
    kind: str = "td"
    """One of KINDS."""
    which: str = "last"
    """One of WHICH: the trials of an episode that its fitness is of."""
    optimum: tuple[float, ...] | None = None
    """For `regret`: the best possible reward of a trial of every task (the planner's)."""
    groups: int = 1
    """Places for co-players: row r plays beside place r modulo groups, and an entry is a task with a place."""
    decay: float = 0.999
    """Of the rolling statistics, per evaluated episode."""
    gae_lambda: float = 0.95
    """Of the advantages that the value losses are of."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        if self.kind not in KINDS:
            raise ConfigError(f"no kind of fitness {self.kind!r}; {did_you_mean(self.kind, KINDS)}")
        if (self.kind == "regret") != (self.optimum is not None):
            raise ConfigError("PLR by regret, and no other kind, takes the planner's best reward of every task.")
        if not (0 <= self.staleness <= 1 and 0 <= self.gae_lambda <= 1 and 0 < self.fill <= 1):
            raise ConfigError(
                f"PLR: staleness and gae_lambda must lie in [0, 1] and fill in (0, 1]; got {self.staleness}, "
                f"{self.gae_lambda} and {self.fill}."
            )
        if min(self.capacity, self.train_trials, self.groups) < 1 or self.temperature <= 0:
            raise ConfigError("PLR: capacity, train_trials, groups and temperature must be above 0.")
        if self.which not in WHICH:
            raise ConfigError(f"PLR: which must be one of {', '.join(WHICH)}; got {self.which!r}.")
        if not 0 < self.decay < 1:
            raise ConfigError(f"PLR: decay must lie in (0, 1); got {self.decay}.")

    def init(self, source: PyTree) -> State:
        """An empty archive.

        Raises:
            ConfigError: the pool has fewer tasks than the archive wants before training begins.
        """
        needed = self.needed
        if (most := self.size(source) * self.groups) < needed:
            raise ConfigError(
                f"PLR trains once {needed} tasks are in its archive; the pool has {most}. Give a larger pool, or set "
                f"capacity to at most {int(most / self.fill)}."
            )
        none, no = jnp.full(self.rows, -1, jnp.int32), jnp.zeros(self.rows)
        lowest, nothing = jnp.full(self.capacity, -jnp.inf), jnp.zeros(self.capacity)
        empty = Archive(jnp.full(self.capacity, -1, jnp.int32), lowest, nothing, lowest)
        zeros, zero = jnp.zeros(MAX_TRIALS), jnp.zeros(())
        whole = jnp.zeros(self.rows, jnp.int32)
        tally = Tally(none, no > 0, whole, no, no, no, jnp.full_like(no, -jnp.inf), no, no, no)
        return State(empty, Moments(zeros, zeros, zeros), tally, whole, none, no == 0, zero, zero, zero)

    @property
    def needed(self) -> int:
        """Tasks in the archive before training begins (N_min)."""
        return max(int(self.fill * self.capacity), 1)

    def propose(self, key: Key[Array, ""], state: State, source: PyTree) -> Proposal:
        """To rows that train their task again or another of the archive; to the others new tasks.

        Until the archive is filled, all rows evaluate.
        """
        new_key, old_key, trials_key = jax.random.split(key, 3)
        row = jnp.arange(self.rows, dtype=jnp.int32)
        group = row % self.groups
        number = jax.random.randint(new_key, (self.rows,), 0, self.size(source)) * self.groups + group
        mine = (state.archive.number[None] >= 0) & (state.archive.number[None] % self.groups == group[:, None])
        filled = jnp.sum(state.archive.number >= 0) >= self.needed
        trains = (row < self.batch) & filled & jnp.any(mine, axis=1)
        log_p = jnp.log(self.probabilities(state.archive, state.draws))
        drawn = state.archive.number[jax.random.categorical(old_key, jnp.where(mine, log_p[None], -jnp.inf))]
        again = (state.left > 0) & (state.task >= 0)
        number = jnp.where(trains, jnp.where(again, state.task, drawn), number)
        trials = jax.random.randint(trials_key, (self.rows,), self.min_trials, self.max_trials + 1)
        tasks = jax.vmap(self.task, in_axes=(None, 0, 0))(source, number // self.groups, trials)
        return jax.tree.map(lambda x: x[:, None], offer(tasks, learn=trains, number=number))

    def probabilities(self, archive: Archive, now: Float[Array, ""]) -> Float[Array, " N"]:
        """(1 - s) rank^(-1/beta) + s staleness, each normalised over the tasks in the archive.

        Source: Jiang et al. 2021 (2010.03934), section 3.
        """
        there = archive.number >= 0
        rank = jnp.zeros(self.capacity).at[jnp.argsort(-archive.fitness)].set(jnp.arange(1.0, self.capacity + 1))
        score = jnp.where(there, rank ** (-1.0 / self.temperature), 0.0)
        age = jnp.where(there, now - archive.sampled, 0.0)
        share = jnp.where(there, 1.0, 0.0)
        age = jnp.where(jnp.sum(age) > 0, age, share)
        return (1.0 - self.staleness) * _normal(score) + self.staleness * _normal(age)

    def report(self, state: State, rollout: Rollout) -> State:
        """Count steps into trials and trials into episodes; book the episodes that ended."""
        per_step, known = self.per_step(rollout), self.is_known(rollout)
        number, learn, free = rollout.number, rollout.learn, state.left <= 0

        def step(tally: Tally, now: tuple[Array, ...]) -> tuple[Tally, tuple[Tally, Array]]:
            f, known, reward, trial_end, ended, begun, number, learn = now
            fresh = Tally(number, learn, *(jnp.zeros_like(x) for x in tally[2:]))
            fresh = fresh._replace(best=jnp.full_like(f, -jnp.inf))
            tally = jax.tree.map(lambda new, old: jnp.where(begun, new, old), fresh, tally)
            steps, total = tally.steps + known.astype(jnp.float32), tally.total + jnp.where(known, f, 0.0)
            tally = tally._replace(steps=steps, total=total, reward=tally.reward + reward)
            value = total / jnp.maximum(steps, 1.0)
            if self.optimum is not None:
                value = jnp.asarray(self.optimum)[jnp.maximum(tally.number, 0) // self.groups] - tally.reward
            trials = tally.trials + 1
            zero = jnp.zeros_like(f)
            closed = Tally(
                tally.number, tally.learn, trials, zero, zero, zero, jnp.maximum(tally.best, tally.reward),
                jnp.where(trials == 1, value, tally.first), value, tally.every + value,
            )  # fmt: skip
            tally = jax.tree.map(lambda new, old: jnp.where(trial_end, new, old), closed, tally)
            return tally, (tally, ended)

        ended = rollout.terminated | rollout.truncated
        steps = (per_step, known, rollout.reward, rollout.trial_end, ended, rollout.start, number, learn)
        tally, (seen, over) = jax.lax.scan(step, state.tally, steps)

        def book(state: State, now: tuple[Array, Array, Array, Tally, Array]) -> tuple[State, None]:
            fresh, begun, number, tally, over = now
            same = lambda state, *_: state  # noqa: E731
            state = jax.lax.cond(jnp.any(begun), self._begin, same, state, fresh, begun, number)
            state = jax.lax.cond(jnp.any(over), self._end, lambda state, tally, over: state, state, tally, over)
            return state, None

        asked = asked_when_free(state.free, free, rollout.start.shape[0])
        moments = (rollout.start & learn & asked, rollout.start & learn, number, seen, over)
        return jax.lax.scan(book, state._replace(tally=tally, free=free), moments)[0]

    def per_step(self, rollout: Rollout) -> Float[Array, "T n"]:
        """Fitness of every step."""
        value = given(rollout.extras.value)
        after = jnp.concatenate([value[1:], rollout.last_value[None]])
        after = jnp.where(rollout.truncated, rollout.final_value, jnp.where(rollout.terminated, 0.0, after))
        if self.kind == "regret":
            return jnp.zeros_like(value)
        if self.kind == "value-model":
            return jnp.abs(after - self._model(rollout.extras.next_value))
        if self.kind == "action-model":
            logits = self._model(rollout.extras.logits)
            later = jnp.concatenate([logits[1:], logits[-1:]])
            return jensen_shannon(later, self._model(rollout.extras.next_logits))
        if self.kind == "max-mc":  # what it is taken from is known at the episode's end
            return -value
        reward, ended = self.reward_scale * rollout.reward, rollout.terminated | rollout.truncated
        if self.kind == "td":
            return jnp.abs(reward + self.gamma * after - value)
        discount = jnp.where(rollout.terminated, 0.0, self.gamma)
        over_time = partial(generalized_advantage, lambda_=self.gae_lambda)
        rows = (reward, discount, ended.astype(jnp.float32), value, after)
        advantage = jax.vmap(over_time, in_axes=1, out_axes=1)(*rows)
        return jnp.maximum(advantage, 0.0) if self.kind == "positive-value-loss" else jnp.abs(advantage)

    def is_known(self, rollout: Rollout) -> Bool[Array, "T n"]:
        """Where a step's fitness is known; `action-model` needs the next step's policy, of this episode and rollout."""
        if self.kind != "action-model":
            return jnp.ones_like(rollout.start)
        within = (jnp.arange(rollout.start.shape[0]) < rollout.start.shape[0] - 1)[:, None]
        return within & ~(rollout.terminated | rollout.truncated)

    def _model(self, what: Array | None) -> Array:
        if what is None:
            raise ConfigError(f"PLR by {self.kind} needs an agent with a model (muesli); this one has none.")
        return what

    def _begin(
        self, state: State, fresh: Bool[Array, " n"], begun: Bool[Array, " n"], number: Int32[Array, " n"]
    ) -> State:
        """Note which rows are done with their task and begin another, and which tasks are trained on."""
        fresh = fresh & (state.left <= 0)
        mine = (number[:, None] == state.archive.number[None]) & begun[:, None]
        draws = state.draws + 1
        sampled = jnp.where(jnp.any(mine, axis=0), draws, state.archive.sampled)
        return state._replace(
            task=jnp.where(fresh, number, state.task),
            left=jnp.where(fresh, self.train_trials, state.left),
            archive=state.archive._replace(sampled=sampled),
            draws=draws,
        )

    def _end(self, state: State, tally: Tally, over: Bool[Array, " n"]) -> State:
        """Enter the episodes that ended at one step, row by row."""
        k = jnp.minimum(tally.trials, MAX_TRIALS) - 1
        raw = {
            "last": tally.last,
            "first": tally.first,
            "mean": tally.every / jnp.maximum(tally.trials, 1).astype(jnp.float32),
        }[self.which]
        same = (tally.number[:, None] == state.archive.number[None]) & (tally.number >= 0)[:, None]
        best = jnp.maximum(tally.best, jnp.max(jnp.where(same, state.archive.best[None], -jnp.inf), axis=1))
        if self.kind == "max-mc":
            raw = raw + self.reward_scale * best
        moments = roll(state.moments, raw, k, over & ~tally.learn, self.decay)
        mean, spread = centre(moments)
        fitness = (raw - mean[k]) / spread[k]

        def enter(archive: Archive, row: tuple[Array, ...]) -> tuple[Archive, Array]:
            number, f, most, evaluated, done = row
            known = archive.number == number
            found = jnp.any(known)
            free = jnp.argmin(archive.fitness)  # an empty slot has -inf
            better = ~found & evaluated & (f > archive.fitness[free])
            slot = jnp.where(found, jnp.argmax(known), free)
            write = done & (found | better)
            return Archive(
                archive.number.at[slot].set(jnp.where(write, number, archive.number[slot])),
                archive.fitness.at[slot].set(jnp.where(write, f, archive.fitness[slot])),
                archive.sampled.at[slot].set(jnp.where(write & better, state.draws, archive.sampled[slot])),
                archive.best.at[slot].set(jnp.where(write, most, archive.best[slot])),
            ), done & better

        archive, new = jax.lax.scan(enter, state.archive, (tally.number, fitness, best, ~tally.learn, over))
        mine = over & tally.learn & (tally.number == state.task)
        left = jnp.where(mine, state.left - tally.trials, state.left)
        return state._replace(
            archive=archive,
            moments=moments,
            left=left,
            evaluated=state.evaluated + jnp.sum((over & ~tally.learn).astype(jnp.float32)),
            inserted=state.inserted + jnp.sum(new.astype(jnp.float32)),
        )

    def stats(self, state: State) -> dict[str, Array]:
        """How full the archive is, its fitness, and what became of evaluated episodes."""
        there = state.archive.number >= 0
        count = jnp.sum(there.astype(jnp.float32))
        fitness = jnp.sum(jnp.where(there, state.archive.fitness, 0.0)) / jnp.maximum(count, 1.0)
        return {"archive": count, "archive_fitness": fitness, "evaluated": state.evaluated, "inserted": state.inserted}

    def trouble(self, state: State) -> str:
        """None: an archive always fills, whatever its tasks are worth."""
        del state
        return ""


def roll(
    moments: Moments, x: Float[Array, " n"], k: Int32[Array, " n"], mask: Bool[Array, " n"], decay: float
) -> Moments:
    """Exponentially weighted moments by group, all masked samples counting alike."""
    hot = jax.nn.one_hot(k, MAX_TRIALS) * mask.astype(jnp.float32)[:, None]
    count = hot.sum(axis=0)
    keep = decay**count
    each = (1.0 - keep) / jnp.maximum(count, 1.0)
    x = jnp.where(mask, x, 0.0)
    return Moments(
        keep * moments.weight + (1.0 - keep),
        keep * moments.mean + each * (hot * x[:, None]).sum(axis=0),
        keep * moments.square + each * (hot * x[:, None] ** 2).sum(axis=0),
    )


def centre(moments: Moments) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    """Mean and standard deviation by group; 0 and 1 where nothing is known."""
    weight = jnp.maximum(moments.weight, 1e-8)
    mean = moments.mean / weight
    variance = moments.square / weight - mean**2
    return mean, jnp.where(variance > 1e-12, jnp.sqrt(jnp.maximum(variance, 1e-12)), 1.0)


def jensen_shannon(a: Float[Array, "*n A"], b: Float[Array, "*n A"]) -> Float[Array, "*n"]:
    """Jensen-Shannon divergence of two categorical distributions from their logits, in nats."""
    p, q = jax.nn.softmax(a), jax.nn.softmax(b)
    log_middle = jnp.log(0.5 * (p + q))
    part = p * (jax.nn.log_softmax(a) - log_middle) + q * (jax.nn.log_softmax(b) - log_middle)
    return 0.5 * part.sum(axis=-1)


def _normal(x: Float[Array, " N"]) -> Float[Array, " N"]:
    return x / jnp.maximum(jnp.sum(x), 1e-30)
