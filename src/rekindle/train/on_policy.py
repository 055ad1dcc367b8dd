"""The on-policy loop over JAX worlds: roll out, update, repeat, in one jitted and donated chunk.

`chunk` is pure: the same state gives the same next state, so a run resumes exactly from a checkpoint of `LoopState`.
What surrounds it (progress, evaluation, checkpoints, Ctrl-C) is in `loop.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.tree import flatten_arrays, own, unflatten_arrays
from rekindle.core.types import Agent, Obs, Proposal, Rollout, TimeStep, given
from rekindle.curriculum.base import Curriculum
from rekindle.train.worlds import Worlds

MAX_TRIALS = 16
"""Trials that are told apart in the metrics; later ones count as the last."""


class TrialCounts(NamedTuple):
    """What ended since the last report, by index of the trial in its episode, plus running sums per world."""

    running: Float[Array, " B"]
    trial: Int32[Array, " B"]
    ended: Float[Array, " K"]
    reward: Float[Array, " K"]
    success: Float[Array, " K"]


NO_UPDATE = 2**31 - 1
"""Number of a random stream that no update has."""


class LoopState(NamedTuple):
    """Everything between two chunks. `updates` numbers the random streams."""

    agent: Any
    worlds: Any
    partners: Any
    """Co-players; () where worlds have one player."""
    obs: Obs
    start: Bool[Array, " B"]
    carry: PyTree
    counts: TrialCounts
    curriculum: Any
    learnt: Float[Array, ""]
    """Steps that were learnt from, in thousands."""
    updates: Int32[Array, ""]
    key: Key[Array, ""]


def start(
    agent: Agent, worlds: Worlds, curriculum: Curriculum, source: PyTree, key: Key[Array, ""], *, state: Any = None
) -> LoopState:
    """The state before the first update; `state` continues from a trained agent instead of fresh weights."""
    init_key, propose_key, reset_key, run_key = jax.random.split(key, 4)
    rows = curriculum.rows
    fresh = agent.init(init_key, worlds.spec) if state is None else state
    progress = curriculum.init(source)
    proposal = curriculum.propose(propose_key, progress, source)
    partners = worlds.gather(jax.random.fold_in(run_key, NO_UPDATE), agent, fresh)
    began, obs = worlds.reset(reset_key, proposal, partners)
    zeros = jnp.zeros(MAX_TRIALS)
    counts = TrialCounts(jnp.zeros(rows), jnp.zeros(rows, jnp.int32), zeros, zeros, zeros)
    ones = jnp.ones(rows, bool)
    carry = agent.init_carry(fresh, rows)
    return own(LoopState(fresh, began, partners, obs, ones, carry, counts, progress, jnp.zeros(()), jnp.int32(0),
                         run_key))  # fmt: skip


def make_start(
    agent: Agent, worlds: Worlds, curriculum: Curriculum
) -> Callable[[PyTree, Key[Array, ""], Any], LoopState]:
    """`start` compiled as one program, from source, key and state; hundreds of small ones take ten times as long."""
    return jax.jit(lambda source, key, state: start(agent, worlds, curriculum, source, key, state=state))


def collect(
    agent: Agent, worlds: Worlds, proposal: Proposal, key: Key[Array, ""], loop: LoopState
) -> tuple[LoopState, Rollout]:
    """`needs.length` steps of every world; an episode that ends is followed by one of the row's proposed tasks."""
    steps_key, last_key = jax.random.split(key)
    loop = loop._replace(carry=agent.refresh(loop.agent, loop.carry))

    def step(now: LoopState, key: Key[Array, ""]) -> tuple[LoopState, tuple]:
        act_key, value_key, env_key = jax.random.split(key, 3)
        out = agent.act(act_key, now.agent, now.carry, now.obs, now.start, explore=True)
        played = worlds.played(now.worlds)
        action = jnp.where(played.forced >= 0, played.forced.astype(out.action.dtype), out.action)
        state, ts = worlds.step(env_key, now.worlds, action, proposal, now.partners)
        no = jnp.zeros_like(now.start)

        def cut_value() -> Float[Array, " B"]:
            return given(agent.act(value_key, now.agent, out.carry, ts.final_obs, no, explore=False).extras.value)

        final_value = jax.lax.cond(jnp.any(ts.truncated), cut_value, lambda: jnp.zeros(no.shape))
        ended = ts.terminated | ts.truncated
        kept = (now.obs, action, ts.reward, now.start, ts.terminated, ts.truncated, ts.trial_end | ended, final_value,
                out.extras, played.number, played.learn, played.forced)  # fmt: skip
        counts = count(now.counts, ts, ended, played.learn)
        return now._replace(worlds=state, obs=ts.obs, start=ended, carry=out.carry, counts=counts), kept

    after, kept = jax.lax.scan(step, loop, jax.random.split(steps_key, agent.needs.length))
    obs, action, reward, begun, terminated, truncated, trial_end, final_value, extras, number, learn, forced = kept
    last = agent.act(last_key, after.agent, after.carry, after.obs, after.start, explore=False).extras.value
    rollout = Rollout(obs, action, reward, begun, terminated, truncated, trial_end, final_value, extras, loop.carry,
                      given(last), number, learn, forced)  # fmt: skip
    return after, rollout


