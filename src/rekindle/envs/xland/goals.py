"""A goal in words as a family of tasks: the goal and its rules in many worlds, for practice and, apart, for proof."""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from rekindle.core.budget import quoted
from rekindle.core.errors import ConfigError, GoalError
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import ascii as maps
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.game import View
from rekindle.envs.xland.games import Split, split_of
from rekindle.envs.xland.level import FLOOR, HOLD, ME, NEAR, NUM_TYPES, SEE, TOUCHING, Game, World, make_game
from rekindle.envs.xland.pools import TaskPool, make_pool
from rekindle.envs.xland.presets import keep, quiet
from rekindle.envs.xland.text import parse_goal, parse_rule, print_goal, print_rule
from rekindle.envs.xland.worlds import Rooms, make_world, sample_world, world_bytes

Hide = Literal["none", "rules", "objects", "relations"]
ROOMS: dict[str, tuple[Rooms, int, int]] = {"f0": ("R1", 7, 40), "f1": ("R1", 9, 80), "f2": ("R4", 13, 150)}
"""World presets: layout, size, steps per trial."""
RULE_BUCKETS = (4, 8, 16)
MAX_OBJECTS = 12
MAX_DISTRACTORS = 3
MAX_MAP_BYTES = 2**16
"""Of a file with a map; the largest map has 3,660."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, ends of lines and bytes that are no text: a path is kept in one line of a manifest."""


@dataclass(frozen=True)
class Goal:
    """What a person asked for, in codes."""

    goal: tuple[int, ...]
    rules: tuple[tuple[int, ...], ...]
    hide: Hide
    world: str
    """A preset's name or the path of a map."""
    trials: int

    @property
    def text(self) -> str:
        """In the canonical words."""
        return print_goal(np.asarray(self.goal, np.int8))

    @property
    def rule_texts(self) -> list[str]:
        """The rules in the canonical words."""
        return [print_rule(np.asarray(rule, np.int8)) for rule in self.rules]

    @property
    def words(self) -> str:
        """Everything that makes it this goal and no other, on one line: the key under which answers are kept."""
        world = self.world
        if world not in ROOMS:
            world = f"{Path(world).name} {hashlib.sha256(Path(world).read_bytes()).hexdigest()[:12]}"
        parts = [self.text, *self.rule_texts, f"hide {self.hide}", f"world {world}", f"trials {self.trials}"]
        return "; ".join(parts)


def parse(text: str, rules: tuple[str, ...] = (), *, hide: Hide = "none", world: str = "f0",
          trials: int | None = None) -> Goal:  # fmt: skip
    """Words to a goal. k defaults to 5 trials if anything is hidden, else to 1.

    Raises:
        GoalError, ConfigError: unknown words, an unknown world or map, more rules or trials than there is room for.
    """
    if trials is not None and not 1 <= trials <= 16:
        got = trials if abs(trials) < 10**9 else "a number far from that"
        raise ConfigError(f"--trials must be from 1 to 16; got {got}.")
    if len(rules) > RULE_BUCKETS[-1]:
        raise ConfigError(f"a game has room for {RULE_BUCKETS[-1]} rules; got {len(rules)}. Leave some out.")
    if hide != "none" and not rules:
        raise ConfigError(f"--hide {hide} hides rules, but there is none. Add one with --rule, or leave --hide away.")
    name = world.removeprefix("xland/").removesuffix("-v1")
    if name not in ROOMS and not os.path.isfile(world):
        raise ConfigError(f"--world takes {', '.join(ROOMS)} or the path of a map; {quoted(world)} is no file.")
    if name not in ROOMS and _UNPRINTABLE.search(os.path.abspath(world)):
        raise ConfigError(f"--world {quoted(world)} has characters that cannot be printed; rename the file or folder.")
    goal = Goal(
        goal=tuple(parse_goal(text).tolist()),
        rules=tuple(tuple(parse_rule(rule).tolist()) for rule in rules),
        hide=hide,
        world=name if name in ROOMS else os.path.abspath(world),
        trials=trials or (1 if hide == "none" else 5),
    )
    _check_room(goal)
    return goal


def env_of(goal: Goal) -> Trials:
    """The environment: the goal's world in trials."""
    return Trials(world_of(goal))


def world_of(goal: Goal) -> XLand:
    """The static sizes of the families that shipped agents know, and room for the rules."""
    rows = next(size for size in RULE_BUCKETS if size >= len(goal.rules) + 1)
    used = {goal.goal[1], *(rule[1] for rule in goal.rules)}
    relations = (NEAR, HOLD, TOUCHING) + ((SEE,) if SEE in used else ())
    return XLand(id="xland/goal-v1", max_rules=rows, view=View(9, "centre"), relations=relations)


