"""Goals, rules, games and tasks as words, both ways without loss. The grammar is in docs/xland.md.

Reading forgives case, spaces and a full stop at the end, nothing else; printing gives the one canonical form.
A task, of which all lines but `goal` and `world` may be missing and `rule` and `world` (a layout each) may repeat:

    goal: hold yellow sphere
    rule: near?1(me, black cube?2) -> yellow sphere
    rule: [hidden] not see(me, purple wall) -> nothing
    objects: black cube, purple wall [frozen]
    trials: 3
    steps: 40
    random heading: 0.5
    world:
    ######
    #0.^1#
    ######

The player is shown relation 1 of itself and object 2 where the first rule has `?1` and `?2`, and of the second rule
only that it exists. Where two players are told different things it says so: `?1/0` and `[hidden from me]` hide from
player 1 only, `?0/2` and `[hidden from partner]` from player 2.
"""

import re
from typing import NamedTuple

import numpy as np

from rekindle.core.budget import quoted
from rekindle.core.errors import GoalError, nearest
from rekindle.envs.xland import ascii as maps
from rekindle.envs.xland.level import HOLD, MAX_OBJECTS, MAX_SPAWNS, ME, RELATIONS, Game, Task, make_game, type_name
from rekindle.envs.xland.words import Words

MAX_RULES = 16
"""Rows of the rule table, unless the caller says otherwise."""
STEPS, TRIALS = 40, 1
"""Clock of a task that does not state one."""
IntLike = int | np.integer
_NUMBER = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:e-?[0-9]+)?"
_KEYS = ("goal", "rule", "objects", "trials", "steps", "random heading", "world")


def parse_goal(text: str, *, players: int = 1) -> np.ndarray:
    """Read `["not"] pred` into int8 `[not, relation, a, b]`.

    Raises:
        GoalError: which word is wrong, where it is, and the nearest known words.
    """
    words = Words("goal", text, players)
    row, _ = words.condition()
    words.end()
    return np.asarray(row, np.int8)


def print_goal(goal: np.ndarray) -> str:
    """The canonical words of a goal; `parse_goal` inverts it."""
    return _print_condition(goal, [[0, 0]] * 4)


def parse_rule(text: str, *, players: int = 1) -> np.ndarray:
    """Read `["not"] pred "->" spawns` into int8 `[not, relation, a, b, spawn, spawn, spawn]`.

    Raises:
        GoalError: as `parse_goal`; or there is no arrow, or more than three spawns.
    """
    words = Words("rule", text, players)
    return words.rule()[0]


def print_rule(rule: np.ndarray, mask: np.ndarray | None = None) -> str:
    """The canonical words of a rule; with a mask (of one player or of two), what is hidden carries its placeholder."""
    mask = np.zeros(4 + MAX_SPAWNS, np.int8) if mask is None else mask
    pairs = np.broadcast_to(mask, (2, 4 + MAX_SPAWNS)).T.tolist()
    last = np.max(np.flatnonzero((rule[4:] > 0) | np.any(pairs[4:], axis=1)), initial=0)
    spawns = [_print_thing(code, numbers) for code, numbers in zip(rule[4:], pairs[4:], strict=True)][: last + 1]
    first, second = pairs[0]
    return f"{_SECRETS[first > 0, second > 0]}{_print_condition(rule, pairs)} -> {', '.join(spawns)}"


def parse_game(text: str, *, players: int = 1, max_rules: int = MAX_RULES, max_objects: int = MAX_OBJECTS) -> Game:
    """Read the `goal`, `rule` and `objects` lines; `max_rules` and `max_objects` are the sizes of the tables."""
    return _game(_lines(text, _KEYS[:3]), players, max_rules, max_objects)


def print_game(game: Game) -> str:
    """One line per goal and rule, and one with the objects in slot order; empty rules are left out."""
    used = np.asarray(game.rules)[:, 1] > 0
    masks = np.moveaxis(np.asarray(game.mask), -2, 0)
    rules = zip(np.asarray(game.rules)[used], masks[used], strict=True)
    lines = [f"goal: {print_goal(np.asarray(game.goal))}", *(f"rule: {print_rule(rule, mask)}" for rule, mask in rules)]
    kinds = np.trim_zeros(np.asarray(game.objects), "b")
    if kinds.size:
        named = [_print_thing(kind, [0, 0]) + " [frozen]" * bool(game.frozen[i]) for i, kind in enumerate(kinds)]
        lines.append(f"objects: {', '.join(named)}")
    return "\n".join(lines)


def players_in(text: str) -> int:
    """How many players a task is for: 2 if a partner starts on one of its maps, else 1."""
    maps_of = [line.text for line in _lines(text, _KEYS) if line.key == "world"]
    return 2 if any(char in maps.STARTS[1] for text in maps_of for char in text) else 1


