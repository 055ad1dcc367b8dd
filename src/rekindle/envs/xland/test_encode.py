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


@pytest.mark.parametrize(
    ("goal", "first", "second"),
    [
        ("hold black cube", [0, 3, *ME_CODE, *BLACK_CUBE], [0, 3, 6, 0, *BLACK_CUBE]),
        ("not hold(partner, black cube)", [1, 3, 6, 0, *BLACK_CUBE], [1, 3, *ME_CODE, *BLACK_CUBE]),
        ("near(me, partner)", [0, 2, *ME_CODE, 6, 0], [0, 2, 6, 0, *ME_CODE]),
        ("near(black cube, purple wall)", [0, 2, *BLACK_CUBE, *PURPLE_WALL], [0, 2, *BLACK_CUBE, *PURPLE_WALL]),
    ],
)
def test_whoever_reads_is_me(goal, first, second):
    game = parse_game(f"goal: {goal}\nrule: {goal} -> purple wall", players=2, max_rules=1)
    for player, code in enumerate((first, second)):
        assert shown_goal(game, player).tolist() == code
        assert shown_rules(game, player).tolist() == [[*code, *PURPLE_WALL, *NOTHING, *NOTHING]]


def test_each_player_is_told_by_its_own_mask():
    rule = "near?1/2(me, black cube?0/3) -> purple wall?1/0"
    game = parse_game(f"goal: hold black cube\nrule: {rule}", players=2, max_rules=1)
    assert shown_rules(game, 0).tolist() == [[2, 5, *ME_CODE, *BLACK_CUBE, 7, 4, *NOTHING, *NOTHING]]
    assert shown_rules(game, 1).tolist() == [[2, 6, 6, 0, 9, 6, *PURPLE_WALL, *NOTHING, *NOTHING]]
    secret = parse_game("goal: hold black cube\nrule: [hidden from me] hold black cube -> nothing", players=2)
    assert shown_rules(secret, 0)[0].tolist() == [2] + [0] * 11
    assert shown_rules(secret, 1)[0].tolist() == [0, 3, 6, 0, *BLACK_CUBE, *[0] * 6]


PAIR_WORLD = parse_task("goal: hold black cube\nobjects: black cube\nworld:\n#####\n#0.^#\n#N..#\n#####", max_rules=4,
                        players=2)  # fmt: skip
PAIR = XLand(max_rules=4, players=2)
reset_pair = jax.jit(PAIR.reset)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs_that_differ_in_hidden_parts(), st.integers(0, 1))
def test_what_is_hidden_from_one_player_reaches_only_the_other(pair, player):
    """The other player's mask is empty: it sees every difference, and nothing of that reaches the first."""
    rules, other, mask = pair
    both = np.zeros((2, 4, 7), np.int8)
    both[player] = mask
    first, second = (
        reset_pair(jax.random.key(0), PAIR_WORLD._replace(game=PAIR_WORLD.game._replace(rules=r, mask=both)))[1].obs
        for r in (rules, other)
    )
    assert all((first[name][player] == second[name][player]).all() for name in first)
    told = [obs["rules"][1 - player] for obs in (first, second)]
    assert bool((told[0] == told[1]).all()) == np.array_equal(rules, other)


def test_the_seats_are_alike():
    """Exchange the players, in the world and in the game, and each sees what the other saw."""
    lines = [
        "goal: {hold}black cube{end}",
        "rule: near(me, black cube) -> yellow wall",
        "objects: black cube",
        "world:",
    ]
    text = "\n".join(lines).format(hold="hold(partner, ", end=")") + "\n#####\n#0.^#\n#W..#\n#####"
    mirrored = (
        "\n".join(lines).format(hold="hold ", end="").replace("(me,", "(partner,") + "\n#####\n#0.N#\n#<..#\n#####"
    )
    one, two = (reset_pair(jax.random.key(0), parse_task(t, max_rules=4, players=2))[1].obs for t in (text, mirrored))
    assert all((one[name] == two[name][::-1]).all() for name in one)
