"""The shortest solution of a task, or the proof that there is none: breadth-first search over the world's own rules.

A layer of the search holds every situation that can be reached in so many steps and not in fewer. Situations are rows
of bytes. One call expands the layers of many tasks at once.

Two players are searched together, over all pairs of their actions, or one alone while the other does nothing. Who acts
first alternates, so what can be done from a situation also depends on whether the number of the step is even.
"""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import product
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
from rekindle.envs.xland.level import ACTIONS, HOLD, ME, NOOP, RELATIONS, TOGGLE, Task, type_name
from rekindle.envs.xland.pools import TaskPool, num_tasks, task

VERSION = 1
"""Part of every cache key; to be raised when the search or the rules change."""
GROUP = 32
"""Tasks that are searched side by side; of two players, who have more starts and actions, a sixteenth."""
ROWS = 16_384
"""Most situations that are expanded in one call, by at most as many actions as one player has."""
FEW_ROWS = 1_024
PIECE = 65_536
"""Situations whose children are in memory at a time."""
Joint = tuple[int, ...]
"""An action of every player."""


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
    """Steps from each start (layout by layout, headings 0..3 or the world's own; of two players, those of the second
    within those of the first); -1 where none is known."""
    optimum: float
    """Mean best possible reward of a trial; an upper bound unless `optimum_exact`."""
    optimum_exact: bool
    actions: tuple[int | Joint, ...]
    """A shortest solution from the first start: an action per step, or with two players one of each."""
    expanded: int
    """Environment steps that the search took."""
    reason: str
    """Why the task is not solvable, or why that is not known; empty if it is solvable."""


class _Root(NamedTuple):
    """The search from one start of one task."""

    task: int
    layout: int
    heading: tuple[int, ...]
    weight: float


class _Found(NamedTuple):
    """What one search ended with; `steps` is -1 if it did not reach the goal."""

    steps: int
    actions: tuple[Joint, ...]
    stays: bool
    """The goal, once reached, can be kept until the trial ends by doing nothing."""
    cut: bool
    depth: int
    """Layers that were searched completely."""
    exhausted: bool
    """Every situation that can be reached at all was searched."""
    expanded: int


def plan(env: XLand, params: Task, *, acting: tuple[int, ...] | None = None, max_states: int = 200_000,
         cache: Path | None = None) -> Plan:  # fmt: skip
    """Search one task; see `plan_many`."""
    return plan_many(env, [params], acting=acting, max_states=max_states, cache=cache)[0]


def plan_many(env: XLand, tasks: Sequence[Task] | TaskPool, *, acting: tuple[int, ...] | None = None,
              max_states: int = 200_000, cache: Path | None = None,
              progress: Callable[[int, int], None] | None = None) -> list[Plan]:  # fmt: skip
    """Search tasks of equal array shapes, side by side.

    Args:
        env: the environment in whose rules and mode of reward the tasks are played.
        tasks: the tasks, or a pool of them.
        acting: the players that act, counted from 0, while the others do nothing; by default all. What two can do
            together takes up to 49 actions per situation: only small worlds and short solutions stay below the limit.
        max_states: situations per start above which a search is cut off (a situation of two players counts once for
            even and once for odd steps).
        cache: folder that keeps one small file per task; results are also kept in memory.
        progress: called with (done, all) after every group.

    Raises:
        ConfigError: nobody acts, or a player that the environment does not have.
    """
    acting = tuple(range(env.players)) if acting is None else acting
    if not acting or not set(acting) <= set(range(env.players)):
        raise ConfigError(f"acting must name players from 0 to {env.players - 1}; got {acting!r}.")
    group_size = GROUP if env.players == 1 else GROUP // 16
    total = num_tasks(tasks) if isinstance(tasks, TaskPool) else len(tasks)
    unpack = jax.jit(jax.vmap(partial(task, trials=1), in_axes=(None, 0)))
    plans: list[Plan] = []
    for first in range(0, total, group_size):
        if isinstance(tasks, TaskPool):
            numbers = np.minimum(np.arange(first, first + group_size), total - 1)
            bank = jax.tree.map(np.asarray, unpack(tasks, numbers))
            group = [jax.tree.map(lambda leaf, i=i: leaf[i], bank) for i in range(min(group_size, total - first))]
        else:
            group = [jax.tree.map(np.asarray, one) for one in tasks[first : first + group_size]]
        plans += _plan_group(env, group, acting, max_states, cache)
        if progress:
            progress(len(plans), total)
    return plans


