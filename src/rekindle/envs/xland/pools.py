"""Pools of tasks: many worlds, many games, and which of them go together. Stored once, drawn inside jit."""

from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int16, Int32, Key

from rekindle.core.errors import ConfigError
from rekindle.core.tree import flatten_arrays
from rekindle.envs.xland.level import ArrayLike, Game, Task, World

T = TypeVar("T", World, Game)


class TaskPool(NamedTuple):
    """W worlds and G games; the leaves of both are stacked along a first axis.

    A pool without `pairs` holds all W x G tasks, so 4,000 worlds and 50,000 games are 200 million tasks.
    """

    worlds: World
    games: Game
    pairs: Int32[ArrayLike, "n 2"]
    """Task i is world `pairs[i, 0]` with game `pairs[i, 1]`; of shape [0, 2], it means every world with every game."""
    trial_length: Int16[ArrayLike, " n"]
    """Steps per trial of each pair, or a single number for all tasks."""
    random_heading: Float[ArrayLike, ""]
    """Probability that a trial starts with a random heading; training may replace it at any time."""


class Mixture(NamedTuple):
    """Several pools; a draw picks one of them first. Their tasks have the same array shapes."""

    pools: tuple[TaskPool, ...]
    weights: Float[ArrayLike, " n"]
    """Relative probabilities, not all zero."""


def num_tasks(pool: TaskPool) -> int:
    """How many tasks a pool holds."""
    worlds, games = _sizes(pool)
    return pool.pairs.shape[0] or worlds * games


def draw(key: Key[Array, ""], source: TaskPool | Mixture, *, min_trials: int, max_trials: int) -> Task:
    """A uniformly drawn task with its number of trials k uniform in [min_trials, max_trials]; for jit and vmap."""
    family_key, task_key, trials_key = jax.random.split(key, 3)
    trials = jax.random.randint(trials_key, (), min_trials, max_trials + 1)
    if isinstance(source, TaskPool):
        return _draw(task_key, source, trials)
    keys = jax.random.split(task_key, len(source.pools))
    tasks = [_draw(keys[i], pool, trials) for i, pool in enumerate(source.pools)]
    family = jax.random.categorical(family_key, jnp.log(jnp.asarray(source.weights)))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[family], *tasks)


def task(pool: TaskPool, index: int | Int32[Array, ""] | tuple[int, int], trials: int | Int32[Array, ""]) -> Task:
    """Task number `index` of a pool, or the one of (world, game) in a pool without pairs.

    Without pairs, `index` counts game by game within world by world.
    """
    if isinstance(index, tuple):
        if pool.pairs.shape[0]:
            raise ConfigError(f"this pool holds chosen pairs; got (world, game) = {index!r}. Give a pair's number.")
        return _task(pool, index[0], index[1], 0, trials)
    if pool.pairs.shape[0]:
        pair = jnp.asarray(pool.pairs)[index]
        return _task(pool, pair[0], pair[1], index, trials)
    games = _sizes(pool)[1]
    return _task(pool, index // games, index % games, 0, trials)


def stack(items: list[T]) -> T:
    """Worlds or games of equal shapes as one, with a first axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *items)


def make_pool(worlds: list[World], games: list[Game], *, trial_length: int | np.ndarray,
              pairs: np.ndarray | None = None, random_heading: float = 1.0) -> TaskPool:  # fmt: skip
    """Stack worlds and games to a pool of `pairs`, or of every world with every game."""
    return TaskPool(
        worlds=stack(worlds),
        games=stack(games),
        pairs=np.zeros((0, 2), np.int32) if pairs is None else np.asarray(pairs, np.int32),
        trial_length=np.atleast_1d(np.asarray(trial_length, np.int16)),
        random_heading=np.asarray(random_heading, np.float32),
    )


def save(pool: TaskPool, path: Path) -> None:
    """Write a pool as a compressed table of arrays (.npz, no pickle); the file is complete or absent."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **flatten_arrays(pool))  # pyright: ignore[reportArgumentType]
    partial.replace(path)


def load(path: Path) -> TaskPool:
    """Read what `save` wrote; the leaves are NumPy arrays.

    Raises:
        ConfigError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise ConfigError(f"no task pool at {str(path)!r}.")
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    names = list(flatten_arrays(_EMPTY))
    if set(arrays) != set(names):
        raise ConfigError(f"{str(path)!r} is no task pool: it should hold {names}; got {sorted(arrays)}.")
    return jax.tree.unflatten(jax.tree.structure(_EMPTY), [arrays[name] for name in names])


_LEAF = np.zeros(0, np.int8)
_EMPTY = TaskPool(World(*[_LEAF] * len(World._fields)), Game(*[_LEAF] * len(Game._fields)), _LEAF, _LEAF, _LEAF)


def _sizes(pool: TaskPool) -> tuple[int, int]:
    return pool.worlds.terrain.shape[0], pool.games.goal.shape[0]


def _draw(key: Key[Array, ""], pool: TaskPool, trials: Array) -> Task:
    world_key, game_key = jax.random.split(key)
    if pool.pairs.shape[0]:
        return task(pool, jax.random.randint(world_key, (), 0, pool.pairs.shape[0]), trials)
    worlds, games = _sizes(pool)
    world = jax.random.randint(world_key, (), 0, worlds)
    return _task(pool, world, jax.random.randint(game_key, (), 0, games), 0, trials)


def _task(pool: TaskPool, world: int | Array, game: int | Array, pair: int | Array, trials: int | Array) -> Task:
    length = jnp.asarray(pool.trial_length)
    return Task(
        world=jax.tree.map(lambda leaf: jnp.asarray(leaf)[world], pool.worlds),
        game=jax.tree.map(lambda leaf: jnp.asarray(leaf)[game], pool.games),
        trial_length=length[pair if length.shape[0] > 1 else 0],
        trials=jnp.asarray(trials, jnp.int16),
        random_heading=jnp.asarray(pool.random_heading, jnp.float32),
    )
