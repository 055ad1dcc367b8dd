"""Transformer-XL memory (Dai et al. 2019, 1901.02860; pre-norm as Parisotto et al. 2019, 1910.06764; AdA App. D.1).

One set of weights, two forms. An actor takes one step at a time and keeps keys and values of what it has seen; a
learner takes a window of steps at once, with what the actor had seen before it as a constant. Both give the same.
Attention reaches back over the last `slots` written steps of the same episode in each layer; borders of trials do not
count. With `every` > 1 only every so-manieth step is written: the skip memory of AdA (App. D.3).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

from rekindle.core.errors import ConfigError
from rekindle.networks.linear import Linear


class Cache(NamedTuple):
    """What an actor remembers. Slots are a ring; all rows step together, so that one clock serves all."""

    inputs: Float[Array, "B L M d"]
    """Inputs of every layer at the written steps."""
    keys: Float[Array, "B L M d"]
    values: Float[Array, "B L M d"]
    filled: Int32[Array, " B"]
    """Slots that hold steps of the row's present episode: the last so many that were written."""
    clock: Int32[Array, " B"]
    """Steps taken; the same in every row."""


class Norm(eqx.Module):
    """Layer normalisation (Ba et al. 2016, 1607.06450)."""

    scale: Float[Array, " d"]
    shift: Float[Array, " d"]

    def __init__(self, d: int):
        self.scale, self.shift = jnp.ones(d), jnp.zeros(d)

    def __call__(self, x: Float[Array, "*axes d"]) -> Float[Array, "*axes d"]:
        """Mean 0 and variance 1 over the last axis, then scaled and shifted."""
        x = x - x.mean(axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
        return jnp.reshape(x.reshape(-1, x.shape[-1]) * self.scale[None] + self.shift[None], x.shape)


class Block(eqx.Module):
    """Relative attention, then a gated feed-forward layer (Shazeer 2020, 2002.05202), each on normalised input."""

    before: Norm
    query: Linear
    key: Linear
    value: Linear
    distance: Linear
    out: Linear
    content_bias: Float[Array, "H k"]
    distance_bias: Float[Array, "H k"]
    between: Norm
    gate: Linear
    up: Linear
    down: Linear

    def __init__(self, key: Key[Array, ""], d: int, heads: int, layers: int):
        keys = jax.random.split(key, 8)
        small = (2 * layers) ** -0.5
        self.before, self.between = Norm(d), Norm(d)
        self.query, self.key, self.value, self.distance = (Linear(k, d, d, scale=1.0) for k in keys[:4])
        self.out = Linear(keys[4], d, d, scale=small)
        self.content_bias, self.distance_bias = jnp.zeros((heads, d // heads)), jnp.zeros((heads, d // heads))
        self.gate, self.up = Linear(keys[5], d, 4 * d, scale=1.0), Linear(keys[6], d, 4 * d, scale=1.0)
        self.down = Linear(keys[7], 4 * d, d, scale=small)

    def keys_values(self, x: Float[Array, "*n d"]) -> tuple[Float[Array, "*n d"], Float[Array, "*n d"]]:
        """Keys and values of layer inputs."""
        x = self.before(x)
        return self.key(x), self.value(x)

    def attend(self, x: Float[Array, "T B d"], parts: list["Part"]) -> Float[Array, "T B d"]:
        """The block's output: every step attends to all parts together."""
        heads, k = self.content_bias.shape
        query = self.query(self.before(x)).reshape(*x.shape[:2], heads, k)
        content, distant = query + self.content_bias[None, None], query + self.distance_bias[None, None]
        scores = []
        for part in parts:
            r = self.distance(waves(part.distance, heads * k)).reshape(*part.distance.shape, heads, k)
            keys = part.keys.reshape(*part.keys.shape[:2], heads, k)
            score = jnp.einsum("tbhk,bchk->bhtc", content, keys) + jnp.einsum("tbhk,tchk->bhtc", distant, r)
            scores.append(jnp.where(part.seen[:, None], score * k**-0.5, -1e9))
        weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
        splits = [part.keys.shape[1] for part in parts]
        read = sum(
            jnp.einsum("bhtc,bchk->tbhk", weight, part.values.reshape(*part.values.shape[:2], heads, k))
            for weight, part in zip(jnp.split(weights, _borders(splits), axis=-1), parts, strict=True)
        )
        x = x + self.out(jnp.reshape(read, x.shape))
        y = self.between(x)
        return x + self.down(jax.nn.gelu(self.gate(y)) * self.up(y))


class Part(NamedTuple):
    """A stretch of time that steps attend to."""

    keys: Float[Array, "B C d"]
    values: Float[Array, "B C d"]
    distance: Int32[Array, "T C"]
    """Steps back; anything where nothing is seen."""
    seen: Bool[Array, "B T C"]


class TransformerXL(eqx.Module):
    """Blocks over a memory of `slots` written steps for each; the horizon is layers x slots x every steps."""

    enter: Linear
    blocks: list[Block]
    leave: Norm
    slots: int = eqx.field(static=True)
    every: int = eqx.field(static=True)

    def __init__(
        self, key: Key[Array, ""], n: int, d: int, *, layers: int = 2, heads: int = 4, slots: int = 64, every: int = 1
    ):
        if d % heads:
            raise ConfigError(f"the width of a Transformer must be a multiple of its heads={heads}; got {d}.")
        enter_key, *keys = jax.random.split(key, layers + 1)
        self.enter = Linear(enter_key, n, d, scale=1.0)
        self.blocks = [Block(k, d, heads, layers) for k in keys]
        self.leave, self.slots, self.every = Norm(d), slots, every

    @property
    def width(self) -> int:
        """Of the output."""
        return self.enter.bias.shape[0]

    def init_carry(self, batch_size: int) -> Cache:
        """Nothing seen."""
        empty = jnp.zeros((batch_size, len(self.blocks), self.slots, self.width))
        none = jnp.zeros(batch_size, jnp.int32)
        return Cache(empty, empty, empty, none, none)

    def refresh(self, carry: Cache) -> Cache:
        """Keys and values anew, after the weights have changed."""
        each = [block.keys_values(carry.inputs[:, i]) for i, block in enumerate(self.blocks)]
        keys, values = (jnp.stack(parts, axis=1) for parts in zip(*each, strict=True))
        return carry._replace(keys=keys, values=values)

    def __call__(
        self, carry: Cache, x: Float[Array, "T B n"], start: Bool[Array, "T B"]
    ) -> tuple[Cache, Float[Array, "T B d"]]:
        """Memory after the last step, and the output of every step; `start[t]` empties a row before its step t.

        One step takes keys and values from the memory (an actor); more compute them from its inputs, so that
        gradients reach the weights (a learner), but not what happened before the window.
        """
        steps = x.shape[0]
        past, window = self._past(carry, start), self._window(carry, start)
        h, inputs = self.enter(x), []
        for i, block in enumerate(self.blocks):
            inputs.append(h)
            kept = (carry.keys[:, i], carry.values[:, i])
            if steps > 1:
                kept = block.keys_values(jax.lax.stop_gradient(carry.inputs[:, i]))
            new = [part.swapaxes(0, 1) for part in block.keys_values(h)]
            h = block.attend(h, [Part(*kept, *past), Part(new[0], new[1], *window)])
        return self._remember(carry, inputs, start), self.leave(h)

    def _past(self, carry: Cache, start: Bool[Array, "T B"]) -> tuple[Int32[Array, "T M"], Bool[Array, "B T M"]]:
        """How far back every slot lies from each step, and where it is seen."""
        now = carry.clock[0] + jnp.arange(start.shape[0], dtype=jnp.int32)
        written = self._writes(carry.clock[0])
        slot = jnp.arange(self.slots, dtype=jnp.int32)
        number = written - 1 - (written - 1 - slot) % self.slots
        in_reach = number[None] >= self._writes(now)[:, None] - self.slots
        mine = (written - 1 - number)[None] < carry.filled[:, None]
        same = jnp.cumsum(start, axis=0, dtype=jnp.int32).T == 0
        distance = jnp.maximum(now[:, None] - (number * self.every)[None], 0)
        return distance, same[:, :, None] & (mine & (number >= 0)[None])[:, None] & in_reach[None]

    def _window(self, carry: Cache, start: Bool[Array, "T B"]) -> tuple[Int32[Array, "T T"], Bool[Array, "B T T"]]:
        """The same for the steps of the window itself."""
        step = jnp.arange(start.shape[0], dtype=jnp.int32)
        now = carry.clock[0] + step
        distance = step[:, None] - step[None]
        kept = (now % self.every == 0)[None] & ((now // self.every)[None] >= self._writes(now)[:, None] - self.slots)
        seen = ((distance > 0) & kept) | (distance == 0)
        episode = jnp.cumsum(start, axis=0, dtype=jnp.int32).T
        return jnp.maximum(distance, 0), seen[None] & (episode[:, :, None] == episode[:, None])

    def _writes(self, clock: Int32[Array, "*n"]) -> Int32[Array, "*n"]:
        """Steps that were written before the clock stood there."""
        return (clock + self.every - 1) // self.every

    def _remember(self, carry: Cache, inputs: list[Array], start: Bool[Array, "T B"]) -> Cache:
        """The steps written one by one."""

        def write(carry: Cache, now: tuple[list[Array], Array]) -> tuple[Cache, None]:
            step, begun = now
            due = carry.clock[0] % self.every == 0
            at = self._writes(carry.clock[0]) % self.slots

            def put(ring: Array, new: list[Array]) -> Array:
                old = jax.lax.dynamic_slice_in_dim(ring, at, 1, axis=2)
                return jax.lax.dynamic_update_slice_in_dim(
                    ring, jnp.where(due, jnp.stack(new, axis=1)[:, :, None], old), at, axis=2
                )

            made = [block.keys_values(h) for block, h in zip(self.blocks, step, strict=True)]
            filled = jnp.where(begun, 0, carry.filled) + due.astype(jnp.int32)
            return Cache(
                put(carry.inputs, step),
                put(carry.keys, [k for k, _ in made]),
                put(carry.values, [v for _, v in made]),
                jnp.minimum(filled, self.slots),
                carry.clock + 1,
            ), None

        if start.shape[0] == 1:
            return write(carry, ([h[0] for h in inputs], start[0]))[0]
        return self.refresh(jax.lax.scan(write, carry, (inputs, start))[0])


def waves(distance: Int32[Array, "T C"], d: int) -> Float[Array, "T C d"]:
    """Sinusoids of a distance in steps (Vaswani et al. 2017, 1706.03762, section 3.5)."""
    rates = 10_000.0 ** (-jnp.arange(0, d, 2, dtype=jnp.float32) / d)
    angle = distance[..., None].astype(jnp.float32) * rates[None, None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)[..., :d]


def _borders(sizes: list[int]) -> list[int]:
    return [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
