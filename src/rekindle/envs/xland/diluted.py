"""A pool in which little can be learnt: some tasks as they are, the others impossible, or solved by doing nothing.

What a curriculum is for shows where most of what is drawn is useless (AdA, Adaptive Agents Team 2023, section 3.3).
"""

import jax
import numpy as np

from rekindle.core.errors import ConfigError
from rekindle.envs.xland.level import NEAR, NUM_TYPES, Game
from rekindle.envs.xland.pools import TaskPool, stack

LEARNABLE, IMPOSSIBLE, SOLVED = range(3)


def dilute(pool: TaskPool, rng: np.random.Generator, *, learnable: float, impossible: float) -> TaskPool:
    """The pool's pairs with these shares left as they are and made impossible; the rest is solved from the start.

    Raises:
        ConfigError: shares that are no shares, or a pool without chosen pairs.
    """
    if min(learnable, impossible) < 0 or learnable + impossible > 1:
        raise ConfigError(f"shares must be at least 0 and add up to at most 1; got {learnable} and {impossible}.")
    if not len(pool.pairs):
        raise ConfigError("only a pool of chosen pairs can be diluted.")
    kinds = kinds_of(len(pool.pairs), rng, learnable, impossible)
    pairs, games = np.array(pool.pairs), []
    first = len(pool.games.goal)
    for i in np.flatnonzero(kinds != LEARNABLE):
        game = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[pool.pairs[i, 1]]), pool.games)
        if kinds[i] == SOLVED:
            pairs[i, 0], slots = beside_each_other(pool, pairs[i, 0], rng)
            game = solved(game, slots, rng)
        else:
            game = hopeless(game)
        pairs[i, 1] = first + len(games)
        games.append(game)
    more = jax.tree.map(lambda a, b: np.concatenate([a, b]), pool.games, stack(games)) if games else pool.games
    return pool._replace(games=more, pairs=pairs)


def kinds_of(n: int, rng: np.random.Generator, learnable: float, impossible: float) -> np.ndarray:
    """LEARNABLE, IMPOSSIBLE or SOLVED for each of n tasks, in exact shares."""
    kinds = np.full(n, SOLVED)
    kinds[: round(n * learnable)] = LEARNABLE
    kinds[round(n * learnable) : round(n * (learnable + impossible))] = IMPOSSIBLE
    return rng.permutation(kinds)


def hopeless(game: Game) -> Game:
    """The same goal and rules without any object that leads to the goal."""
    wanted = {int(kind) for kind in game.goal[2:] if 0 < kind <= NUM_TYPES}
    for _ in game.rules:
        for rule in game.rules:
            if wanted & {int(kind) for kind in rule[4:]}:
                wanted |= {int(kind) for kind in rule[2:4] if 0 < kind <= NUM_TYPES}
    gone = np.isin(game.objects, sorted(wanted))
    return game._replace(objects=np.where(gone, 0, game.objects).astype(np.int8), frozen=game.frozen & ~gone)


def solved(game: Game, slots: tuple[int, int], rng: np.random.Generator) -> Game:
    """A goal that two objects fulfil where they lie, and no rule."""
    free = np.setdiff1d(np.arange(1, NUM_TYPES + 1), game.objects)
    free = free if len(free) > 1 else np.arange(1, NUM_TYPES + 1)
    a, b = rng.permutation(free)[:2]
    objects = np.array(game.objects)
    objects[list(slots)] = a, b
    goal = np.asarray([0, NEAR, a, b], np.int8)
    return Game(goal, np.zeros_like(game.rules), objects.astype(np.int8), np.zeros_like(game.frozen),
                np.zeros_like(game.mask))  # fmt: skip


def beside_each_other(pool: TaskPool, world: int | np.integer, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
    """The world, or another one, and two slots whose places touch in all of its layouts."""
    for number in [int(world), *rng.permutation(len(pool.worlds.places)).tolist()]:
        places = np.asarray(pool.worlds.places[number], np.int64)
        apart = np.abs(places[:, :, None] - places[:, None]).max(axis=-1).max(axis=0)
        pairs = np.argwhere(np.triu(apart == 1))
        if len(pairs):
            first, second = rng.choice(pairs).tolist()
            return number, (first, second)
    raise ConfigError("no world of the pool has two places beside each other.")
