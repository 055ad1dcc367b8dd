"""A ring whose samples are drawn in proportion to their priorities (Schaul et al. 2016, 1511.05952).

A step can be drawn once n others follow it, with the highest priority so far; one that met a time limit never.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

from rekindle.core.types import Transitions
from rekindle.replay import ring as rings
from rekindle.replay import sum_tree
from rekindle.replay.ring import Outline, Ring, Step
from rekindle.replay.sum_tree import SumTree

BETA = 0.5
"""Exponent of the importance weights, as in Dopamine."""


class Prioritised(NamedTuple):
    """A ring, the priority of its every place, and the highest there was."""

    ring: Ring | Outline
    tree: SumTree
    highest: Float[Array, ""]


def empty(ring: Ring | Outline) -> Prioritised:
    """Of a ring that is."""
    return Prioritised(ring, sum_tree.empty(ring.slots * ring.rows), jnp.ones(()))


def holding(ring: Ring | Outline, truncated: Bool[Array, "T B"], *, n: int) -> Prioritised:
    """Of a ring that begins with T slices, all of which count as never drawn; `truncated` is of each of them.

    As in `add`, a step can be drawn if n others follow it, unless it met a time limit.
    """
    replay, followed = empty(ring), jnp.arange(truncated.shape[0])[:, None] < truncated.shape[0] - n
    priority = jnp.where(followed & ~truncated, replay.highest, 0.0).ravel()
    tree = sum_tree.put(replay.tree, jnp.arange(priority.size, dtype=jnp.int32), priority)
    return replay._replace(tree=tree)


def add(replay: Prioritised, step: Step, *, n: int) -> Prioritised:
    """One more slice; the slice n before it can be drawn from now on."""
    assert isinstance(replay.ring, Ring)
    ring = rings.add(replay.ring, step)
    return grown(replay, ring, ring.steps.truncated[(ring.added - 1 - n) % ring.slots], n=n)


def grown(replay: Prioritised, ring: Ring | Outline, truncated: Bool[Array, " B"], *, n: int) -> Prioritised:
    """The same once the slice is in the ring; `truncated` is of the slice n before it."""
    rows = jnp.arange(ring.rows, dtype=jnp.int32)
    newest = (ring.added - 1) % ring.slots
    ready = (ring.added - 1 - n) % ring.slots
    there = (ring.added > n) & ~truncated
    index = jnp.concatenate([newest * ring.rows + rows, ready * ring.rows + rows])
    priority = jnp.concatenate([jnp.zeros(ring.rows), jnp.where(there, replay.highest, 0.0)])
    return Prioritised(ring, sum_tree.put(replay.tree, index, priority), replay.highest)


def sample(
    key: Key[Array, ""], replay: Prioritised, batch: int, *, n: int, gamma: float, clip: float = 0.0, stack: int = 1
) -> Transitions:
    """A batch with importance weights."""
    assert isinstance(replay.ring, Ring)
    index, weight = places(key, replay, batch)
    drawn = rings.gather(replay.ring, index, n=n, gamma=gamma, clip=clip, stack=stack)
    return drawn._replace(weight=drawn.weight * weight)


def places(key: Key[Array, ""], replay: Prioritised, batch: int) -> tuple[Int32[Array, " b"], Float[Array, " b"]]:
    """Where the steps of a sample lie, and their importance weights."""
    index, probability = sum_tree.sample(key, replay.tree, batch)
    return index, sum_tree.importance(probability, BETA)


def revise(
    replay: Prioritised, index: Int32[Array, " b"], priority: Float[Array, " b"], mine: Bool[Array, " b"] | None = None
) -> Prioritised:
    """New priorities of places that were drawn; where `mine` is not set, what was drawn is not of this replay."""
    if mine is not None:
        priority = jnp.where(mine, priority, sum_tree.priorities(replay.tree, index))
    tree = sum_tree.put(replay.tree, index, priority)
    return Prioritised(replay.ring, tree, jnp.maximum(replay.highest, jnp.max(priority)))
