"""Sampling in proportion to priorities, in time that grows with the logarithm of their number.

Schaul et al. 2016 (1511.05952), App. B.2.1: a binary tree whose nodes hold the sums of their children. Levels are gone
through in loops: written out, the twenty of a million leaves would be most of a training's program.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key


class SumTree(NamedTuple):
    """Node 1 is the root, the children of node i are 2 i and 2 i + 1, and leaf j is node P + j."""

    nodes: Float[Array, " 2P"]

    @property
    def depth(self) -> int:
        """Levels below the root."""
        return int(math.log2(self.nodes.shape[0])) - 1

    @property
    def total(self) -> Float[Array, ""]:
        """Of all priorities."""
        return self.nodes[1]


def empty(leaves: int) -> SumTree:
    """A tree for at least so many priorities, all 0."""
    return SumTree(jnp.zeros(2 * 2 ** math.ceil(math.log2(max(leaves, 2)))))


def priorities(tree: SumTree, index: Int32[Array, "*n"]) -> Float[Array, "*n"]:
    """Of some leaves."""
    return tree.nodes[tree.nodes.shape[0] // 2 + index]


def put(tree: SumTree, index: Int32[Array, " n"], priority: Float[Array, " n"]) -> SumTree:
    """Priorities of some leaves; of an index that occurs twice, one of its priorities."""
    at = tree.nodes.shape[0] // 2 + index

    def up(_: Any, now: tuple[Array, Array]) -> tuple[Array, Array]:
        nodes, at = now[0], now[1] // 2
        return nodes.at[at].set(nodes[2 * at] + nodes[2 * at + 1]), at

    nodes, _ = jax.lax.fori_loop(0, tree.depth, up, (tree.nodes.at[at].set(priority), at))
    return SumTree(nodes)


def find(tree: SumTree, point: Float[Array, " n"]) -> Int32[Array, " n"]:
    """The first leaf up to which priorities add up to at least so much; never one of priority 0.

    Args:
        tree: in which some priority is above 0.
        point: from above 0 to the total: uniform points find leaves in proportion to their priorities.
    """

    def down(_: Any, now: tuple[Array, Array]) -> tuple[Array, Array]:
        at, point = now
        left, right = tree.nodes[2 * at], tree.nodes[2 * at + 1]
        goes_right = ((point > left) & (right > 0)) | (left <= 0)
        return 2 * at + goes_right.astype(jnp.int32), jnp.where(goes_right, point - left, point)

    at, _ = jax.lax.fori_loop(0, tree.depth, down, (jnp.ones(point.shape, jnp.int32), point))
    return at - tree.nodes.shape[0] // 2


def sample(key: Key[Array, ""], tree: SumTree, batch: int) -> tuple[Int32[Array, " n"], Float[Array, " n"]]:
    """Leaves drawn in proportion to their priorities, and their probabilities. Some priority has to be above 0.

    One is drawn from each of `batch` equal parts of the total.
    """
    point = (jnp.arange(batch, dtype=jnp.float32) + jax.random.uniform(key, (batch,))) / batch * tree.total
    leaf = find(tree, point)
    return leaf, priorities(tree, leaf) / tree.total


def draw(key: Key[Array, ""], tree: SumTree, number: int) -> Int32[Array, " n"]:
    """Leaves drawn with replacement, each by itself. Some priority has to be above 0."""
    return find(tree, (1.0 - jax.random.uniform(key, (number,))) * tree.total)


def importance(probability: Float[Array, " n"], beta: float) -> Float[Array, " n"]:
    """Weights P^-beta that undo the bias of the draw, divided by the largest of the batch.

    Source: Schaul et al. 2016 (1511.05952), section 3.4; the number of leaves cancels.
    """
    weight = (probability + 1e-10) ** -beta
    return weight / jnp.max(weight)