_KNOWN: dict[str, Plan] = {}


def _plan_group(env: XLand, tasks: list[Task], acting: tuple[int, ...], max_states: int,
                cache: Path | None) -> list[Plan]:  # fmt: skip
    keys = [_key(env, params, acting, max_states) for params in tasks]
    plans = {key: found for key in keys if (found := _recall(key, cache)) is not None}
    wanted = {key: params for key, params in zip(keys, tasks, strict=True) if key not in plans}
    for key, params in wanted.items():
        reason = unreachable(params, acting)
        if reason:
            plans[key] = Plan(False, True, float("inf"), (-1,) * len(_roots(params, 0)), 0.0, True, (), 0, reason)
    open_keys = [key for key in wanted if key not in plans]
    if open_keys:
        plans.update(
            zip(open_keys, _search_tasks(env, [wanted[k] for k in open_keys], acting, max_states), strict=True)
        )
    for key in wanted:
        _remember(key, plans[key], cache)
    return [plans[key] for key in keys]


def _roots(params: Task, index: int) -> list[_Root]:
    """Every start that can occur, with its probability."""
    turned, layouts, own = float(params.random_heading), params.world.places.shape[0], tuple(params.world.heading)
    headings = list(product(range(4), repeat=len(own)))
    share = {h: turned / len(headings) + (1 - turned) * (h == own) for h in headings}
    return [_Root(index, m, h, share[h] / layouts) for m in range(layouts) for h in headings if share[h] > 0]


def _search_tasks(env: XLand, tasks: list[Task], acting: tuple[int, ...], max_states: int) -> list[Plan]:
    roots = [root for index, params in enumerate(tasks) for root in _roots(params, index)]
    found = _search(env, tasks, roots, acting, max_states)
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
        actions=tuple(joint if env.players > 1 else joint[0] for joint in results[0].actions),
        expanded=sum(f.expanded for f in results),
        reason=reason,
    )


def _best_reward(env: XLand, found: _Found, length: int) -> float:
    first = found.steps if found.steps > 0 else found.depth + 1 if found.cut else length + 1
    if first > length:
        return 0.0
    return 1.0 - 0.9 * first / length if env.reward == "terminal" else float(length - first + 1)


def unreachable(params: Task, acting: tuple[int, ...] = (0,)) -> str:
    """Why no behaviour can reach the goal, judged by the types that rules can ever make; empty if they may suffice.

    Cheap and on the safe side: it forgets places, numbers and order.
    """
    negated, relation, *goal = params.game.goal.tolist()
    players = range(ME, ME + params.world.heading.shape[0])
    idle = [[0, HOLD, player] for player in players if player - ME not in acting]  # never hold anything
    exist = set(params.game.objects.tolist()) - {0} | set(players)
    rows = [row for row in params.game.rules.tolist() if row[1] > 0 and row[:3] not in idle]
    while more := {kind for row in rows if set(row[2:4]) <= exist for kind in row[4:] if kind} - exist:
        exist |= more
    if not negated and goal[0] == goal[1] >= ME:
        return (
            f"there is one {'player' if len(players) == 1 else type_name(goal[0])}, and the relation takes two things."
        )
    if [negated, relation, goal[0]] in idle:
        return f"the goal is in the hands of {type_name(goal[0])}, who does nothing."
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
    """Index into the list of all actions."""

    def some(self, rows: np.ndarray) -> "_Layer":
        """These rows only."""
        return _Layer(*(field[rows] for field in self))


