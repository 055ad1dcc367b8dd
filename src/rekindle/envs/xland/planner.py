"""The shortest solution of a task, or the proof that there is none: breadth-first search over the world's own rules.

A layer of the search holds every situation that can be reached in so many steps and not in fewer. Situations are rows
of bytes. One call expands the layers of many tasks at once.
"""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8

from rekindle.core.errors import ConfigError
from rekindle.envs.xland import game as rules
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.game import Scene
from rekindle.envs.xland.level import ACTIONS, ME, NOOP, RELATIONS, TOGGLE, Task, type_name
from rekindle.envs.xland.pools import TaskPool, num_tasks, task

VERSION = 1
"""Part of every cache key; to be raised when the search or the rules change."""
GROUP = 32
"""Tasks that are searched side by side."""
ROWS = 16_384
"""Most situations that are expanded in one call."""
FEW_ROWS = 1_024


@dataclass(frozen=True)
class Plan:
    """What the search found out about a task.

    Headings (and layouts) that can occur at the start are searched one by one; means are weighted by how often they
    occur.
    """

    solvable: bool
    """A way to the goal within T steps is known from every start."""
    exact: bool
    """`solvable` and `steps` are certain: no search was cut off."""
    steps: float
    """Mean number of steps to the first reward; infinite unless solvable."""
    per_start: tuple[int, ...]
    """Steps from each start (layout by layout, headings 0..3 or the world's own); -1 where none is known."""
    optimum: float
    """Mean best possible reward of a trial; an upper bound unless `optimum_exact`."""
    optimum_exact: bool
    actions: tuple[int, ...]
    """A shortest solution from the first start."""
    expanded: int
    """Environment steps that the search took."""
    reason: str
    """Why the task is not solvable, or why that is not known; empty if it is solvable."""


class _Root(NamedTuple):
    """The search from one start of one task."""

    task: int
    layout: int
    heading: int
    weight: float


class _Found(NamedTuple):
    """What one search ended with; `steps` is -1 if it did not reach the goal."""

    steps: int
    actions: tuple[int, ...]
    stays: bool
    """The goal, once reached, can be kept until the trial ends by doing nothing."""
    cut: bool
    depth: int
    """Layers that were searched completely."""
    exhausted: bool
    """Every situation that can be reached at all was searched."""
    expanded: int


def plan(env: XLand, params: Task, *, max_states: int = 200_000, cache: Path | None = None) -> Plan:
    """Search one task; see `plan_many`."""
    return plan_many(env, [params], max_states=max_states, cache=cache)[0]


def plan_many(env: XLand, tasks: Sequence[Task] | TaskPool, *, max_states: int = 200_000, cache: Path | None = None,
              progress: Callable[[int, int], None] | None = None) -> list[Plan]:  # fmt: skip
    """Search tasks of equal array shapes, side by side.

    Args:
        env: the environment in whose rules and mode of reward the tasks are played; one player.
        tasks: the tasks, or a pool of them.
        max_states: situations per start above which a search is cut off.
        cache: folder that keeps one small file per task; results are also kept in memory.
        progress: called with (done, all) after every group.

    Raises:
        ConfigError: the environment has two players.
    """
    if env.players != 1:
        raise ConfigError(f"the planner searches worlds of one player; got players={env.players!r}.")
    total = num_tasks(tasks) if isinstance(tasks, TaskPool) else len(tasks)
    unpack = jax.jit(jax.vmap(partial(task, trials=1), in_axes=(None, 0)))
    plans: list[Plan] = []
    for first in range(0, total, GROUP):
        if isinstance(tasks, TaskPool):
            numbers = np.minimum(np.arange(first, first + GROUP), total - 1)
            bank = jax.tree.map(np.asarray, unpack(tasks, numbers))
            group = [jax.tree.map(lambda leaf, i=i: leaf[i], bank) for i in range(min(GROUP, total - first))]
        else:
            group = [jax.tree.map(np.asarray, one) for one in tasks[first : first + GROUP]]
        plans += _plan_group(env, group, max_states, cache)
        if progress:
            progress(len(plans), total)
    return plans


_KNOWN: dict[str, Plan] = {}


