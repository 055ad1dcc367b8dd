"""Worlds at random: rooms with gates between them, and where the objects and the players start."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np

from rekindle.core.errors import ConfigError
from rekindle.envs.xland.game import AWAY
from rekindle.envs.xland.level import FLOOR, GATE, WALL, World, line_of_sight

Rooms = Literal["R1", "R2", "R4", "R9"]
GRIDS: dict[Rooms, tuple[int, int]] = {"R1": (1, 1), "R2": (1, 2), "R4": (2, 2), "R9": (3, 3)}
"""Rooms one below the other and side by side."""


def sample_world(rng: np.random.Generator, rooms: Rooms, size: int, *, max_objects: int, layouts: int = 1,
                 players: int = 1) -> World:  # fmt: skip
    """A square of rooms; starts and object places are different floor cells drawn at random, in each of the layouts.

    Between neighbouring rooms there is one gate, at a random place, open with probability 1/2.

    Raises:
        ConfigError: the rooms do not fit the size (R2 and R4 need an odd one, R9 one of 3 x + 4) or are too small.
    """
    terrain, gates = rooms_with_gates(rng, rooms, size)
    floor = np.argwhere(terrain == FLOOR)
    if len(floor) < max_objects + players:
        who = "a player" if players == 1 else f"{players} players"
        raise ConfigError(
            f"{rooms} of size {size} has {len(floor)} floor cells; {max_objects} objects and {who} need more room."
        )
    cells = np.stack([floor[rng.permutation(len(floor))[: max_objects + players]] for _ in range(layouts)])
    heading = [int(rng.integers(4)) for _ in range(players)]
    world = make_world(terrain, cells[:, players:], cells[:, :players], heading=heading, max_objects=max_objects)
    return world._replace(gates=gates, gate_open=rng.random(len(gates)) < 0.5)


def rooms_with_gates(rng: np.random.Generator, rooms: Rooms, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Terrain `[size, size]` and the cells `[G, 2]` of its gates, one in every wall between two rooms."""
    down, across = GRIDS[rooms]
    if size < 4 or (size - 1) % down or (size - 1) % across:
        wanted = {"R1": "at least 4", "R2": "odd", "R4": "odd", "R9": "3 x + 4"}[rooms]
        raise ConfigError(f"the size of {rooms} must be {wanted}; got {size!r}.")
    terrain = walled_room(size)
    tall, wide = (size - 1) // down, (size - 1) // across
    terrain[::tall, :] = WALL
    terrain[:, ::wide] = WALL
    gates = [
        (row * tall, column * wide + int(rng.integers(1, wide)))
        for row, column in product(range(1, down), range(across))
    ] + [
        (row * tall + int(rng.integers(1, tall)), column * wide)
        for row, column in product(range(down), range(1, across))
    ]
    cells = np.asarray(gates, np.int8).reshape(-1, 2)
    terrain[cells[:, 0], cells[:, 1]] = GATE
    return terrain, cells


def walled_room(size: int) -> np.ndarray:
    """Terrain `[size, size]` of one room inside a ring of wall."""
    terrain = np.full((size, size), WALL, np.int8)
    terrain[1:-1, 1:-1] = FLOOR
    return terrain


def make_world(terrain: np.ndarray, places: np.ndarray, start: tuple[int, int] | np.ndarray, *,
               heading: int | Sequence[int], max_objects: int) -> World:  # fmt: skip
    """A world without gates.

    Args:
        terrain: `[H, W]`.
        places: of the objects, `[n, 2]` or `[M, n, 2]`, padded to `max_objects` slots.
        start: of one player `[2]` or `[M, 2]`, of several `[P, 2]` or `[M, P, 2]`.
        heading: of each player; a number if there is one.
        max_objects: slots, N.
    """
    headings = np.atleast_1d(np.asarray(heading, np.int8))
    places = np.asarray(places, np.int8).reshape((-1, *np.shape(places)[-2:]))
    start = np.asarray(start, np.int8).reshape((-1, len(headings), 2))
    padded = np.zeros((places.shape[0], max_objects, 2), np.int8)
    padded[:, : places.shape[1]] = places
    return World(
        terrain=terrain,
        places=padded,
        start=start,
        heading=headings,
        gates=np.zeros((0, 2), np.int8),
        gate_open=np.zeros(0, bool),
        sight=_sight(terrain.tobytes(), terrain.shape[1]),
    )


def left_alone(world: World) -> World:
    """The same world for two without its second player, who is nowhere: never seen, never near, never in the way."""
    start = world.start.copy()
    start[:, 1] = AWAY
    return world._replace(start=start)


def world_bytes(world: World) -> bytes:
    """Everything that makes a world, for hashing; its table of sight lines follows from the terrain."""
    return b"|".join(np.ascontiguousarray(leaf).tobytes() for leaf in world[:-1])


@lru_cache(maxsize=4096)
def _sight(terrain: bytes, width: int) -> np.ndarray:
    return line_of_sight(np.frombuffer(terrain, np.int8).reshape(-1, width))