def needed_objects(goal: Goal) -> list[int]:
    """The initial objects: what goal and rules ask for, traced back through the rules that make it."""
    wanted: list[int] = []

    def need(kind: int, above: frozenset[int]) -> None:
        makers = [rule for rule in goal.rules if kind in rule[4:] and kind not in above]
        for part in makers[0][2:4] if makers else ():
            if 0 < part <= NUM_TYPES:
                need(part, above | {kind})
        if not makers:
            wanted.append(kind)

    for kind in goal.goal[2:4]:
        if 0 < kind <= NUM_TYPES:
            need(kind, frozenset())
    made = {kind for rule in goal.rules for kind in rule[4:]}
    for kind in (k for rule in goal.rules for k in rule[2:4] if 0 < k <= NUM_TYPES):
        if kind not in wanted and kind not in made:
            wanted.append(kind)
    return wanted


def pool(goal: Goal, *, split: Split, seed: int, worlds: int, neighbours: float = 0.0, distractors: bool = True
         ) -> TaskPool:  # fmt: skip
    """The goal in `worlds` worlds; different seeds draw different ones, and the two splits share no layout.

    A layout is the walls, the start and the places of what the goal needs (a map with few free cells may be too small
    for two sides; then they share some).

    A share `neighbours` of the tasks asks for something near the goal instead: one argument or relation changed, or
    one rule more. Tasks that are solved, or whose rules fire, before anyone acts are left out, unless all of the
    goal's (or all of its neighbours') are.

    Raises:
        GoalError: a map without room for the objects.
    """
    rng = np.random.default_rng([seed, 0 if split == "train" else 1])
    some_worlds, length = _worlds(goal, rng, split, worlds)
    games = []
    for i in range(worlds):
        asked = neighbour(goal, rng) if i < neighbours * worlds else goal
        games.append(_game(asked, rng, distractors))
    pairs = np.stack([np.arange(worlds), rng.permutation(worlds)], axis=1)
    made = make_pool(some_worlds, games, trial_length=np.full(worlds, length), pairs=pairs)
    good, own = quiet(world_of(goal), made), pairs[:, 1] >= neighbours * worlds
    for part in (own, ~own):
        good[part] |= not good[part].any()
    return keep(made, np.flatnonzero(good))


def neighbour(goal: Goal, rng: np.random.Generator) -> Goal:
    """The same structure with one type renamed, one relation changed, or one rule more (a dead end)."""
    used = sorted({k for row in (goal.goal, *goal.rules) for k in row[2:] if 0 < k <= NUM_TYPES})
    unused = [k for k in range(1, NUM_TYPES + 1) if k not in used]
    change = str(rng.choice(["type", "relation", "rule"]))
    if change == "type" and used and unused:
        old, new = int(rng.choice(used)), int(rng.choice(unused))
        rows = [(*row[:2], *(new if k == old else k for k in row[2:])) for row in (goal.goal, *goal.rules)]
        return replace(goal, goal=rows[0], rules=tuple(rows[1:]))
    if change == "relation":
        rows = [goal.goal, *goal.rules]
        which = int(rng.integers(len(rows)))
        rows[which] = _other_relation(rows[which], rng)
        return replace(goal, goal=rows[0], rules=tuple(rows[1:]))
    room = next(size for size in RULE_BUCKETS if size >= len(goal.rules) + 1)
    if len(unused) >= 2 and len(goal.rules) < room:
        first, second = (int(k) for k in rng.permutation(unused)[:2])
        extra = (0, HOLD, ME, first, second, 0, 0)
        return replace(goal, rules=(*goal.rules, extra))
    return goal


