"""A ring whose samples are drawn in proportion to their priorities (Schaul et al. 2016, 1511.05952).

A step can be drawn once n others follow it, with the highest priority so far; one that met a time limit never.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

from rekindle.core.types import Transitions
from rekindle.replay import ring as rings
from rekindle.replay import sum_tree
from rekindle.replay.ring import Ring, Step
from rekindle.replay.sum_tree import SumTree

BETA = 0.5
"""Exponent of the importance weights, as in Dopamine."""


class Prioritised(NamedTuple):
    """A ring, the priority of its every place, and the highest there was."""

    ring: Ring
    tree: SumTree
    highest: Float[Array, ""]


def empty(like: Step, slots: int) -> Prioritised:
    """For steps of this form."""
    made = rings.empty(like, slots)
    return Prioritised(made, sum_tree.empty(made.slots * made.rows), jnp.ones(()))


def add(replay: Prioritised, step: Step, *, n: int) -> Prioritised:
    """One more slice; the slice n before it can be drawn from now on."""
    ring = rings.add(replay.ring, step)
    rows = jnp.arange(ring.rows, dtype=jnp.int32)
    newest = (ring.added - 1) % ring.slots
    ready = (ring.added - 1 - n) % ring.slots
    there = (ring.added > n) & ~ring.steps.truncated[ready]
    index = jnp.concatenate([newest * ring.rows + rows, ready * ring.rows + rows])
    priority = jnp.concatenate([jnp.zeros(ring.rows), jnp.where(there, replay.highest, 0.0)])
    return Prioritised(ring, sum_tree.put(replay.tree, index, priority), replay.highest)


def sample(
    key: Key[Array, ""], replay: Prioritised, batch: int, *, n: int, gamma: float, clip: float = 0.0, stack: int = 1
) -> Transitions:
    """A batch with importance weights."""
    index, probability = sum_tree.sample(key, replay.tree, batch)
    drawn = rings.gather(replay.ring, index, n=n, gamma=gamma, clip=clip, stack=stack)
    return drawn._replace(weight=drawn.weight * sum_tree.importance(probability, BETA))


def revise(
    replay: Prioritised, index: Int32[Array, " b"], priority: Float[Array, " b"], mine: Bool[Array, " b"] | None = None
) -> Prioritised:
    """New priorities of places that were drawn; where `mine` is not set, what was drawn is not of this replay."""
    if mine is not None:
        priority = jnp.where(mine, priority, sum_tree.priorities(replay.tree, index))
    tree = sum_tree.put(replay.tree, index, priority)
    return Prioritised(replay.ring, tree, jnp.maximum(replay.highest, jnp.max(priority)))
