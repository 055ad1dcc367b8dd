"""From observations to vectors: any flat observation, and grids with a task told in symbols.

`make_encoder` chooses by what the spec holds. Both take observations with any leading axes.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, Image, MultiDiscrete, Space
from rekindle.core.types import EnvSpec, Obs
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
        self.layer = Linear(key, sum(_flat_size(name, s) for name, s in self.spaces), width)

    def __call__(self, obs: Obs) -> Float[Array, "*axes D"]:
        """Vectors of the given width."""
        return jax.nn.relu(self.layer(jnp.concatenate([_flatten(obs[n], s) for n, s in self.spaces], axis=-1)))


def _flat_size(name: str, space: Space) -> int:
    match space:
        case Discrete(n=n):
            return n
        case MultiDiscrete(nvec=nvec):
            return sum(nvec)
        case Box(shape=shape):
            return math.prod(shape)
        case _:
            raise ConfigError(f"the flat encoder takes numbers; observation {name!r} is {space!r}.")


def _flatten(x: Array, space: Space) -> Float[Array, "*axes n"]:
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
        view = spec.obs["view"].shape
        self.identity = 0.5 * jax.random.normal(keys[0], (NODES, d))
        self.ground = 0.5 * jax.random.normal(keys[1], (SEEN_PLAYER + 1, d))
        self.node_in = Linear(keys[2], 5 + 1 + RELATIONS, d)
        self.rule_in = Linear(keys[3], 5 * d + 3 + RELATIONS, hidden)
        self.rule_out = Linear(keys[4], hidden, 5 * d, scale=1.0)
        self.cells = Linear(keys[5], view[0] * view[1] * d, width)
        self.flat = tuple((n, s) for n, s in sorted(spec.obs.items()) if n not in ("view", "hand", "goal", "rules"))
        rest = sum(_flat_size(n, s) for n, s in self.flat)
        self.out = Linear(keys[6], width + 3 * d + 1 + RELATIONS + rest, width)
        self.rounds = rounds

    def __call__(self, obs: Obs) -> Float[Array, "*axes D"]:
        """Vectors of the given width; the leading axes are folded away inside."""
        axes = obs["heading"].shape
        flat = {n: x.reshape(-1, *x.shape[len(axes) :]) for n, x in obs.items()}
        goal, hand, view = flat["goal"], flat["hand"], flat["view"]
        goal_node, hand_node = node(goal[:, 2::2], goal[:, 3::2]), node(hand[:, 0], hand[:, 1])
        goal_words = jnp.concatenate([goal[:, :1].astype(jnp.float32), one_relation(goal[:, 1])], axis=-1)
        meaning = self._meanings(flat["rules"], goal_node, hand_node, goal_words)

        shape, colour = view[..., 0].astype(jnp.int32), view[..., 1]
        thing = node(jnp.where(colour > 0, shape + 1 - FIRST_SEEN_SHAPE, 0), colour)
        known = jnp.concatenate([meaning + self.identity[None], jnp.zeros_like(meaning[:, :1])], axis=1)
        cells = jax.vmap(lambda table, index: table[index.ravel()])(known, thing)
        ground = self.ground[jnp.where(colour > 0, 0, shape)].reshape(cells.shape)
        seen = jax.nn.relu(self.cells((cells + ground).reshape(cells.shape[0], -1)))
        asked = jax.vmap(lambda table, index: table[index].ravel())
        topic = jnp.concatenate([asked(known, goal_node), asked(known, hand_node[:, None])], axis=-1)
        rest = [_flatten(flat[n], s) for n, s in self.flat]
        out = jax.nn.relu(self.out(jnp.concatenate([seen, topic, goal_words, *rest], axis=-1)))
        return out.reshape(*axes, -1)

    def _meanings(self, rules: Array, goal: Array, hand: Array, goal_words: Array) -> Float[Array, "B nodes d"]:
        """Messages along the rules, from goal to inputs and back."""
        batch = rules.shape[0]
        is_player = (jnp.arange(NODES) >= SHAPES * COLOURS) & (jnp.arange(NODES) < SHAPES * COLOURS + 2)
        marks = [one_node(goal[:, 0]), one_node(goal[:, 1]), one_node(hand)]
        marks += [jnp.broadcast_to(is_player, (batch, NODES)).astype(jnp.float32), jnp.ones((batch, NODES))]
        told = jnp.broadcast_to(goal_words[:, None], (batch, NODES, goal_words.shape[-1]))
        h = jax.nn.relu(self.node_in(jnp.concatenate([jnp.stack(marks, axis=-1), told], axis=-1)))

        things = rules[..., 2:]
        edges = one_node(node(things[..., 0::2], things[..., 1::2]))  # [B, R, 5, nodes]
        words = jnp.concatenate([jax.nn.one_hot(rules[..., 0], 3), one_relation(rules[..., 1])], axis=-1)
        there = jnp.any(rules != 0, axis=-1)[..., None]
        for _ in range(self.rounds):
            ends = jnp.einsum("brsn,bnd->brsd", edges, h).reshape(*rules.shape[:2], -1)
            message = self.rule_out(jax.nn.relu(self.rule_in(jnp.concatenate([ends, words], axis=-1))))
            message = jnp.where(there, message, 0.0).reshape(*rules.shape[:2], 5, -1)
            h = jax.nn.relu(h + jnp.einsum("brsn,brsd->bnd", edges, message))
        return h


def node(shape: Int[Array, "*n"], colour: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Index of a (shape, colour) pair among the nodes; `NODES` for nothing."""
    shape, colour = shape.astype(jnp.int32), colour.astype(jnp.int32)
    is_object = (shape > 0) & (shape <= SHAPES) & (colour <= COLOURS)
    kind = jnp.where(is_object, (colour - 1) * SHAPES + shape - 1, SHAPES * COLOURS + shape - SHAPES - 1)
    return jnp.where(shape > 0, jnp.minimum(kind, NODES - 1), NODES)


def one_node(index: Int[Array, "*n"]) -> Float[Array, "*n nodes"]:
    """One-hot node; zeros for nothing."""
    return jax.nn.one_hot(index, NODES)


def one_relation(code: Int[Array, "*n"]) -> Float[Array, "*n relations"]:
    """One-hot relation, all hidden ones alike."""
    return jax.nn.one_hot(jnp.minimum(code.astype(jnp.int32), RELATIONS - 1), RELATIONS)


def make_encoder(key: Key[Array, ""], spec: EnvSpec, width: int) -> FlatEncoder | TaskGridEncoder:
    """The encoder for what a spec shows."""
    if {"view", "goal", "rules", "hand", "heading"} <= set(spec.obs):
        return TaskGridEncoder(key, spec, width)
    return FlatEncoder(key, spec, width)
