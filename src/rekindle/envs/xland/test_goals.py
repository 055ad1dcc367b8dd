"""Goals in words become task families: what is in them, what is refused."""

import os

import numpy as np
import pytest

from rekindle.core.errors import ConfigError, GoalError
from rekindle.envs.xland import goals, pools
from rekindle.envs.xland.level import HOLD, ME, NEAR, object_type

SPHERE, CUBE, WALL = object_type("yellow", "sphere"), object_type("black", "cube"), object_type("purple", "wall")
ROOM = "#######\n#.....#\n#.0...#\n#...1.#\n#.....#\n#..@..#\n#######\n"


def test_trials_default_to_five_where_something_is_hidden():
    rule = ("hold black cube -> yellow sphere",)
    assert goals.parse("hold yellow sphere").trials == 1
    assert goals.parse("hold yellow sphere", rule, hide="rules").trials == 5
    assert goals.parse("hold yellow sphere", rule, hide="rules", trials=3).trials == 3


def test_needed_objects_are_traced_back_through_the_rules():
    chain = ("hold black cube -> purple wall", "near(purple wall, black sphere) -> yellow sphere")
    asked = goals.parse("hold yellow sphere", chain)
    assert sorted(goals.needed_objects(asked)) == sorted([CUBE, object_type("black", "sphere")])


def test_inputs_of_rules_that_do_not_serve_the_goal_are_there_too():
    asked = goals.parse("hold yellow sphere", ("hold black cube -> nothing",))
    assert set(goals.needed_objects(asked)) == {SPHERE, CUBE}


def test_practice_and_proof_share_no_layout():
    """Start, walls and the object's place: other headings or distractors do not make a layout new."""
    asked = goals.parse("hold yellow sphere")
    seen = {}
    for split, count in (("train", 600), ("test", 100)):
        worlds = goals.pool(asked, split=split, seed=0, worlds=count).worlds
        spots = np.concatenate([worlds.start[:, 0, 0], worlds.places[:, 0, 0]], axis=1)
        seen[split] = {tuple(spot) for spot in spots.tolist()}
    assert len(seen["train"]) > 300 and len(seen["test"]) > 40
    assert not seen["train"] & seen["test"]


@pytest.mark.parametrize("hide", ["rules", "objects", "relations"])
def test_hiding_masks_every_rule(hide):
    asked = goals.parse("hold yellow sphere", ("near(black cube, purple wall) -> yellow sphere",), hide=hide)
    pool = goals.pool(asked, split="train", seed=0, worlds=4)
    column = {"rules": 0, "relations": 1, "objects": 2}[hide]
    assert (pool.games.mask[:, 0, column] > 0).all()
    assert (pool.games.mask[:, 1:] == 0).all()


def test_the_number_of_a_placeholder_says_nothing_about_what_it_hides():
    def mask(first, hide):
        rules = (f"{first}(me, black cube) -> purple cube", "hold purple wall -> black wall")
        return goals.pool(goals.parse("hold black wall", rules, hide=hide), split="train", seed=0, worlds=1).games.mask

    assert np.array_equal(mask("near", "relations"), mask("see", "relations"))
    assert mask("near", "relations")[0, :, 1].tolist()[:2] == [1, 2]


def test_neighbours_change_one_thing():
    asked = goals.parse("near(yellow sphere, black cube)", ("hold purple wall -> black cube",))
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(100):
        near = goals.neighbour(asked, rng)
        more_rules = len(near.rules) - len(asked.rules)
        assert more_rules in (0, 1)
        relations = [(r[1], s[1]) for r, s in zip((asked.goal, *asked.rules), (near.goal, *near.rules), strict=False)]
        changed = sum(a != b for a, b in relations)
        types = {k for row in (near.goal, *near.rules[: len(asked.rules)]) for k in row[2:]} - {0}
        renamed = len(types - {SPHERE, CUBE, WALL, ME})
        assert changed + renamed + more_rules == 1
        kinds.add((changed, renamed, more_rules))
    assert len(kinds) == 3


def test_a_map_keeps_its_marked_places_and_varies_the_start(tmp_path):
    path = tmp_path / "room.txt"
    path.write_text(ROOM)
    asked = goals.parse("near(yellow sphere, black cube)", world=str(path))
    pool = goals.pool(asked, split="train", seed=0, worlds=12)
    assert (pool.worlds.places[:, 0, :2] == np.asarray([[2, 2], [3, 4]])).all()
    assert len({tuple(start) for start in pool.worlds.start[:, 0, 0].tolist()}) > 4
    assert len(set(pool.worlds.heading[:, 0].tolist())) > 1
    assert pools.num_tasks(pool) > 0


