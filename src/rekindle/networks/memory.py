"""Memories by name, interchangeable: each turns what is seen, step by step, into what is seen and remembered.

A memory has `width`, `init_carry(batch_size)`, `refresh(carry)` (to be called when weights have changed and the memory
goes on) and is called with a carry, inputs `[T, B, n]` and starts `[T, B]`.
"""

from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, Key

from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.networks.gru import GRU
from rekindle.networks.gru_attention import GRUAttention
from rekindle.networks.transformer_xl import Cache, TransformerXL

MemoryName = Literal["gru", "gru+attention", "transformer-xl", "skip"]
MEMORIES: tuple[MemoryName, ...] = ("gru", "gru+attention", "transformer-xl", "skip")


class Skip(eqx.Module):
    """A GRU reads every step; a Transformer-XL remembers every fourth of what it made of them (AdA, App. D.3)."""

    gru: GRU
    transformer: TransformerXL

    def __init__(self, key: Key[Array, ""], n: int, d: int, *, layers: int, heads: int, slots: int, every: int = 4):
        gru_key, key = jax.random.split(key)
        self.gru = GRU(gru_key, n, d)
        self.transformer = TransformerXL(key, d, d, layers=layers, heads=heads, slots=slots, every=every)

    @property
    def width(self) -> int:
        """Of the output."""
        return self.transformer.width

    def init_carry(self, batch_size: int) -> tuple[Array, Cache]:
        """Nothing seen."""
        return self.gru.init_carry(batch_size), self.transformer.init_carry(batch_size)

    def refresh(self, carry: tuple[Array, Cache]) -> tuple[Array, Cache]:
        """Keys and values anew."""
        return carry[0], self.transformer.refresh(carry[1])

    def __call__(
        self, carry: tuple[Array, Cache], x: Float[Array, "T B n"], start: Bool[Array, "T B"]
    ) -> tuple[tuple[Array, Cache], Float[Array, "T B d"]]:
        """Memory after the last step, and the output of every step."""
        h, read = self.gru(carry[0], x, start)
        cache, out = self.transformer(carry[1], read, start)
        return (h, cache), out


Memory = GRU | GRUAttention | TransformerXL | Skip


def make_memory(
    name: str, key: Key[Array, ""], n: int, width: int, *, layers: int = 2, heads: int = 4, slots: int = 64
) -> Memory:
    """A memory of `width` for inputs of size n. Layers, heads and slots (M) are those of attention.

    Raises:
        ConfigError: an unknown name, or a width that the heads do not divide.
    """
    if name == "gru":
        return GRU(key, n, width)
    if name == "gru+attention":
        return GRUAttention(key, n, width, heads=heads, slots=slots)
    if name == "transformer-xl":
        return TransformerXL(key, n, width, layers=layers, heads=heads, slots=slots)
    if name == "skip":
        return Skip(key, n, width, layers=layers, heads=heads, slots=slots)
    raise ConfigError(f"no memory {name!r}; {did_you_mean(name, MEMORIES)}")


def num_parameters(tree: Any) -> int:
    """Numbers that are learnt."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array_like)))


def width_for(name: str, n: int, parameters: int, *, layers: int = 2, heads: int = 4, slots: int = 64) -> int:
    """The width (a multiple of `heads`) with which a memory has as near as possible to so many parameters."""

    def size(width: int) -> int:
        made = jax.eval_shape(
            lambda key: make_memory(name, key, n, width, layers=layers, heads=heads, slots=slots), jax.random.key(0)
        )
        return sum(leaf.size for leaf in jax.tree.leaves(made))

    width = heads
    while size(width + heads) <= parameters:
        width += heads
    return min((width, width + heads), key=lambda w: abs(size(w) - parameters))