def _plan_group(env: XLand, tasks: list[Task], max_states: int, cache: Path | None) -> list[Plan]:
    keys = [_key(env, params, max_states) for params in tasks]
    plans = {key: found for key in keys if (found := _recall(key, cache)) is not None}
    wanted = {key: params for key, params in zip(keys, tasks, strict=True) if key not in plans}
    for key, params in wanted.items():
        reason = unreachable(params)
        if reason:
            plans[key] = Plan(False, True, float("inf"), (-1,) * len(_roots(params, 0)), 0.0, True, (), 0, reason)
    open_keys = [key for key in wanted if key not in plans]
    if open_keys:
        plans.update(zip(open_keys, _search_tasks(env, [wanted[k] for k in open_keys], max_states), strict=True))
    for key in wanted:
        _remember(key, plans[key], cache)
    return [plans[key] for key in keys]


def _roots(params: Task, index: int) -> list[_Root]:
    """Every start that can occur, with its probability."""
    turned, layouts, own = float(params.random_heading), params.world.places.shape[0], int(params.world.heading[0])
    share = [turned / 4 + (1 - turned) * (heading == own) for heading in range(4)]
    return [_Root(index, m, h, share[h] / layouts) for m in range(layouts) for h in range(4) if share[h] > 0]


def _search_tasks(env: XLand, tasks: list[Task], max_states: int) -> list[Plan]:
    roots = [root for index, params in enumerate(tasks) for root in _roots(params, index)]
    found = _search(env, tasks, roots, max_states)
    return [
        _conclude(env, params, [(root, f) for root, f in zip(roots, found, strict=True) if root.task == index])
        for index, params in enumerate(tasks)
    ]


def _conclude(env: XLand, params: Task, found: list[tuple[_Root, _Found]]) -> Plan:
    length = int(params.trial_length)
    results = [f for _, f in found]
    solved = all(f.steps > 0 for f in results)
    cut = [f for f in results if f.cut]
    reason = ""
    if cut:
        reason = f"not found among the first {sum(f.expanded for f in cut)} steps of the search, which was cut off."
    elif not solved:
        worst = next(f for f in results if f.steps < 0)
        reason = "all situations that can be reached were searched." if worst.exhausted else (
            f"all situations that can be reached in the {length} steps of a trial were searched.")  # fmt: skip
    best = [_best_reward(env, f, length) for f in results]
    return Plan(
        solvable=solved,
        exact=not cut,
        steps=sum(root.weight * f.steps for root, f in found) if solved else float("inf"),
        per_start=tuple(f.steps for f in results),
        optimum=sum(root.weight * reward for (root, _), reward in zip(found, best, strict=True)),
        optimum_exact=not cut and (env.reward == "terminal" or all(f.steps < 0 or f.stays for f in results)),
        actions=results[0].actions,
        expanded=sum(f.expanded for f in results),
        reason=reason,
    )


def _best_reward(env: XLand, found: _Found, length: int) -> float:
    first = found.steps if found.steps > 0 else found.depth + 1 if found.cut else length + 1
    if first > length:
        return 0.0
    return 1.0 - 0.9 * first / length if env.reward == "terminal" else float(length - first + 1)


def unreachable(params: Task) -> str:
    """Why no behaviour can reach the goal, judged by the types that rules can ever make; empty if they may suffice.

    Cheap and on the safe side: it forgets places, numbers and order.
    """
    negated, _, *goal = params.game.goal.tolist()
    exist = set(params.game.objects.tolist()) - {0} | {ME}
    rows = [row for row in params.game.rules.tolist() if row[1] > 0]
    while more := {kind for row in rows if set(row[2:4]) <= exist for kind in row[4:] if kind} - exist:
        exist |= more
    if not negated and goal == [ME, ME]:
        return "there is one player, and the relation takes two things."
    for kind in goal:
        if not negated and kind not in exist:
            return f"no rule can make a {type_name(kind)} and none is in the world."
    return ""


# The search ---------------------------------------------------------------------------------------


class _Layer(NamedTuple):
    """Situations as rows of bytes, which root each belongs to, and how each came from the layer before."""

    rows: UInt8[np.ndarray, "n bytes"]
    root: Int32[np.ndarray, " n"]
    parent: Int32[np.ndarray, " n"]
    action: Int32[np.ndarray, " n"]


