"""GRU with attention over an episodic store (AdA, Adaptive Agents Team 2023, section 5.1 and App. D.3)."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

from rekindle.core.errors import ConfigError
from rekindle.networks.gru import GRU
from rekindle.networks.linear import Linear


class Store(NamedTuple):
    """The GRU's state, and activations of the past; all rows step together, so that one clock serves all."""

    h: Float[Array, "B D"]
    past: Float[Array, "B S D"]
    filled: Int32[Array, " B"]
    """Slots that hold activations of the row's present episode: the last so many that were written."""
    clock: Int32[Array, " B"]
    """Steps taken; the same in every row."""


class GRUAttention(eqx.Module):
    """Before every step the hidden state asks the store; the answer joins the input of the GRU.

    Every `every`-th state is stored, the last `slots` of them; gradients do not flow through the store. Keys and values
    are never computed: a query is carried through the key's weights instead, and the value's are applied to the sum.
    """

    gru: GRU
    query: Linear
    key: Float[Array, "D D"]
    """Without a bias, which would move all scores alike."""
    value: Linear
    heads: int = eqx.field(static=True)
    slots: int = eqx.field(static=True)
    every: int = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], n: int, d: int, *, heads: int = 4, slots: int = 64, every: int = 8):
        if d % heads:
            raise ConfigError(f"the width of attention must be a multiple of its heads={heads}; got {d}.")
        gru_key, *keys = jax.random.split(key, 4)
        self.gru = GRU(gru_key, n + d, d)
        self.query, key_layer, self.value = (Linear(k, d, d, scale=1.0) for k in keys)
        self.key = key_layer.weight
        self.heads, self.slots, self.every = heads, slots, every

    @property
    def width(self) -> int:
        """Of the output."""
        return self.gru.width

    def init_carry(self, batch_size: int) -> Store:
        """Nothing seen."""
        none = jnp.zeros(batch_size, jnp.int32)
        past = jnp.zeros((batch_size, self.slots, self.width))
        return Store(jnp.zeros((batch_size, self.width)), past, none, none)

    def refresh(self, carry: Store) -> Store:
        """Nothing in it follows from the weights."""
        return carry

    def __call__(
        self, carry: Store, x: Float[Array, "T B n"], start: Bool[Array, "T B"]
    ) -> tuple[Store, Float[Array, "T B D"]]:
        """Memory after the last step, and after every step; `start[t]` empties a row before its step t."""

        def step(now: Store, seen: tuple[Array, Array]) -> tuple[Store, Array]:
            x, fresh = seen
            before = jnp.where(fresh[:, None], 0.0, now.h)
            filled = jnp.where(fresh, 0, now.filled)
            read = self.read(before, now.past, filled, now.clock[0])
            h, out = self.gru(before, jnp.concatenate([x, read], axis=-1)[None], jnp.zeros_like(fresh)[None])
            due = now.clock[0] % self.every == 0
            at = (now.clock[0] // self.every) % self.slots
            old = jax.lax.dynamic_slice_in_dim(now.past, at, 1, axis=1)
            new = jnp.where(due, jax.lax.stop_gradient(h)[:, None], old)
            past = jax.lax.dynamic_update_slice_in_dim(now.past, new, at, axis=1)
            filled = jnp.minimum(filled + due.astype(jnp.int32), self.slots)
            return Store(h, past, filled, now.clock + 1), out[0]

        return jax.lax.scan(step, carry, (x, start))

    def read(
        self, h: Float[Array, "B D"], past: Float[Array, "B S D"], filled: Int32[Array, " B"], clock: Int32[Array, ""]
    ) -> Float[Array, "B D"]:
        """Multi-head attention with h as the query; zeros from an empty store."""
        k = self.width // self.heads
        query = self.query(h).reshape(-1, self.heads, k)
        keys = self.key.reshape(self.width, self.heads, k)
        scores = jnp.einsum("bhd,bsd->bhs", jnp.einsum("bhk,dhk->bhd", query, keys), past) * k**-0.5
        written = (clock + self.every - 1) // self.every
        age = (written - 1 - jnp.arange(self.slots, dtype=jnp.int32)) % self.slots
        there = (age[None] < filled[:, None])[:, None]
        weights = jnp.where(there, jax.nn.softmax(jnp.where(there, scores, -1e9), axis=-1), 0.0)
        values = self.value.weight.reshape(self.width, self.heads, k)
        read = jnp.einsum("bhd,dhk->bhk", jnp.einsum("bhs,bsd->bhd", weights, past), values)
        read = read.reshape(-1, self.width) + self.value.bias[None]
        return jnp.where(filled[:, None] > 0, read, 0.0)
