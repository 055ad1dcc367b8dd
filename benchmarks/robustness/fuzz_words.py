"""Fuzzing of the words that a person types: goals, rules, maps, tasks, budgets, and options that are read by hand."""

import contextlib
import os
import re
from typing import NamedTuple

from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from benchmarks.robustness.fuzz import MAX_LENGTH, Misbehaviour, Target, pick, same, scratch, survives, take
from rekindle.agents.registry import config_from_json
from rekindle.cli import evaluate, train
from rekindle.core.budget import parse_budget
from rekindle.envs.xland import goals, text
from rekindle.envs.xland.ascii import MAX_SIDE, PLACES, world_from_ascii, world_to_ascii
from rekindle.envs.xland.level import COLOURS, OBJECT_TYPES, RELATIONS, SHAPES


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
        path = os.path.join(scratch(), self.name)
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
