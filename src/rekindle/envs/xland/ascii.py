"""Worlds as ASCII maps, both ways without loss. The characters are those of docs/xland.md.

`#` wall, `.` floor, `+` closed gate, `/` open gate, space void, `0`-`9 a-j` the place of object 0..19,
`^ > v <` start and heading, `@` start with no fixed heading; the partner's are `N E S W` and `P`.
"""

from functools import lru_cache

import numpy as np

from rekindle.core.budget import quoted
from rekindle.core.errors import GoalError
from rekindle.envs.xland.game import AWAY
from rekindle.envs.xland.level import FLOOR, GATE, MAX_OBJECTS, VOID, WALL, World, line_of_sight

MAX_SIDE = 60
PLACES = "0123456789abcdefghij"
STARTS = ("^>v<@", "NESWP")
"""Per player: facing up, right, down, left, and without a fixed heading."""
_TERRAIN = {"#": WALL, ".": FLOOR, "+": GATE, "/": GATE, " ": VOID}
_KNOWN = "'#' wall, '.' floor, '+' and '/' gates, ' ' void, '0'-'9' and 'a'-'j' objects, '^>v<@' the start"


def world_from_ascii(text: str, *, players: int = 1, max_objects: int = MAX_OBJECTS) -> World:
    """Read a map into a world of one layout.

    Empty lines around the map and a difference in trailing spaces are forgiven; if floor, a gate or a thing lies on
    the border, a ring of wall is added. A start without a fixed heading (`@`, `P`) gets heading 0. A player without a
    start gets the cell (0, 0), which is never floor (`has_starts`), as do the slots without a place (`num_places`).

    Args:
        text: the map.
        players: 1 or 2.
        max_objects: slots of the world, N.

    Raises:
        GoalError: the map is empty, ragged, larger than 60 a side, has an unknown character, no floor, a second start
            of a player, or objects that are not numbered 0, 1, ... once each.
    """
    return with_sight(layout_from_ascii(text, players=players, max_objects=max_objects))


def layout_from_ascii(text: str, *, players: int = 1, max_objects: int = MAX_OBJECTS) -> World:
    """`world_from_ascii` without the table of sight lines, which takes a second for the largest maps."""
    rows = _rows(text)
    _check_characters(rows, players)
    grid = np.array([list(row) for row in rows])
    terrain = np.vectorize(lambda char: _TERRAIN.get(char, FLOOR), otypes=[np.int8])(grid)
    if not (terrain == FLOOR).any():
        raise GoalError("the map has no floor; '.' is floor.")
    border = np.concatenate([terrain[0], terrain[-1], terrain[:, 0], terrain[:, -1]])
    if np.isin(border, (FLOOR, GATE)).any():
        terrain = np.pad(terrain, 1, constant_values=WALL)
        grid = np.pad(grid, 1, constant_values="#")
    if max(grid.shape) > MAX_SIDE:
        high, wide = grid.shape
        raise GoalError(f"a map has at most {MAX_SIDE} x {MAX_SIDE} cells; this one has {high} x {wide} with the ring "
                        "of wall around it.")  # fmt: skip
    start, heading = _read_starts(grid, players)
    gates = np.argwhere(terrain == GATE).astype(np.int8)
    return World(
        terrain=terrain,
        places=_read_places(grid, max_objects)[None],
        start=start[None],
        heading=heading,
        gates=gates,
        gate_open=grid[gates[:, 0], gates[:, 1]] == "/",
        sight=np.zeros((0, 0), np.uint8),
    )


def with_sight(world: World) -> World:
    """The world with the table of sight lines that its terrain has."""
    return world._replace(sight=_sight(world.terrain.tobytes(), world.terrain.shape[1]))


def world_to_ascii(world: World, layout: int = 0) -> str:
    """Draw one layout of a world; `world_from_ascii` inverts it, and gives the gates in row-major order.

    Raises:
        GoalError: two things start in one cell, a player starts on no floor or is left out; no map can say that.
    """
    terrain = np.asarray(world.terrain)
    grid = np.full(terrain.shape, " ")
    grid[terrain == WALL], grid[terrain == FLOOR], grid[terrain == GATE] = "#", ".", "+"
    for (y, x), is_open in zip(np.asarray(world.gates), np.asarray(world.gate_open), strict=True):
        if is_open:
            grid[y, x] = "/"
    for i, cell in enumerate(np.asarray(world.places)[layout]):
        if terrain[tuple(cell)] == FLOOR:
            _draw(grid, cell, PLACES[i])
    for p, cell in enumerate(np.asarray(world.start)[layout]):
        if (cell == AWAY).all():
            raise GoalError("this world leaves a player out, and maps have no sign for that.")
        if (cell != 0).any():
            _draw(grid, cell, STARTS[p][int(world.heading[p])])
    return "\n".join("".join(row) for row in grid)