def _other_relation(row: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    """Hold becomes near or touching with the player; near and touching become each other, or hold of the player's."""
    can_hold = row[2] == ME and row[3] <= NUM_TYPES
    others = [r for r in (TOUCHING, NEAR, HOLD) if r != row[1] and (r != HOLD or can_hold)]
    return (row[0], int(rng.choice(others)), *row[2:])


def _game(goal: Goal, rng: np.random.Generator, distractors: bool) -> Game:
    objects = needed_objects(goal)
    used = {k for row in (goal.goal, *goal.rules) for k in row[2:]}
    unused = [k for k in range(1, NUM_TYPES + 1) if k not in used]
    extra = rng.choice(unused, size=int(rng.integers(MAX_DISTRACTORS + 1))).tolist() if distractors and unused else []
    rows = world_of(goal).max_rules
    game = make_game(list(goal.goal), [list(rule) for rule in goal.rules], objects + extra, max_rules=rows,
                     max_objects=MAX_OBJECTS)  # fmt: skip
    return game._replace(mask=hidden_parts(np.asarray(game.rules), goal.hide))


def hidden_parts(rules: np.ndarray, hide: Hide) -> np.ndarray:
    """The mask that hides all rules wholly, all their objects, or all their relations.

    Placeholders are numbered in order of appearance, so that a number says nothing about what it stands for.
    """
    mask = np.zeros_like(rules)
    rows = rules[:, 1] > 0
    if hide == "rules":
        mask[rows, 0] = 1
    elif hide == "relations":
        words = [tuple(row) for row in rules[rows, :2].tolist()]
        seen = list(dict.fromkeys(words))
        mask[rows, 1] = [1 + seen.index(word) for word in words]
    elif hide == "objects":
        kinds = rules[:, 2:]
        is_object = (kinds > 0) & (kinds <= NUM_TYPES)
        order = list(dict.fromkeys(kinds[is_object].tolist()))
        numbers = np.asarray([0, *(1 + order.index(k) if k in order else 0 for k in range(1, NUM_TYPES + 1))])
        mask[:, 2:] = np.where(is_object, numbers[np.where(is_object, kinds, 0)], 0)
    return mask


def _worlds(goal: Goal, rng: np.random.Generator, split: Split, count: int) -> tuple[list[World], int]:
    if goal.world in ROOMS:
        rooms, size, length = ROOMS[goal.world]
        draw = partial(sample_world, rng, rooms, size, max_objects=MAX_OBJECTS)
    else:
        base = _read_map(goal.world)
        length = 40 + 2 * sum(base.terrain.shape)
        draw = partial(_vary, base, rng)
    used = len(needed_objects(goal))
    worlds: list[World] = []
    tries = 0
    while len(worlds) < count:
        world = draw()
        tries += 1
        # A map may be too small for as many different starts: then the splits share some rather than fail.
        if split_of(layout_bytes(world, used)) == split or tries > 50 * count:
            worlds.append(world)
    return worlds, length


def layout_bytes(world: World, used: int) -> bytes:
    """What decides on which side of the split a world falls: walls, gates, the start and where the goal's objects lie.

    Headings and distractors are left out: with others, a layout that was practised would count as unseen.
    """
    places = np.asarray(world.places)[:, :used]
    return world_bytes(world._replace(places=places, heading=np.zeros_like(world.heading)))


def can_hold_out(goal: Goal) -> bool:
    """Whether the world has layouts for practice and others for the proof; a map with few free cells may not."""
    if goal.world in ROOMS:
        return True
    base, rng, used = _read_map(goal.world), np.random.default_rng(0), len(needed_objects(goal))
    return len({split_of(layout_bytes(_vary(base, rng), used)) for _ in range(400)}) == 2


def _read_map(path: str) -> World:
    """The map in a file; what is wrong with it is said with its name."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_MAP_BYTES + 1)
        if len(content) > MAX_MAP_BYTES:
            raise GoalError(f"it is larger than {MAX_MAP_BYTES:,} bytes.")
        return maps.world_from_ascii(content.decode("utf-8"), max_objects=MAX_OBJECTS)
    except UnicodeDecodeError:
        raise GoalError(f"the map {_end_of(path)} cannot be used: it is no text.") from None
    except OSError as error:
        raise GoalError(f"the map {_end_of(path)} cannot be used: {error.strerror}.") from None
    except GoalError as error:
        raise GoalError(f"the map {_end_of(path)} cannot be used: {error}") from None


def _end_of(path: str) -> str:
    return path if len(path) <= 120 else f"...{path[-117:]}"


def _check_room(goal: Goal) -> None:
    objects = len(needed_objects(goal))
    if objects > MAX_OBJECTS - MAX_DISTRACTORS:
        raise GoalError(f"the goal and its rules need {objects} objects; there is room for "
                        f"{MAX_OBJECTS - MAX_DISTRACTORS}. Leave some rules out.")  # fmt: skip
    if goal.world in ROOMS:
        return
    base, name = _read_map(goal.world), _end_of(goal.world)
    marked = maps.num_places(base)
    if marked and marked < objects:
        raise GoalError(f"{name} marks {marked} places for objects, the goal needs {objects}; mark more.")
    floor = int((base.terrain == FLOOR).sum())
    if floor < objects + MAX_DISTRACTORS + 1:
        raise GoalError(f"{name} has {floor} floor cells; {objects} objects, up to {MAX_DISTRACTORS} others and "
                        f"the player need {objects + MAX_DISTRACTORS + 1}.")  # fmt: skip
    if marked >= floor:
        raise GoalError(f"{name} marks every floor cell as an object's place; the player needs one too.")


def _vary(base: World, rng: np.random.Generator) -> World:
    """The same map with another start and heading; objects lie where the map marks them, or anywhere."""
    floor = np.argwhere(base.terrain == FLOOR)
    marked = maps.num_places(base)
    fixed = base.places[0, :marked]
    rest = np.asarray([c for c in floor.tolist() if c not in fixed.tolist()])
    order = rest[rng.permutation(len(rest))]
    places = np.concatenate([fixed, order[1:]])[:MAX_OBJECTS]
    world = make_world(np.asarray(base.terrain), places, tuple(order[0].tolist()), heading=int(rng.integers(4)),
                       max_objects=MAX_OBJECTS)  # fmt: skip
    return world._replace(gates=base.gates, gate_open=base.gate_open)
