"""A step of a value network, and the copy of it that follows now and then."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, Int32

from rekindle.core.tree import only_if

Net = TypeVar("Net")
"""A network, or several."""


def descend(
    net: Net, grads: Any, opt: optax.OptState, optimiser: optax.GradientTransformation, rate: Float[Array, ""] | float
) -> tuple[Net, optax.OptState]:
    """The network after a step of size `rate` along what an optimiser without a step size makes of the gradient."""
    with jax.numpy_dtype_promotion("standard"):  # optax mixes Python floats and integer arrays
        steps, opt = optimiser.update(grads, opt, eqx.filter(net, eqx.is_array))
    return eqx.apply_updates(net, jax.tree.map(lambda x: -rate * x, steps)), opt


def follow(target: Net, net: Net, updates: Int32[Array, ""], period: Int32[Array, ""] | int) -> Net:
    """The network, if so many updates are a multiple of the period; else the target as it is."""
    arrays, static = eqx.partition(net, eqx.is_array)
    return eqx.combine(only_if(updates % period == 0, arrays, eqx.filter(target, eqx.is_array)), static)
