"""Games at random: a goal, a chain of rules that makes it reachable, distractors, dead ends, and what is hidden.

The recipe is that of XLand 2.0 (Adaptive Agents Team 2023, section 2 and appendix B): the chain is built backwards from
the goal, so that firing its rules in order yields the goal's objects. What the paper leaves open is decided so:

- Every rule of the chain takes types that occur nowhere else, so no rule can steal another's inputs.
- A rule's outputs are a uniformly large part (1 to 3) of what is needed later.
- A dead end never asks for what the chain or the goal asks for, and never punishes merely walking up to one of their
  objects: such tasks could not be solved at all.
- Negated goals are mostly true before anyone acts; a recipe has to ask for them.
- For two players, each reference to player 1 becomes one to player 2 with probability 1/2, and each player's mask is
  drawn by itself. Goal and reward are shared. What one player could do, the two can: any player may fire any rule that
  names none, and whoever is named acts.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from rekindle.envs.xland.level import (
    HOLD,
    MAX_SPAWNS,
    ME,
    NEAR,
    NUM_TYPES,
    PARTNER,
    SEE,
    TOUCHING,
    Game,
    make_game,
)

Split = Literal["train", "test"]
Hidden = Literal["none", "rules", "random"]
TEST_SHARE = 8
"""One game (and one world) in so many is held out, chosen by hash."""


@dataclass(frozen=True)
class Recipe:
    """How games are drawn. Ranges are inclusive at both ends and uniform."""

    relations: tuple[int, ...] = (TOUCHING, NEAR, HOLD, SEE)
    """Relations of goals and conditions."""
    negation: float = 0.0
    """Probability that the goal is negated."""
    player: float = 0.25
    """Probability that the first argument of a relation other than hold is the player."""
    chain: tuple[int, int] = (1, 4)
    """Rules between the initial objects and the goal."""
    dead_ends: tuple[int, int] = (0, 2)
    """Rules that turn things into distractors."""
    distractors: tuple[int, int] = (0, 10)
    """Initial objects that neither the chain nor the goal uses."""
    hidden: Hidden = "random"
    """Nothing, all rules wholly, or a random mechanism with each of its parts hidden with probability 1/2."""
    frozen_games: float = 0.0
    """Probability that a game has frozen objects at all."""
    frozen_types: float = 0.2
    """Probability that an initial type is frozen in such a game, unless it has to be moved."""
    players: int = 1
    max_rules: int = 16
    max_objects: int = 20


F0 = Recipe(relations=(NEAR, HOLD), chain=(0, 1), dead_ends=(0, 1), distractors=(0, 3), hidden="rules",
            max_rules=4, max_objects=12)  # fmt: skip
F1 = Recipe(relations=(TOUCHING, NEAR, HOLD), chain=(1, 2), dead_ends=(0, 2), distractors=(0, 5), hidden="random",
            max_rules=4, max_objects=12)  # fmt: skip
FULL = Recipe()
"""The paper's ranges for one player, without negated goals: a chain has yet to make what they are about, so that they
hold from the start, and pools keep no task that does (`presets.quiet`). Conditions of rules are not negated either."""
C2 = replace(F0, players=2, frozen_games=0.5)
C2_F1 = replace(F1, players=2, frozen_games=0.5)
"""F0 and F1 for two players, with the paper's share of frozen objects, which it has in games for two only."""


class Drawn(NamedTuple):
    """A game and how it came about."""

    game: Game
    chain: tuple[int, ...]
    """Rows of the chain's rules, in the order in which they have to fire."""
    dead_ends: int
    distractors: int


Condition = tuple[int, int, int]
"""Relation, a, b."""


def sample_game(rng: np.random.Generator, recipe: Recipe, *, split: Split | None = None) -> Drawn:
    """Draw a game; with `split`, from that side of the held-out split only."""
    while True:
        drawn = _sample(rng, recipe)
        if split is None or split_of(canonical(drawn.game)) == split:
            return drawn


