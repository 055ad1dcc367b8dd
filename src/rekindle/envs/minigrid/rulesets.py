"""Rulesets at random, by the recipe of XLand-MiniGrid's benchmarks, many at once; and pools that tasks are drawn from.

A ruleset is grown backwards from a goal. The goal's tiles are wanted; level by level every wanted tile is either
pruned, so that it lies about at the start, or becomes the product of a new rule whose own inputs are wanted next. Then
come things and rules that only distract. The rules of a distractor may ask for anything, so some are dead ends.

The original files are downloads and are drawn by another random generator: rulesets are the same in distribution, not
one by one. Equal goals with equal rules, whatever their order, occur once in a pool and on one side of the split only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int16, Int64, Key, UInt8

from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.envs.minigrid import codes
from rekindle.envs.minigrid.codes import AGENT_NEAR, AGENT_TOWARDS, BLACK, FLOOR, GOAL, HELD, NEAR, PICKABLE
from rekindle.envs.minigrid.env import ArrayLike, Task
from rekindle.envs.xland.games import Split, split_of

PALETTE = (1, 2, 3, 4, 5, 6, 9, 10, 11, 8)
"""All colours but black, the floor's."""
TYPES = np.array([(t, c) for t in (*PICKABLE, GOAL) for c in PALETTE] + [(FLOOR, BLACK)], np.uint8)
"""Things by number: 60 that can be picked up, 10 goal tiles, and the floor, which as a product means: nothing."""
PICKABLES, THINGS, NOTHING = 60, 70, 70
RULE_KINDS = np.array([HELD, AGENT_NEAR, *range(AGENT_TOWARDS, 12), *range(NEAR, AGENT_TOWARDS)], np.uint8)
GOAL_KINDS = np.array([codes.GOAL_AS_RULE.index(int(kind)) for kind in RULE_KINDS], np.uint8)
"""Goals of the same conditions; each kind is as likely as the others. Those after the sixth have two tiles."""
ALONE = 6


class Recipe(NamedTuple):
    """How rulesets are drawn."""

    depth: int
    """Levels of rules between the initial things and the goal."""
    prune: float
    """Probability that a wanted tile lies about at the start instead of being made."""
    distractor_rules: int
    """Their number is uniform from 0 to this."""
    distractors: int
    """Things that neither the goal nor the chain asks for."""
    total: int
    """Rulesets of the original file."""

    @property
    def max_rules(self) -> int:
        """Rows of the rule table, at least one."""
        return max(1, 2 ** (self.depth + 1) - 2 + self.distractor_rules)

    @property
    def max_tiles(self) -> int:
        """Things at the start, at most."""
        return 2 ** (self.depth + 1) + self.distractors + 2 * self.distractor_rules


RECIPES = {
    "trivial-21k": Recipe(0, 0.0, 0, 3, 21_000),
    "small-1m": Recipe(1, 0.3, 2, 2, 1_000_000),
    "medium-1m": Recipe(2, 0.1, 3, 2, 1_000_000),
    "medium-3m": Recipe(2, 0.1, 3, 2, 3_000_000),
    "high-1m": Recipe(3, 0.1, 4, 1, 1_000_000),
    "high-3m": Recipe(3, 0.1, 4, 1, 3_000_000),
}


class Rulesets(NamedTuple):
    """N rulesets, stacked; rows of zeros are padding."""

    goals: UInt8[ArrayLike, "N 5"]
    rules: UInt8[ArrayLike, "N R 7"]
    tiles: UInt8[ArrayLike, "N I 2"]
    num_rules: UInt8[ArrayLike, " N"]


class RulesetPool(NamedTuple):
    """Rulesets and the length of a trial: the source of tasks."""

    rulesets: Rulesets
    trial_length: Int16[ArrayLike, ""]


