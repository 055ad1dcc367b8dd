import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs.xland.level import FLOOR, GATE, WALL
from rekindle.envs.xland.worlds import sample_world


def regions(passable):
    """Number of connected parts."""
    left, count = {tuple(cell) for cell in np.argwhere(passable).tolist()}, 0
    while left:
        count, front = count + 1, [left.pop()]
        while front:
            y, x = front.pop()
            for cell in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if cell in left:
                    left.remove(cell)
                    front.append(cell)
    return count


@pytest.mark.parametrize(("rooms", "size", "parts", "gates"), [
    ("R1", 7, 1, 0), ("R2", 9, 2, 1), ("R4", 13, 4, 4), ("R9", 13, 9, 12), ("R9", 16, 9, 12),
])  # fmt: skip
def test_gates_join_all_rooms(rooms, size, parts, gates):
    world = sample_world(np.random.default_rng(0), rooms, size, max_objects=12)
    assert world.terrain.shape == (size, size)
    assert len(world.gates) == len(world.gate_open) == gates
    assert all(world.terrain[y, x] == GATE for y, x in world.gates) and (world.terrain == GATE).sum() == gates
    assert regions(world.terrain == FLOOR) == parts and regions(world.terrain != WALL) == 1
    edge = np.concatenate([world.terrain[[0, -1]].ravel(), world.terrain[:, [0, -1]].ravel()])
    assert (edge == WALL).all()
    assert (world.sight.size == 0) == (rooms == "R1")


def test_start_and_objects_are_on_different_floor_cells_in_every_layout():
    world = sample_world(np.random.default_rng(1), "R4", 9, max_objects=20, layouts=5)
    assert world.places.shape == (5, 20, 2) and world.start.shape == (5, 1, 2)
    cells = np.concatenate([world.start, world.places], axis=1)
    assert (world.terrain[cells[..., 0], cells[..., 1]] == FLOOR).all()
    assert all(len({tuple(cell) for cell in layout.tolist()}) == 21 for layout in cells)
    assert len({layout.tobytes() for layout in cells}) == 5


def test_two_players_start_on_different_floor_cells():
    world = sample_world(np.random.default_rng(1), "R2", 7, max_objects=12, layouts=5, players=2)
    assert world.places.shape == (5, 12, 2) and world.start.shape == (5, 2, 2) and world.heading.shape == (2,)
    cells = np.concatenate([world.start, world.places], axis=1)
    assert (world.terrain[cells[..., 0], cells[..., 1]] == FLOOR).all()
    assert all(len({tuple(cell) for cell in layout.tolist()}) == 14 for layout in cells)
    with pytest.raises(ConfigError, match="20 floor cells; 19 objects and 2 players"):
        sample_world(np.random.default_rng(1), "R2", 7, max_objects=19, players=2)


def test_rooms_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="odd; got 8"):
        sample_world(rng, "R4", 8, max_objects=3)
    with pytest.raises(ConfigError, match="25 floor cells"):
        sample_world(rng, "R1", 7, max_objects=25)