def _sample(rng: np.random.Generator, recipe: Recipe) -> Drawn:
    unused = (1 + rng.permutation(NUM_TYPES)).tolist()
    goal = _condition(rng, recipe, unused)
    chain, needed = _chain(rng, recipe, goal, unused)
    critical = [goal, *((rule[0], rule[1], rule[2]) for rule in chain)]

    room = recipe.max_objects - len(needed) - MAX_SPAWNS
    wanted = int(rng.integers(recipe.distractors[0], recipe.distractors[1], endpoint=True))
    distractors = rng.choice(unused, size=max(min(wanted, room), 0)).tolist() if unused else []
    wanted = int(rng.integers(recipe.dead_ends[0], recipe.dead_ends[1], endpoint=True))
    wanted = min(wanted, recipe.max_rules - len(chain))
    dead_ends = [_dead_end(rng, recipe, critical, distractors, unused) for _ in range(wanted)] if unused else []

    objects = rng.permutation(np.asarray(needed + distractors, np.int64)).tolist()
    order = rng.permutation(len(chain) + len(dead_ends)).tolist()
    rules = [(chain + dead_ends)[i] for i in order]
    negated = int(rng.random() < recipe.negation)
    game = make_game(
        [negated, *goal],
        [[0, *rule] for rule in rules],
        objects,
        max_rules=recipe.max_rules,
        max_objects=recipe.max_objects,
        frozen=_frozen(rng, recipe, critical, objects),
    )
    if recipe.players == 2:
        game = _shared_out(rng, game)
    masks = [hide(rng, np.asarray(game.rules), recipe.hidden) for _ in range(recipe.players)]
    game = game._replace(mask=masks[0] if recipe.players == 1 else np.stack(masks))
    return Drawn(game, tuple(order.index(i) for i in range(len(chain))), len(dead_ends), len(distractors))


def _condition(rng: np.random.Generator, recipe: Recipe, unused: list[int]) -> Condition:
    """A relation between types that nothing uses yet; they are taken from `unused`."""
    relation = int(rng.choice(recipe.relations))
    alone = relation == HOLD or rng.random() < recipe.player
    return (relation, ME, unused.pop()) if alone else (relation, unused.pop(), unused.pop())


def _chain(rng: np.random.Generator, recipe: Recipe, goal: Condition,
           unused: list[int]) -> tuple[list[list[int]], list[int]]:  # fmt: skip
    """Rules in firing order, built backwards from the goal, and the objects that must be there before the first."""
    rules: list[list[int]] = []
    needed = [kind for kind in goal[1:] if kind != ME]
    for _ in range(int(rng.integers(recipe.chain[0], recipe.chain[1], endpoint=True))):
        made = rng.permutation(needed)[: rng.integers(1, min(len(needed), MAX_SPAWNS), endpoint=True)].tolist()
        condition = _condition(rng, recipe, unused)
        rules.insert(0, [*condition, *made])
        needed = [kind for kind in needed if kind not in made] + [kind for kind in condition[1:] if kind != ME]
    return rules, needed


def _dead_end(rng: np.random.Generator, recipe: Recipe, critical: list[Condition], distractors: list[int],
              unused: list[int]) -> list[int]:  # fmt: skip
    """A rule about distractors or critical objects that leaves distractors only."""
    pairs = {frozenset(condition[1:]) for condition in critical}
    precious = {kind for condition in critical for kind in condition[1:]} - {ME}
    kinds = sorted(precious | set(distractors or unused))
    while True:
        relation = int(rng.choice(recipe.relations))
        b, a = rng.permutation(kinds)[:2].tolist() if len(kinds) > 1 else (kinds[0], ME)
        if relation == HOLD or rng.random() < recipe.player:
            a = ME
        asks_to_stay_away = a == ME and b in precious and relation != HOLD
        if frozenset((a, b)) not in pairs and not asks_to_stay_away:
            return [relation, a, b, *rng.choice(unused, size=rng.integers(1, MAX_SPAWNS, endpoint=True)).tolist()]


