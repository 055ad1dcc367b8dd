"""What changes an environment without knowing it: trials that make an episode, inputs of RL^2, automatic resets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, Key, PyTree

from rekindle.core.spaces import Box, Discrete, MultiDiscrete
from rekindle.core.types import EnvSpec, Obs, TimeStep
from rekindle.envs.base import Env
from rekindle.envs.rarely import rarely
from rekindle.envs.seats import present

TIME_SCALE = 64.0
"""Steps per unit of the time inputs."""

FIRST_STEP = 9
"""Index into the `trial` input: 1 at the first step of a trial."""


@runtime_checkable
class TrialParams(Protocol):
    """What `Trials` reads from a task."""

    trials: Array
    trial_length: Array


class TrialsState(NamedTuple):
    """The inner state and where in the episode it is."""

    inner: Any
    trial: Int32[Array, ""]
    time: Int32[Array, ""]


@dataclass(frozen=True)
class Trials:
    """k trials of one task make an episode; the memory of a policy lives through all of them.

    k and the trial length T come from `params.trials` and `params.trial_length`. The end of a trial, by time-out or by
    termination inside, sets `trial_end` and shows the first observation of the next trial (`final_obs` has the last
    one); the end of the k-th sets `terminated`, because the agent is told its horizon.

    Adds the inputs of RL^2 and AdA (Adaptive Agents Team 2023, App. A): `prev_action` (the number of actions where
    there is none), `prev_reward`, and `trial`, eleven numbers: trials left after this one, one-hot up to 4, a flag for
    more; steps left in this trial, steps until the last trial starts, steps of a trial (all / 64); first step of a
    trial; share of the trial that is over.
    """

    env: Env

    @property
    def spec(self) -> EnvSpec:
        """The inner spec with the three inputs added."""
        inner = self.env.spec
        axis = () if inner.players == 1 else (inner.players,)
        actions = _num_actions(inner) + 1
        added = {
            "prev_action": MultiDiscrete((actions,) * inner.players) if axis else Discrete(actions),
            "prev_reward": Box(axis, -float("inf"), float("inf")),
            "trial": Box((*axis, 11), 0.0, float("inf")),
        }
        return replace(inner, obs={**inner.obs, **added})

    def reset(self, key: Key[Array, ""], params: Any) -> tuple[TrialsState, TimeStep]:
        """First step of the first trial."""
        inner, first = self.env.reset(key, params)
        state = TrialsState(inner, jnp.int32(0), jnp.int32(0))
        obs = self._add(first.obs, state, params, jnp.full_like(first.reward, _num_actions(self.env.spec), jnp.int32),
                        first.reward)  # fmt: skip
        return state, first._replace(obs=obs, final_obs=obs)

    def step(self, key: Key[Array, ""], state: TrialsState, action: Array, params: Any) -> tuple[TrialsState, TimeStep]:
        """Step the inner environment; start the next trial where one ended."""
        step_key, reset_key = jax.random.split(key)
        inner, now = self.env.step(step_key, state.inner, action, params)
        time = state.time + 1
        trial_end = now.terminated | now.truncated | (time >= params.trial_length.astype(jnp.int32))
        last = trial_end & (state.trial + 1 >= params.trials.astype(jnp.int32))
        here = TrialsState(inner, state.trial, time)
        final_obs = self._add(now.obs, here, params, action, now.reward)
        ended = (here, final_obs)
        state, obs = rarely(trial_end & ~last, self._next_trial, ended, reset_key, params, action, now.reward)
        return state, now._replace(
            obs=obs,
            final_obs=final_obs,
            terminated=last,
            truncated=jnp.zeros_like(last),
            trial_end=trial_end,
        )

    def present(self, params: Any) -> Bool[Array, " P"]:
        """Which players the inner task has."""
        return present(self.env, params)

    def _next_trial(self, ended: tuple[TrialsState, Obs], key: Key[Array, ""], params: Any, action: Array,
                    reward: Array) -> tuple[TrialsState, Obs]:  # fmt: skip
        fresh, first = self.env.reset(key, params)
        state = TrialsState(fresh, ended[0].trial + 1, jnp.int32(0))
        return state, self._add(first.obs, state, params, action, reward)

    def _add(self, obs: Obs, state: TrialsState, params: Any, action: Array, reward: Array) -> Obs:
        left = params.trials.astype(jnp.int32) - 1 - state.trial
        length = params.trial_length.astype(jnp.int32)
        remaining = jnp.maximum(length - state.time, 0)
        until_last = jnp.where(left > 0, remaining + (left - 1) * length, 0)
        steps = jnp.stack([remaining, until_last, length]).astype(jnp.float32) / TIME_SCALE
        flags = jnp.stack([left > 4, state.time == 0]).astype(jnp.float32)
        share = 1.0 - remaining.astype(jnp.float32) / length.astype(jnp.float32)
        one_hot = jax.nn.one_hot(jnp.minimum(left, 5), 5)
        timing = jnp.concatenate([one_hot, flags[:1], steps, flags[1:], share[None]])
        told = jnp.broadcast_to(timing, (*reward.shape, *timing.shape))
        return {**obs, "prev_action": action.astype(jnp.int32), "prev_reward": reward, "trial": told}


class StreamState(NamedTuple):
    """The inner state and the steps of the episode."""

    inner: Any
    time: Int32[Array, ""]


@dataclass(frozen=True)
class Stream:
    """An episode is a fixed number of steps of one task, however many trials that makes; their ends count for nothing.

    As XLand-MiniGrid's meta-learning baseline has it: where a trial ends inside, the next begins in the same step, and
    only `trial_end` tells; after `length` steps comes `truncated`, since the agent does not know its horizon. Adds
    `prev_action` (the number of actions where there is none) and `prev_reward`.
    """

    env: Env
    length: int
    """Steps of an episode."""

    @property
    def spec(self) -> EnvSpec:
        """The inner spec with the two inputs added."""
        inner = self.env.spec
        added = {
            "prev_action": Discrete(_num_actions(inner) + 1),
            "prev_reward": Box((), -float("inf"), float("inf")),
        }
        return replace(inner, obs={**inner.obs, **added})

    def reset(self, key: Key[Array, ""], params: Any) -> tuple[StreamState, TimeStep]:
        """The first trial's first step."""
        inner, first = self.env.reset(key, params)
        obs = self._add(first.obs, jnp.int32(_num_actions(self.env.spec)), first.reward)
        return StreamState(inner, jnp.int32(0)), first._replace(obs=obs, final_obs=obs)

    def step(self, key: Key[Array, ""], state: StreamState, action: Array, params: Any) -> tuple[StreamState, TimeStep]:
        """Step the inner environment; start its next trial where one ended."""
        step_key, reset_key = jax.random.split(key)
        inner, now = self.env.step(step_key, state.inner, action, params)
        ended = now.terminated | now.truncated
        inner, obs = rarely(ended, self._next_trial, (inner, now.obs), reset_key, params)
        obs, final_obs = (self._add(seen, action, now.reward) for seen in (obs, now.obs))
        time = state.time + 1
        truncated = time >= self.length
        no = jnp.zeros_like(truncated)
        ends = {"terminated": no, "truncated": truncated, "trial_end": ended | truncated}
        return StreamState(inner, time), now._replace(obs=obs, final_obs=final_obs, **ends)

    def _next_trial(self, ended: tuple[Any, Obs], key: Key[Array, ""], params: Any) -> tuple[Any, Obs]:
        del ended
        fresh, first = self.env.reset(key, params)
        return fresh, first.obs

    def _add(self, obs: Obs, action: Array, reward: Array) -> Obs:
        return {**obs, "prev_action": action.astype(jnp.int32), "prev_reward": reward}


