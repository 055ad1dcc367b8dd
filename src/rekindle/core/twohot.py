"""Scalars as categories: two neighbouring bins, evenly spaced after squashing or growing exponentially.

`encode` and `decode` squash (Schrittwieser et al. 2020, 1911.08265, App. F); `encode_between` takes any bins and
interpolates where they lie (MR.Q, Fujimoto et al. 2025, 2501.16142, with `symexp_bins`).
"""

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


def symexp_bins(bins: int, exponent: Float[Array, ""] | float) -> Float[Array, " bins"]:
    """sign(x) (e^|x| - 1) of `bins` numbers spaced evenly over [-exponent, exponent]."""
    x = jnp.linspace(-exponent, exponent, bins)
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def encode_between(x: Float[Array, "*n"], bins: Float[Array, " K"]) -> Float[Array, "*n K"]:
    """Probabilities of the two of these rising bins that x lies between, with mean x; the ends clip it."""
    low, gap = (jnp.reshape(b, (1,) * x.ndim + (-1,)) for b in (bins[:-1], bins[1:] - bins[:-1]))
    passed = jnp.clip((x[..., None] - low) / gap, 0.0, 1.0)  # share of each gap that lies below x
    end = jnp.ones_like(x[..., None])
    return jnp.concatenate([end, passed], axis=-1) - jnp.concatenate([passed, 0.0 * end], axis=-1)


def cross_entropy(logits: Float[Array, "*n bins"], target: Float[Array, "*n bins"]) -> Float[Array, "*n"]:
    """-sum target log softmax(logits)."""
    return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)