def parse_task(text: str, *, players: int = 1, max_rules: int = MAX_RULES, max_objects: int = MAX_OBJECTS) -> Task:
    """Read a whole task.

    Raises:
        GoalError: a line is outside the grammar, a part is missing or too large, or the layouts differ in terrain.
    """
    lines = _lines(text, _KEYS)
    game = _game(lines, players, max_rules, max_objects)
    drawn = [line.text for line in lines if line.key == "world"]
    if not drawn:
        raise GoalError("a task needs a map after 'world:'.")
    worlds = [maps.layout_from_ascii(text, players=players, max_objects=max_objects) for text in drawn]
    world = worlds[0]
    for number, other in enumerate(worlds, 1):
        if any(not np.array_equal(getattr(other, name), getattr(world, name))
               for name in ("terrain", "gate_open", "heading")):  # fmt: skip
            raise GoalError(f"layouts differ in objects and starts only; map {number} differs from map 1.")
        if not maps.has_starts(other):
            raise GoalError(f"map {number} has no start for every player; '^', '>', 'v', '<' and '@' are starts.")
        if (last := int(np.max(np.nonzero(game.objects)[0], initial=-1))) >= maps.num_places(other):
            raise GoalError(f"the game lists {last + 1} objects, map {number} has places for {maps.num_places(other)}.")
    places, start = (np.concatenate([getattr(w, name) for w in worlds]) for name in ("places", "start"))
    free = "1" if any(maps.start_is_free(text) for text in drawn) else "0"
    return Task(
        world=maps.with_sight(world)._replace(places=places, start=start),
        game=game,
        trial_length=np.asarray(_number(lines, "steps", str(STEPS), 1, 32_767), np.int16),
        trials=np.asarray(_number(lines, "trials", str(TRIALS), 1, 32_767), np.int16),
        random_heading=np.asarray(_number(lines, "random heading", free, 0, 1), np.float32),
    )


def print_task(task: Task) -> str:
    """The canonical text of a task; `parse_task` inverts it, given the same table sizes."""
    chance = np.float32(task.random_heading)
    layouts = [f"world:\n{maps.world_to_ascii(task.world, m)}" for m in range(np.shape(task.world.places)[0])]
    clock = [f"trials: {int(task.trials)}", f"steps: {int(task.trial_length)}", f"random heading: {chance!s}"]
    return "\n".join([print_game(task.game), *clock, *layouts]) + "\n"


_SECRETS = {(False, False): "", (True, True): "[hidden] ",
            (True, False): "[hidden from me] ", (False, True): "[hidden from partner] "}  # fmt: skip
"""By whether a rule is hidden from player 1, and from player 2."""


def _print_condition(row: np.ndarray, mask: list[list[int]]) -> str:
    a, b = (_print_thing(row[i], mask[i]) for i in (2, 3))
    relation = RELATIONS[int(row[1]) - 1] + _print_numbers(mask[1])
    short = row[1] == HOLD and row[2] == ME and not any(mask[2])
    return "not " * bool(row[0]) + (f"{relation} {b}" if short else f"{relation}({a}, {b})")


def _print_thing(code: IntLike, numbers: list[int]) -> str:
    return (type_name(code) if code else "nothing") + _print_numbers(numbers)


def _print_numbers(numbers: list[int]) -> str:
    """The placeholders of the two players (of one, twice the same)."""
    first, second = numbers
    if first != second:
        return f"?{first}/{second}"
    return f"?{first}" if first else ""


class _Line(NamedTuple):
    key: str
    rows: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)


def _lines(text: str, keys: tuple[str, ...]) -> list[_Line]:
    """Split `key: value` lines; a map runs to the next key. Keys other than `rule` and `world` come once."""
    lines: list[_Line] = []
    for number, line in enumerate(text.splitlines(), 1):
        key, colon, value = line.partition(":")
        key = " ".join(key.lower().split())
        if colon and key not in keys:
            near = nearest(key[:80], keys)
            raise GoalError(f"line {number}: unknown key {quoted(key)}; the nearest known are {near}.")
        if colon and key not in ("rule", "world") and key in {seen.key for seen in lines}:
            raise GoalError(f"line {number}: there is a second {key!r} line; a task has one.")
        if colon:
            lines.append(_Line(key, [value if value.strip() else ""]))
        elif lines and lines[-1].key == "world":
            lines[-1].rows.append(line)
        elif line.strip():
            known = ", ".join(keys)
            raise GoalError(f"line {number}: expected 'KEY: ...' with a key out of {known}; got {quoted(line)}.")
    return lines


def _game(lines: list[_Line], players: int, max_rules: int, max_objects: int) -> Game:
    goals = [line.text for line in lines if line.key == "goal"]
    if not goals:
        raise GoalError("a game needs a 'goal: ...' line.")
    pairs = [Words("rule", line.text, players, may_hide=True).rule() for line in lines if line.key == "rule"]
    if len(pairs) > max_rules:
        raise GoalError(f"there is room for {max_rules} rules; got {len(pairs)}.")
    kinds: list[int] = []
    frozen: list[int] = []
    for line in lines:
        if line.key == "objects":
            kinds, frozen = Words("objects", line.text, players).objects()
    if len(kinds) > max_objects:
        raise GoalError(f"there is room for {max_objects} objects; got {len(kinds)}.")
    mask = np.zeros((players, max_rules, 4 + MAX_SPAWNS), np.int8)
    for r, (_, hidden) in enumerate(pairs):
        mask[:, r] = hidden
    rules = [rule.tolist() for rule, _ in pairs]
    goal = parse_goal(goals[0], players=players).tolist()
    return make_game(goal, rules, kinds, max_rules=max_rules, max_objects=max_objects, frozen=frozen,
                     mask=mask[0] if players == 1 else mask)  # fmt: skip


def _number(lines: list[_Line], key: str, default: str, low: int, high: int) -> float:
    text = next((line.text for line in lines if line.key == key), default).strip()
    kind, pattern = ("a number", _NUMBER) if key == "random heading" else ("a whole number", "[0-9]+")
    if not re.fullmatch(pattern, text.lower()) or not low <= float(text) <= high:
        raise GoalError(f"{key!r} must be {kind} from {low} to {high}; got {quoted(text)}.")
    return float(text)