def recipe_of(name: str) -> Recipe:
    """The recipe of a benchmark.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"no rulesets {name!r}; {did_you_mean(name, RECIPES)}")
    return RECIPES[name]


def make_rulesets(name: str, *, split: Split, seed: int = 42, count: int | None = None,
                  repeats: bool = False) -> Rulesets:  # fmt: skip
    """Different rulesets of a benchmark, from one side of the held-out split; a function of the arguments.

    Args:
        name: such as `small-1m`.
        split: one in eight is held out for testing, chosen by the hash of goal and rules, whatever the seed.
        seed: of the draws.
        count: how many; by default 65,536 of the training side or 8,192 of the test side, at most 7/8 and 1/8 of the
            original file.
        repeats: let equal rulesets occur, as the recipe draws them. It matters without rules only: there are 60
            goals of holding something, 350 of being near it and 21,000 of putting two things together, so that without
            repeats nearly all of 21,000 are of the last sort, which are the hardest.

    Raises:
        ConfigError: an unknown name, or more rulesets than exist.
    """
    recipe = recipe_of(name)
    most = recipe.total // 8 * {"train": 7, "test": 1}[split]
    wanted = min({"train": 65_536, "test": 8_192}[split], most) if count is None else count
    if not 1 <= wanted <= most:
        raise ConfigError(f"{name} has 1 to {most:,} {split} rulesets; got count={wanted!r}.")
    rng = np.random.default_rng([seed, sorted(RECIPES).index(name)])
    kept, seen, parts = 0, set[bytes](), list[Rulesets]()
    while kept < wanted:
        drawn = draw_rulesets(rng, recipe, 2 * (wanted - kept) + 64)
        rows = np.array([_is_new(key, split, set() if repeats else seen) for key in _keys(drawn)])
        rows = np.flatnonzero(rows)[: wanted - kept]
        parts.append(Rulesets(*(np.asarray(leaf)[rows] for leaf in drawn)))
        kept += len(rows)
    return Rulesets(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def draw(key: Key[Array, ""], pool: RulesetPool, *, min_trials: int, max_trials: int) -> Task:
    """A uniformly drawn task with its number of trials k uniform in [min_trials, max_trials]; for jit and vmap."""
    index_key, trials_key = jax.random.split(key)
    index = jax.random.randint(index_key, (), 0, pool.rulesets.goals.shape[0])
    trials = jax.random.randint(trials_key, (), min_trials, max_trials + 1)
    return task(pool, index, trials)


def task(pool: RulesetPool, index: int | Array, trials: int | Array) -> Task:
    """Task number `index` of a pool."""
    goal, rules, tiles = (jnp.asarray(leaf)[index] for leaf in pool.rulesets[:3])
    return Task(goal, rules, tiles, jnp.asarray(trials, jnp.int16), jnp.asarray(pool.trial_length, jnp.int16))


def draw_rulesets(rng: np.random.Generator, recipe: Recipe, count: int) -> Rulesets:
    """Draw so many, equal ones included: the plain distribution of the recipe."""
    growing = _Growing(rng, recipe, count)
    kind, a, b = growing.condition()
    goals = np.zeros((count, codes.GOAL_WIDTH), np.uint8)
    goals[:, 0], goals[:, 1:3] = GOAL_KINDS[kind], TYPES[a]
    goals[:, 3:5] = np.where(b[:, None] >= 0, TYPES[b], 0)
    everyone = np.ones(count, bool)
    growing.use(a, b)
    wanted = np.stack([b, a], axis=1)
    if not recipe.depth:
        growing.put(growing.tiles, growing.num_tiles, everyone & (a >= 0), a)
        growing.put(growing.tiles, growing.num_tiles, b >= 0, b)
    for level in range(recipe.depth):
        wanted = growing.level(wanted, last=level == recipe.depth - 1)
    for _ in range(recipe.distractors):
        growing.put(growing.tiles, growing.num_tiles, everyone, growing.pick(growing.used, 0, THINGS))
    growing.distract(rng.integers(0, recipe.distractor_rules + 1, count))
    return Rulesets(goals, growing.rules, _tile_rows(growing.tiles), growing.num_rules.astype(np.uint8))


class _Growing:
    """Rulesets while they grow, one row each; a thing is its number in `TYPES`, -1 is none."""

    def __init__(self, rng: np.random.Generator, recipe: Recipe, count: int):
        self.rng, self.recipe, self.count = rng, recipe, count
        self.used = np.zeros((count, THINGS + 1), bool)
        self.rules = np.zeros((count, recipe.max_rules, codes.RULE_WIDTH), np.uint8)
        self.tiles = np.full((count, recipe.max_tiles), -1)
        self.num_rules, self.num_tiles = np.zeros(count, np.int64), np.zeros(count, np.int64)

    def pick(self, avoid: np.ndarray, first: int, end: int, *, also: int | None = None) -> Int64[np.ndarray, " n"]:
        """For each row, uniformly a thing from `first` to `end` - 1 (or `also`) that it does not have to avoid."""
        choices = np.append(np.arange(first, end), [] if also is None else [also]).astype(np.int64)
        picked = choices[self.rng.integers(len(choices), size=self.count)]
        while (again := np.flatnonzero(avoid[np.arange(self.count), picked])).size:
            picked[again] = choices[self.rng.integers(len(choices), size=again.size)]
        return picked

    def condition(self, avoid: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Index of the kind, a, and b or -1. Without `avoid` it is a goal's: a goal tile can be walked up to.

        In a rule a lone input can be picked up.
        """
        free = np.zeros_like(self.used) if avoid is None else avoid
        kind = self.rng.integers(len(RULE_KINDS), size=self.count)
        lone, wide, b = self.pick(free, 0, PICKABLES), self.pick(free, 0, THINGS), self.pick(free, 0, PICKABLES)
        must_lift = (kind == 0) if avoid is None else (kind < ALONE)
        return kind, np.where(must_lift, lone, wide), np.where(kind < ALONE, -1, b)

    def use(self, *things: np.ndarray) -> None:
        """No later rule of the chain may ask for these."""
        for thing in things:
            rows = np.flatnonzero(thing >= 0)
            self.used[rows, thing[rows]] = True

    def put(self, table: np.ndarray, number: np.ndarray, where: Bool[np.ndarray, " n"], what: np.ndarray) -> None:
        """Append to the rows of a table."""
        rows = np.flatnonzero(where)
        table[rows, number[rows]] = what[rows]
        number[rows] += 1

    def rule(self, where: np.ndarray, product: np.ndarray, kind: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        """Append a rule to the rows where there shall be one."""
        row = np.zeros((self.count, codes.RULE_WIDTH), np.uint8)
        row[:, 0], row[:, 1:3], pair = RULE_KINDS[kind], TYPES[a], (b >= 0)[:, None]
        row[:, 3:5], row[:, 5:7] = np.where(pair, TYPES[b], TYPES[product]), np.where(pair, TYPES[product], 0)
        self.put(self.rules, self.num_rules, where, row)

    def level(self, wanted: np.ndarray, *, last: bool) -> np.ndarray:
        """Prune or make every wanted thing; what the new rules ask for is wanted next, or there from the start."""
        asked: list[np.ndarray] = []
        for product in wanted.T:
            there = product >= 0
            pruned = there & (self.rng.random(self.count) < self.recipe.prune)
            self.put(self.tiles, self.num_tiles, pruned, product)
            made = there & ~pruned
            kind, a, b = self.condition(self.used)
            self.rule(made, product, kind, a, b)
            a, b = np.where(made, a, -1), np.where(made, b, -1)
            self.use(a, b)
            asked += [a, b]
            if last:
                self.put(self.tiles, self.num_tiles, a >= 0, a)
                self.put(self.tiles, self.num_tiles, b >= 0, b)
        return np.stack(asked[::-1], axis=1)

    def distract(self, number: np.ndarray) -> None:
        """Rules that may ask for anything; they make what the chain does not use, or nothing."""
        for i in range(self.recipe.distractor_rules):
            there = number > i
            product = self.pick(self.used, 0, PICKABLES, also=NOTHING)
            kind, a, b = self.condition(np.zeros_like(self.used))
            self.rule(there, product, kind, a, b)
            self.put(self.tiles, self.num_tiles, there, a)
            self.put(self.tiles, self.num_tiles, there & (b >= 0), b)


def _tile_rows(things: np.ndarray) -> np.ndarray:
    return np.where(things[..., None] >= 0, TYPES[things], 0).astype(np.uint8)


def _keys(drawn: Rulesets) -> list[bytes]:
    """What makes two rulesets the same: the goal and the rules, their order aside."""
    goals, rules = np.asarray(drawn.goals), np.ascontiguousarray(drawn.rules)
    rows = np.sort(rules.view(f"V{codes.RULE_WIDTH}")[..., 0], axis=1)
    return [goal.tobytes() + row.tobytes() for goal, row in zip(goals, rows, strict=True)]


def _is_new(key: bytes, split: Split, seen: set[bytes]) -> bool:
    """Whether a ruleset belongs here and was not seen; it is seen from now on."""
    if key in seen or split_of(key) != split:
        return False
    seen.add(key)
    return True