def _frozen(rng: np.random.Generator, recipe: Recipe, critical: list[Condition], objects: list[int]) -> list[int]:
    """Slots of frozen objects; of two that must meet, or of one that must be held, none that has to move."""
    if rng.random() >= recipe.frozen_games:
        return []
    frozen: set[int] = set()
    held = {b for relation, _, b in critical if relation == HOLD}
    for kind in sorted(set(objects) - held):
        partners = {other for _, a, b in critical for other in (a, b) if kind in (a, b)} - {kind}
        if not partners & frozen and rng.random() < recipe.frozen_types:
            frozen.add(kind)
    return [slot for slot, kind in enumerate(objects) if kind in frozen]


def _shared_out(rng: np.random.Generator, game: Game) -> Game:
    """The game with each reference to player 1, in its goal and rules, turned into one to player 2 or left."""
    goal, rules = (
        np.where((codes == ME) & (rng.random(codes.shape) < 0.5), np.int8(PARTNER), codes)
        for codes in (np.asarray(game.goal), np.asarray(game.rules))
    )
    return game._replace(goal=goal, rules=rules)


def hide(rng: np.random.Generator, rules: np.ndarray, hidden: Hidden) -> np.ndarray:
    """A mask as `Game.mask` wants it; placeholders are numbered in order of appearance, alike in all rules."""
    mask = np.zeros_like(rules)
    rows = np.flatnonzero(rules[:, 1])
    mechanism = "none"
    if hidden == "rules":
        mask[rows, 0] = 1
    elif hidden == "random":
        mechanism = str(rng.choice(["rule", "relation", "object"]))
    if mechanism == "rule":
        mask[rows, 0] = rng.integers(2, size=len(rows))
    elif mechanism == "relation":
        mask[rows, 1] = _placeholders(rng, rules[rows, 1] + (rules[rows, 0] << 3))
    elif mechanism == "object":
        kinds = np.where(rules[rows, 2:] >= ME, 0, rules[rows, 2:])
        mask[rows, 2:] = _placeholders(rng, kinds)
    return mask


def _placeholders(rng: np.random.Generator, codes: np.ndarray) -> np.ndarray:
    """Each different positive code is hidden with probability 1/2; the hidden ones are numbered from 1."""
    seen = list(dict.fromkeys(code for code in codes.ravel().tolist() if code > 0))
    chosen = [code for code in seen if rng.random() < 0.5]
    return sum((np.where(codes == code, number, 0) for number, code in enumerate(chosen, 1)), np.zeros_like(codes))


def canonical(game: Game) -> bytes:
    """Goal and rules, rule order aside: what decides whether two games are the same for the held-out split.

    The order of a condition's arguments and that of the spawns is put aside, too; in a game for two players also who of
    them is player 1, for an agent takes either seat.
    """
    goal, rules = np.asarray(game.goal), np.asarray(game.rules)
    if np.ndim(game.mask) == 2:
        return _encoded(goal, rules)
    seats = (np.where(codes >= ME, ME + PARTNER - codes, codes) for codes in (goal, rules))
    return min(_encoded(goal, rules), _encoded(*seats))


def split_of(data: bytes) -> Split:
    """The side on which an encoded game or world falls; the same for ever, whatever the pool or the seed."""
    return "test" if hashlib.sha256(data).digest()[0] % TEST_SHARE == 0 else "train"


def _encoded(goal: np.ndarray, rules: np.ndarray) -> bytes:
    rows = sorted(_ordered(rule).tobytes() for rule in rules if rule[1] > 0)
    return b"|".join([_ordered(goal).tobytes(), *rows])


def _ordered(condition: np.ndarray) -> np.ndarray:
    row = np.array(condition, np.int8)
    row[2:4] = np.sort(row[2:4])
    row[4:] = np.sort(row[4:])
    return row
