"""What numbers mean in XLand-MiniGrid 0.9.3: tiles, colours, actions, kinds of rules and of goals.

A cell is a tile and a colour. Here a cell is one byte, `16 * tile + colour`, so that two cells are equal if two bytes
are; `pack` and `unpack` go between the two.
"""

import jax.numpy as jnp
from jaxtyping import Array, UInt8

TILES = ("empty", "floor", "wall", "ball", "square", "pyramid", "goal", "key", "locked door", "closed door",
         "open door", "hex", "star")  # fmt: skip
COLOURS = ("none", "red", "green", "blue", "purple", "yellow", "grey", "black", "orange", "white", "brown", "pink")
EMPTY, FLOOR, WALL, BALL, SQUARE, PYRAMID, GOAL, KEY, LOCKED, CLOSED, OPEN, HEX, STAR = range(len(TILES))
RED, GREEN, BLUE, PURPLE, YELLOW, GREY, BLACK, ORANGE, WHITE, BROWN, PINK = range(1, len(COLOURS))

WALKABLE = (FLOOR, GOAL, OPEN)
PICKABLE = (BALL, SQUARE, PYRAMID, KEY, HEX, STAR)

ACTIONS = ("forward", "right", "left", "pick", "put", "toggle")
FORWARD, TURN_RIGHT, TURN_LEFT, PICK, PUT, TOGGLE = range(len(ACTIONS))

HELD, AGENT_NEAR, NEAR, NEAR_TOWARDS, AGENT_TOWARDS = 1, 2, 3, 4, 8
"""Kinds of rules; the last two are the first of four, by the direction up, right, down, left. 0 is no rule."""
GOAL_ON, GOAL_AT, GOAL_BE_AT = 2, 5, 6
"""Kinds of goals that no rule has: stand on a, a at a place, be at a place."""
GOAL_AS_RULE = (0, 1, 0, 2, 3, 0, 0, 4, 5, 6, 7, 8, 9, 10, 11)
"""The rule of the same condition, by kind of goal: a goal is reached when that rule would fire."""

GOAL_WIDTH, RULE_WIDTH = 5, 7
"""Numbers of an encoding: the kind, then tiles and colours, zeros at the end."""
FLOOR_CELL = 16 * FLOOR + BLACK
WALL_CELL = 16 * WALL + GREY


def pack(cells: UInt8[Array, "*n 2"]) -> UInt8[Array, "*n"]:
    """One byte per cell."""
    return cells[..., 0] * jnp.uint8(16) + cells[..., 1]


def unpack(codes: UInt8[Array, "*n"]) -> UInt8[Array, "*n 2"]:
    """Tile and colour."""
    return jnp.stack([codes >> jnp.uint8(4), codes & jnp.uint8(15)], axis=-1)
