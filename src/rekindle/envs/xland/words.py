"""The word reader of the grammar in docs/xland.md: conditions, rules and object lists, and what is wrong with them."""

import re

import numpy as np

from rekindle.core.budget import quoted
from rekindle.core.errors import GoalError, nearest
from rekindle.envs.xland.level import (
    COLOURS,
    HOLD,
    MAX_PLACEHOLDERS,
    MAX_SPAWNS,
    ME,
    PARTNER,
    RELATIONS,
    SHAPES,
    object_type,
)

Numbers = tuple[int, int]
"""What stands in a mask for player 1 and for player 2."""
PLAYERS = {"me": ME, "partner": PARTNER}
SECRETS: dict[str, Numbers] = {"[hidden]": (1, 1), "[hiddenfromme]": (1, 0), "[hiddenfrompartner]": (0, 1)}
_WORD = re.compile(r"->|\[\s*\w+(?:\s+from\s+\w+)?\s*\]|\w+|\S")
_EXAMPLES = {"goal": ("goal", "hold yellow sphere"), "rule": ("rule", "hold black cube -> yellow sphere"),
             "objects": ("objects line", "black cube, nothing")}  # fmt: skip


class Words:
    """The words of one line, read from left to right."""

    def __init__(self, what: str, text: str, players: int, *, may_hide: bool = False):
        self.shown = f"the {what} {quoted(' '.join(text.split()), 120)}"
        self.players, self.may_hide = players, may_hide
        body = text.rstrip(" \t\r\n.")
        self.words = [(m.group(), m.start() + 1) for m in _WORD.finditer(body.lower())]
        self.at = 0
        if not self.words:
            named, example = _EXAMPLES[what]
            raise GoalError(f"the {named} is empty; write one such as {example!r}.")

    def word(self, ahead: int = 0) -> str:
        """The word `ahead` places on; empty at the end."""
        return self.words[self.at + ahead][0] if self.at + ahead < len(self.words) else ""

    def skip(self, word: str) -> bool:
        """Whether the next word is this one; if so it is taken."""
        found = self.word() == word
        self.at += found
        return found

    def need(self, what: str, known: tuple[str, ...]) -> str:
        """Take one of the known words, or say what was there instead."""
        word = self.word()
        if word not in known:
            known = tuple(k for k in known if k != "partner" or self.players > 1)
            hint = f"; the nearest known are {nearest(word[:80], known)}"
            raise self.error(f"expected {what}{hint if word.isidentifier() and len(known) > 1 else ''}")
        self.at += 1
        return word

    def error(self, why: str) -> GoalError:
        """A GoalError about the next word."""
        if self.at >= len(self.words):
            return GoalError(f"{self.shown} ends too early: {why}.")
        word, place = self.words[self.at]
        return GoalError(f"{self.shown} has {quoted(word)} as word {self.at + 1} (character {place}): {why}.")

    def end(self) -> None:
        """Nothing may follow."""
        if self.word():
            raise self.error("expected nothing more")

    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        """A rule row and its mask row, or its mask rows where there are two players."""
        if "->" not in (word for word, _ in self.words):
            raise GoalError(f"{self.shown} has no '->' between its condition and its spawns.")
        row, mask = np.zeros(4 + MAX_SPAWNS, np.int8), np.zeros((4 + MAX_SPAWNS, 2), np.int8)
        told = mask[:, 0] if self.players == 1 else mask.T
        mask[0] = self.secret()
        row[:4], mask[1:4] = self.condition()
        self.need("'->'", ("->",))
        if self.word() == "nothing" and not self.word(1):
            return row, told
        for s in range(MAX_SPAWNS):
            ended = s > 0 and not row[3 + s]
            row[4 + s], mask[4 + s] = self.thing(("nothing",) if self.may_hide else (), only=ended)
            if not self.skip(","):
                break
        else:
            self.at -= 1
            raise self.error(f"a rule has at most {MAX_SPAWNS} spawns")
        self.end()
        return row, told

    def secret(self) -> Numbers:
        """Whether the rule is hidden wholly, from each player."""
        mark = re.sub(r"\s", "", self.word())
        if not self.may_hide or mark not in (SECRETS if self.players > 1 else ("[hidden]",)):
            return 0, 0
        self.at += 1
        return SECRETS[mark]

    def condition(self) -> tuple[list[int], list[Numbers]]:
        """`["not"] pred` as `[not, relation, a, b]` and the placeholders of relation, a and b."""
        negated = self.skip("not")
        if negated:
            relation = self.need("a relation", RELATIONS)
        else:
            relation = self.need("'not' or a relation", (*RELATIONS, "not"))
        code, hidden = RELATIONS.index(relation) + 1, self.placeholder()
        if code == HOLD and self.word() != "(":
            b, hidden_b = self.thing()
            return [int(negated), code, ME, b], [hidden, (0, 0), hidden_b]
        self.need("'('", ("(",))
        a, hidden_a = self.thing(tuple(PLAYERS), only=code == HOLD)
        self.need("','", (",",))
        b, hidden_b = self.thing(() if code == HOLD else tuple(PLAYERS))
        self.need("')'", (")",))
        return [int(negated), code, a, b], [hidden, hidden_a, hidden_b]

    def thing(self, others: tuple[str, ...] = (), *, only: bool = False) -> tuple[int, Numbers]:
        """An object, or one of the other words (or these only), and its placeholders."""
        if self.word() == "partner" and "partner" in others and self.players < 2:
            raise self.error("there is no partner in a one-player world")
        what = " or ".join(([] if only else ["a colour"]) + [repr(o) for o in others if o in ("me", "nothing")])
        why = ", for only a player holds" if only and "me" in others else ""
        first = self.need(what + why, (*others, *(() if only else COLOURS)))
        if first in others:
            return PLAYERS.get(first, 0), self.placeholder()
        code = object_type(first, self.need(f"a shape after {first!r}", SHAPES))
        return code, self.placeholder()

    def placeholder(self) -> Numbers:
        """`?n` for every player, `?n/m` for each its own; 0 is none."""
        if not self.may_hide or not self.skip("?"):
            return 0, 0
        each = self.players > 1 and self.word(1) == "/"
        first = self.number(0 if each else 1)
        if not each:
            return first, first
        self.skip("/")
        return first, self.number(0, other_than=first)

    def number(self, low: int, other_than: int | None = None) -> int:
        """A placeholder's number."""
        known = [str(n) for n in range(low, MAX_PLACEHOLDERS + 1) if n != other_than]
        other = "" if other_than is None else f" other than {other_than}"
        return int(self.need(f"a number from {low} to {MAX_PLACEHOLDERS}{other}", tuple(known)))

    def objects(self) -> tuple[list[int], list[int]]:
        """The types in slot order, and which slots are frozen."""
        kinds: list[int] = []
        frozen: list[int] = []
        while True:
            kinds.append(self.thing(("nothing",))[0])
            if kinds[-1] and re.sub(r"\s", "", self.word()) == "[frozen]":
                self.at += 1
                frozen.append(len(kinds) - 1)
            if not self.skip(","):
                break
        self.end()
        return kinds, frozen
