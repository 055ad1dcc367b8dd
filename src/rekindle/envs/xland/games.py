"""Games at random: a goal, a chain of rules that makes it reachable, distractors, dead ends, and what is hidden."""

import hashlib
from typing import Literal

import numpy as np

from rekindle.envs.xland.level import Game

Split = Literal["train", "test"]
TEST_SHARE = 8
"""One game (and one world) in so many is held out, chosen by hash."""


def canonical(game: Game) -> bytes:
    """Goal and rules, rule order aside: what decides whether two games are the same for the held-out split.

    Relations that do not distinguish their arguments (touching, near, see between objects) are put in one order.
    """
    goal, rules = np.asarray(game.goal), np.asarray(game.rules)
    rows = sorted(_ordered(rule).tobytes() for rule in rules if rule[1] > 0)
    return b"|".join([_ordered(goal).tobytes(), *rows])


def split_of(data: bytes) -> Split:
    """The side on which an encoded game or world falls; the same for ever, whatever the pool or the seed."""
    return "test" if hashlib.sha256(data).digest()[0] % TEST_SHARE == 0 else "train"


def _ordered(condition: np.ndarray) -> np.ndarray:
    row = np.array(condition, np.int8)
    row[2:4] = np.sort(row[2:4])
    row[4:] = np.sort(row[4:])
    return row
