"""An episode of XLand as a list of moments, to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from rekindle.core.types import EnvSpec, Policy, TimeStep
from rekindle.envs.base import Env
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.env import State
from rekindle.envs.xland.game import Scene
from rekindle.envs.xland.level import Task
from rekindle.envs.xland.render import Moment
from rekindle.evaluate.rollout import act_in_seats, take_seats


def record_episode(
    env: Trials, policy: Policy | Sequence[Policy], task: Task, key: Key[Array, ""], *, explore: bool = True,
    most: int | None = None,
) -> list[Moment]:  # fmt: skip
    """Play one episode of `task.trials` trials; each trial has its opening and then one moment per step.

    Args:
        env: `Trials` around an `XLand`.
        policy: what acts, a batch of one row; with two players one policy per seat.
        task: the one to play.
        key: of the starts and the actions.
        explore: sample actions, else the greedy ones.
        most: steps after which it is left.
    """
    whole = int(task.trials) * int(task.trial_length)
    steps = whole if most is None else min(most, whole)
    seats = take_seats(env, policy)
    opening, played = jax.device_get(_play(env, seats, jax.tree.map(jnp.asarray, task), key, steps, explore))
    task = jax.tree.map(np.asarray, task)
    moments = [Moment(opening, task, 0, 0, 0.0)]
    for t in range(steps):
        now: _Step = jax.tree.map(lambda leaf, t=t: leaf[t], played)
        moments.append(Moment(now.scene, task, int(now.trial), int(now.time), float(now.reward)))
        if now.over:
            break
        if now.trial_end:
            moments.append(Moment(now.following, task, int(now.trial) + 1, 0, 0.0))
    return moments


@dataclass(frozen=True)
class _Shown:
    """An XLand that shows its scene among the metrics, where a new trial does not replace it."""

    env: Env

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def reset(self, key: Key[Array, ""], params: Task) -> tuple[State, TimeStep]:
        state, first = self.env.reset(key, params)
        return state, _showing(first, state)

    def step(self, key: Key[Array, ""], state: State, action: Array, params: Task) -> tuple[State, TimeStep]:
        after, now = self.env.step(key, state, action, params)
        return after, _showing(now, after)


def _showing(now: TimeStep, state: State) -> TimeStep:
    scene: Any = state.scene
    return now._replace(metrics={"scene": scene})


class _Step(eqx.Module):
    """What one step leads to: the scene it leaves, and the one that play goes on from."""

    scene: Scene
    following: Scene
    trial: Array
    time: Array
    reward: Array
    trial_end: Array
    over: Array


@eqx.filter_jit
def _play(
    env: Trials, seats: tuple[Policy, ...], task: Task, key: Key[Array, ""], steps: int, explore: bool
) -> tuple[Scene, _Step | None]:
    shown = replace(env, env=_Shown(env.env))
    reset_key, run_key = jax.random.split(key)
    state, first = shown.reset(reset_key, task)
    if steps == 0:
        return state.inner.scene, None

    def step(now: tuple, key: Key[Array, ""]) -> tuple[tuple, _Step]:
        state, obs, start, carries = now
        act_key, env_key = jax.random.split(key)
        row = jax.tree.map(lambda leaf: leaf[None], obs)
        action, carries = act_in_seats(seats, act_key, carries, row, start, explore=explore)
        after, ts = shown.step(env_key, state, action[0], task)
        scene: Any = ts.metrics["scene"]
        seen = _Step(
            scene, after.inner.scene, state.trial, state.time + 1, jnp.mean(ts.reward), ts.trial_end, ts.terminated
        )
        return (after, ts.obs, jnp.zeros_like(start), carries), seen

    begin = (state, first.obs, jnp.ones(1, bool), tuple(policy.init_carry(1) for policy in seats))
    _, played = jax.lax.scan(step, begin, jax.random.split(run_key, steps))
    return state.inner.scene, played
