"""Actions as MR.Q's networks take them, in [-1, 1] or one-hot, and the border to those that a world takes."""

import math
from typing import TypeGuard

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec

Space = Box | Discrete


def space_of(spec: EnvSpec) -> Space:
    """A spec's actions; ConfigError where they are of a kind that MR.Q does not take."""
    space = spec.action
    if spec.players != 1:
        raise ConfigError(f"mrq plays alone; {spec.id} is for {spec.players} players.")
    if isinstance(space, Discrete) or (
        isinstance(space, Box) and -space.low == space.high and 0 < space.high < math.inf
    ):
        return space
    raise ConfigError(f"mrq takes discrete actions, or a box from -x to x; {spec.id} has {space!r}.")


def is_discrete(space: Space) -> TypeGuard[Discrete]:
    """Whether actions are numbers of choices."""
    return isinstance(space, Discrete)


def size_of(space: Space) -> int:
    """Numbers of an action as the networks take it."""
    return space.n if isinstance(space, Discrete) else math.prod(space.shape)


def to_network(space: Space, action: Array) -> Float[Array, "*axes A"]:
    """Actions of a world as the networks take them."""
    if isinstance(space, Discrete):
        return jax.nn.one_hot(action, space.n)
    axes = action.shape[: action.ndim - len(space.shape)]
    return action.reshape(*axes, -1) / space.high


def to_env(space: Space, action: Float[Array, "B A"]) -> Array:
    """Actions of the networks as the world takes them; of soft ones the largest."""
    if isinstance(space, Discrete):
        return jnp.argmax(action, axis=-1).astype(jnp.int32)
    return (action * space.high).reshape(-1, *space.shape)


def random_action(key: Key[Array, ""], space: Space, rows: int) -> Array:
    """Uniform, as the world takes them."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, (rows,), 0, space.n)
    return to_env(space, jax.random.uniform(key, (rows, size_of(space)), minval=-1.0))


def soften(
    key: Key[Array, ""], space: Space, plain: Float[Array, "B A"], temperature: Float[Array, ""] | float
) -> Float[Array, "B A"]:
    """The policy's output as an action: tanh, or a Gumbel-softmax sample."""
    if not is_discrete(space):
        return jnp.tanh(plain)
    return gumbel_softmax(plain, jax.random.gumbel(key, plain.shape), temperature)


def gumbel_softmax(
    logits: Float[Array, "*B A"], gumbel: Float[Array, "*B A"], temperature: Float[Array, ""] | float
) -> Float[Array, "*B A"]:
    """softmax((logits + gumbel) / temperature), whose largest entry is a draw from softmax(logits)."""
    return jax.nn.softmax((logits + gumbel) / temperature)


def add_noise(space: Space, action: Float[Array, "*B A"], noise: Float[Array, "*B A"]) -> Float[Array, "*B A"]:
    """An action with noise: cut off at plus and minus 1, or one-hot, the largest of what were soft ones."""
    noisy = action + noise
    if is_discrete(space):
        return jax.nn.one_hot(jnp.argmax(noisy, axis=-1), noisy.shape[-1], dtype=noisy.dtype)
    return jnp.clip(noisy, -1.0, 1.0)


def noise_share(space: Space) -> float:
    """What noise is multiplied by."""
    return 0.5 if is_discrete(space) else 1.0
