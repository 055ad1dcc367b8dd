"""From observations to vectors: any flat observation, grids with a task told in symbols, and grids of coloured tiles.

`make_encoder` chooses by what the spec holds. All take observations with any leading axes.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, Image, MultiDiscrete, Space
from rekindle.core.types import EnvSpec, Obs
from rekindle.networks.gru import GRU
from rekindle.networks.linear import Linear

SHAPES, COLOURS, PLACEHOLDERS = 4, 3, 4
NODES = SHAPES * COLOURS + 2 + PLACEHOLDERS
"""Object types, me, partner, hidden things (from the fourth on they share a node)."""
FIRST_SEEN_SHAPE, SEEN_PLAYER = 5, 9
RELATIONS = 6
"""None, the four relations, and any hidden one."""


class FlatEncoder(eqx.Module):
    """One hidden layer over the flattened observation, integers one-hot."""

    layer: Linear
    spaces: tuple[tuple[str, Space], ...] = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], spec: EnvSpec, width: int):
        self.spaces = tuple(sorted(spec.obs.items()))
        self.layer = Linear(key, sum(flat_size(name, s) for name, s in self.spaces), width)

    def __call__(self, obs: Obs) -> tuple[Float[Array, "*axes D"], None]:
        """Vectors of the given width; it knows no types."""
        return jax.nn.relu(self.layer(jnp.concatenate([flatten(obs[n], s) for n, s in self.spaces], axis=-1))), None


def _grid(spec: EnvSpec) -> Box:
    view = spec.obs["view"]
    assert isinstance(view, Box)
    return view


def flat_size(name: str, space: Space) -> int:
    """Numbers that `flatten` makes of an observation; ConfigError where it makes none."""
    match space:
        case Discrete(n=n):
            return n
        case MultiDiscrete(nvec=nvec):
            return sum(nvec)
        case Box(shape=shape):
            return math.prod(shape)
        case _:
            raise ConfigError(
                f"this agent reads numbers, or one picture alone; observation {name!r} is {space!r}. Gymnasium's "
                "wrapper FilterObservation leaves it out."
            )


def flatten(x: Array, space: Space) -> Float[Array, "*axes n"]:
    """An observation as a vector, integers one-hot."""
    match space:
        case Discrete(n=n):
            return jax.nn.one_hot(x, n)
        case MultiDiscrete(nvec=nvec):
            return jnp.concatenate([jax.nn.one_hot(x[..., i], n) for i, n in enumerate(nvec)], axis=-1)
        case Box(shape=shape):
            axes = x.shape[: x.ndim - len(shape)]
            return x.reshape(*axes, -1).astype(jnp.float32)
        case Image() | _:
            raise ConfigError(f"the flat encoder takes numbers; got {space!r}.")


class TaskGridEncoder(eqx.Module):
    """An egocentric grid read in the light of a goal and rules.

    Goal and rules are a graph: nodes are the object types, rules are edges from inputs to spawns. A few rounds of
    messages with shared weights give every type a meaning ("needed", "makes what is needed", "ruins it"), the same
    computation for every type and number of rules, so that what is learnt about one holds for all. Each cell then
    shows the meaning of what lies on it, plus an embedding of its identity, which memory needs when the rules are
    hidden. Differs from AdA (Adaptive Agents Team 2023, App. D.1), which embeds each number and concatenates.
    """

    identity: Float[Array, "nodes d"]
    ground: Float[Array, "codes d"]
    node_in: Linear
    rule_in: Linear
    rule_out: Linear
    cells: Linear
    out: Linear
    rounds: int = eqx.field(static=True)
    flat: tuple[tuple[str, Space], ...] = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], spec: EnvSpec, width: int, *, d: int = 8, hidden: int = 24,
                 rounds: int = 3):  # fmt: skip
        keys = jax.random.split(key, 7)
        view = _grid(spec).shape
        self.identity = 0.5 * jax.random.normal(keys[0], (NODES, d))
        self.ground = 0.5 * jax.random.normal(keys[1], (SEEN_PLAYER + 1, d))
        self.node_in = Linear(keys[2], MARKS + 1 + RELATIONS, d)
        self.rule_in = Linear(keys[3], 5 * d + 3 + RELATIONS, hidden)
        self.rule_out = Linear(keys[4], hidden, 5 * d, scale=1.0)
        self.cells = Linear(keys[5], view[0] * view[1] * d, width)
        self.flat = tuple((n, s) for n, s in sorted(spec.obs.items()) if n not in ("view", "hand", "goal", "rules"))
        rest = sum(flat_size(n, s) for n, s in self.flat)
        self.out = Linear(keys[6], width + 3 * d + 1 + RELATIONS + rest, width)
        self.rounds = rounds

    def __call__(self, obs: Obs) -> tuple[Float[Array, "*axes D"], Float[Array, "*axes nodes d"]]:
        """Vectors of the given width, and the meaning and identity of every type."""
        axes = obs["heading"].shape
        flat = {n: x.reshape(-1, *x.shape[len(axes) :]) for n, x in obs.items()}
        goal, view = flat["goal"], flat["view"]
        goal_node, hand_node = node(goal[:, 2::2], goal[:, 3::2]), node(flat["hand"][:, 0], flat["hand"][:, 1])
        goal_words = jnp.concatenate([goal[:, :1].astype(jnp.float32), one_relation(goal[:, 1])], axis=-1)
        h = jax.nn.relu(self.node_in(marks(seen_nodes(view), goal_node, hand_node, goal_words)))
        known = self._pass_messages(flat["rules"], h) + self.identity[None]

        ground = jnp.broadcast_to(self.ground[None], (known.shape[0], *self.ground.shape))
        table = jnp.concatenate([known + self.ground[None, :1], ground], axis=1)
        cells = look_up(table, jnp.where(view[..., 1] > 0, seen_nodes(view), NODES + view[..., 0].astype(jnp.int32)))
        seen = jax.nn.relu(self.cells(cells))
        topic = look_up(known, jnp.concatenate([goal_node, hand_node[:, None]], axis=-1))
        rest = [flatten(flat[n], s) for n, s in self.flat]
        out = jax.nn.relu(self.out(jnp.concatenate([seen, topic, goal_words, *rest], axis=-1)))
        return out.reshape(*axes, -1), known.reshape(*axes, *known.shape[1:])

    def _pass_messages(self, rules: Array, h: Float[Array, "B nodes d"]) -> Float[Array, "B nodes d"]:
        """Along the rules, from goal to inputs and back."""
        things = rules[..., 2:]
        edges = node(things[..., 0::2], things[..., 1::2])  # [B, R, 5]
        words = jnp.concatenate([jax.nn.one_hot(rules[..., 0], 3), one_relation(rules[..., 1])], axis=-1)
        there = jnp.any(rules != 0, axis=-1).reshape(-1, 1)
        split = (
            self.rule_in.weight.shape[0] - words.shape[-1]
        )  # rule_in of ends and words; words are the same each round
        told = words.reshape(-1, words.shape[-1]) @ self.rule_in.weight[split:] + self.rule_in.bias[None]
        for _ in range(self.rounds):
            ends = look_up(h, edges).reshape(-1, split)
            message = self.rule_out(jax.nn.relu(ends @ self.rule_in.weight[:split] + told))
            h = jax.nn.relu(add_at(h, edges, jnp.where(there, message, 0.0)))
        return h


MARKS = 6
"""Goal's first and second thing, in the hand, player, close to me, in view."""


