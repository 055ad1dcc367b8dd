"""The task families by their ids: which environment they need and how their pools are drawn.

`python -m rekindle.envs.xland.presets --make f0t` draws and plans the shipped pools of F0t anew.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from rekindle.core.checks import SHARE, Option, checked, one_of, whole
from rekindle.core.errors import ConfigError
from rekindle.envs.registry import Made, resolve
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import game as rules
from rekindle.envs.xland import games as recipes
from rekindle.envs.xland import planner, pools, probes
from rekindle.envs.xland.diluted import dilute
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.game import View
from rekindle.envs.xland.games import Hidden, Recipe, Split, sample_game, split_of
from rekindle.envs.xland.level import (
    FLOOR,
    GATE,
    HOLD,
    ME,
    NEAR,
    NOOP,
    NUM_TYPES,
    SEE,
    TOUCHING,
    Game,
    World,
    make_game,
)
from rekindle.envs.xland.pools import TaskPool, make_pool
from rekindle.envs.xland.spec import PAIR_PROBES, PROBES
from rekindle.envs.xland.worlds import Rooms, left_alone, make_world, sample_world, walled_room, world_bytes

MAX_OBJECTS = 12
MAX_RULES = 4
SMALL = XLand(max_rules=MAX_RULES, view=View(9, "centre"), relations=(NEAR, HOLD, TOUCHING))
"""The static sizes of all small families, so that one agent can act in all."""
PAIR = replace(SMALL, players=2)
"""The same for two players: each seat shows and takes what a player alone is shown and takes."""
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Preset:
    """A task family: how to draw a pool of it, its environment, and how many trials an episode has by default."""

    pool: Callable[..., TaskPool]
    """Takes `split`, `seed` and the family's own options; see `pool_for`."""
    trials: int
    env: XLand = SMALL


def make(id: str, **options: Any) -> Made:
    """The registry's factory; `options` are those of the family's pool.

    Raises:
        ConfigError: options that the family does not have, or of another type or range.
    """
    preset = PRESETS[resolve(id, PRESETS)]
    check_options(id, options)
    draw = partial(pools.draw, min_trials=1, max_trials=preset.trials)
    return Made(Trials(env_for(id)), partial(pool_for, id, **options), draw, preset.trials)


def env_for(id: str) -> XLand:
    """The environment of a task family, one trial long."""
    id = resolve(id, PRESETS)
    return replace(PRESETS[id].env, id=id, version=int(id.rpartition("-v")[2]))


def pool_for(id: str, *, split: Split, seed: int, **options: Any) -> TaskPool:
    """A pool of a family's tasks, all from one side of the held-out split; a function of the id and the arguments.

    Options of all families: `random_heading`, the probability that a trial starts with a random heading (1). Of all
    but F0t: `worlds` and `games`, how many of each. Of the F families: `hidden`, what the player is not told of the
    rules. Of F0, F1, F2, C2: `pairs`, how many of the worlds x games tasks the pool holds. Of C2: `alone`, the share of
    games that are made for one player and leave the second out (0). F0t is shipped as one pool per split, whatever the
    seed; a probe is one task and has no options.
    """
    return PRESETS[resolve(id, PRESETS)].pool(split=split, seed=seed, **options)


