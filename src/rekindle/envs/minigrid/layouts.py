"""Rooms and their doors, as XLand-MiniGrid 0.9.3 registers them: one, two, four, six or nine rooms in a square."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt8

from rekindle.core.errors import ConfigError
from rekindle.envs.minigrid.codes import BLUE, CLOSED, FLOOR_CELL, GREEN, GREY, PURPLE, RED, WALL_CELL, YELLOW

SIZES: dict[str, tuple[int, ...]] = {
    "R1": (9, 11, 13, 15, 17),
    "R2": (9, 11, 13, 15, 17),
    "R4": (9, 11, 13, 15, 17),
    "R6": (13, 17, 19),
    "R9": (16, 19, 25),
}
"""Registered sides, in cells, outer walls included."""
DOOR_COLOURS = (RED, GREEN, BLUE, PURPLE, YELLOW, GREY)


class Layout(NamedTuple):
    """Walls, and where doors may be: door i is on one of the cells `doors[i]`, each as likely as the others."""

    walls: np.ndarray
    """bool [n, n]."""
    doors: tuple[tuple[tuple[int, int], ...], ...]
    """For every door, the cells (y, x)."""


def layout(rooms: str, size: int) -> Layout:
    """The walls and doors of a registered layout.

    Raises:
        ConfigError: there is no such layout.
    """
    if size not in SIZES.get(rooms, ()):
        known = "; ".join(f"{name}: {', '.join(map(str, sizes))}" for name, sizes in SIZES.items())
        raise ConfigError(f"no layout of {rooms!r} with side {size!r}; there are {known}.")
    half, third = size // 2, size // 3
    match rooms:
        case "R1":
            return Layout(_walls(size), ())
        case "R2":
            return Layout(_walls(size, columns=(half,)), (_along(1, size - 1, x=half),))
        case "R4":
            doors = (
                _along(1, half, y=half),
                _along(half + 1, 2 * half, y=half),
                _along(1, half, x=half),
                _along(half + 1, 2 * half, x=half),
            )
            return Layout(_walls(size, columns=(half,), rows=(half,)), doors)
        case "R6":  # rooms left and right of a corridor; every door has its one place
            walls = _walls(size, columns=(half - 2, half + 2), rows=(third, 2 * third))
            walls[1:-1, half - 1 : half + 2] = False
            ways = [(y, x) for x in (half - 2, half + 2) for y in (half - third, half, half + third)]
            return Layout(walls, tuple((way,) for way in ways))
        case _:
            between = (third, 2 * third)
            doors = [_along(top + 1, top + third, x=x) for x in between for top in (0, *between)]
            doors += [_along(left + 1, left + third, y=y) for y in between for left in (0, *between)]
            return Layout(_walls(size, columns=between, rows=between), tuple(doors))


def draw_grid(key: Key[Array, ""], where: Layout) -> UInt8[Array, "n n"]:
    """The rooms with closed doors of random colours at random places; cells as in codes.py."""
    place_key, colour_key = jax.random.split(key)
    grid = jnp.asarray(np.where(where.walls, WALL_CELL, FLOOR_CELL).astype(np.uint8))
    if not where.doors:
        return grid
    choices = np.array([len(cells) for cells in where.doors])
    table = np.zeros((len(where.doors), choices.max(), 2), np.int32)
    for i, cells in enumerate(where.doors):
        table[i, : len(cells)] = cells
    which = jax.random.randint(place_key, choices.shape, 0, choices)
    at = jnp.asarray(table)[jnp.arange(len(choices)), which]
    colours = jnp.asarray(DOOR_COLOURS, jnp.uint8)
    drawn = colours[jax.random.randint(colour_key, choices.shape, 0, len(DOOR_COLOURS))]
    return grid.at[at[:, 0], at[:, 1]].set(jnp.uint8(16 * CLOSED) + drawn)


def _walls(size: int, *, columns: Sequence[int] = (), rows: Sequence[int] = ()) -> np.ndarray:
    walls = np.zeros((size, size), bool)
    walls[:, [0, size - 1, *columns]] = True
    walls[[0, size - 1, *rows]] = True
    return walls


def _along(first: int, end: int, *, y: int | None = None, x: int | None = None) -> tuple[tuple[int, int], ...]:
    """Cells of a wall: one coordinate is given, the other runs from `first` to `end` - 1."""
    return tuple((i if y is None else y, i if x is None else x) for i in range(first, end))