def _search(env: XLand, tasks: list[Task], roots: list[_Root], max_states: int) -> list[_Found]:
    """Breadth-first from all roots at once, layer by layer."""
    machine = _machine(env)
    bank = _stack(tasks)
    task_of = np.asarray([root.task for root in roots], np.int32)
    lengths = np.asarray([int(params.trial_length) for params in tasks])[task_of]
    actions = [a for a in range(len(ACTIONS)) if a != TOGGLE or tasks[0].world.gates.shape[0]]
    root_ids = np.arange(len(roots), dtype=np.int32)
    start = np.concatenate([machine.start(tasks[root.task], root.layout, root.heading)[None] for root in roots])
    layers = [_Layer(start, root_ids, np.full_like(root_ids, -1), np.full_like(root_ids, -1))]
    seen = set(_keys(start, root_ids))
    states, expanded = np.ones(len(roots), np.int64), np.zeros(len(roots), np.int64)
    found: dict[int, _Found] = {}
    depth = 0
    while len(found) < len(roots):
        active = layers[-1]
        for r in set(range(len(roots))) - found.keys():
            exhausted, cut = not np.any(active.root == r), states[r] > max_states
            if exhausted or cut or depth >= lengths[r]:
                found[r] = _Found(-1, (), False, bool(cut) and not exhausted, depth, exhausted, int(expanded[r]))
        alive = np.flatnonzero(~np.isin(active.root, list(found)))
        if not len(alive):
            continue
        depth += 1
        following, goal = _expand(machine, bank, task_of, active, alive, actions)
        expanded += np.bincount(following.root, minlength=len(roots))
        for r in np.unique(following.root[goal]).tolist():
            hits = np.flatnonzero(goal & (following.root == r))
            left = int(lengths[r]) - depth
            keeps = machine.keeps(bank, task_of[following.root[hits]], following.rows[hits], left, actions)
            hit = hits[np.argmax(keeps)]
            path = _path(layers, int(following.parent[hit]), int(following.action[hit]))
            found[r] = _Found(depth, path, bool(keeps.any()), False, depth, False, int(expanded[r]))
        rest = np.flatnonzero(~np.isin(following.root, list(found)))
        fresh = [i for i, key in zip(rest, _keys(following.rows[rest], following.root[rest]), strict=True)
                 if key not in seen and not seen.add(key)]  # fmt: skip
        layers.append(_Layer(*(field[fresh] for field in following)))
        states += np.bincount(layers[-1].root, minlength=len(roots))
    return [found[r] for r in range(len(roots))]


def _expand(machine: "_Machine", bank: Task, task_of: np.ndarray, layer: _Layer, alive: np.ndarray,
            actions: list[int]) -> tuple[_Layer, Bool[np.ndarray, " n"]]:  # fmt: skip
    """All children of the rows `alive`, without rows that come twice, and whether the goal holds in each."""
    rows, goals = machine.step(bank, task_of[layer.root[alive]], layer.rows[alive], actions)
    parent = np.repeat(alive.astype(np.int32), len(actions))
    action = np.tile(np.asarray(actions, np.int32), len(alive))
    return _Layer(rows, layer.root[parent], parent, action), goals


def _path(layers: list[_Layer], parent: int, action: int) -> tuple[int, ...]:
    path = [action]
    for layer in reversed(layers[1:]):
        path.append(int(layer.action[parent]))
        parent = int(layer.parent[parent])
    return tuple(reversed(path))


def _keys(rows: np.ndarray, root: np.ndarray) -> list[bytes]:
    """Rows with their root as hashable keys. A fixed-width string drops trailing zeros, which keeps it one to one."""
    joined = np.concatenate([root.astype("<i4").view(np.uint8).reshape(-1, 4), rows], axis=1)
    return joined.view(f"S{joined.shape[1]}").ravel().tolist()


def _stack(tasks: list[Task]) -> Task:
    """Tasks along a first axis, padded to a full group so that all groups share one compiled search."""
    padded = tasks + [tasks[0]] * (GROUP - len(tasks))
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *padded)


# The rules as functions from rows of bytes to rows of bytes ---------------------------------------


