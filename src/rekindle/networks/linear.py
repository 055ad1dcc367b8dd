"""A linear layer with orthogonal initialisation, over any leading axes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


class Linear(eqx.Module):
    """`x @ weight + bias`. Weight orthogonal with gain `scale` (Saxe et al. 2013, arXiv 1312.6120), bias zero."""

    weight: Float[Array, "n m"]
    bias: Float[Array, " m"]

    def __init__(self, key: Key[Array, ""], n: int, m: int, *, scale: float = 2**0.5):
        self.weight = jax.nn.initializers.orthogonal(scale)(key, (n, m), jnp.float32)
        self.bias = jnp.zeros(m)

    def __call__(self, x: Float[Array, "*axes n"]) -> Float[Array, "*axes m"]:
        """Apply to the last axis; the leading ones are folded into one matrix product."""
        flat = x.reshape(-1, x.shape[-1]) @ self.weight
        return flat.reshape(*x.shape[:-1], -1) + jnp.expand_dims(self.bias, tuple(range(x.ndim - 1)))