def marks(
    seen: Int[Array, "B V V"], goal: Int[Array, "B 2"], hand: Int[Array, " B"], words: Float[Array, "B w"]
) -> Float[Array, "B nodes m"]:
    """What is plain about every type at this moment, followed by the goal's words."""
    batch, centre = seen.shape[0], seen.shape[1] // 2
    is_player = (jnp.arange(NODES) >= SHAPES * COLOURS) & (jnp.arange(NODES) < SHAPES * COLOURS + 2)
    close = seen[:, centre - 1 : centre + 2, centre - 1 : centre + 2]
    plain = [one_node(goal[:, 0]), one_node(goal[:, 1]), one_node(hand), among(close), among(seen)]
    plain.append(jnp.broadcast_to(is_player, (batch, NODES)).astype(jnp.float32))
    told = jnp.broadcast_to(words[:, None], (batch, NODES, words.shape[-1]))
    return jnp.concatenate([jnp.stack(plain, axis=-1), told], axis=-1)


class TypeMemory(eqx.Module):
    """A small GRU for every object type, with shared weights, and the view read again in its light.

    What was learnt of a type by trying it is kept with the type ("tried", "made it"), and what to do about a thing is
    decided from what is remembered of its type and where it lies now: a product of the two that a layer on top of one
    common memory has to discover type by type. Ours; not part of RL^2.
    """

    memory: GRU
    marks: Linear
    cells: Linear

    def __init__(self, key: Key[Array, ""], spec: EnvSpec, width: int, *, d: int = 8, hidden: int = 8, marks: int = 4):
        memory_key, mark_key, cell_key = jax.random.split(key, 3)
        view = _grid(spec).shape
        self.memory = GRU(memory_key, d + len(_FEEDBACK), hidden)
        self.marks = Linear(mark_key, hidden + d, marks)
        self.cells = Linear(cell_key, view[0] * view[1] * marks, width)

    def init_carry(self, batch_size: int) -> Float[Array, "B nodes hidden"]:
        """Nothing remembered of any type."""
        return jnp.zeros((batch_size, NODES, self.memory.width))

    def __call__(
        self, h: Float[Array, "B nodes hidden"], nodes: Float[Array, "T B nodes d"], obs: Obs, start: Bool[Array, "T B"]
    ) -> tuple[Float[Array, "B nodes hidden"], Float[Array, "T B D"]]:
        """Memory after the last step, and at every step the view read in its light."""
        steps, batch = start.shape
        feedback = jnp.stack([obs["prev_reward"], obs["trial"][..., FIRST_STEP]], axis=-1)
        told = jnp.broadcast_to(feedback[:, :, None], (steps, batch, NODES, feedback.shape[-1]))
        x = jnp.concatenate([nodes, told], axis=-1).reshape(steps, batch * NODES, -1)
        last, memory = self.memory(h.reshape(batch * NODES, -1), x, jnp.repeat(start, NODES, axis=1))
        known = jnp.concatenate([memory.reshape(*nodes.shape[:3], -1), nodes], axis=-1)
        table = jax.nn.relu(self.marks(known)).reshape(steps * batch, NODES, -1)
        view = obs["view"].reshape(steps * batch, *obs["view"].shape[2:])
        read = jax.nn.relu(self.cells(look_up(table, seen_nodes(view))))
        return last.reshape(h.shape), read.reshape(steps, batch, -1)


