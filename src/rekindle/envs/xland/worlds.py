"""Worlds at random: rooms with gates between them, and where the objects and the player start."""

import numpy as np

from rekindle.envs.xland.level import FLOOR, WALL, World, line_of_sight


def walled_room(size: int) -> np.ndarray:
    """Terrain `[size, size]` of one room inside a ring of wall."""
    terrain = np.full((size, size), WALL, np.int8)
    terrain[1:-1, 1:-1] = FLOOR
    return terrain


def make_world(terrain: np.ndarray, places: np.ndarray, start: tuple[int, int] | np.ndarray, *, heading: int,
               max_objects: int) -> World:  # fmt: skip
    """A world of one player: `places` is `[n, 2]` or `[M, n, 2]`, padded to `max_objects` slots; gates are shut."""
    places = np.asarray(places, np.int8).reshape((-1, *np.shape(places)[-2:]))
    start = np.asarray(start, np.int8).reshape((-1, 1, 2))
    padded = np.zeros((places.shape[0], max_objects, 2), np.int8)
    padded[:, : places.shape[1]] = places
    return World(
        terrain=terrain,
        places=padded,
        start=start,
        heading=np.asarray([heading], np.int8),
        gates=np.zeros((0, 2), np.int8),
        gate_open=np.zeros(0, bool),
        sight=line_of_sight(terrain),
    )


def world_bytes(world: World) -> bytes:
    """Everything that makes a world, for hashing."""
    return b"|".join(np.ascontiguousarray(leaf).tobytes() for leaf in world[:-1])
