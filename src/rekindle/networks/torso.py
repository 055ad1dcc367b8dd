"""What agents share: an encoder, a memory, and the memory of every object type."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from rekindle.core.types import EnvSpec, Obs, given
from rekindle.networks.encoders import Encoder, TaskGridEncoder, TypeMemory, make_encoder
from rekindle.networks.memory import MEMORIES, Memory, make_memory

TorsoMemory = Literal["gru+types", "gru", "gru+attention", "transformer-xl", "skip", "none"]
TORSO_MEMORIES: tuple[TorsoMemory, ...] = ("gru+types", *MEMORIES, "none")
"""A memory of networks/memory.py; a GRU with a small one beside it for every object type; or nothing."""


class Carry(NamedTuple):
    """Memory: of the recurrent core, and of every object type; None for a part that the network lacks."""

    core: PyTree
    types: Float[Array, "B nodes d"] | None


class Torso(eqx.Module):
    """From observations to what is seen and remembered."""

    encoder: Encoder
    memory: Memory | None
    types: TypeMemory | None

    def remember(self, carry: Carry, obs: Obs, start: Bool[Array, "T B"]) -> tuple[Carry, Float[Array, "T B D"]]:
        """Memory after the last step, and the features of every step; `start[t]` empties a row before its step t."""
        seen, nodes = self.encoder(obs)
        parts, core, types = [seen], carry.core, carry.types
        if self.memory is not None:
            core, remembered = self.memory(given(core), seen, start)
            parts.append(remembered)
        if self.types is not None:
            types, read = self.types(given(types), given(nodes), obs, start)
            parts.append(read)
        return Carry(core, types), jnp.concatenate(parts, axis=-1)

    def init_carry(self, batch_size: int) -> Carry:
        """Empty memory."""
        core = None if self.memory is None else self.memory.init_carry(batch_size)
        return Carry(core, None if self.types is None else self.types.init_carry(batch_size))

    def refresh(self, carry: Carry) -> Carry:
        """The memory after the weights have changed."""
        return carry if self.memory is None else carry._replace(core=self.memory.refresh(given(carry.core)))


def make_torso(
    key: Key[Array, ""], spec: EnvSpec, memory: TorsoMemory, *, width: int, hidden: int, layers: int, heads: int,
    slots: int,
) -> tuple[Torso, int]:  # fmt: skip
    """A torso for a spec, and how many features it gives. `hidden` is the width of the memory."""
    encoder_key, memory_key, types_key = jax.random.split(key, 3)
    encoder, core, types, features = make_encoder(encoder_key, spec, width), None, None, width
    if memory != "none":
        name = memory.removesuffix("+types")
        core = make_memory(name, memory_key, width, hidden, layers=layers, heads=heads, slots=slots)
        features += hidden
    if memory == "gru+types" and isinstance(encoder, TaskGridEncoder):
        types, features = TypeMemory(types_key, spec, width), features + width
    return Torso(encoder, core, types), features