_FEEDBACK = ("prev_reward", "first step of a trial")
FIRST_STEP = 9
"""Index of the first-step flag in the `trial` input."""


def look_up(table: Float[Array, "B nodes d"], index: Int[Array, "B *n"]) -> Float[Array, "B m"]:
    """Rows of each sample's own table, zeros for nothing, flattened."""
    padded = jnp.concatenate([table, jnp.zeros_like(table[:, :1])], axis=1)
    return jax.vmap(lambda rows, i: rows[i.ravel()].ravel())(padded, index)


def add_at(table: Float[Array, "B nodes d"], index: Int[Array, "B *n"], x: Array) -> Float[Array, "B nodes d"]:
    """Adds a row of x for every index to each sample's own table; those for nothing are dropped."""
    batch, _, d = table.shape
    add = jax.vmap(lambda rows, i, new: rows.at[i].add(new, mode="drop"))
    return add(table, index.reshape(batch, -1), x.reshape(batch, -1, d))


def seen_nodes(view: Int[Array, "*n V V 2"]) -> Int[Array, "*n V V"]:
    """The node of what lies on each cell."""
    shape, colour = view[..., 0].astype(jnp.int32), view[..., 1]
    return node(jnp.where(colour > 0, shape + 1 - FIRST_SEEN_SHAPE, 0), colour)


