"""Policies that every score stands beside: random, no-op, and memory emptied at every trial."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, PyTree

from rekindle.core.errors import ConfigError
from rekindle.core.memoryless import Memoryless
from rekindle.core.spaces import Box, Discrete, Space, is_vectors
from rekindle.core.types import ActOutput, Agent, Extras, Obs
from rekindle.envs.wrappers import FIRST_STEP


class RandomPolicy(Memoryless):
    """Uniform over discrete actions."""

    num_actions: int = eqx.field(static=True)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """Ignores everything."""
        del obs, explore
        return ActOutput(jax.random.randint(key, start.shape, 0, self.num_actions), carry, Extras())


class VectorPolicy(Memoryless):
    """Uniform over vectors with elements in [-reach, reach]; with a reach of 0, what happens if one does nothing."""

    size: int = eqx.field(static=True)
    reach: float = eqx.field(static=True, default=1.0)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """Ignores everything."""
        del obs, explore
        shape = (*start.shape, self.size)
        return ActOutput(jax.random.uniform(key, shape, minval=-self.reach, maxval=self.reach), carry, Extras())


def random_policy(space: Space) -> Any:
    """What acts at random there; ConfigError where actions are neither numbered nor vectors from -x to x."""
    if isinstance(space, Discrete):
        return RandomPolicy(space.n)
    if is_vectors(space):
        return VectorPolicy(space.shape[0], space.high)
    raise ConfigError(f"there is no acting at random with {space!r}: it takes choices, or vectors from -x to x.")


class ConstantPolicy(Memoryless):
    """Always the same action; with the no-op action, what happens if one does nothing."""

    action: int = eqx.field(static=True)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """Ignores everything."""
        del key, obs, explore
        return ActOutput(jnp.full(start.shape, self.action, jnp.int32), carry, Extras())


class Around(eqx.Module):
    """Changes what another policy sees or does, and has its memory."""

    policy: Any

    def init_carry(self, batch_size: int) -> PyTree:
        """The other policy's."""
        return self.policy.init_carry(batch_size)


class ForgetfulPolicy(Around):
    """Another policy that starts every trial as if it were the episode's first step: what it can do without adapting.

    Memory is emptied and the previous reward and action are blanked; the clock stays as it is.
    """

    no_action: int = eqx.field(static=True)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """The other policy's action, without a past at the first step of a trial."""
        first = obs["trial"][:, FIRST_STEP] > 0
        blank = {
            "prev_reward": jnp.where(first, 0.0, obs["prev_reward"]),
            "prev_action": jnp.where(first, self.no_action, obs["prev_action"]),
        }
        return self.policy.act(key, carry, {**obs, **blank}, start | first, explore=explore)


class EpsilonGreedy(Around):
    """Another policy, greedy but for a share of random actions, as value agents are evaluated on Atari."""

    share: float = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """The other policy's greedy action, or now and then any."""
        del explore
        act_key, coin_key, action_key = jax.random.split(key, 3)
        out = self.policy.act(act_key, carry, obs, start, explore=False)
        anything = jax.random.randint(action_key, out.action.shape, 0, self.num_actions, out.action.dtype)
        strays = jax.random.bernoulli(coin_key, self.share, out.action.shape)
        return out._replace(action=jnp.where(strays, anything, out.action))


class Noisy(Around):
    """Another policy whose actions are vectors, greedy but for Gaussian noise."""

    size: float = eqx.field(static=True)
    """Standard deviation, as a share of the largest action."""
    reach: float = eqx.field(static=True)
    """The largest."""

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """The other policy's greedy action with noise, cut off where the world's actions end."""
        del explore
        act_key, noise_key = jax.random.split(key)
        out = self.policy.act(act_key, carry, obs, start, explore=False)
        noise = self.size * self.reach * jax.random.normal(noise_key, out.action.shape)
        return out._replace(action=jnp.clip(out.action + noise, -self.reach, self.reach))


EVALUATED_AT = 0.001
"""Share of random actions in evaluations, where actions are numbered."""


def as_evaluated(policy: Any, space: Space) -> Any:
    """A policy as it is evaluated: greedy but for one action in a thousand; where actions are vectors, greedy."""
    return EpsilonGreedy(policy, EVALUATED_AT, space.n) if isinstance(space, Discrete) else policy


def samples(agent: Agent) -> bool:
    """Whether an agent is scored by sampled actions; what learns from a replay is scored without exploration."""
    return agent.needs.kind == "rollout"


def straying(policy: Any, space: Space, *, share: float, noise: float) -> Any:
    """A policy as it makes data: a share of its actions are random, or all have noise where they are vectors."""
    if isinstance(space, Discrete):
        return EpsilonGreedy(policy, share, space.n)
    assert isinstance(space, Box)
    return Noisy(policy, noise, space.high)
