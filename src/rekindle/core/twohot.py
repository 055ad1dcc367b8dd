"""Scalars as categories: squashed, then two neighbouring bins (Schrittwieser et al. 2020, 1911.08265, App. F)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SQUASH = 0.001


def squash(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x. Source: Pohlen et al. 2018 (1805.11593), proposition A.2."""
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + SQUASH * x


def unsquash(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The inverse of `squash`, written so that small numbers keep their digits."""
    a = jnp.abs(x)
    # r = sqrt(|y| + 1) - 1 solves SQUASH r^2 + (1 + 2 SQUASH) r = a
    b = 1.0 + 2.0 * SQUASH
    r = 2.0 * a / (b + jnp.sqrt(b * b + 4.0 * SQUASH * a))
    return jnp.sign(x) * r * (r + 2.0)


def encode(x: Float[Array, "*n"], bins: int, bound: Float[Array, ""] | float) -> Float[Array, "*n bins"]:
    """Probabilities of bins, spaced evenly over [-bound, bound] after squashing, with mean x; the ends clip it."""
    at = (jnp.clip(squash(x) / bound, -1.0, 1.0) + 1.0) * ((bins - 1) / 2)
    number = jnp.reshape(jnp.arange(bins, dtype=jnp.float32), (1,) * x.ndim + (-1,))
    return jnp.maximum(1.0 - jnp.abs(at[..., None] - number), 0.0)


def decode(logits: Float[Array, "*n bins"], bound: Float[Array, ""] | float) -> Float[Array, "*n"]:
    """The scalar that a categorical prediction stands for."""
    bins = jnp.linspace(-bound, bound, logits.shape[-1])
    return unsquash(jax.nn.softmax(logits) @ bins)


def cross_entropy(logits: Float[Array, "*n bins"], target: Float[Array, "*n bins"]) -> Float[Array, "*n"]:
    """-sum target log softmax(logits)."""
    return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)
