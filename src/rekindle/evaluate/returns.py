"""Whole episodes to their ends: undiscounted returns of a policy, with the true rewards."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from rekindle.core.types import Policy
from rekindle.envs import registry
from rekindle.envs.base import Env
from rekindle.envs.host.worlds import HostWorlds

Draw = Callable[[Key[Array, ""], PyTree], PyTree]
"""From a key and a source of tasks to one task."""
HOST_ROWS = 8
"""Worlds side by side that are opened where they are not written in JAX."""


class Episodes(NamedTuple):
    """What episodes came to."""

    returns: Float[np.ndarray, " n"]
    lengths: Int[np.ndarray, " n"]
    env_steps: int
    """That were played; where worlds go on until the slowest is done, more than the lengths add up to."""


def whole_episodes(
    made: registry.Made | registry.Hosted, policy: Any, key: Key[Array, ""], *, number: int, split: str = "test",
    seed: int = 0, explore: bool = False,
) -> Episodes:  # fmt: skip
    """Whole episodes in worlds of either kind that are opened for this.

    Args:
        made: by its id.
        policy: what acts.
        key: of starts and actions.
        number: of episodes; where worlds are not written in JAX, rounded up to a multiple of eight.
        split: `train` or `test`, of what tasks are drawn from.
        seed: of that.
        explore: whether the policy explores, as it says; else it is greedy.
    """
    if isinstance(made, registry.Hosted):
        worlds = made.open(HOST_ROWS)
        return host_episodes(worlds, policy, jax.random.fold_in(key, seed), number=number, explore=explore)
    source = made.pool(split=split, seed=seed)
    return episodes(made.env, policy, made.draw, source, key, number=number, explore=explore)


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
    return Episodes(total, length, int(length.sum()))


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


def host_episodes(
    worlds: HostWorlds, policy: Any, key: Key[Array, ""], *, number: int, explore: bool = True
) -> Episodes:
    """The same in worlds that are not compiled: every row plays equally many, so that short ones do not count more.

    Args:
        worlds: begun anew for this.
        policy: what acts.
        key: of starts and actions.
        number: of episodes; rounded up to a multiple of the rows.
        explore: whether the policy explores, as it says; else it is greedy.
    """
    seed_key, act_key = jax.random.split(key)
    obs = worlds.reset(int(jax.random.randint(seed_key, (), 0, 2**31 - 1)))
    carry, start, time = policy.init_carry(worlds.rows), np.ones(worlds.rows, bool), 0
    ended: list[list[tuple[float, int]]] = [[] for _ in range(worlds.rows)]
    total, length = np.zeros(worlds.rows), np.zeros(worlds.rows, int)
    share = -(-number // worlds.rows)
    while min(map(len, ended)) < share:
        action, carry = decided(policy, jax.random.fold_in(act_key, time), carry, obs, start, explore)
        step = worlds.step(np.asarray(action))
        total, length, time = total + step.reward, length + 1, time + 1
        start = step.terminated | step.truncated
        for row in np.flatnonzero(start):
            ended[row].append((total[row], length[row]))
        total, length, obs = np.where(start, 0.0, total), np.where(start, 0, length), step.obs
    found = np.array([episode for row in ended for episode in row[:share]])
    return Episodes(found[:, 0].astype(np.float32), found[:, 1].astype(np.int32), time * worlds.rows)


@eqx.filter_jit
def decided(policy: Any, key: Key[Array, ""], carry: PyTree, obs: Any, start: Any, explore: bool
            ) -> tuple[Array, PyTree]:  # fmt: skip
    """Actions of rows that are not compiled, and the policy's memory after them."""
    out = policy.act(key, carry, obs, start, explore=explore)
    return out.action, out.carry