def check_options(id: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a family's pool does not have, or that are no whole number, share or choice as it takes.

    Raises:
        ConfigError: naming the option, what it takes and what came.
    """
    known = set(signature(PRESETS[resolve(id, PRESETS)].pool).parameters) & set(OPTIONS)
    checked(f"the pool of {id}", options, {name: OPTIONS[name] for name in sorted(known)})


OPTIONS: dict[str, Option] = {
    **{name: whole(1, 1_000_000) for name in ("worlds", "games", "pairs", "distance", "length")},
    **{name: SHARE for name in ("random_heading", "alone", "learnable", "impossible")},
    "hidden": one_of(*get_args(Hidden)),
}
"""Of pools: what each takes."""


def trials_for(id: str) -> int:
    """Trials per episode of a family when nothing else is said."""
    return PRESETS[resolve(id, PRESETS)].trials


def doors(
    n: int, *, split: Split, seed: int, worlds: int = 256, games: int = 2048, random_heading: float = 1.0,
    distance: int | None = None, length: int | None = None,
) -> TaskPool:  # fmt: skip
    """D-N: n objects that look alike in purpose, one of which becomes the goal object when held; time for one try.

    n <= 4: the four cells straight ahead at `distance` 2 in a 7x7 room. n = 5..8: every second cell of the ring at path
    distance 4 in an 11x11 room. The trial `length` is the distance + 4 unless it is given, which leaves time for one
    try. The best possible success in trial k is then k / n.
    """
    if not 2 <= n <= 8:
        raise ConfigError(f"doors needs 2 to 8 objects; got {n!r}.")
    rng = np.random.default_rng(seed)
    distance = distance or (2 if n <= 4 else 4)
    pool_worlds = [_doors_world(rng, n, distance, split) for _ in range(worlds)]
    pool_games = [_doors_game(rng, n, split) for _ in range(games)]
    return make_pool(pool_worlds, pool_games, trial_length=length or distance + 4, random_heading=random_heading)


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
        # Held out by goal and objects, not by the rule: an agent that had never seen a rule fire would learn to
        # try its object last, and the best possible success would no longer be k / n.
        if split_of(bytes([goal, *sorted(objects)])) == split:
            return game


def from_recipe(recipe: Recipe, rooms: Rooms, size: int, trial_length: tuple[int, int], *, split: Split, seed: int,
                worlds: int = 256, games: int = 2048, pairs: int = 16_384, hidden: Hidden | None = None,
                random_heading: float = 1.0, alone: float = 0.0, env: XLand = SMALL) -> TaskPool:  # fmt: skip
    """Random worlds with random games, paired at random; `trial_length` is uniform, in steps, inclusive.

    Only pairs in which nothing happens by itself are kept: doing nothing neither earns a reward nor fires a rule. Nor
    may frozen objects part the room.

    Raises:
        ConfigError: `alone` outside [0, 1], or for a family in which everyone is alone.
    """
    if not 0 <= alone <= 1 or (alone and env.players == 1):
        raise ConfigError(f"`alone` is a share in [0, 1] of games, in families for two players; got {alone!r}.")
    rng = np.random.default_rng(seed)
    recipe = replace(recipe, hidden=hidden or recipe.hidden)
    some_worlds = [_world(rng, rooms, size, recipe, split) for _ in range(worlds)]
    for_two = games - round(alone * games)
    some_games = [sample_game(rng, recipe, split=split).game for _ in range(for_two)]
    some_games += [_game_for_one(rng, recipe, split) for _ in range(games - for_two)]
    wanted = min(pairs, worlds * games)
    offered = rng.choice(worlds * games, size=min(2 * wanted, worlds * games), replace=False)
    world, game = np.divmod(offered, games)
    if alone:
        some_worlds += [left_alone(world) for world in some_worlds]
    pool = make_pool(
        some_worlds,
        some_games,
        pairs=np.stack([world + worlds * (game >= for_two), game], axis=1),
        trial_length=rng.integers(*trial_length, size=len(offered), endpoint=True),
        random_heading=random_heading,
    )
    return keep(pool, np.flatnonzero(quiet(env, pool) & joined(pool))[:wanted])


def keep(pool: TaskPool, numbers: np.ndarray) -> TaskPool:
    """The pool of these pairs."""
    return pool._replace(pairs=pool.pairs[numbers], trial_length=pool.trial_length[numbers])


def quiet(env: XLand, pool: TaskPool, *, batch: int = 8192) -> Bool[np.ndarray, " n"]:
    """For each pair: whether doing nothing, with any initial heading, neither earns a reward nor fires a rule."""
    layouts, total = pool.worlds.places.shape[1], pool.pairs.shape[0]
    headings = 4 if SEE in env.relations else 1  # which only sight depends on
    calm = np.ones((total, layouts, *(headings,) * env.players), bool)
    starts = np.argwhere(calm)
    for first in range(0, len(starts), batch):
        some = starts[first : first + batch]
        padded = np.pad(some, ((0, batch - len(some)), (0, 0)), mode="edge")
        pair, layout, heading = padded[:, 0], padded[:, 1], padded[:, 2:]
        world = jax.tree.map(lambda leaf, i=pair: leaf[pool.pairs[i, 0]], pool.worlds)
        game = jax.tree.map(lambda leaf, i=pair: leaf[pool.pairs[i, 1]], pool.games)
        good = _nothing_happens(env)(world, game, layout.astype(np.int32), heading.astype(np.int8))
        calm[tuple(some.T)] = np.asarray(good)[: len(some)]
    return np.asarray(calm.reshape(total, -1).all(axis=1))


def joined(pool: TaskPool) -> Bool[np.ndarray, " n"]:
    """For each pair: whether players can reach every cell, through gates but not across frozen objects."""
    whole = np.ones((pool.pairs.shape[0], pool.worlds.places.shape[1]), bool)
    frozen = np.asarray(pool.games.frozen)
    affected = np.asarray(frozen[pool.pairs[:, 1]].any(axis=1))
    for pair, layout in np.argwhere(whole & affected[:, None]).tolist():
        world, game = pool.pairs[pair].tolist()
        stuck = pool.worlds.places[world, layout][frozen[game]]
        whole[pair, layout] = _is_joined(pool.worlds.terrain[world].tobytes(), pool.worlds.terrain.shape[2],
                                         stuck.tobytes())  # fmt: skip
    return np.asarray(whole.all(axis=1))


@lru_cache(maxsize=4096)
def _is_joined(terrain: bytes, width: int, stuck: bytes) -> bool:
    """Whether the floor and the gates hang together without the cells `stuck`, `[n, 2]`."""
    grid = np.frombuffer(terrain, np.int8).reshape(-1, width)
    ways = np.isin(grid, (FLOOR, GATE))
    y, x = np.frombuffer(stuck, np.int8).reshape(-1, 2).T
    ways[y, x] = False
    reached = np.zeros_like(ways)
    reached[tuple(np.argwhere(ways)[0])] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= ways
        if (grown == reached).all():
            return bool((reached == ways).all())
        reached = grown


@lru_cache(maxsize=8)
def _nothing_happens(env: XLand) -> Callable[..., Array]:
    def one(world: World, game: Game, layout: Array, heading: Array) -> Array:
        scene = rules.opening(world, game, layout, heading)
        after, goal = rules.advance(scene, world, game, jnp.full(env.players, NOOP), env.view, env.relations)
        return ~goal & jnp.all(after.kind == scene.kind) & (after.dropped == 0)

    return jax.jit(jax.vmap(one))


def _world(rng: np.random.Generator, rooms: Rooms, size: int, recipe: Recipe, split: Split) -> World:
    while True:
        world = sample_world(rng, rooms, size, max_objects=recipe.max_objects, players=recipe.players)
        if split_of(world_bytes(world)) == split:
            return world


def _game_for_one(rng: np.random.Generator, recipe: Recipe, split: Split) -> Game:
    """A game for one player, as the paper draws them (nothing frozen), in the arrays of one for two."""
    game = sample_game(rng, replace(recipe, players=1, frozen_games=0.0), split=split).game
    return game._replace(mask=np.stack([game.mask, game.mask]))


def f0t(*, split: Split, seed: int = 0, hidden: Hidden = "rules", random_heading: float = 1.0) -> TaskPool:
    """F0 with exactly one rule needed and so little time that a trial allows about one attempt. Shipped as data.

    T is 1.5 times the shortest solution from the worst heading, at least 2 more. `seed` matters for `hidden="random"`.
    """
    pool = pools.load(DATA / f"f0t-{split}.npz")
    rng = np.random.default_rng(seed)
    mask = np.stack([recipes.hide(rng, table, hidden) for table in pool.games.rules])
    return pool._replace(games=pool.games._replace(mask=mask), random_heading=np.asarray(random_heading, np.float32))


def f0_diluted(*, split: Split, seed: int = 0, learnable: float = 0.1, impossible: float = 0.45, worlds: int = 256,
               games: int = 2048, pairs: int = 16_384, random_heading: float = 1.0) -> TaskPool:  # fmt: skip
    """F0 of which only a share can be learnt from; the rest is impossible, or solved by doing nothing."""
    pool = from_recipe(recipes.F0, "R1", 7, (40, 40), split=split, seed=seed, worlds=worlds, games=games, pairs=pairs,
                       random_heading=random_heading)  # fmt: skip
    return dilute(pool, np.random.default_rng(seed), learnable=learnable, impossible=impossible)


LONGEST_F0T = 14
"""Tasks whose shortest solution is longer are left out of F0t."""


def make_f0t(split: Split, *, pairs: int, seed: int, cache: Path | None = None,
             progress: Callable[[int, int], None] | None = None) -> TaskPool:  # fmt: skip
    """Draw and plan a pool of F0t: solvable tasks only. With `cache`, an interrupted run resumes where it was."""
    recipe = replace(recipes.F0, chain=(1, 1))
    pool = from_recipe(recipe, "R1", 7, (LONGEST_F0T, LONGEST_F0T), split=split, seed=seed, worlds=pairs // 16,
                       games=pairs // 2, pairs=pairs + pairs // 4)  # fmt: skip
    plans = planner.plan_many(env_for("xland/f0t"), pool, cache=cache, progress=progress)
    good = np.flatnonzero([found.solvable for found in plans])[:pairs]
    if len(good) < pairs:
        raise ConfigError(f"only {len(good)} of {len(plans)} drawn tasks can be solved; asked for {pairs}.")
    worst = np.asarray([max(plans[i].per_start) for i in good])
    time = np.maximum(np.ceil(1.5 * worst), worst + 2).astype(np.int16)
    return keep(pool, good)._replace(trial_length=time)


def _doors(n: int) -> Preset:
    return Preset(partial(doors, n), trials=n)


def _probe(name: str) -> Preset:
    return Preset(partial(probes.pool, name), trials=4, env=SMALL if probes.players(name) == 1 else PAIR)


PRESETS: dict[str, Preset] = {f"xland/doors-{n}-v1": _doors(n) for n in range(2, 9)} | {
    "xland/f0-v1": Preset(partial(from_recipe, recipes.F0, "R1", 7, (40, 40)), trials=4),
    "xland/f0-visible-v1": Preset(
        partial(from_recipe, replace(recipes.F0, hidden="none"), "R1", 7, (40, 40)), trials=4
    ),
    "xland/f0-diluted-v1": Preset(f0_diluted, trials=4),
    "xland/f0t-v1": Preset(f0t, trials=4),
    "xland/f1-v1": Preset(partial(from_recipe, recipes.F1, "R1", 9, (60, 100)), trials=4),
    "xland/f2-v1": Preset(partial(from_recipe, recipes.FULL, "R4", 13, (100, 200), env=XLand()), trials=4, env=XLand()),
    "xland/c2-v1": Preset(partial(from_recipe, recipes.C2, "R2", 7, (40, 40), env=PAIR), trials=4, env=PAIR),
    "xland/c2-f1-v1": Preset(partial(from_recipe, recipes.C2_F1, "R4", 9, (60, 100), env=PAIR), trials=4, env=PAIR),
    **{f"xland/probe-{name}-v1": _probe(name) for name in (*PROBES, *PAIR_PROBES)},
}


def main() -> None:
    """Write the shipped pools."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--make", choices=["f0t"], required=True)
    parser.add_argument("--cache", type=Path, help="folder of finished plans, to resume from")
    cache = parser.parse_args().cache
    DATA.mkdir(exist_ok=True)
    sizes: dict[Split, int] = {"train": 4096, "test": 512}
    for split, pairs in sizes.items():
        pool = make_f0t(split, pairs=pairs, seed=0, cache=cache, progress=partial(_show, split))
        pools.save(pool, DATA / f"f0t-{split}.npz")


def _show(split: Split, done: int, total: int) -> None:
    sys.stderr.write(f"\r{split}: {done} of {total} tasks planned{'' if done < total else chr(10)}")


if __name__ == "__main__":
    main()
