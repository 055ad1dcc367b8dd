"""What the player is told of goal and rules, as small integers (spec of AdA: goal 6 numbers, a rule 6 + 2 * 3).

A thing is (shape, colour): (0, 0) nothing; shapes 1..4 with colours 1..3; (5, 0) me, (6, 0) partner; the hidden object
number n is (6 + n, 3 + n). A relation is 1..4, or 4 + n for the hidden relation number n. Negation is 0, 1, or 2 where
it is hidden. A wholly hidden rule is a 2 followed by zeros; an empty row is all zeros.

Of two players each is told by a mask of its own, and from its own point of view: the reader is `me`, whoever else
plays is `partner`. So one network can take either seat.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int8

from rekindle.envs.xland.level import MAX_PLACEHOLDERS, ME, PARTNER, RELATIONS, Game

HIDDEN = 2
RULE_WIDTH = 12
GOAL_WIDTH = 6
SHAPE_CODES = 7 + MAX_PLACEHOLDERS
COLOUR_CODES = 4 + MAX_PLACEHOLDERS
RELATION_CODES = 1 + len(RELATIONS) + MAX_PLACEHOLDERS


def thing_code(code: Int8[Array, "*n"], placeholder: Int8[Array, "*n"]) -> Int8[Array, "*n 2"]:
    """(shape, colour) of argument codes, or of the placeholder where its number is positive."""
    kind = code - 1
    is_object = (code > 0) & (code < ME)
    shape = jnp.where(is_object, 1 + (kind & 3), jnp.where(code >= ME, 5 + code - ME, 0))
    colour = jnp.where(is_object, 1 + (kind >> 2), 0)
    hidden = placeholder > 0
    shape, colour = jnp.where(hidden, 6 + placeholder, shape), jnp.where(hidden, 3 + placeholder, colour)
    return jnp.stack([shape, colour], axis=-1).astype(jnp.int8)


def read_by(player: int, codes: Int8[Array, "*n"]) -> Int8[Array, "*n"]:
    """Argument codes from the point of view of player 0 or 1."""
    return jnp.where(codes >= ME, ME + PARTNER - codes, codes) if player else codes


def shown_goal(game: Game, player: int = 0) -> Int8[Array, " 6"]:
    """The goal, which is never hidden: negation, relation, shape and colour of a, of b; told to player 0 or 1."""
    goal = jnp.asarray(game.goal)
    things = thing_code(read_by(player, goal[2:4]), jnp.zeros(2, jnp.int8))
    return jnp.concatenate([goal[:2], things.ravel()])


def shown_rules(game: Game, player: int = 0) -> Int8[Array, "R 12"]:
    """The rules with what player 0 or 1 is not told masked: negation, relation, a, b, then three spawns."""
    rules, mask = jnp.asarray(game.rules), jnp.asarray(game.mask)
    mask = mask[player] if mask.ndim == 3 else mask
    hidden = mask[:, 1] > 0
    negation = jnp.where(hidden, HIDDEN, rules[:, 0])
    relation = jnp.where(hidden, len(RELATIONS) + mask[:, 1], rules[:, 1])
    things = thing_code(read_by(player, rules[:, 2:]), mask[:, 2:]).reshape(rules.shape[0], -1)
    shown = jnp.concatenate([jnp.stack([negation, relation], axis=1).astype(jnp.int8), things], axis=1)
    secret = jnp.zeros_like(shown).at[:, 0].set(HIDDEN)
    shown = jnp.where(mask[:, :1] > 0, secret, shown)
    return jnp.where(rules[:, 1:2] > 0, shown, jnp.zeros_like(shown))