def _search(env: XLand, tasks: list[Task], roots: list[_Root], acting: tuple[int, ...],
            max_states: int) -> list[_Found]:  # fmt: skip
    """Breadth-first from all roots at once, layer by layer."""
    machine = _machine(env)
    bank = _stack(tasks)
    task_of = np.asarray([root.task for root in roots], np.int32)
    lengths = np.asarray([int(params.trial_length) for params in tasks])[task_of]
    choices = [a for a in range(len(ACTIONS)) if a != TOGGLE or tasks[0].world.gates.shape[0]]
    actions = list(product(*(choices if p in acting else [NOOP] for p in range(env.players))))
    root_ids = np.arange(len(roots), dtype=np.int32)
    start = np.concatenate([machine.start(tasks[root.task], root.layout, root.heading)[None] for root in roots])
    layers = [_Layer(start, root_ids, np.full_like(root_ids, -1), np.full_like(root_ids, -1))]
    seen = set(_keys(start, root_ids))
    turns = len(roots) if len(acting) > 1 else 0
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
        turn = depth % 2 * turns  # the same situation is another one where the other player acts first
        reached: list[_Layer] = []
        fresh: list[_Layer] = []
        for some in np.array_split(alive, -(-len(alive) * len(actions) // (PIECE * len(ACTIONS)))):
            following, goal = _expand(machine, bank, task_of, active, some, actions, depth - 1)
            expanded += np.bincount(following.root, minlength=len(roots))
            reached.append(following.some(goal))
            rest = np.flatnonzero(~goal & (states <= max_states)[following.root])  # no more than say that it is cut
            new = [i for i, key in zip(rest, _keys(following.rows[rest], following.root[rest] + turn), strict=True)
                   if key not in seen and not seen.add(key)]  # fmt: skip
            fresh.append(following.some(np.asarray(new, np.intp)))
            states += np.bincount(fresh[-1].root, minlength=len(roots))
        hits = _merged(reached)
        for r in np.unique(hits.root).tolist():
            those = hits.some(hits.root == r)
            left = int(lengths[r]) - depth
            keeps = machine.keeps(bank, task_of[those.root], those.rows, left, depth)
            hit = int(np.argmax(keeps))
            path = _path(layers, int(those.parent[hit]), int(those.action[hit]), actions)
            found[r] = _Found(depth, path, bool(keeps.any()), False, depth, False, int(expanded[r]))
        following = _merged(fresh)
        layers.append(following.some(~np.isin(following.root, list(found))))
    return [found[r] for r in range(len(roots))]


def _merged(parts: list[_Layer]) -> _Layer:
    return _Layer(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _expand(machine: "_Machine", bank: Task, task_of: np.ndarray, layer: _Layer, alive: np.ndarray,
            actions: list[Joint], time: int) -> tuple[_Layer, Bool[np.ndarray, " n"]]:  # fmt: skip
    """All children of the rows `alive`, which are `time` steps old, and whether the goal holds in each."""
    rows, goals = machine.step(bank, task_of[layer.root[alive]], layer.rows[alive], actions, time)
    parent = np.repeat(alive.astype(np.int32), len(actions))
    action = np.tile(np.arange(len(actions), dtype=np.int32), len(alive))
    return _Layer(rows, layer.root[parent], parent, action), goals


def _path(layers: list[_Layer], parent: int, action: int, actions: list[Joint]) -> tuple[Joint, ...]:
    path = [action]
    for layer in reversed(layers[1:]):
        path.append(int(layer.action[parent]))
        parent = int(layer.parent[parent])
    return tuple(actions[action] for action in reversed(path))


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

    def start(self, params: Task, layout: int, heading: tuple[int, ...]) -> UInt8[np.ndarray, " bytes"]:
        """The opening scene as a row."""
        scene = rules.opening(params.world, params.game, jnp.int32(layout), jnp.asarray(heading, jnp.int8))
        return np.asarray(_pack(scene))

    def step(self, bank: Task, which: np.ndarray, rows: np.ndarray, actions: list[Joint],
             time: int) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Every action in every row of that time: `[n * actions, bytes]`, and whether the goal holds."""
        every, turn = jnp.asarray(actions, jnp.int32), jnp.asarray(self._env.second_first(time))
        size = max(min(ROWS, ROWS * len(ACTIONS) // len(actions)), FEW_ROWS)
        parts = [self._step(bank, *batch, every, turn) for batch in _batches(which, rows, size)]
        after, goal = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(2))
        return after[: len(rows) * len(actions)], goal[: len(rows) * len(actions)]

    def keeps(self, bank: Task, which: np.ndarray, rows: np.ndarray, steps: int, time: int) -> Bool[np.ndarray, " n"]:
        """In which rows of that time the goal goes on to hold if nobody does anything for so many steps."""
        kept = np.ones(len(rows), bool)
        for later in range(steps):
            after, goal = self.step(bank, which, rows, [(NOOP,) * self._env.players], time + later)
            kept &= goal
            if not kept.any() or np.array_equal(after, rows):
                break
            rows = after
        return kept

    def _step_rows(self, bank: Task, which: Array, rows: Array, actions: Array, turn: Array) -> tuple[Array, Array]:
        def one(index: Array, row: Array, action: Array) -> tuple[Array, Array]:
            world, game = jax.tree.map(lambda leaf: leaf[index], (bank.world, bank.game))
            scene = _unpack(row, game.objects.shape[0], self._env.players)
            scene, goal = rules.advance(scene, world, game, action, self._env.view, self._env.relations, turn)
            return _pack(scene), goal

        every = jnp.tile(actions, (rows.shape[0], 1))
        which, rows = (jnp.repeat(x, actions.shape[0], axis=0) for x in (which, rows))
        return jax.vmap(one)(which, rows, every)


@lru_cache(maxsize=16)
def _machine(env: XLand) -> _Machine:
    return _Machine(env)


def _batches(which: np.ndarray, rows: np.ndarray, most: int) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Pieces of at most so many rows, padded to one of two sizes, so that only these are compiled."""
    for first in range(0, len(rows), most):
        piece = slice(first, first + most)
        size = FEW_ROWS if len(rows[piece]) <= FEW_ROWS else most
        fill = size - len(rows[piece])
        yield np.pad(which[piece], (0, fill)), np.pad(rows[piece], ((0, fill), (0, 0)))


def _pack(scene: Scene) -> UInt8[Array, " bytes"]:
    """A scene as bytes; the count of dropped spawns changes nothing and is left out."""
    players = [scene.player_y, scene.player_x, scene.heading, scene.hand]
    fields = [scene.kind, scene.y, scene.x, scene.frozen.astype(jnp.int8), *players, scene.gate_open.astype(jnp.int8)]
    return jax.lax.bitcast_convert_type(jnp.concatenate(fields), jnp.uint8)


def _unpack(row: UInt8[Array, " bytes"], n: int, players: int) -> Scene:
    values = jax.lax.bitcast_convert_type(row, jnp.int8)
    ends = [n, 2 * n, 3 * n, *(4 * n + players * i for i in range(5))]
    kind, y, x, frozen, player_y, player_x, heading, hand, gate_open = jnp.split(values, ends)
    return Scene(kind, y, x, frozen > 0, player_y, player_x, heading, hand, gate_open > 0, jnp.int32(0))


# Results that outlive the search ------------------------------------------------------------------


def _key(env: XLand, params: Task, acting: tuple[int, ...], max_states: int) -> str:
    """A hash of all that the result depends on; what is hidden and the number of trials do not matter."""
    game = params.game._replace(mask=np.zeros(0, np.int8))
    world, trials = params.world._replace(sight=np.zeros(0, np.uint8)), np.zeros((), np.int16)
    relations = sorted(RELATIONS[code - 1] for code in env.relations)
    rest = [VERSION, env.view, relations, env.reward, max_states, int(params.trial_length), params.world.terrain.shape]
    rest += [env.reverse_order, acting] if env.players > 1 else []
    digest = hashlib.sha256(json.dumps(rest).encode())
    for leaf in jax.tree.leaves(Task(world, game, params.trial_length, trials, params.random_heading)):
        digest.update(str(np.shape(leaf)).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _recall(key: str, cache: Path | None) -> Plan | None:
    if key in _KNOWN or cache is None or not (path := _file(cache, key)).is_file():
        return _KNOWN.get(key)
    try:
        fields = json.loads(path.read_text())
        fields["per_start"] = tuple(fields["per_start"])
        fields["actions"] = tuple(tuple(a) if isinstance(a, list) else a for a in fields["actions"])
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
