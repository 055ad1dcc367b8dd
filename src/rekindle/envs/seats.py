"""A seat: what one of several players sees, in the shape of an environment for one player.

Observations, rewards and actions of several players have a player axis; a policy in a seat knows nothing of it.
"""

from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, MultiDiscrete, Space
from rekindle.core.types import EnvSpec, Obs
from rekindle.envs.base import Env


@runtime_checkable
class SomeAbsent(Protocol):
    """An environment some of whose tasks leave players out."""

    def present(self, params: Any) -> Bool[Array, " P"]:
        """Which players a task has."""
        ...


def present(env: Env, params: Any) -> Bool[Array, " P"]:
    """Which players a task has; all of them where the environment does not say."""
    return env.present(params) if isinstance(env, SomeAbsent) else jnp.ones(env.spec.players, bool)


def seat_spec(spec: EnvSpec) -> EnvSpec:
    """The spec that a policy in one seat is made for: one player, observations without the player axis.

    Raises:
        ConfigError: an observation that cannot be shared out.
    """
    if spec.players == 1:
        return spec
    return replace(spec, obs={name: _of_one(spec, name, space) for name, space in spec.obs.items()}, players=1)


def seat_obs(obs: Obs, seat: int) -> Obs:
    """What the player in a seat (counted from 0) sees, of observations `[B, P, ...]`: `[B, ...]`."""
    return {name: value[:, seat] for name, value in obs.items()}


def _of_one(spec: EnvSpec, name: str, space: Space) -> Space:
    match space:
        case Box(shape=shape) if shape[:1] == (spec.players,):
            return replace(space, shape=shape[1:])
        case MultiDiscrete(nvec=nvec, dtype=dtype) if len(nvec) == spec.players and len(set(nvec)) == 1:
            return Discrete(nvec[0], dtype)
        case _:
            raise ConfigError(
                f"{spec.id} has {spec.players} players, so {name!r} needs an axis of that length first; got {space!r}."
            )