class StickyState(NamedTuple):
    """The inner state and the action that was played last."""

    inner: Any
    last: Array


@dataclass(frozen=True)
class Sticky:
    """With a fixed probability the last action is played once more, whatever is asked for; at first action 0.

    Source: Machado et al. 2018 (1709.06009), section 5.3.
    """

    env: Env
    probability: float

    @property
    def spec(self) -> EnvSpec:
        """Unchanged."""
        return self.env.spec

    def reset(self, key: Key[Array, ""], params: Any) -> tuple[StickyState, TimeStep]:
        """The inner one."""
        inner, first = self.env.reset(key, params)
        assert isinstance(self.spec.action, Discrete)
        return StickyState(inner, jnp.zeros((), self.spec.action.dtype)), first

    def step(self, key: Key[Array, ""], state: StickyState, action: Array, params: Any) -> tuple[StickyState, TimeStep]:
        """Step with the action that is played."""
        stick_key, step_key = jax.random.split(key)
        played = jnp.where(
            jax.random.bernoulli(stick_key, self.probability), state.last, action.astype(state.last.dtype)
        )
        inner, now = self.env.step(step_key, state.inner, played, params)
        return StickyState(inner, played), now


class AutoResetState(NamedTuple):
    """The inner state and the task it is in."""

    inner: Any
    params: PyTree


@dataclass(frozen=True)
class AutoReset:
    """Starts a new episode in the step that ends one. What the new one is, `draw(key, source, params)` decides.

    `params` of this environment is the source that tasks are drawn from, shared by all worlds; the third argument of
    `draw` is the task of the episode that ended (None at the start), so that it can be kept.
    """

    env: Env
    draw: Callable[[Key[Array, ""], PyTree, PyTree], PyTree]

    @property
    def spec(self) -> EnvSpec:
        """Unchanged."""
        return self.env.spec

    def reset(self, key: Key[Array, ""], params: PyTree) -> tuple[AutoResetState, TimeStep]:
        """The first episode of a task drawn from the source."""
        draw_key, reset_key = jax.random.split(key)
        task = self.draw(draw_key, params, None)
        inner, first = self.env.reset(reset_key, task)
        return AutoResetState(inner, task), first

    def step(
        self, key: Key[Array, ""], state: AutoResetState, action: Array, params: PyTree
    ) -> tuple[AutoResetState, TimeStep]:
        """Step; where the episode ended, `obs` is the first of the next one and `final_obs` the last of this one."""
        step_key, next_key = jax.random.split(key)
        inner, now = self.env.step(step_key, state.inner, action, state.params)
        ended = (AutoResetState(inner, state.params), now.obs)
        state, obs = rarely(now.terminated | now.truncated, self._next_episode, ended, next_key, params)
        return state, now._replace(obs=obs)

    def _next_episode(self, ended: tuple[AutoResetState, Obs], key: Key[Array, ""],
                      source: PyTree) -> tuple[AutoResetState, Obs]:  # fmt: skip
        draw_key, reset_key = jax.random.split(key)
        task = self.draw(draw_key, source, ended[0].params)
        fresh, first = self.env.reset(reset_key, task)
        return AutoResetState(fresh, task), first.obs


def _num_actions(spec: EnvSpec) -> int:
    assert isinstance(spec.action, Discrete)
    return spec.action.n
