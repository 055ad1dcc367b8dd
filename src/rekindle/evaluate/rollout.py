"""Rolling policies out on tasks: rewards and metrics by task, repetition and trial."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.errors import ConfigError
from rekindle.core.types import Obs, Policy
from rekindle.envs.base import Env
from rekindle.envs.seats import seat_obs

MAX_ROWS = 2048
"""Episodes that run side by side; more are done in turns, so that memory stays small and one program serves all."""

EVALUATION = 2**31 - 2
"""Number of the random stream of evaluations, apart from that of a training with the same seed."""


def evaluation_key(seed: int) -> Key[Array, ""]:
    """Where the randomness of an evaluation with this seed begins."""
    return jax.random.fold_in(jax.random.key(seed), EVALUATION)


class Played(NamedTuple):
    """What episodes came to."""

    reward: Float[np.ndarray, "n repetitions K"]
    """Of each trial; where players have rewards of their own, their mean."""
    metrics: dict[str, Float[np.ndarray, "n repetitions K ..."]]
    """Those asked for, summed over each trial up to the step of its first reward, that step included."""


def trial_rewards(
    env: Env,
    policy: Policy | Sequence[Policy],
    tasks: PyTree,
    key: Key[Array, ""],
    *,
    trials: int,
    repetitions: int,
    explore: bool = True,
    most_trials: int | None = None,
) -> Float[np.ndarray, "n repetitions K"]:
    """Reward of every trial; see `play`."""
    return play(env, policy, tasks, key, trials=trials, repetitions=repetitions, explore=explore,
                most_trials=most_trials).reward  # fmt: skip


def play(
    env: Env,
    policy: Policy | Sequence[Policy],
    tasks: PyTree,
    key: Key[Array, ""],
    *,
    trials: int,
    repetitions: int,
    explore: bool = True,
    metrics: tuple[str, ...] = (),
    most_trials: int | None = None,
) -> Played:
    """Play `repetitions` episodes of `trials` trials of each of n stacked tasks.

    Episodes are independent: random streams differ by task and repetition.

    Args:
        env: an environment of trials whose params have `trials` and `trial_length` (envs/wrappers.py).
        policy: what acts; with several players one policy per seat, each made for `seat_spec(env.spec)` (envs/seats.py)
            and with a memory of its own. The same policy may take several seats.
        tasks: stacked along a first axis.
        key: of starts and actions.
        trials: per episode, K.
        repetitions: episodes per task.
        explore: sample actions, else they are greedy.
        metrics: names of numbers in `TimeStep.metrics` to sum up.
        most_trials: of all calls with this policy, which then share one program.

    Raises:
        ConfigError: there are not as many policies as seats.
    """
    seats = take_seats(env, policy)
    num_tasks = int(np.shape(tasks.trial_length)[0])
    steps, room = trials * int(np.max(tasks.trial_length)), max(trials, most_trials or 0)
    rows = num_tasks * repetitions
    size = min(MAX_ROWS, 1 << max(rows - 1, 1).bit_length())
    tasks = tasks._replace(trials=np.full(num_tasks, trials, np.int16))
    index = np.resize(np.arange(rows) // repetitions, math.ceil(rows / size) * size)
    done = []
    for turn, part in enumerate(index.reshape(-1, size)):
        batch = jax.tree.map(lambda x, part=part: jnp.asarray(x)[part], tasks)
        turn_key = jax.random.fold_in(key, turn)
        done.append(jax.device_get(_episodes(env, seats, batch, turn_key, jnp.int32(steps), room, explore, metrics)))

    def by_task(*parts: np.ndarray) -> np.ndarray:
        whole = np.concatenate(parts)[:rows, :trials]
        return whole.reshape(num_tasks, repetitions, *whole.shape[1:])

    return Played(*jax.tree.map(by_task, *done))


def take_seats(env: Env, policy: Policy | Sequence[Policy]) -> tuple[Policy, ...]:
    """One policy per seat.

    Raises:
        ConfigError: there are not as many policies as seats.
    """
    seats = (policy,) if isinstance(policy, Policy) else tuple(policy)
    if len(seats) != env.spec.players:
        raise ConfigError(f"{env.spec.id} has {env.spec.players} players and needs a policy each; got {len(seats)}.")
    return seats


def act_in_seats(
    seats: tuple[Policy, ...],
    key: Key[Array, ""],
    carries: tuple[PyTree, ...],
    obs: Obs,
    start: Bool[Array, " B"],
    *,
    explore: bool,
) -> tuple[Array, tuple[PyTree, ...]]:
    """Actions `[B]`, or `[B, P]` of several players, each of which sees its own part; and their memories."""
    if len(seats) == 1:
        out = seats[0].act(key, carries[0], obs, start, explore=explore)
        return out.action, (out.carry,)
    keys = jax.random.split(key, len(seats))
    outs = [policy.act(keys[p], carries[p], seat_obs(obs, p), start, explore=explore) for p, policy in enumerate(seats)]
    return jnp.stack([out.action for out in outs], axis=1), tuple(out.carry for out in outs)


@eqx.filter_jit
def _episodes(
    env: Env, seats: tuple[Policy, ...], tasks: PyTree, key: Key[Array, ""], steps: Int32[Array, ""], trials: int,
    explore: bool, metrics: tuple[str, ...],
) -> tuple[Float[Array, "rows K"], dict[str, Array]]:  # fmt: skip
    reset_key, run_key = jax.random.split(key)
    rows = tasks.trial_length.shape[0]
    state, first = jax.vmap(env.reset)(jax.random.split(reset_key, rows), tasks)

    def step(number: Int32[Array, ""], now: tuple) -> tuple:
        state, obs, start, carries, trial, alive, total, sums = now
        act_key, env_key = jax.random.split(jax.random.fold_in(run_key, number))
        action, carries = act_in_seats(seats, act_key, carries, obs, start, explore=explore)
        state, ts = jax.vmap(env.step)(jax.random.split(env_key, rows), state, action, tasks)
        here = jax.nn.one_hot(trial, trials)
        waiting = alive & (jnp.sum(total * here, axis=1) == 0)
        sums = {name: kept + _spread(waiting, here, ts.metrics[name]) for name, kept in sums.items()}
        reward = ts.reward if len(seats) == 1 else jnp.mean(ts.reward, axis=1)
        earned = jnp.where(alive, reward, 0.0)
        total = total + here * earned[:, None]
        trial = trial + (ts.trial_end & alive).astype(jnp.int32)
        alive = alive & ~ts.terminated & ~ts.truncated
        return state, ts.obs, jnp.zeros_like(start), carries, trial, alive, total, sums

    carries = tuple(policy.init_carry(rows) for policy in seats)
    sums = {name: jnp.zeros((rows, trials, *first.metrics[name].shape[1:])) for name in metrics}
    begin = (state, first.obs, jnp.ones(rows, bool), carries, jnp.zeros(rows, jnp.int32), jnp.ones(rows, bool),
             jnp.zeros((rows, trials)), sums)  # fmt: skip
    after = jax.lax.fori_loop(0, steps, step, begin)
    return after[-2], after[-1]


def _spread(flag: Bool[Array, " rows"], here: Float[Array, "rows K"], value: Array) -> Array:
    """`value` `[rows, ...]` where the flag is set, at the trial that is played: `[rows, K, ...]`."""
    weight = jnp.where(flag[:, None], here, 0.0).reshape(*here.shape, *(1,) * (value.ndim - 1))
    return weight * value.astype(jnp.float32)[:, None]
