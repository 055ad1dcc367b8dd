"""Whole episodes to their ends: undiscounted returns of a policy, with the true rewards."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from rekindle.core.types import Policy
from rekindle.envs.base import Env

Draw = Callable[[Key[Array, ""], PyTree], PyTree]
"""From a key and a source of tasks to one task."""


class Episodes(NamedTuple):
    """What episodes came to."""

    returns: Float[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"]


def episodes(
    env: Env, policy: Policy, draw: Draw, source: PyTree, key: Key[Array, ""], *, number: int, explore: bool = True
) -> Episodes:
    """Play so many episodes side by side, each of a task that is drawn for it, to its end or its time limit.

    Args:
        env: one that ends its episodes.
        policy: what acts.
        draw: from a key and the source to a task.
        source: what tasks are drawn from.
        key: of tasks, starts and actions.
        number: of episodes.
        explore: whether the policy explores, as it says; else it is greedy.
    """
    total, length = jax.device_get(_compiled(env, policy, draw, source, key, number, explore))
    return Episodes(total, length)


def play(
    env: Env, policy: Any, draw: Draw, source: PyTree, key: Key[Array, ""], number: int, explore: bool
) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """Returns and lengths, for jit and vmap; see `episodes`."""
    draw_key, reset_key, run_key = jax.random.split(key, 3)
    tasks = jax.vmap(draw, in_axes=(0, None))(jax.random.split(draw_key, number), source)
    state, first = jax.vmap(env.reset)(jax.random.split(reset_key, number), tasks)

    def step(now: tuple) -> tuple:
        time, state, obs, carry, alive, total, length = now
        act_key, env_key = jax.random.split(jax.random.fold_in(run_key, time))
        start = jnp.broadcast_to(time == 0, (number,))
        out = policy.act(act_key, carry, obs, start, explore=explore)
        state, ts = jax.vmap(env.step)(jax.random.split(env_key, number), state, out.action, tasks)
        total = total + jnp.where(alive, ts.reward, 0.0)
        length = length + alive.astype(jnp.int32)
        alive = alive & ~ts.terminated & ~ts.truncated
        return time + 1, state, ts.obs, out.carry, alive, total, length

    begin = (jnp.int32(0), state, first.obs, policy.init_carry(number), jnp.ones(number, bool), jnp.zeros(number),
             jnp.zeros(number, jnp.int32))  # fmt: skip
    after = jax.lax.while_loop(lambda now: jnp.any(now[4]), step, begin)
    return after[-2], after[-1]


_compiled = eqx.filter_jit(play)
