"""Whole episodes to their ends: undiscounted returns of a policy, with the true rewards."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from rekindle.core.types import Policy
from rekindle.envs.base import Env


class Episodes(NamedTuple):
    """What episodes came to."""

    returns: Float[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"]


def episodes(
    env: Env, policy: Policy, task: PyTree, key: Key[Array, ""], *, number: int, explore: bool = True
) -> Episodes:
    """Play so many episodes of a task side by side, each to its end or its time limit.

    Args:
        env: one that ends its episodes.
        policy: what acts.
        task: the params of all of them.
        key: of starts and actions.
        number: of episodes.
        explore: whether the policy explores, as it says; else it is greedy.
    """
    total, length = jax.device_get(_compiled(env, policy, task, key, number, explore))
    return Episodes(total, length)


def play(
    env: Env, policy: Any, task: PyTree, key: Key[Array, ""], number: int, explore: bool
) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """Returns and lengths, for jit and vmap; see `episodes`."""
    reset_key, run_key = jax.random.split(key)
    state, first = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, number), task)
    step_all = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def step(now: tuple) -> tuple:
        time, state, obs, carry, alive, total, length = now
        act_key, env_key = jax.random.split(jax.random.fold_in(run_key, time))
        start = jnp.broadcast_to(time == 0, (number,))
        out = policy.act(act_key, carry, obs, start, explore=explore)
        state, ts = step_all(jax.random.split(env_key, number), state, out.action, task)
        total = total + jnp.where(alive, ts.reward, 0.0)
        length = length + alive.astype(jnp.int32)
        alive = alive & ~ts.terminated & ~ts.truncated
        return time + 1, state, ts.obs, out.carry, alive, total, length

    begin = (jnp.int32(0), state, first.obs, policy.init_carry(number), jnp.ones(number, bool), jnp.zeros(number),
             jnp.zeros(number, jnp.int32))  # fmt: skip
    after = jax.lax.while_loop(lambda now: jnp.any(now[4]), step, begin)
    return after[-2], after[-1]


_compiled = eqx.filter_jit(play)
