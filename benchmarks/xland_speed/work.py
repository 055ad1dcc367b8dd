"""The same work in two encodings: objects, a goal and rules are drawn once, then written for each world.

A rule has one of the eleven kinds of XLand-MiniGrid (held, beside the player, beside each other; the last two also by
direction). Its product comes later in a fixed order of the twelve types than its inputs, so that chains end, as they
do in XLand-MiniGrid's generator. What goes by direction there is by `touching` or `near` here.
"""

from typing import NamedTuple

import jax
import numpy as np
from xminigrid.types import RuleSet

from rekindle.envs.xland.level import (
    FLOOR,
    GATE,
    HOLD,
    ME,
    NEAR,
    NUM_TYPES,
    TOUCHING,
    WALL,
    Task,
    World,
    line_of_sight,
    make_game,
)  # fmt: skip

SIZE = 13
TRIAL_LENGTH = 3 * SIZE * SIZE
"""XLand-MiniGrid's default."""
OBJECTS = {1: 6, 9: 12, 18: 18}
"""Objects by number of rules."""
LAYOUTS = 16
"""Starts per world, one of which is drawn at a reset."""
WORLDS = 16
"""Different rooms; XLand-MiniGrid draws its doors anew for every world."""
HELD, BESIDE_ME, TOGETHER = (1,), (2, 8, 9, 10, 11), (3, 4, 5, 6, 7)
"""XLand-MiniGrid's ids of the three families of rules."""
GOALS = {HELD: (1,), BESIDE_ME: (3, 11, 12, 13, 14), TOGETHER: (4, 7, 8, 9, 10)}


class Recipe(NamedTuple):
    """What both worlds are made of; types are 1..12."""

    objects: np.ndarray
    goal: tuple[int, int, int]
    """Kind (an id of a rule in XLand-MiniGrid), a, b."""
    rules: list[tuple[int, int, int, int]]
    """Kind, a, b, product."""


def draw_recipe(rng: np.random.Generator, rules: int) -> Recipe:
    """Objects of any types; rules about them."""
    objects = rng.integers(1, NUM_TYPES + 1, OBJECTS[rules])
    rows = []
    for _ in range(rules):
        a, b = rng.integers(1, NUM_TYPES, 2)
        rows.append((int(rng.integers(1, 12)), int(a), int(b), int(rng.integers(max(a, b) + 1, NUM_TYPES + 1))))
    kind, (a, b) = int(rng.integers(1, 12)), rng.integers(1, NUM_TYPES + 1, 2)
    return Recipe(objects, (kind, int(a), int(b)), rows)


def theirs(recipe: Recipe) -> RuleSet:
    """The recipe as a `RuleSet`."""

    def tile(kind: int) -> list[int]:
        return [(3, 4, 5, 7)[(kind - 1) % 4], 1 + (kind - 1) // 4]

    rules = np.zeros((len(recipe.rules), 7), np.uint8)
    for row, (kind, a, b, product) in zip(rules, recipe.rules, strict=True):
        encoding = [kind, *tile(a), *(tile(b) if kind in TOGETHER else []), *tile(product)]
        row[: len(encoding)] = encoding
    kind, a, b = recipe.goal
    family = next(family for family in GOALS if kind in family)
    goal = np.zeros(5, np.uint8)
    encoding = [GOALS[family][family.index(kind)], *tile(a), *(tile(b) if family is TOGETHER else [])]
    goal[: len(encoding)] = encoding
    return RuleSet(goal=goal, rules=rules, init_tiles=np.array([tile(kind) for kind in recipe.objects], np.uint8))


def ours(recipe: Recipe, world: World) -> Task:
    """The recipe as a game in one of our worlds."""

    def condition(kind: int, a: int, b: int) -> list[int]:
        relation = HOLD if kind in HELD else (TOUCHING, NEAR)[kind % 2]
        return [0, relation, *((a, b) if kind in TOGETHER else (ME, a))]

    game = make_game(
        condition(*recipe.goal),
        [[*condition(*rule[:3]), rule[3]] for rule in recipe.rules],
        list(recipe.objects),
        max_rules=len(recipe.rules),
    )
    return Task(world, game, np.int16(TRIAL_LENGTH), np.int16(1), np.float32(1))


def four_rooms(rng: np.random.Generator, objects: int, sight: bool) -> World:
    """Four rooms with a gate in each inner wall, as R4; without a sight table unless `sight`."""
    half = SIZE // 2
    terrain = np.full((SIZE, SIZE), WALL, np.int8)
    terrain[1:half, 1:half] = terrain[1:half, half + 1 : -1] = FLOOR
    terrain[half + 1 : -1, 1:half] = terrain[half + 1 : -1, half + 1 : -1] = FLOOR
    d = rng.integers(1, half, 4)
    gates = np.array([[half, d[0]], [half, half + d[1]], [d[2], half], [half + d[3], half]], np.int8)
    terrain[gates[:, 0], gates[:, 1]] = GATE
    cells = np.argwhere(terrain == FLOOR).astype(np.int8)
    drawn = np.stack([rng.permutation(cells)[: objects + 1] for _ in range(LAYOUTS)])
    places = np.zeros((LAYOUTS, 20, 2), np.int8)
    places[:, :objects] = drawn[:, 1:]
    table = line_of_sight(terrain) if sight else np.zeros((0, 0), np.uint8)
    return World(terrain, places, drawn[:, :1], np.zeros(1, np.int8), gates, np.zeros(4, bool), table)


def draw_work(seed: int, rules: int, worlds: int, *, sight: bool = False) -> tuple[RuleSet, Task]:
    """`worlds` tasks for both, stacked."""
    rng = np.random.default_rng(seed)
    recipes = [draw_recipe(rng, rules) for _ in range(worlds)]
    rooms = [four_rooms(rng, OBJECTS[rules], sight) for _ in range(min(worlds, WORLDS))]
    rule_sets = [theirs(recipe) for recipe in recipes]
    tasks = [ours(recipe, rooms[i % len(rooms)]) for i, recipe in enumerate(recipes)]
    return stack(rule_sets), stack(tasks)


def stack(trees: list) -> jax.Array:
    """One tree whose leaves have a first axis, on the device."""
    return jax.tree.map(lambda *leaves: jax.numpy.asarray(np.stack(leaves)), *trees)