class _Machine:
    """The jitted rules of one environment."""

    def __init__(self, env: XLand):
        self._env = env
        self._step = jax.jit(self._step_rows)

    def start(self, params: Task, layout: int, heading: int) -> UInt8[np.ndarray, " bytes"]:
        """The opening scene as a row."""
        scene = rules.opening(params.world, params.game, jnp.int32(layout), jnp.full((1,), heading, jnp.int8))
        return np.asarray(_pack(scene))

    def step(self, bank: Task, which: np.ndarray, rows: np.ndarray,
             actions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Every action in every row: `[n * actions, bytes]`, and whether the goal holds."""
        every = jnp.asarray(actions, jnp.int32)
        parts = [self._step(bank, *batch, every) for batch in _batches(which, rows)]
        after, goal = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(2))
        return after[: len(rows) * len(actions)], goal[: len(rows) * len(actions)]

    def keeps(self, bank: Task, which: np.ndarray, rows: np.ndarray, steps: int,
              actions: list[int]) -> Bool[np.ndarray, " n"]:  # fmt: skip
        """In which rows the goal goes on to hold if the player does nothing for so many steps."""
        kept = np.ones(len(rows), bool)
        for _ in range(steps):
            after, goal = (x[actions.index(NOOP) :: len(actions)] for x in self.step(bank, which, rows, actions))
            kept &= goal
            if not kept.any() or np.array_equal(after, rows):
                break
            rows = after
        return kept

    def _step_rows(self, bank: Task, which: Array, rows: Array, actions: Array) -> tuple[Array, Array]:
        def one(index: Array, row: Array, action: Array) -> tuple[Array, Array]:
            world, game = jax.tree.map(lambda leaf: leaf[index], (bank.world, bank.game))
            scene = _unpack(row, game.objects.shape[0], world.gates.shape[0])
            scene, goal = rules.advance(scene, world, game, action[None], self._env.view, self._env.relations)
            return _pack(scene), goal

        every = jnp.tile(actions, rows.shape[0])
        which, rows = (jnp.repeat(x, actions.shape[0], axis=0) for x in (which, rows))
        return jax.vmap(one)(which, rows, every)


@lru_cache(maxsize=16)
def _machine(env: XLand) -> _Machine:
    return _Machine(env)


def _batches(which: np.ndarray, rows: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Pieces of at most `ROWS` rows, padded to one of two sizes, so that only these are compiled."""
    for first in range(0, len(rows), ROWS):
        piece = slice(first, first + ROWS)
        size = FEW_ROWS if len(rows[piece]) <= FEW_ROWS else ROWS
        fill = size - len(rows[piece])
        yield np.pad(which[piece], (0, fill)), np.pad(rows[piece], ((0, fill), (0, 0)))


def _pack(scene: Scene) -> UInt8[Array, " bytes"]:
    """A scene of one player as bytes; the count of dropped spawns changes nothing and is left out."""
    players = [scene.player_y, scene.player_x, scene.heading, scene.hand]
    fields = [scene.kind, scene.y, scene.x, scene.frozen.astype(jnp.int8), *players, scene.gate_open.astype(jnp.int8)]
    return jax.lax.bitcast_convert_type(jnp.concatenate(fields), jnp.uint8)


def _unpack(row: UInt8[Array, " bytes"], n: int, gates: int) -> Scene:
    values = jax.lax.bitcast_convert_type(row, jnp.int8)
    kind, y, x, frozen, player, gate_open = jnp.split(values, [n, 2 * n, 3 * n, 4 * n, 4 * n + 4])
    return Scene(kind, y, x, frozen > 0, player[0:1], player[1:2], player[2:3], player[3:4], gate_open > 0,
                 jnp.int32(0))  # fmt: skip


# Results that outlive the search ------------------------------------------------------------------


def _key(env: XLand, params: Task, max_states: int) -> str:
    """A hash of all that the result depends on; what is hidden and the number of trials do not matter."""
    game = params.game._replace(mask=np.zeros(0, np.int8))
    world, trials = params.world._replace(sight=np.zeros(0, np.uint8)), np.zeros((), np.int16)
    relations = sorted(RELATIONS[code - 1] for code in env.relations)
    rest = [VERSION, env.view, relations, env.reward, max_states, int(params.trial_length), params.world.terrain.shape]
    digest = hashlib.sha256(json.dumps(rest).encode())
    for leaf in jax.tree.leaves(Task(world, game, params.trial_length, trials, params.random_heading)):
        digest.update(str(np.shape(leaf)).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _recall(key: str, cache: Path | None) -> Plan | None:
    if key in _KNOWN or cache is None or not (path := _file(cache, key)).is_file():
        return _KNOWN.get(key)
    try:
        fields = json.loads(path.read_text())
        fields["per_start"], fields["actions"] = tuple(fields["per_start"]), tuple(fields["actions"])
        _KNOWN[key] = Plan(**fields)
    except (OSError, ValueError, KeyError, TypeError):  # a damaged file of the cache is made anew
        return None
    return _KNOWN[key]


def _remember(key: str, found: Plan, cache: Path | None) -> None:
    _KNOWN[key] = found
    if cache is not None:
        path = _file(cache, key)
        with contextlib.suppress(OSError):  # a disk that is full or read-only costs the cache, not the plan
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            try:
                unfinished.write_text(json.dumps(asdict(found)))
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)


def _file(cache: Path, key: str) -> Path:
    return cache / key[:2] / f"{key}.json"
