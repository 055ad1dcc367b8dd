"""Worlds, games and tasks as data: what a task is, before anything happens in it. The rulebook is docs/xland.md.

Codes: `OBJECT_TYPES` 1..12 = 1 + 4 * colour + shape, 13 `me`, 14 `partner`, 0 nothing.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int8, Int16, UInt8

SHAPES = ("wall", "cube", "sphere", "pyramid")
COLOURS = ("black", "purple", "yellow")
OBJECT_TYPES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
NUM_TYPES = len(OBJECT_TYPES)
ME, PARTNER = NUM_TYPES + 1, NUM_TYPES + 2
RELATIONS = ("touching", "near", "hold", "see")
TOUCHING, NEAR, HOLD, SEE = 1, 2, 3, 4
VOID, FLOOR, WALL, GATE = 0, 1, 2, 3
ACTIONS = ("forward", "left", "right", "pick", "put", "toggle", "noop")
FORWARD, LEFT, RIGHT, PICK, PUT, TOGGLE, NOOP = range(7)

MAX_SPAWNS = 3
MAX_OBJECTS = 20
MAX_PLACEHOLDERS = 16
"""Highest number of a hidden object type or of a hidden relation."""

ArrayLike = Array | np.ndarray


class World(NamedTuple):
    """Terrain and places. `places[m, i]` is where object i starts in layout m; `M` is 1 unless resets are random.

    The outermost ring of `terrain` is never floor, so a faced cell is always inside the array.
    """

    terrain: Int8[ArrayLike, "H W"]
    places: Int8[ArrayLike, "M N 2"]
    start: Int8[ArrayLike, "M P 2"]
    heading: Int8[ArrayLike, " P"]
    gates: Int8[ArrayLike, "G 2"]
    gate_open: Bool[ArrayLike, " G"]
    sight: UInt8[ArrayLike, "cells bytes"]
    """Bit b of row c: cell b is in line of sight of cell c (row-major cells, little-endian bits). [0, 0]: all are."""


class Game(NamedTuple):
    """A goal `[not, relation, a, b]`, rules `[not, relation, a, b, spawn, spawn, spawn]`, and initial object types.

    A rule row with relation 0 is empty. `mask` says what the player is not told: column 0 the whole rule (1), column 1
    its relation and negation, columns 2.. an object. Entries in columns 1.. are the number of the placeholder that is
    shown instead, counted from 1; 0 means shown. In a game for two players it has one table for each; a table without
    that axis holds for both.
    """

    goal: Int8[ArrayLike, " 4"]
    rules: Int8[ArrayLike, "R 7"]
    objects: Int8[ArrayLike, " N"]
    frozen: Bool[ArrayLike, " N"]
    mask: Int8[ArrayLike, "*players R 7"]


class Task(NamedTuple):
    """A world, a game and their clock: the `params` of the environment."""

    world: World
    game: Game
    trial_length: Int16[ArrayLike, ""]
    """Steps per trial, T."""
    trials: Int16[ArrayLike, ""]
    """Trials per episode, k."""
    random_heading: Float[ArrayLike, ""]
    """Probability that a trial starts with a uniformly drawn heading instead of the world's."""


def object_type(colour: str, shape: str) -> int:
    """Type id of a coloured shape, 1..12."""
    return 1 + 4 * COLOURS.index(colour) + SHAPES.index(shape)


def type_name(code: int | np.integer) -> str:
    """The words of an argument code: an object type, `me` or `partner`."""
    return {ME: "me", PARTNER: "partner"}.get(int(code)) or OBJECT_TYPES[int(code) - 1]


def make_game(
    goal: list[int],
    rules: list[list[int]],
    objects: list[int],
    *,
    max_rules: int,
    max_objects: int = MAX_OBJECTS,
    frozen: list[int] | None = None,
    mask: np.ndarray | None = None,
) -> Game:
    """Pad plain lists to a `Game`; `frozen` lists object indices; unmasked unless `mask` is given."""
    rule_table = np.zeros((max_rules, 4 + MAX_SPAWNS), np.int8)
    for r, rule in enumerate(rules):
        rule_table[r, : len(rule)] = rule
    kinds = np.zeros(max_objects, np.int8)
    kinds[: len(objects)] = objects
    is_frozen = np.zeros(max_objects, bool)
    is_frozen[list(frozen or [])] = True
    hidden = np.zeros_like(rule_table) if mask is None else np.asarray(mask, np.int8)
    return Game(np.asarray(goal, np.int8), rule_table, kinds, is_frozen, hidden)


def line_of_sight(terrain: np.ndarray) -> np.ndarray:
    """Packed table of what is seen from each open cell (docs/xland.md), `[H * W, ceil(H * W / 8)]`; `[0, 0]` if all is.

    Open cells are floor and gates. A wall or void is seen if an open cell around it is.
    """
    height, width = terrain.shape
    opaque = (terrain == WALL) | (terrain == VOID)
    cells = np.arange(terrain.size).reshape(height, width)
    table = np.zeros((terrain.size, terrain.size), bool)
    for dy in range(height):
        for dx in range(1 - width if dy else 0, width):
            rows, columns = height - dy, width - abs(dx)
            left = max(-dx, 0)
            blocked = np.zeros((rows, columns), bool)
            for group in _crossed(dy, dx):
                parts = [opaque[y : y + rows, left + x : left + x + columns] for y, x in group]
                blocked |= parts[0] & parts[-1]
            here = cells[:rows, left : left + columns].ravel()
            there = cells[dy:, left + dx : left + dx + columns].ravel()
            table[here, there] = table[there, here] = ~blocked.ravel()
    is_open = ~opaque.ravel()
    table &= is_open[:, None] & is_open
    if table[np.ix_(is_open, is_open)].all():
        return np.zeros((0, 0), np.uint8)
    around = np.pad(table.reshape(-1, height, width), ((0, 0), (1, 1), (1, 1)))
    lit = [around[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    table |= np.any(lit, axis=0).reshape(table.shape) & ~is_open
    return np.packbits(table, axis=1, bitorder="little")


@cache
def _crossed(dy: int, dx: int) -> list[list[tuple[int, int]]]:
    """What the open segment from (0, 0) to (dy, dx) crosses: single cells, and the two cells beside each corner.

    The segment is blocked if all cells of a group are opaque. `dy` is not negative (exact integer supercover).
    """
    across, sign = abs(dx), (1 if dx > 0 else -1)
    y, x, groups = 0, 0, []
    while (y, x) != (dy, dx):
        turn = (1 + 2 * abs(x)) * dy - (1 + 2 * y) * across  # the next grid line is vertical if < 0, a corner if 0
        if turn == 0:
            groups.append([(y + 1, x), (y, x + sign)])
            y, x = y + 1, x + sign
        elif turn < 0:
            x += sign
        else:
            y += 1
        groups.append([(y, x)])
    return groups[:-1]
