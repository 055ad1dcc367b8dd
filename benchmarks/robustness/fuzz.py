"""Fuzzing of everything that reads words, maps and settings from a person or a file.

A target's `check` feeds one input to a reader. The reader may take it; then what it prints must read back to the same
thing. Or it refuses it, with a `RekindleError` of one short line. Anything else is a finding: another exception, a
warning, more than 2 seconds or half a gigabyte for one input. `run("goal", 1000, seed=0)` does a thousand inputs.
"""

import atexit
import contextlib
import gc
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from rekindle.agents.registry import config_from_json
from rekindle.cli import evaluate, train
from rekindle.core.budget import parse_budget
from rekindle.core.errors import RekindleError
from rekindle.envs.xland import goals, text
from rekindle.envs.xland.ascii import MAX_SIDE, PLACES, world_from_ascii, world_to_ascii
from rekindle.envs.xland.level import COLOURS, OBJECT_TYPES, RELATIONS, SHAPES

T = TypeVar("T")
MAX_MESSAGE = 400
MAX_SECONDS = 2.0
MAX_MEGABYTES = 512
MAX_LENGTH = 20_000
"""Characters of the longest inputs."""
BATCH = 1000
"""Inputs per run of hypothesis: its memory of what it tried grows with them."""
SHRINK_SECONDS = 20.0
MAX_FINDINGS = 10


class Target(NamedTuple):
    """A reader under test. `check` says whether it took the input; it raises if the reader misbehaves."""

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], bool]


class Misbehaviour(Exception):
    """A reader that neither takes an input whole nor refuses it in one short line."""


# --- Checks -----------------------------------------------------------------------------------------------------------