def count(counts: TrialCounts, ts: TimeStep, ended: Bool[Array, " B"], learn: Bool[Array, " B"]) -> TrialCounts:
    """Book the rewards of trials that ended, and are learnt from, under the trial's index."""
    running = counts.running + ts.reward
    at = jnp.minimum(counts.trial, MAX_TRIALS - 1)
    trial_end = ts.trial_end | ended
    done = (trial_end & learn).astype(jnp.float32)

    def book(total: Array, value: Array) -> Array:
        return total + jnp.sum(jax.nn.one_hot(at, MAX_TRIALS) * (done * value)[:, None], axis=0)

    return TrialCounts(
        running=jnp.where(trial_end, 0.0, running),
        trial=jnp.where(ended, 0, counts.trial + trial_end.astype(jnp.int32)),
        ended=book(counts.ended, jnp.ones_like(running)),
        reward=book(counts.reward, running),
        success=book(counts.success, (running > 0).astype(jnp.float32)),
    )


def chunk(
    agent: Agent, worlds: Worlds, curriculum: Curriculum, updates: int, loop: LoopState, source: PyTree
) -> tuple[LoopState, Any]:
    """`updates` updates on tasks that the curriculum proposes from `source`; metrics are means over them."""
    batch = agent.needs.batch

    def one(loop: LoopState, _: None) -> tuple[LoopState, tuple[Any, Array]]:
        propose_key, rollout_key, update_key = jax.random.split(jax.random.fold_in(loop.key, loop.updates), 3)
        proposal = curriculum.propose(propose_key, loop.curriculum, source)
        loop, rollout = collect(agent, worlds, proposal, rollout_key, loop)
        loop = loop._replace(curriculum=curriculum.report(loop.curriculum, rollout))
        mine = rollout if curriculum.rows == batch else rollout.rows(slice(0, batch))

        def learn() -> tuple[Any, Any, Array]:
            result = agent.update(update_key, loop.agent, mine)
            return result.state, result.metrics, jnp.float32(1)

        if curriculum.always_learns:
            state, metrics, done = learn()
        else:
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(learn)[1])
            state, metrics, done = jax.lax.cond(
                jnp.any(mine.learn), learn, lambda: (loop.agent, nothing, jnp.float32(0))
            )
        learnt = loop.learnt + jnp.sum(mine.learn.astype(jnp.float32)) / 1000
        partners = worlds.grow(agent, state, loop.partners, learnt)
        return loop._replace(agent=state, partners=partners, updates=loop.updates + 1, learnt=learnt), (metrics, done)

    loop, (metrics, done) = jax.lax.scan(one, loop, None, length=updates)
    return loop, jax.tree.map(lambda x: jnp.sum(x) / jnp.maximum(jnp.sum(done), 1), metrics)


