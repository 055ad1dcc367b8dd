"""The task families by their ids: which environment they need and how their pools are drawn."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rekindle.core.errors import ConfigError, nearest
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.game import View
from rekindle.envs.xland.games import Split, canonical, split_of
from rekindle.envs.xland.level import HOLD, ME, NEAR, NUM_TYPES, TOUCHING, Game, World, make_game
from rekindle.envs.xland.pools import TaskPool, make_pool
from rekindle.envs.xland.worlds import make_world, walled_room, world_bytes

MAX_OBJECTS = 12
MAX_RULES = 4


@dataclass(frozen=True)
class Preset:
    """A task family: how to draw a pool of it, and how many trials an episode of it has by default."""

    pool: Callable[..., TaskPool]
    """Takes `split`, `seed`, `worlds`, `games`; see `pool_for`."""
    trials: int


def env_for(id: str) -> XLand:
    """The environment of a task family; all families share their static sizes, so one agent can act in all."""
    id = resolve(id)
    return XLand(id=id, version=int(id.rpartition("-v")[2]), max_rules=MAX_RULES, view=View(9, "centre"),
                 relations=(NEAR, HOLD, TOUCHING))  # fmt: skip


def pool_for(id: str, *, split: Split, seed: int, worlds: int = 256, games: int = 2048) -> TaskPool:
    """A pool of a family's tasks: `worlds` worlds with each of `games` games, all from one side of the split."""
    return PRESETS[resolve(id)].pool(split=split, seed=seed, worlds=worlds, games=games)


def trials_for(id: str) -> int:
    """Trials per episode of a family when nothing else is said."""
    return PRESETS[resolve(id)].trials


def resolve(id: str) -> str:
    """The full id, with the newest version where none is given.

    Raises:
        ConfigError: no such family; names the nearest ones.
    """
    if id in PRESETS:
        return id
    versions = [known for known in PRESETS if re.fullmatch(re.escape(id) + r"-v\d+", known)]
    if not versions:
        raise ConfigError(f"no environment {id!r}; did you mean {nearest(id, PRESETS)}?")
    return max(versions, key=lambda known: int(known.rpartition("-v")[2]))


def doors(n: int, *, split: Split, seed: int, worlds: int, games: int, random_heading: float = 1.0) -> TaskPool:
    """D-N: n objects that look alike in purpose, one of which becomes the goal object when held; time for one try.

    n <= 4: the four cells straight ahead at distance 2 in a 7x7 room. n = 5..8: every second cell of the ring at path
    distance 4 in an 11x11 room. The trial length is the distance + 4. The best possible success in trial k is k / n.
    """
    if not 2 <= n <= 8:
        raise ConfigError(f"doors needs 2 to 8 objects; got {n!r}.")
    rng = np.random.default_rng(seed)
    distance = 2 if n <= 4 else 4
    pool_worlds = [_doors_world(rng, n, distance, split) for _ in range(worlds)]
    pool_games = [_doors_game(rng, n, split) for _ in range(games)]
    return make_pool(pool_worlds, pool_games, trial_length=distance + 4, random_heading=random_heading)


def _doors_world(rng: np.random.Generator, n: int, distance: int, split: Split) -> World:
    centre = distance + 1
    offsets = range(-distance, distance + 1)
    ring = [(y, x) for y in offsets for x in offsets if abs(y) + abs(x) == distance and y % 2 == 0]
    if distance == 2:
        ring = [(y, x) for y, x in ring if y * x == 0]
    terrain = walled_room(2 * centre + 1)
    while True:
        places = np.asarray(ring)[rng.permutation(len(ring))[:n]] + centre
        world = make_world(terrain, places, (centre, centre), heading=int(rng.integers(4)), max_objects=MAX_OBJECTS)
        if split_of(world_bytes(world)) == split:
            return world


def _doors_game(rng: np.random.Generator, n: int, split: Split) -> Game:
    mask = np.zeros((MAX_RULES, 7), np.int8)
    mask[0, 0] = 1
    while True:
        kinds = (1 + rng.permutation(NUM_TYPES)[: n + 1]).tolist()
        goal, objects = kinds[0], kinds[1:]
        rule = [0, HOLD, ME, int(rng.choice(objects)), goal]
        game = make_game([0, HOLD, ME, goal], [rule], objects, max_rules=MAX_RULES, max_objects=MAX_OBJECTS, mask=mask)
        if split_of(canonical(game)) == split:
            return game


def _doors(n: int) -> Preset:
    return Preset(lambda **options: doors(n, **options), trials=n)


PRESETS: dict[str, Preset] = {f"xland/doors-{n}-v1": _doors(n) for n in range(2, 9)}
