"""Returns as distributions over fixed atoms (Bellemare et al. 2017, 1707.06887)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def atoms(number: int, bound: float) -> Float[Array, " K"]:
    """Evenly spaced over [-bound, bound]."""
    return jnp.linspace(-bound, bound, number)


def project(
    probabilities: Float[Array, "B K"],
    reward: Float[Array, " B"],
    discount: Float[Array, " B"],
    support: Float[Array, " K"],
) -> Float[Array, "B K"]:
    """The distribution of reward + discount * Z on the atoms of Z: mass between two atoms is shared out by nearness.

    Keeps the mass and, inside the support, the mean; what falls outside goes to the ends. Source: 1707.06887, eq. 7.
    """
    gap = support[1] - support[0]
    moved = jnp.clip(reward[:, None] + discount[:, None] * support[None], support[0], support[-1])
    near = jnp.maximum(1.0 - jnp.abs(moved[:, :, None] - support[None, None]) / gap, 0.0)
    return jnp.sum(probabilities[:, :, None] * near, axis=1)


def mean(logits: Float[Array, "*n K"], support: Float[Array, " K"]) -> Float[Array, "*n"]:
    """Of the distribution with these logits."""
    return jax.nn.softmax(logits) @ support