def take(read: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the reader made of its arguments, or None if it refused them well.

    Raises:
        Misbehaviour: it refused them, but not in one short line.
    """
    try:
        return read(*arguments, **options)
    except RekindleError as error:
        refusal(str(error))
        return None


def refusal(message: str) -> None:
    """See that a message is one short line.

    Raises:
        Misbehaviour: it is not.
    """
    if not message.strip():
        raise Misbehaviour("the message is empty")
    if len(message) > MAX_MESSAGE:
        raise Misbehaviour(f"the message has {len(message)} characters: {message[:200]}...")
    if len(message.splitlines()) > 1 or not message.isprintable():
        raise Misbehaviour(f"the message is not one printable line: {message!r}")
    if "Traceback" in message:
        raise Misbehaviour(f"the message holds a traceback: {message}")


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, arrays inside tuples by shape, type and elements."""
    if isinstance(first, np.ndarray | np.generic):
        return first.dtype == second.dtype and np.shape(first) == np.shape(second) and bool(np.all(first == second))
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return first == second


def survives(value: Any, write: Callable[[Any], str], read: Callable[[str], Any]) -> bool:
    """See that a value prints to a canonical text that reads back to it.

    Raises:
        Misbehaviour: it does not.
    """
    printed = write(value)
    again = read(printed)
    if not same(value, again):
        raise Misbehaviour(f"{printed[:200]!r} reads back as something else")
    if write(again) != printed:
        raise Misbehaviour(f"{printed[:200]!r} reads back and prints as {write(again)[:200]!r}")
    return True


def check_goal(words: str) -> bool:
    """A goal, with one player and with two."""
    alone = take(text.parse_goal, words)
    both = take(text.parse_goal, words, players=2)
    if alone is not None and not same(alone, both):
        raise Misbehaviour("a second player changes a goal without a partner")
    return both is not None and survives(both, text.print_goal, lambda line: text.parse_goal(line, players=2))


def check_rule(words: str) -> bool:
    """A rule, with one player and with two."""
    alone = take(text.parse_rule, words)
    both = take(text.parse_rule, words, players=2)
    if alone is not None and not same(alone, both):
        raise Misbehaviour("a second player changes a rule without a partner")
    return both is not None and survives(both, text.print_rule, lambda line: text.parse_rule(line, players=2))


def check_world(drawn: str) -> bool:
    """A map of two players; one that small is read for one player too."""
    if len(drawn) < 100:
        take(world_from_ascii, drawn)
    world = take(world_from_ascii, drawn, players=2)
    return world is not None and survives(world, world_to_ascii, lambda again: world_from_ascii(again, players=2))


def check_task(lines: str) -> bool:
    """A task, or a game without a world."""
    game = take(text.parse_game, lines, players=2)
    if game is not None:
        survives(game, text.print_game, lambda again: text.parse_game(again, players=2))
    task = take(text.parse_task, lines, players=2)
    if task is not None:
        survives(task, text.print_task, lambda again: text.parse_task(again, players=2))
    return game is not None or task is not None


class File(NamedTuple):
    """A file with a map, under a name of its own."""

    name: str
    content: bytes

    def written(self) -> str:
        """Its path, once it is there."""
        path = os.path.join(_folder(), self.name)
        with contextlib.suppress(OSError), open(path, "wb") as file:  # some systems refuse some names
            file.write(self.content)
        return path


class Asked(NamedTuple):
    """What stands after `rekindle master`."""

    goal: str
    rules: tuple[str, ...]
    hide: goals.Hide
    world: str | File
    trials: int | None


def check_words(asked: Asked) -> bool:
    """A goal with its rules and its world; a small map that is taken must serve to draw worlds from."""
    world = asked.world.written() if isinstance(asked.world, File) else asked.world
    goal = take(goals.parse, asked.goal, asked.rules, hide=asked.hide, world=world, trials=asked.trials)
    if goal is None:
        return False
    again = goals.parse(goal.text, tuple(goal.rule_texts), hide=goal.hide, world=goal.world, trials=goal.trials)
    if again != goal or again.words != goal.words:
        raise Misbehaviour(f"{goal.words!r} reads back as {again.words!r}")
    if not goal.words.isprintable():
        raise Misbehaviour(f"the key {goal.words!r} is not one printable line")
    if isinstance(asked.world, File) and len(asked.world.content) < 150:
        goals.can_hold_out(goal)
    return True


def check_budget(words: str) -> bool:
    """A budget."""
    budget = take(parse_budget, words)
    return budget is not None and survives(budget, str, parse_budget)


def check_set(assignments: tuple[str, ...]) -> bool:
    """The words after `rekindle train ppo --set`, up to the agent's config."""
    values = take(train.settings, "ppo", assignments)
    if values is None:
        return False
    printed = tuple(f"{name}={value}" for name, value in values.items())
    if repr(train.settings("ppo", printed)) != repr(values):  # as text, for a NaN is not itself
        raise Misbehaviour(f"{printed} reads back as {train.settings('ppo', printed)}")
    try:
        return take(config_from_json, "ppo", values) is not None
    except TypeCheckError:  # where annotations are checked, a memory of no such name gets no further
        return False


def check_trials(words: str) -> bool:
    """The word after `rekindle train --trials`."""
    found = take(train.trial_range, words)
    return found is not None and survives(found, lambda ends: f"{ends[0]}-{ends[1]}", train.trial_range)


def check_numbers(words: str) -> bool:
    """The word after `rekindle evaluate --trials`."""
    found = take(evaluate.numbers, words)
    return found is not None and survives(found, lambda parts: ",".join(map(str, parts)), evaluate.numbers)


# --- Inputs -----------------------------------------------------------------------------------------------------------

ODD = ("0", "-1", "007", "1_0", "+1", "1.5", ".5", "1e3", "1e999", "1e-999", "1" * 400, "9" * 5000, "nan", "inf",
       "-inf", "1e", "0x10", "٣", "²", "Ⅷ", "１", "True", "None", "", " ", "\t", "\n", "\r", "\r\n", "\v", "\x00",
       "\x1b[31m", "\x7f", "\x85", "\u2028", "\u3000", "\u200b", "\u202e", "\ufeff", "İ", "K", "ſ", "é", "e\u0301",
       "🙂", "\udcff", "\ud800", "'", '"', "\\", "%s", "{}", "{0}", "x" * 3000, "../..", "~", "$HOME", "-", "--", "=",
       ",", ".", ":", ";", "?", "[", "]", "(", ")", "/", "#")  # fmt: skip
"""What edits put in: numbers at the edges, digits and spaces of other scripts, control characters, signs."""
GRAMMAR = (*RELATIONS, *COLOURS, *SHAPES, "me", "partner", "not ", "nothing", "->", "(", ")", ", ", " ", ".", "?1",
           "?16", "?17", "[hidden]", "[frozen]", "[ hidden ]", "goal:", "rule:", "objects:", "trials:", "steps:",
           "random heading:", "world:", "\n")  # fmt: skip
LENGTHS = (2, 3, 5, 9, 30, 100, 300, 1000, 3000, MAX_LENGTH)
NESTS = (("(", "", ")"), ("not ", "hold black cube", ""), ("near(", "me", ", me)"), ("[", "", "]"), ("-> ", "", ""))
UNITS = (re.compile(r".", re.DOTALL), re.compile(r"\w+|\s+|[^\w\s]"), re.compile(r"[^\n]*\n|[^\n]+"))
"""Characters, words and lines."""
OPERATIONS = ("delete", "duplicate", "swap", "insert", "insert", "replace", "replace", "shout", "cut", "repeat")


def pick(values: Sequence[T]) -> st.SearchStrategy[T]:
    """One of the values; unlike `sampled_from` it does not print them all when something is found."""
    return st.integers(0, len(values) - 1).map(lambda i: values[i])


def mutated(words: str, edits: list[tuple[str, int, int, int, str]]) -> str:
    """A text after some edits, each an operation on a unit at a place, with another place and a piece to put in."""
    for operation, unit, place, other, piece in edits:
        parts = UNITS[unit].findall(words) or [""]
        at, there = place % len(parts), other % len(parts)
        if operation == "delete":
            del parts[at]
        elif operation == "duplicate":
            parts.insert(at, parts[there])
        elif operation == "swap":
            parts[at], parts[there] = parts[there], parts[at]
        elif operation == "insert":
            parts.insert(at, piece)
        elif operation == "replace":
            parts[at] = piece
        elif operation == "shout":
            parts[at] = parts[at].swapcase()
        elif operation == "cut":
            del parts[at:]
        elif operation == "repeat":
            parts[at] = repeated(parts[at], LENGTHS[other % len(LENGTHS)])
        words = "".join(parts)[:MAX_LENGTH]
    return words


def repeated(block: str, length: int) -> str:
    """The block again and again, up to so many characters."""
    return (block * (length // max(len(block), 1) + 1))[:length]


def nested(kind: tuple[str, str, str], depth: int) -> str:
    """Brackets in brackets, or words in words."""
    opening, inside, closing = kind
    return (opening * depth + inside + closing * depth)[:MAX_LENGTH]


def noisy(*, valid: st.SearchStrategy[str], pieces: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Valid sentences; the same after edits; soups of their words; long, deep and arbitrary text."""
    piece, places = pick(pieces + ODD), st.integers(0, 2**16)
    edit = st.tuples(pick(OPERATIONS), pick((0, 1, 1, 1, 2)), places, places, piece)
    return st.one_of(
        valid,
        st.builds(mutated, valid, st.lists(edit, max_size=1)),
        st.builds(mutated, valid, st.lists(edit, min_size=1, max_size=2)),
        st.builds(mutated, valid, st.lists(edit, min_size=1, max_size=6)),
        st.lists(piece, max_size=12).map("".join),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        st.builds(repeated, piece | st.text(max_size=3), pick(LENGTHS)),
        st.builds(nested, pick(NESTS), pick(LENGTHS)),
    )


def arrow(condition: str, spawns: list[str]) -> str:
    """A rule."""
    return f"{condition} -> {', '.join(spawns) or 'nothing'}"


def marked(rule: str, marks: list[int]) -> str:
    """A rule with hidden parts: 0 leaves a part alone, 1 to 16 number it, a higher number hides the whole rule."""
    todo = iter(marks)
    named = re.sub(rf"({'|'.join(RELATIONS)}|me|partner|(?:{'|'.join(COLOURS)}) \w+|nothing)",
                   lambda m: m[0] + (f"?{n}" if 0 < (n := next(todo, 0)) <= 16 else ""), rule)  # fmt: skip
    return f"[hidden] {named}" if any(mark > 16 for mark in marks) else named


_FILL = "........##/+ "
_THINGS = (*OBJECT_TYPES, "me", "partner")
_PREDICATES = (*(f"hold {kind}" for kind in OBJECT_TYPES),
               *(f"hold({player}, {kind})" for player in ("me", "partner") for kind in OBJECT_TYPES),
               *(f"{relation}({a}, {b})" for relation in ("touching", "near", "see") for a in _THINGS for b in _THINGS),
               )  # fmt: skip
conditions = pick((*_PREDICATES, *(f"not {predicate}" for predicate in _PREDICATES)))
objects = pick(OBJECT_TYPES)
rules = st.builds(arrow, conditions, st.lists(objects, max_size=3))


def drawn_map(size: tuple[int, int], fill: bytes, things: int, start: str) -> str:
    """A map: its cells out of `_FILL`, the starts and things one after the other on its first floor cells."""
    height, width = size
    cells = [_FILL[code % len(_FILL)] for code in fill * (height * width // len(fill) + 1)][: height * width]
    floor = [i for i, cell in enumerate(cells) if cell == "."]
    for i, sign in zip(floor, start + PLACES[:things], strict=False):
        cells[i] = sign
    return "\n".join("".join(cells[y * width : (y + 1) * width]) for y in range(height))


starts = st.builds(str.__add__, pick("^>v<@"), pick(("", "N", "E", "S", "W", "P")))
_SMALL = st.integers(1, 9)
_SIZES = ((1, 300), (300, 1), (3, MAX_SIDE), (MAX_SIDE, 3), (11, 20), (1, MAX_SIDE + 1), (MAX_SIDE + 1, MAX_SIDE))
_LARGE = ((MAX_SIDE, MAX_SIDE), (MAX_SIDE - 2, MAX_SIDE - 2), (MAX_SIDE - 1, 40))
"""Maps of these take half a second and more."""
maps = st.builds(drawn_map, st.tuples(_SMALL, _SMALL), st.binary(min_size=8, max_size=40), st.integers(0, 6), starts)
big_maps = st.builds(drawn_map, pick(_SIZES * 10 + _LARGE), st.binary(min_size=1, max_size=40), st.integers(0, 20),
                     starts)  # fmt: skip


def told(goal: str, ruled: list[str], kinds: list[str], clock: dict[str, str], drawn: str, layouts: int) -> str:
    """A task: its lines, and its map so many times (with none it is a game)."""
    lines = [f"goal: {goal}", *(f"rule: {rule}" for rule in ruled)]
    if kinds:
        lines.append(f"objects: {', '.join(kinds)}")
    if layouts:
        lines += [f"{key}: {value}" for key, value in clock.items()]
    return ("\n".join(lines + [f"world:\n{drawn}"] * layouts) + "\n")[:MAX_LENGTH]


_CLOCK = {"trials": pick(("1", "3", "32767")), "steps": pick(("1", "40", "32767", "007")),
          "random heading": pick(("0", "1", "0.5", ".25", "1e-3", "1e-40", "0.1"))}  # fmt: skip
_KINDS = st.builds(str.__add__, objects, pick(("", "", " [frozen]"))) | st.just("nothing")
_RULES = rules | st.builds(marked, rules, st.lists(st.integers(0, 18), max_size=7))
_ROOM = st.builds(drawn_map, st.tuples(st.integers(2, 6), st.integers(3, 6)), st.binary(min_size=8, max_size=40),
                  st.just(3), pick(("^N", "vW", "@P", "<P")))  # fmt: skip
tasks = st.builds(told, conditions, st.lists(_RULES, max_size=3), st.lists(_KINDS, max_size=3),
                  st.fixed_dictionaries({}, optional=_CLOCK), _ROOM, pick((0, 1, 1, 1, 2, 3)))  # fmt: skip
long_tasks = st.builds(told, conditions, st.builds(list.__mul__, st.lists(rules, max_size=1), pick((1, 15, 17, 400))),
                       st.builds(list.__mul__, st.lists(objects, max_size=1), pick((1, 20, 21, 2000))),
                       st.just({}), maps | big_maps, pick((0, 1, 1, 2, 2, 5, 5, 200)))  # fmt: skip

_NAMES = ("map.txt", "a map.txt", "new\nline.txt", "\udcff.txt", "é🙂.txt", "n" * 200, "a\x1bb", "f0")
_WORLDS = ("f0", "f1", "f2", "xland/f0-v1", "xland/f1")
_NO_FILES = ("", ".", "..", "/", "f9", "xland/", "-v1", "a\0b", "a\nb", "\udcff", "\ud800", "x" * 5000, "/" * 5000,
             "f0 ", "F0", "~", "\x1b[31m", "nowhere.txt")  # fmt: skip
_NO_MAPS = (b"", b"\xff\xfe#\x00.\x00", b"\x00" * 3000, b"\x80", b"\xef\xbb\xbf#.#", b"#.#\r\n#^#\r\n", b"#" * 500_000,
            b"\n" * 500_000, b"#.\x00^.....#", b"PK\x03\x04", b"####\n#.^#\n\xed\xa0\x80")  # fmt: skip
_SIDE = st.integers(2, 7)
_OPEN = st.builds(drawn_map, st.tuples(_SIDE, _SIDE), st.just(b"\0"), st.integers(0, 12), starts)
files = st.builds(File, pick(_NAMES * 2 + ("map.txt",) * 40),
                  st.one_of(maps.map(str.encode), _OPEN.map(str.encode), pick(_NO_MAPS),
                            st.binary(max_size=60)))  # fmt: skip
_PLAIN = (st.just("none"), st.just("f0"), st.none())
asked = st.one_of(
    st.builds(Asked, conditions, st.lists(rules, max_size=4).map(tuple),
              pick(("none", "rules", "objects", "relations")), st.one_of(pick(_WORLDS), pick(_NO_FILES), files),
              pick((None, None, 1, 16, 0, -1, 17, 10**30))),
    st.builds(Asked, conditions, st.just(()), st.just("none"), files, st.none()),
    st.builds(Asked, conditions, st.lists(rules, max_size=18).map(tuple), *_PLAIN),
    st.builds(Asked, noisy(valid=conditions, pieces=GRAMMAR), st.just(()), *_PLAIN),
    st.builds(Asked, conditions, st.tuples(noisy(valid=rules, pieces=GRAMMAR)), *_PLAIN),
)  # fmt: skip

_TIMES = ("s", "m", "h", "d", "step", "steps", " S", " M", " H", " D", " STEP", " STEPS")
budgets = st.builds(str.__add__,
                    st.one_of(st.integers(0, 10**16).map(str), st.floats(0, 3e6).map(str),
                              st.floats(0.5, 1e5).map("{:.3f}".format), st.floats(1, 30).map("{:.12g}".format),
                              pick(("5", "1.5", "2e6", "1e15", "1E+3", "30", "31"))), pick(_TIMES))  # fmt: skip

_WHOLE = ("epochs", "minibatches", "num_envs", "rollout_length", "hidden", "width")
_REAL = ("learning_rate", "gamma", "lambda_", "clip", "value_weight", "entropy_weight", "max_grad_norm", "reward_scale")
assignments = st.one_of(
    st.builds("{}={}".format, pick(_WHOLE), st.integers(-3, 300) | st.integers(0, 2**33)),
    st.builds("{}={}".format, pick(_REAL), st.floats(0, 1) | st.floats()),
    st.builds("{}={}".format, st.just("memory"), pick(("gru+types", "gru", "none", "lstm"))),
)
several = st.lists(assignments, max_size=3).map(tuple)
odd_assignments = noisy(valid=assignments, pieces=(*_WHOLE, *_REAL, "memory")).map(lambda word: (word,))
ranges = st.one_of(st.integers(0, 70).map(str), st.builds("{}-{}".format, st.integers(0, 9), st.integers(0, 2**16)))
lists = st.builds(",".join, st.lists(st.integers(0, 66).map(str), min_size=1, max_size=8))

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("goal", noisy(valid=conditions, pieces=GRAMMAR), check_goal),
        Target("rule", noisy(valid=rules, pieces=GRAMMAR), check_rule),
        Target("world", noisy(valid=maps | big_maps, pieces=(*"#.+/ ^>v<@NESWP", *PLACES, "\n")), check_world),
        Target("task", noisy(valid=tasks, pieces=GRAMMAR) | long_tasks, check_task),
        Target("words", asked, check_words),
        Target("budget", noisy(valid=budgets, pieces=_TIMES), check_budget),
        Target("set", several | odd_assignments, check_set),
        Target("trials", noisy(valid=ranges, pieces=("1", "4", "64", "-")), check_trials),
        Target("numbers", noisy(valid=lists, pieces=("1", "64", "65", ",")), check_numbers),
    )
}
"""All targets by name; whoever adds a reader adds a target."""


# --- The driver -------------------------------------------------------------------------------------------------------


def run(target_name: str, count: int, seed: int, *, targets: Mapping[str, Target] = TARGETS,
        max_seconds: float = MAX_SECONDS) -> dict[str, Any]:  # fmt: skip
    """Feed `count` inputs to a target; the same seed gives the same inputs.

    Args:
        target_name: a key of `targets`.
        count: how many inputs.
        seed: of the inputs.
        targets: the targets to choose from.
        max_seconds: an input that takes longer, twice, is a finding.

    Returns:
        `target`; `inputs`, of which so many were `accepted` and `refused`; `findings`, each the smallest input known to
        do it and what happened, at most ten of different kinds; `seconds` in all, shrinking included; `slowest_s`, the
        time of the slowest input; `peak_rss_mb` of this process so far.
    """
    target, trial = targets[target_name], _Trial(targets[target_name], max_seconds)
    began = time.perf_counter()
    found: dict[str, str] = {}
    for first in range(0, count, BATCH):
        batch_seed = seed * 1_000_003 + first
        size = min(BATCH, count - first)
        seen: dict[str, _Finding] = {}

        def look(value: Any, seen: dict[str, _Finding] = seen) -> None:
            finding = trial(value)
            if finding is not None:
                seen.setdefault(finding.kind, finding)

        _explore(target.inputs, look, size, batch_seed, (Phase.generate,))
        for kind, finding in seen.items():
            if kind not in found and len(found) < MAX_FINDINGS:
                found[kind] = _shrunk(trial, finding, size, batch_seed).text
    return {
        "target": target_name,
        "inputs": trial.accepted + trial.refused + trial.failed,
        "accepted": trial.accepted,
        "refused": trial.refused,
        "findings": list(found.values()),
        "seconds": round(time.perf_counter() - began, 3),
        "slowest_s": round(trial.slowest, 4),
        "peak_rss_mb": round(_peak_mb(), 1),
    }


class _Slow(BaseException):
    """Raised inside a check that takes too long; no reader catches it."""


class _Found(Exception):
    """Tells hypothesis to make an input smaller."""


class _Finding(NamedTuple):
    kind: str
    """Findings of one kind have one cause, most likely: the same exception from the same line."""
    size: int
    text: str
    """The input and what happened."""


class _Trial:
    """Runs checks of one target, counts what comes of them and names what goes wrong."""

    def __init__(self, target: Target, max_seconds: float):
        self.target, self.max_seconds = target, max_seconds
        self.accepted = self.refused = self.failed = 0
        self.slowest = 0.0
        self.counting = True

    def __call__(self, value: Any) -> _Finding | None:
        """What is wrong with what the reader does with an input, or None."""
        accepted, error, seconds = self._once(value)
        if isinstance(error, _Slow):  # the machine may have been busy: what is slow is slow twice
            accepted, error, seconds = self._once(value)
        if self.counting:
            self.slowest = max(self.slowest, seconds)
            self.failed += error is not None
            self.accepted += error is None and accepted
            self.refused += error is None and not accepted
        if error is None:
            return None
        what = repr(value)
        shown = what if len(what) <= 2000 else f"{what[:2000]}..."
        return _Finding(_kind(error), len(what), f"{shown}: {type(error).__name__.lstrip('_')}: {error}"[:4000])

    def _once(self, value: Any) -> tuple[bool, BaseException | None, float]:
        before, began = _peak_mb(), time.perf_counter()
        accepted, error = False, None
        try:
            with _alarm(self.max_seconds), warnings.catch_warnings():
                warnings.simplefilter("error")
                accepted = self.target.check(value)
        except (Exception, _Slow) as raised:
            error = raised.with_traceback(raised.__traceback__)
        seconds = time.perf_counter() - began
        if error is None and seconds > self.max_seconds:
            error = _Slow(f"it took {seconds:.1f} s")
        if error is None and (grown := _peak_mb() - before) > MAX_MEGABYTES:
            error = Misbehaviour(f"it took {grown:.0f} MB")
        return accepted, error, seconds


def _kind(error: BaseException) -> str:
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    line = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}" if step else ""
    if isinstance(error, Misbehaviour):
        line = re.sub(r"\W?\d.*|['\"].*", "", str(error))
    return f"{type(error).__name__} {'' if isinstance(error, _Slow) else line}"


def _shrunk(trial: _Trial, first: _Finding, size: int, seed: int) -> _Finding:
    """The finding with the smallest input that hypothesis comes to; the same seed leads there again."""
    best, until = first, time.perf_counter() + SHRINK_SECONDS

    def look(value: Any) -> None:
        nonlocal best
        finding = trial(value) if time.perf_counter() < until else None
        if finding is not None and finding.kind == first.kind:
            best = min(best, finding, key=lambda found: found.size)
            raise _Found

    trial.counting = False
    with contextlib.suppress(Exception):  # that it was found, or no longer is once the time is up
        _explore(trial.target.inputs, look, size, seed, (Phase.generate, Phase.shrink))
    trial.counting = True
    return best


def _explore(inputs: st.SearchStrategy[Any], look: Callable[[Any], None], count: int, seed: int,
             phases: tuple[Phase, ...]) -> None:  # fmt: skip
    settings = hypothesis.settings(max_examples=count, deadline=None, database=None, phases=phases, print_blob=False,
                                   suppress_health_check=list(HealthCheck), verbosity=Verbosity.quiet,
                                   report_multiple_bugs=False)  # fmt: skip
    hypothesis.seed(seed)(settings(hypothesis.given(inputs)(lambda value: look(value))))()


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `_Slow` inside what runs longer; only the main thread can, elsewhere it is measured afterwards.

    Garbage is collected afterwards, too: an alarm that rings inside a callback of the collector would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    armed = True

    def ring(number: int, frame: FrameType | None) -> None:
        if armed:
            raise _Slow(f"it was stopped after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    gc.disable()
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _folder() -> str:
    """Where the files of inputs lie until the process ends."""
    global _scratch
    if _scratch is None:
        _scratch = tempfile.mkdtemp(prefix="rekindle-fuzz-")
        atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
    return _scratch


_scratch: str | None = None
