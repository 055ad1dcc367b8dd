"""Rolling policies out on tasks: rewards by task, repetition and trial."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from rekindle.core.types import Policy
from rekindle.envs.base import Env

MAX_ROWS = 2048
"""Episodes that run side by side; more are done in turns, so that memory stays small and one program serves all."""


def trial_rewards(
    env: Env,
    policy: Policy,
    tasks: PyTree,
    key: Key[Array, ""],
    *,
    trials: int,
    repetitions: int,
    explore: bool = True,
) -> Float[np.ndarray, "n repetitions K"]:
    """Reward of every trial of `repetitions` episodes of `trials` trials for each of n stacked tasks.

    `env` is an environment of trials whose params have `trials` and `trial_length` (envs/wrappers.py); episodes are
    independent: random streams differ by task and repetition. `explore` samples actions, else they are greedy.
    """
    num_tasks = int(np.shape(tasks.trial_length)[0])
    steps = trials * int(np.max(tasks.trial_length))
    rows = num_tasks * repetitions
    size = min(MAX_ROWS, 1 << max(rows - 1, 1).bit_length())
    tasks = tasks._replace(trials=np.full(num_tasks, trials, np.int16))
    index = np.resize(np.arange(rows) // repetitions, math.ceil(rows / size) * size)
    done = []
    for turn, part in enumerate(index.reshape(-1, size)):
        batch = jax.tree.map(lambda x, part=part: jnp.asarray(x)[part], tasks)
        done.append(np.asarray(_episodes(env, policy, batch, jax.random.fold_in(key, turn), steps, trials, explore)))
    return np.concatenate(done)[:rows].reshape(num_tasks, repetitions, trials)


@eqx.filter_jit
def _episodes(
    env: Env, policy: Policy, tasks: PyTree, key: Key[Array, ""], steps: int, trials: int, explore: bool
) -> Float[Array, "rows K"]:
    reset_key, run_key = jax.random.split(key)
    rows = tasks.trial_length.shape[0]
    state, first = jax.vmap(env.reset)(jax.random.split(reset_key, rows), tasks)

    def step(now: tuple, key: Key[Array, ""]) -> tuple[tuple, None]:
        state, obs, start, carry, trial, alive, total = now
        act_key, env_key = jax.random.split(key)
        out = policy.act(act_key, carry, obs, start, explore=explore)
        state, ts = jax.vmap(env.step)(jax.random.split(env_key, rows), state, out.action, tasks)
        earned = jnp.where(alive, ts.reward, 0.0)
        total = total + jax.nn.one_hot(trial, trials) * earned[:, None]
        trial = trial + (ts.trial_end & alive).astype(jnp.int32)
        alive = alive & ~ts.terminated & ~ts.truncated
        return (state, ts.obs, jnp.zeros_like(start), out.carry, trial, alive, total), None

    begin = (state, first.obs, jnp.ones(rows, bool), policy.init_carry(rows), jnp.zeros(rows, jnp.int32),
             jnp.ones(rows, bool), jnp.zeros((rows, trials)))  # fmt: skip
    after, _ = jax.lax.scan(step, begin, jax.random.split(run_key, steps))
    return after[-1]
