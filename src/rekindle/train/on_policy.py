"""The on-policy loop over JAX worlds: roll out, update, repeat, in one jitted and donated chunk.

`chunk` is pure: the same state gives the same next state, so a run resumes exactly from a checkpoint of `LoopState`.
What surrounds it (progress, evaluation, checkpoints, Ctrl-C) is in `loop.py`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.types import Agent, Obs, Rollout, TimeStep, given
from rekindle.envs.base import Env

MAX_TRIALS = 16
"""Trials that are told apart in the metrics; later ones count as the last."""


class TrialCounts(NamedTuple):
    """What ended since the last report, by index of the trial in its episode, plus running sums per world."""

    running: Float[Array, " B"]
    trial: Int32[Array, " B"]
    ended: Float[Array, " K"]
    reward: Float[Array, " K"]
    success: Float[Array, " K"]


class LoopState(NamedTuple):
    """Everything between two chunks. `updates` numbers the random streams."""

    agent: Any
    env: PyTree
    obs: Obs
    start: Bool[Array, " B"]
    carry: PyTree
    counts: TrialCounts
    updates: Int32[Array, ""]
    key: Key[Array, ""]


def start(agent: Agent, env: Env, params: PyTree, key: Key[Array, ""], *, state: Any = None) -> LoopState:
    """The state before the first update; `state` continues from a trained agent instead of fresh weights."""
    init_key, reset_key, run_key = jax.random.split(key, 3)
    rows = agent.needs.batch
    fresh = agent.init(init_key, env.spec) if state is None else state
    env_state, first = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, rows), params)
    zeros = jnp.zeros(MAX_TRIALS)
    counts = TrialCounts(jnp.zeros(rows), jnp.zeros(rows, jnp.int32), zeros, zeros, zeros)
    ones = jnp.ones(rows, bool)
    loop = LoopState(fresh, env_state, first.obs, ones, agent.init_carry(fresh, rows), counts, jnp.int32(0), run_key)
    return own(loop)


def make_start(agent: Agent, env: Env) -> Callable[[PyTree, Key[Array, ""], Any], LoopState]:
    """`start` compiled as one program, from params, key and state; hundreds of small ones take ten times as long."""
    return jax.jit(lambda params, key, state: start(agent, env, params, key, state=state))


def own(loop: LoopState) -> LoopState:
    """Give every leaf a buffer of its own, as donation demands."""
    return jax.tree.map(jnp.copy, loop)


def collect(agent: Agent, env: Env, params: PyTree, key: Key[Array, ""], loop: LoopState) -> tuple[LoopState, Rollout]:
    """`needs.length` steps of every world."""

    def step(now: LoopState, key: Key[Array, ""]) -> tuple[LoopState, tuple]:
        act_key, value_key, env_key = jax.random.split(key, 3)
        out = agent.act(act_key, now.agent, now.carry, now.obs, now.start, explore=True)
        env_keys = jax.random.split(env_key, now.start.shape[0])
        env_state, ts = jax.vmap(env.step, in_axes=(0, 0, 0, None))(env_keys, now.env, out.action, params)
        no = jnp.zeros_like(now.start)

        def cut_value() -> Float[Array, " B"]:
            return given(agent.act(value_key, now.agent, out.carry, ts.final_obs, no, explore=False).extras.value)

        final_value = jax.lax.cond(jnp.any(ts.truncated), cut_value, lambda: jnp.zeros(no.shape))
        ended = ts.terminated | ts.truncated
        kept = (now.obs, out.action, ts.reward, now.start, ts.terminated, ts.truncated, final_value, out.extras)
        after = now._replace(
            env=env_state, obs=ts.obs, start=ended, carry=out.carry, counts=count(now.counts, ts, ended)
        )
        return after, kept

    after, kept = jax.lax.scan(step, loop, jax.random.split(key, agent.needs.length))
    obs, action, reward, begun, terminated, truncated, final_value, extras = kept
    rollout = Rollout(obs, action, reward, begun, terminated, truncated, final_value, extras._replace(logits=None),
                      loop.carry, after.obs, after.start, after.carry)  # fmt: skip
    return after, rollout


def count(counts: TrialCounts, ts: TimeStep, ended: Bool[Array, " B"]) -> TrialCounts:
    """Book the rewards of trials that ended under the trial's index."""
    running = counts.running + ts.reward
    at = jnp.minimum(counts.trial, MAX_TRIALS - 1)
    trial_end = ts.trial_end | ended
    done = trial_end.astype(jnp.float32)

    def book(total: Array, value: Array) -> Array:
        return total + jnp.sum(jax.nn.one_hot(at, MAX_TRIALS) * (done * value)[:, None], axis=0)

    return TrialCounts(
        running=jnp.where(trial_end, 0.0, running),
        trial=jnp.where(ended, 0, counts.trial + trial_end.astype(jnp.int32)),
        ended=book(counts.ended, jnp.ones_like(running)),
        reward=book(counts.reward, running),
        success=book(counts.success, (running > 0).astype(jnp.float32)),
    )


def chunk(agent: Agent, env: Env, updates: int, loop: LoopState, params: PyTree) -> tuple[LoopState, Any]:
    """`updates` updates on tasks from `params`; metrics are means over them."""

    def one(loop: LoopState, _: None) -> tuple[LoopState, Any]:
        rollout_key, update_key = jax.random.split(jax.random.fold_in(loop.key, loop.updates))
        loop, rollout = collect(agent, env, params, rollout_key, loop)
        result = agent.update(update_key, loop.agent, rollout)
        return loop._replace(agent=result.state, updates=loop.updates + 1), result.metrics

    loop, metrics = jax.lax.scan(one, loop, None, length=updates)
    return loop, jax.tree.map(jnp.mean, metrics)


Chunk = Callable[[LoopState, PyTree], tuple[LoopState, Any]]


def make_chunk(agent: Agent, env: Env, *, updates: int) -> Chunk:
    """`chunk` compiled once; it takes over the memory of the state it is given."""
    return jax.jit(partial(chunk, agent, env, updates), donate_argnums=0)


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