def node(shape: Int[Array, "*n"], colour: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Index of a (shape, colour) pair among the nodes; `NODES` for nothing."""
    shape, colour = shape.astype(jnp.int32), colour.astype(jnp.int32)
    is_object = (shape > 0) & (shape <= SHAPES) & (colour <= COLOURS)
    kind = jnp.where(is_object, (colour - 1) * SHAPES + shape - 1, SHAPES * COLOURS + shape - SHAPES - 1)
    return jnp.where(shape > 0, jnp.minimum(kind, NODES - 1), NODES)


def one_node(index: Int[Array, "*n"]) -> Float[Array, "*n nodes"]:
    """One-hot node; zeros for nothing."""
    return jax.nn.one_hot(index, NODES)


def among(index: Int[Array, "B V V"]) -> Float[Array, "B nodes"]:
    """1 for every node that is there. As a word of bits: one-hot nodes of all cells cost more than the whole view."""
    bits = jnp.where(index < NODES, jnp.uint32(1) << index.astype(jnp.uint32), 0)
    word = jax.lax.reduce(bits, np.uint32(0), jax.lax.bitwise_or, (1, 2))
    return ((word[:, None] >> jnp.arange(NODES, dtype=jnp.uint32)[None]) & 1).astype(jnp.float32)


def one_relation(code: Int[Array, "*n"]) -> Float[Array, "*n relations"]:
    """One-hot relation, all hidden ones alike."""
    return jax.nn.one_hot(jnp.minimum(code.astype(jnp.int32), RELATIONS - 1), RELATIONS)


TILES, TILE_COLOURS = 13, 12
RULE_KINDS, GOAL_KINDS = 12, 15
"""How many there are in the MiniGrid world."""


class TileEncoder(eqx.Module):
    """An egocentric grid of coloured tiles, read by three small convolutions, with whatever else is shown.

    Tile and colour of a cell are embedded and put side by side; 2x2 convolutions without padding follow (fewer where
    the view is smaller than 4); their last maps, flattened, meet the other inputs in one layer. As in XLand-MiniGrid's
    baseline, but for that layer, which makes every encoder here equally wide. Where the task is shown, goal and rules
    use the same embeddings; a layer reads each rule and their sum goes on, so their number and order mean nothing.
    Differs: a goal's place counts as the tile and colour of those numbers.
    """

    tile: Float[Array, "tiles d"]
    colour: Float[Array, "colours d"]
    convolutions: tuple[Linear, ...]
    rule: Linear | None
    out: Linear
    flat: tuple[tuple[str, Space], ...] = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], spec: EnvSpec, width: int, *, d: int = 16,
                 channels: tuple[int, ...] = (16, 32, 64)):  # fmt: skip
        keys = jax.random.split(key, 4 + len(channels))
        self.tile = jax.random.normal(keys[0], (TILES, d))
        self.colour = jax.random.normal(keys[1], (TILE_COLOURS, d))
        view = spec.obs["tiles"]
        assert isinstance(view, Box)
        side, maps, layers = view.shape[0], 2 * d, list[Linear]()
        for layer_key, deeper in zip(keys[4:], channels[: side - 1], strict=False):
            layers.append(Linear(layer_key, 4 * maps, deeper))
            side, maps = side - 1, deeper
        self.convolutions = tuple(layers)
        self.flat = tuple((n, s) for n, s in sorted(spec.obs.items()) if n not in ("tiles", "goal", "rules"))
        size = side * side * maps + sum(flat_size(n, s) for n, s in self.flat)
        self.rule = Linear(keys[2], RULE_KINDS + 6 * d, 2 * d) if "rules" in spec.obs else None
        size += GOAL_KINDS + 6 * d if self.rule is not None else 0
        self.out = Linear(keys[3], size, width)

    def __call__(self, obs: Obs) -> tuple[Float[Array, "*axes D"], None]:
        """Vectors of the given width; it knows no types."""
        axes = obs["tiles"].shape[:-3]
        seen = self._embed(obs["tiles"])
        for layer in self.convolutions:
            corners = [seen[..., :-1, :-1, :], seen[..., :-1, 1:, :], seen[..., 1:, :-1, :], seen[..., 1:, 1:, :]]
            seen = jax.nn.relu(layer(jnp.concatenate(corners, axis=-1)))
        parts = [seen.reshape(*axes, -1), *(flatten(obs[n], s) for n, s in self.flat)]
        if self.rule is not None:
            parts += [self._things(obs["goal"], GOAL_KINDS), self._rules(self.rule, obs["rules"])]
        return jax.nn.relu(self.out(jnp.concatenate(parts, axis=-1))), None

    def _embed(self, cells: Integer[Array, "*n 2"]) -> Float[Array, "*n d"]:
        """Side by side; as products with one-hot numbers, since gathers are slow to differentiate."""
        tables = (self.tile, self.colour)
        hot = [jax.nn.one_hot(jnp.minimum(cells[..., i], len(table) - 1), len(table)) for i, table in enumerate(tables)]
        return jnp.concatenate([x @ table for x, table in zip(hot, tables, strict=True)], axis=-1)

    def _things(self, told: Integer[Array, "*n m"], kinds: int) -> Float[Array, "*n w"]:
        """A kind, one-hot, and the embedded pairs of tile and colour that follow it."""
        pairs = told[..., 1:].reshape(*told.shape[:-1], -1, 2)
        return jnp.concatenate(
            [jax.nn.one_hot(told[..., 0], kinds), self._embed(pairs).reshape(*told.shape[:-1], -1)], -1
        )

    def _rules(self, layer: Linear, rules: Integer[Array, "*n R 7"]) -> Float[Array, "*n w"]:
        read = jax.nn.relu(layer(self._things(rules, RULE_KINDS)))
        return jnp.sum(jnp.where(rules[..., :1] > 0, read, 0.0), axis=-2)


Encoder = FlatEncoder | TaskGridEncoder | TileEncoder


def shows_task(spec: EnvSpec) -> bool:
    """Whether a spec shows a grid with a task told in symbols."""
    return {"view", "goal", "rules", "hand", "heading"} <= set(spec.obs)


def make_encoder(key: Key[Array, ""], spec: EnvSpec, width: int) -> Encoder:
    """The encoder for what a spec shows."""
    if "tiles" in spec.obs:
        return TileEncoder(key, spec, width)
    return TaskGridEncoder(key, spec, width) if shows_task(spec) else FlatEncoder(key, spec, width)
