"""Gated recurrent unit over time-major sequences whose memory is emptied row by row (Cho et al. 2014, 1406.1078)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from rekindle.networks.linear import Linear


class GRU(eqx.Module):
    """h' = (1 - z) n + z h with z = sigmoid(.), n = tanh(W x + r * (U h)); r, z from x and h.

    The input products of all steps are one matrix product before the scan; only the recurrent one is sequential.
    """

    inputs: Linear
    recurrent: Linear

    def __init__(self, key: Key[Array, ""], n: int, hidden: int):
        input_key, recurrent_key = jax.random.split(key)
        self.inputs = Linear(input_key, n, 3 * hidden, scale=1.0)
        self.recurrent = Linear(recurrent_key, hidden, 3 * hidden, scale=1.0)

    @property
    def width(self) -> int:
        """Of the memory, which is the output."""
        return self.recurrent.weight.shape[0]

    def init_carry(self, batch_size: int) -> Float[Array, "B D"]:
        """Empty memory."""
        return jnp.zeros((batch_size, self.width))

    def refresh(self, carry: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """Nothing in it follows from the weights."""
        return carry

    def __call__(
        self, h: Float[Array, "B D"], x: Float[Array, "T B n"], start: Bool[Array, "T B"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "T B D"]]:
        """Memory after the last step, and after every step; `start[t]` empties a row before its step t."""

        def step(h: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            gates, fresh = now
            h = jnp.where(fresh[:, None], 0.0, h)
            r_x, z_x, n_x = jnp.split(gates, 3, axis=-1)
            r_h, z_h, n_h = jnp.split(self.recurrent(h), 3, axis=-1)
            z = jax.nn.sigmoid(z_x + z_h)
            n = jnp.tanh(n_x + jax.nn.sigmoid(r_x + r_h) * n_h)
            h = (1.0 - z) * n + z * h
            return h, h

        return jax.lax.scan(step, h, (self.inputs(x), start))