@dataclass(frozen=True)
class OnPolicy:
    """The engine that `loop.train` drives."""

    agent: Agent
    worlds: Worlds
    curriculum: Curriculum
    source: Callable[[float], PyTree]
    """From the share of the budget that is spent, in [0, 1], to what tasks are drawn from."""
    any_size: bool = False

    @property
    def steps_per_update(self) -> int:
        """A rollout of all rows."""
        return self.curriculum.rows * self.agent.needs.length

    def begin(self, key: Key[Array, ""], state: Any) -> LoopState:
        """See Engine."""
        return own(make_start(self.agent, self.worlds, self.curriculum)(self.source(0.0), key, state))

    def chunk(self, loop: LoopState, updates: int, share: float) -> tuple[LoopState, Any]:
        """See Engine."""
        return self._compiled(updates)(loop, self.source(share))

    def steps(self, loop: LoopState) -> int:
        """All of them."""
        return int(loop.updates) * self.steps_per_update

    def learnt(self, loop: LoopState) -> int:
        """Those in rollouts of rows that train."""
        return round(float(loop.learnt) * 1000)

    def drain(self, loop: LoopState) -> tuple[LoopState, dict[str, float]]:
        """Trials, and what the curriculum has to say."""
        loop, values = drain(loop)
        stats = self._stats(loop.curriculum)
        return loop, values | {f"curriculum/{name}": float(value) for name, value in stats.items()}

    def room(self, loop: LoopState) -> int | None:
        """Any number."""
        del loop
        return None

    def saved(self, loop: LoopState) -> dict[str, np.ndarray]:
        """All of it."""
        return flatten_arrays(loop)

    def restored(self, fresh: LoopState, saved: Mapping[str, np.ndarray]) -> LoopState:
        """See Engine."""
        return unflatten_arrays(fresh, saved, where="the checkpoint")

    def trouble(self, loop: LoopState) -> str:
        """The curriculum's."""
        return self.curriculum.trouble(loop.curriculum)

    def hear(self, loop: LoopState, values: Mapping[str, float]) -> LoopState:
        """Evaluations change nothing."""
        del values
        return loop

    @cached_property
    def _compiled(self) -> Callable[[int], "Chunk"]:
        return cache(lambda updates: make_chunk(self.agent, self.worlds, self.curriculum, updates=updates))

    @cached_property
    def _stats(self) -> Callable[[Any], dict[str, Array]]:
        return jax.jit(self.curriculum.stats)


Chunk = Callable[[LoopState, PyTree], tuple[LoopState, Any]]


def make_chunk(agent: Agent, worlds: Worlds, curriculum: Curriculum, *, updates: int) -> Chunk:
    """`chunk` compiled once; it takes over the memory of the state it is given."""
    return jax.jit(partial(chunk, agent, worlds, curriculum, updates), donate_argnums=0)


def drain(loop: LoopState) -> tuple[LoopState, dict[str, float]]:
    """Read the trial counts as metrics `trial/reward_i`, `trial/success_i` (i from 1), and start counting anew."""
    ended, reward, success = (jax.device_get(x) for x in loop.counts[2:])
    values: dict[str, float] = {}
    for i in range(MAX_TRIALS):
        if ended[i] > 0:
            values[f"trial/reward_{i + 1}"] = float(reward[i] / ended[i])
            values[f"trial/success_{i + 1}"] = float(success[i] / ended[i])
    total = max(float(ended.sum()), 1.0)
    values |= {"trial/reward": float(reward.sum()) / total, "trial/success": float(success.sum()) / total}
    empty = [jnp.zeros(MAX_TRIALS) for _ in range(3)]
    return loop._replace(counts=TrialCounts(*loop.counts[:2], *empty)), values