def num_places(world: World) -> int:
    """How many object slots have a place: the most objects a game in this world can start with."""
    y, x = np.moveaxis(np.asarray(world.places)[0], -1, 0)
    return int((np.asarray(world.terrain)[y, x] == FLOOR).sum())


def has_starts(world: World) -> bool:
    """Whether every player has a start."""
    return bool((np.asarray(world.start) != 0).any(axis=-1).all())


def start_is_free(text: str) -> bool:
    """Whether a map leaves the heading of a start open (`@`, `P`)."""
    return any(starts[-1] in text for starts in STARTS)


def _rows(text: str) -> list[str]:
    rows = text.strip("\r\n").splitlines()
    if not any(row.strip() for row in rows):
        raise GoalError("the map is empty.")
    if len({len(row) for row in rows}) > 1:
        rows = [row.rstrip() for row in rows]
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise GoalError(
                f"all lines of a map must be equally long; line 1 has {len(rows[0])} characters, line {number} has "
                f"{len(row)}: {quoted(row)}."
            )
    if len(rows) > MAX_SIDE or len(rows[0]) > MAX_SIDE:
        raise GoalError(f"a map has at most {MAX_SIDE} x {MAX_SIDE} cells; this one has {len(rows)} x {len(rows[0])}.")
    return rows


def _check_characters(rows: list[str], players: int) -> None:
    known = {*_TERRAIN, *PLACES, *"".join(STARTS[:players])}
    for y, x, char in ((y, x, char) for y, row in enumerate(rows) for x, char in enumerate(row)):
        if char in STARTS[-1] and char not in known:
            raise GoalError(f"line {y + 1}, column {x + 1}: {char!r} starts a partner, but this is a one-player world.")
        if char not in known:
            raise GoalError(f"line {y + 1}, column {x + 1}: unknown character {char!r}; known are {_KNOWN}.")


def _read_places(grid: np.ndarray, max_objects: int) -> np.ndarray:
    """Cells of the objects, `[N, 2]`."""
    places = np.zeros((max_objects, 2), np.int8)
    found = sorted((PLACES.index(str(grid[y, x])), y, x) for y, x in np.argwhere(np.isin(grid, list(PLACES))))
    for i, (number, y, x) in enumerate(found):
        if number < i:
            raise GoalError(f"line {y + 1}, column {x + 1}: object {PLACES[number]!r} is on the map twice.")
        if number > i:
            raise GoalError(f"objects are numbered without gaps; the map has {PLACES[number]!r} but no {PLACES[i]!r}.")
    if len(found) > max_objects:
        raise GoalError(f"a map here has at most {max_objects} objects; this one has {len(found)}.")
    for number, y, x in found:
        places[number] = y, x
    return places


def _read_starts(grid: np.ndarray, players: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells `[P, 2]` and headings `[P]`."""
    start, heading = np.zeros((players, 2), np.int8), np.zeros(players, np.int8)
    for p in range(players):
        cells = np.argwhere(np.isin(grid, list(STARTS[p])))
        if len(cells) > 1:
            (y0, x0), (y1, x1) = cells[:2]
            raise GoalError(
                f"{('the player', 'the partner')[p]} starts twice, at line {y0 + 1}, column {x0 + 1} and at line "
                f"{y1 + 1}, column {x1 + 1}; one of {STARTS[p]!r} is the start."
            )
        for y, x in cells:
            start[p], heading[p] = (y, x), STARTS[p].index(str(grid[y, x])) % 4
    return start, heading


def _draw(grid: np.ndarray, cell: np.ndarray, char: str) -> None:
    y, x = (int(c) for c in cell)
    if grid[y, x] != ".":
        raise GoalError(f"no map can show {char!r} at line {y + 1}, column {x + 1}: {str(grid[y, x])!r} is there.")
    grid[y, x] = char


@lru_cache(maxsize=8)
def _sight(terrain: bytes, width: int) -> np.ndarray:
    return line_of_sight(np.frombuffer(terrain, np.int8).reshape(-1, width))
