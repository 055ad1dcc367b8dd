import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.core.spaces import Box
from rekindle.envs.xland.encode import shown_goal, shown_rules
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import PARTNER, Game, Task
from rekindle.envs.xland.text import parse_game, parse_task

ME_CODE = [5, 0]
BLACK_CUBE, YELLOW_SPHERE, PURPLE_WALL = [2, 1], [3, 3], [1, 2]
NOTHING = [0, 0]


def shown(rule: str, players: int = 1) -> list[int]:
    game = parse_game(f"goal: hold black cube\nrule: {rule}", players=players, max_rules=2)
    rows = np.asarray(shown_rules(game))
    assert not rows[1].any()
    return rows[0].tolist()


@pytest.mark.parametrize(
    ("goal", "code"),
    [
        ("hold black cube", [0, 3, *ME_CODE, *BLACK_CUBE]),
        ("not near(yellow sphere, partner)", [1, 2, *YELLOW_SPHERE, 6, 0]),
        ("touching(purple wall, purple wall)", [0, 1, *PURPLE_WALL, *PURPLE_WALL]),
    ],
)
def test_goal_code(goal, code):
    assert shown_goal(parse_game(f"goal: {goal}", players=2)).tolist() == code


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("hold black cube -> yellow sphere", [0, 3, *ME_CODE, *BLACK_CUBE, *YELLOW_SPHERE, *NOTHING, *NOTHING]),
        ("not see(me, black cube) -> nothing", [1, 4, *ME_CODE, *BLACK_CUBE, *NOTHING, *NOTHING, *NOTHING]),
        ("[hidden] not see(me, black cube) -> purple wall", [2] + [0] * 11),
        ("[hidden] near?3(me?1, black cube?2) -> nothing?4", [2] + [0] * 11),
        ("hold?3 black cube -> yellow sphere", [2, 7, *ME_CODE, *BLACK_CUBE, *YELLOW_SPHERE, *NOTHING, *NOTHING]),
        ("not hold?16 black cube -> nothing", [2, 20, *ME_CODE, *BLACK_CUBE, *NOTHING, *NOTHING, *NOTHING]),
        ("hold black cube?1 -> purple wall?2, black cube?1",
         [0, 3, *ME_CODE, 7, 4, 8, 5, 7, 4, *NOTHING]),
        ("near(me?5, black cube) -> nothing?16", [0, 2, 11, 8, *BLACK_CUBE, 22, 19, *NOTHING, *NOTHING]),
    ],
)  # fmt: skip
def test_rule_code(rule, code):
    assert shown(rule) == code


def test_codes_of_things_are_distinct_and_placeholders_are_none_of_them():
    shown_things = {tuple(shown(f"hold black cube -> {c} {s}")[6:8]) for c in ("black", "purple", "yellow")
                    for s in ("wall", "cube", "sphere", "pyramid")}  # fmt: skip
    placeholders = {tuple(shown(f"hold black cube -> black cube?{n}")[6:8]) for n in range(1, 17)}
    others = {tuple(shown("near(me, partner) -> nothing", players=2)[i : i + 2]) for i in (2, 4, 6)}
    assert len(shown_things | placeholders | others) == 12 + 16 + 3


def test_a_placeholder_looks_the_same_wherever_it_stands_and_whatever_it_hides():
    one, two = shown("hold black cube?4 -> purple wall?4"), shown("near(me, me?4) -> nothing, nothing?4")
    assert one[4:6] == one[6:8] == two[4:6] == two[8:10]


@st.composite
def pairs_that_differ_in_hidden_parts(draw):
    """A random game and another whose shown parts are the same."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def table():
        relation = rng.integers(1, 5, (4, 1))
        return np.concatenate([rng.integers(0, 2, (4, 1)), relation, rng.integers(1, PARTNER + 1, (4, 2)),
                               rng.integers(0, 13, (4, 3))], axis=1).astype(np.int8)  # fmt: skip

    mask = np.where(rng.random((4, 7)) < 0.4, rng.integers(1, 17, (4, 7)), 0).astype(np.int8)
    mask[:, 0] = rng.random(4) < 0.3
    hidden = np.concatenate([mask[:, 1:2], mask[:, 1:]], axis=1) > 0
    hidden |= mask[:, :1] > 0
    rules, other = table(), table()
    rules[3, 1] = 0
    other = np.where(hidden, other, rules)
    other[3] = rules[3]
    return rules, other.astype(np.int8), mask


WORLD = parse_task("goal: hold black cube\nobjects: black cube\nworld:\n#####\n#0.^#\n#...#\n#####", max_rules=4)
ENV = XLand(max_rules=4)
reset = jax.jit(ENV.reset)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(pairs_that_differ_in_hidden_parts())
def test_hidden_parts_do_not_reach_the_first_observation(pair):
    rules, other, mask = pair
    first, second = (
        reset(jax.random.key(0), WORLD._replace(game=WORLD.game._replace(rules=r, mask=mask)))[1]
        for r in (rules, other)
    )
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, second))
    space = ENV.spec.obs["rules"]
    assert isinstance(space, Box)
    assert int(first.obs["rules"].min()) >= space.low and int(first.obs["rules"].max()) <= space.high


def test_shown_parts_do_reach_the_first_observation():
    """The property above could not fail if rules were not shown at all."""

    def rules(task: Task) -> list:
        return np.asarray(reset(jax.random.key(0), task)[1].obs["rules"]).tolist()

    game: Game = parse_game("goal: hold black cube\nrule: near(me, black cube) -> yellow wall", max_rules=4)
    base = rules(WORLD._replace(game=game))
    for column, value in ((0, 1), (1, 1), (2, 3), (3, 3), (4, 3), (5, 3), (6, 3)):
        changed = game.rules.copy()
        changed[0, column] = value
        assert rules(WORLD._replace(game=game._replace(rules=changed))) != base