@pytest.mark.parametrize(
    ("error", "words", "text"),
    [
        (GoalError, dict(text="hold yelow sphere"), "yelow"),
        (ConfigError, dict(text="hold yellow sphere", trials=0), "--trials"),
        (ConfigError, dict(text="hold yellow sphere", hide="rules"), "--rule"),
        (ConfigError, dict(text="hold yellow sphere", world="f9"), "--world"),
        (GoalError, dict(text="hold yellow sphere", rules=("hold black cube yellow sphere",)), "->"),
    ],
)
def test_wrong_words_are_one_sentence(error, words, text):
    with pytest.raises(error, match=text) as caught:
        goals.parse(**words)
    assert "\n" not in str(caught.value)


def test_a_map_that_is_too_small_is_refused(tmp_path):
    path = tmp_path / "tiny.txt"
    path.write_text("####\n#..#\n####\n")
    with pytest.raises(GoalError, match="floor cells"):
        goals.parse("near(yellow sphere, black cube)", world=str(path))


@pytest.mark.parametrize(
    ("text", "said"), [("####\n#..#\n###\n", "line 3 has 3"), ("", "is empty"), ("####", "no floor")]
)
def test_what_is_wrong_with_a_map_is_said_with_its_name(text, said, tmp_path):
    path = tmp_path / "wrong.txt"
    path.write_text(text)
    with pytest.raises(GoalError, match=rf"wrong\.txt cannot be used.*{said}"):
        goals.parse("hold yellow sphere", world=str(path))


def test_a_map_with_two_free_cells_cannot_hold_out_any(tmp_path):
    for name, text, apart in (("wide", ROOM, True), ("narrow", "#######\n#..0..#\n#######", False)):
        path = tmp_path / name
        path.write_text(text)
        assert goals.can_hold_out(goals.parse("hold yellow sphere", world=str(path))) == apart
    assert goals.can_hold_out(goals.parse("hold yellow sphere"))


def test_relations_without_see_are_compiled_out():
    assert goals.env_of(goals.parse("hold yellow sphere")).env.relations == (NEAR, HOLD, 1)
    assert 4 in goals.env_of(goals.parse("see(me, yellow sphere)")).env.relations


def test_a_goal_that_holds_at_the_start_is_practised_too_beside_neighbours_that_do_not():
    asked = goals.parse("not hold yellow sphere")
    pool = goals.pool(asked, split="train", seed=0, worlds=64, neighbours=0.5)
    played = pool.games.goal[pool.pairs[:, 1]]
    assert (played == np.asarray(asked.goal)).all(axis=1).sum() >= 32


@pytest.mark.parametrize("world", ["a\0b", "\udcff", "x" * 5000, "a\nb", ""])
def test_a_world_that_is_no_path_is_refused(world):
    with pytest.raises(ConfigError, match="is no file") as refused:
        goals.parse("hold yellow sphere", world=world)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80", "it is no text"),
        (b"\n" * 70_000 + ROOM.encode(), "65,536 bytes"),
        (b"#\n" + b"." * 5000, "equally long"),
        (b"####\n#\x00^#\n####", "unknown character"),
    ],
)
def test_a_file_that_is_no_map_is_refused_in_short(content, said, tmp_path):
    path = tmp_path / "wrong.txt"
    path.write_bytes(content)
    with pytest.raises(GoalError, match=said) as refused:
        goals.parse("hold yellow sphere", world=str(path))
    assert "wrong.txt" in str(refused.value)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such names")
@pytest.mark.parametrize("name", [b"two\nlines", b"\xff", b"a\x1b[31m"])
def test_a_map_whose_name_cannot_be_printed_is_refused(name, tmp_path):
    """The name is part of the key under which answers are kept, one line of text."""
    path = tmp_path / os.fsdecode(name)
    path.write_text(ROOM)
    with pytest.raises(ConfigError, match="characters that cannot be printed") as refused:
        goals.parse("hold yellow sphere", world=str(path))
    assert str(refused.value).isprintable()


def test_a_map_whose_marked_places_leave_no_cell_for_the_start_is_refused(tmp_path):
    path = tmp_path / "full.txt"
    path.write_text("#######\n#01234#\n#######")
    with pytest.raises(GoalError, match="marks every floor cell"):
        goals.parse("hold yellow sphere", world=str(path))


def test_a_number_of_trials_beyond_all_bounds_is_refused_in_short():
    with pytest.raises(ConfigError, match="--trials must be from 1 to 16") as refused:
        goals.parse("hold yellow sphere", trials=10**4000)
    assert len(str(refused.value)) < 200
