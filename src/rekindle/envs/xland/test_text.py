import re
import time

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.core.errors import GoalError
from rekindle.envs.xland import ascii as maps
from rekindle.envs.xland.ascii import has_starts, num_places, world_from_ascii, world_to_ascii
from rekindle.envs.xland.level import (
    FLOOR,
    GATE,
    HOLD,
    ME,
    NEAR,
    PARTNER,
    SEE,
    TOUCHING,
    VOID,
    WALL,
    Task,
    World,
    line_of_sight,
    make_game,
    object_type,
)
from rekindle.envs.xland.text import (
    parse_game,
    parse_goal,
    parse_rule,
    parse_task,
    print_game,
    print_goal,
    print_rule,
    print_task,
)

CUBE, SPHERE, WALL_ = object_type("black", "cube"), object_type("yellow", "sphere"), object_type("purple", "wall")
FEW = settings(max_examples=60, deadline=None, derandomize=True)

objects = st.integers(1, 12)
things = st.integers(1, PARTNER)


@st.composite
def conditions(draw):
    relation = draw(st.sampled_from((TOUCHING, NEAR, HOLD, SEE)))
    if relation == HOLD:
        return [draw(st.integers(0, 1)), HOLD, draw(st.sampled_from((ME, PARTNER))), draw(objects)]
    return [draw(st.integers(0, 1)), relation, draw(things), draw(things)]


@st.composite
def rules(draw):
    spawns = draw(st.lists(objects, max_size=3))
    return np.array(draw(conditions()) + spawns + [0] * (3 - len(spawns)), np.int8)


seeds = st.integers(0, 2**32)


def random_world(seed: int) -> World:
    """Any world: things on distinct floor cells, the border never floor, gates in row-major order."""
    rng = np.random.default_rng(seed)
    height, width, players, layouts = rng.integers((4, 5, 1, 1), (9, 10, 3, 4)).tolist()
    terrain = rng.choice([VOID, WALL], (height, width)).astype(np.int8)
    inside = rng.choice([FLOOR, WALL, GATE, VOID], (height - 2, width - 2), p=[0.6, 0.2, 0.1, 0.1])
    inside.flat[rng.choice(inside.size, 3, replace=False)] = FLOOR
    terrain[1:-1, 1:-1] = inside
    floor, gates = np.argwhere(terrain == FLOOR), np.argwhere(terrain == GATE)
    count = int(rng.integers(0, min(20, len(floor) - players) + 1))
    cells = np.stack([rng.permutation(floor)[: count + players] for _ in range(layouts)]).astype(np.int8)
    places = np.zeros((layouts, 20, 2), np.int8)
    places[:, :count] = cells[:, players:]
    heading = rng.integers(0, 4, players).astype(np.int8)
    is_open = rng.random(len(gates)) < 0.5
    return World(terrain, places, cells[:, :players], heading, gates.astype(np.int8), is_open, line_of_sight(terrain))


def random_task(world: World, rows: list[np.ndarray], goal: list[int], seed: int) -> Task:
    """A task of these rules with whatever else a task has: masks, frozen objects, empty slots, a clock."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 13, rng.integers(num_places(world) + 1)).tolist()
    frozen = [i for i, kind in enumerate(kinds) if kind and rng.random() < 0.5]
    tables = [np.zeros((4, 7), np.int8) for _ in range(world.start.shape[1])]
    for mask in tables:
        mask[: len(rows)] = rng.integers(0, 17, (len(rows), 7)) * (rng.random((len(rows), 7)) < 0.5)
        mask[:, 0] = mask[:, 0] > 0
    mask = np.stack(tables) if len(tables) > 1 else tables[0]
    game = make_game(goal, [row.tolist() for row in rows], kinds, max_rules=4, frozen=frozen, mask=mask)
    trials, steps = rng.integers(1, 32_768, 2).astype(np.int16)
    return Task(world, game, steps, trials, np.float32(rng.random()))


def assert_same(ours, theirs):
    for (path, a), (_, b) in zip(
        *(jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (ours, theirs)), strict=True
    ):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape and (a == b).all(), jax.tree_util.keystr(path)


@FEW
@given(conditions())
def test_goal_survives_printing(goal):
    goal = np.array(goal, np.int8)
    assert_same(parse_goal(print_goal(goal), players=2), goal)


@FEW
@given(rules())
def test_rule_survives_printing(rule):
    assert_same(parse_rule(print_rule(rule), players=2), rule)


def test_printing_every_goal_is_injective():
    things = range(1, PARTNER + 1)
    goals = [(n, r, a, b) for n in (0, 1) for r in (TOUCHING, NEAR, HOLD, SEE) for a in things for b in things]
    assert len({print_goal(np.array(goal)) for goal in goals}) == len(goals)


@FEW
@given(rules(), st.integers(0, 2**32))
def test_reading_forgives_case_space_and_full_stop(rule, seed):
    rng = np.random.default_rng(seed)
    words = re.findall(r"->|\w+|\S", print_rule(rule))
    spaced = "".join(" " * int(rng.integers(1 if word.isalpha() else 0, 4)) + word for word in words)
    shouted = "".join(c.upper() if rng.random() < 0.5 else c for c in spaced) + " ." * int(rng.integers(2))
    assert_same(parse_rule(shouted, players=2), rule)
    assert print_rule(parse_rule(shouted, players=2)) == print_rule(rule)


@pytest.mark.parametrize(
    ("text", "codes", "canonical"),
    [
        ("hold black cube", [0, HOLD, ME, CUBE], None),
        ("HOLD( me , black cube ).", [0, HOLD, ME, CUBE], "hold black cube"),
        ("not hold(partner, yellow sphere)", [1, HOLD, PARTNER, SPHERE], None),
        ("touching(purple wall, me)", [0, TOUCHING, WALL_, ME], None),
        ("not see(me, partner)", [1, SEE, ME, PARTNER], None),
    ],
)
def test_goal_words(text, codes, canonical):
    assert list(parse_goal(text, players=2)) == codes
    assert print_goal(np.array(codes)) == (canonical or text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the goal is empty."),
        (" . ", "empty"),
        ("near(me, blak cube)", r"'blak' as word 5 \(character 10\).*a colour or 'me'; the nearest known are 'black'"),
        ("near(me, black cub)", r"'cub' as word 6 \(character 16\).*a shape after 'black'.*'cube'"),
        ("naer(me, black cube)", r"'naer' as word 1 \(character 1\).*nearest known are 'near'"),
        ("near me, black cube", r"'me' as word 2 .*expected '\('"),
        ("near(me black cube)", r"'black' as word 4 .*expected ','"),
        ("near[me, black cube]", r"'\[me, black cube\]'|'\[' as word 2 .*expected '\('"),
        ("near(me, black cube", r"ends too early: expected '\)'"),
        ("near(me, black cube))", r"'\)' as word 8 .*expected nothing more"),
        ("near(me, black cube) please", r"'please' as word 8 .*nothing more"),
        ("not not hold black cube", r"'not' as word 2 .*expected a relation"),
        ("near(partner, black cube)", r"'partner' as word 3 .*no partner in a one-player world"),
        ("hold(partner, black cube)", r"'partner' as word 3 .*no partner in a one-player world"),
        ("hold(black cube, yellow wall)", r"'black' as word 3 .*only a player holds"),
        ("hold(me, me)", r"'me' as word 5 .*expected a colour"),
        ("hold partner", r"'partner' as word 2 .*expected a colour"),
        ("hold cube", r"'cube' as word 2 .*expected a colour"),
        ("near?1(me, black cube)", r"'\?' as word 2"),
    ],
)
def test_wrong_goals_say_what_and_where(text, message):
    with pytest.raises(GoalError, match=message) as error:
        parse_goal(text)
    assert one_sentence(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("hold black cube", "no '->'"),
        ("hold black cube ->", "ends too early"),
        ("-> black cube", r"'->' as word 1"),
        ("hold black cube -> black cube, black cube, black cube, black cube", r"',' as word 13 .*at most 3 spawns"),
        ("hold black cube -> nothing, black cube", r"'nothing' as word 5"),
        ("hold black cube -> black cube, nothing", r"'nothing' as word 8"),
        ("hold black cube -> me", r"'me' as word 5 .*expected a colour"),
        ("hold black cube -> black cube black wall", r"'black' as word 7 .*nothing more"),
        ("hold black cube -> yelow cube", r"'yelow' as word 5 .*'yellow'"),
        ("hold black cube -> nothing -> nothing", r"'nothing' as word 5"),
        ("[hidden] hold black cube -> nothing", r"'\[hidden\]' as word 1"),
    ],
)
def test_wrong_rules_say_what_and_where(text, message):
    with pytest.raises(GoalError, match=message) as error:
        parse_rule(text)
    assert one_sentence(error)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (parse_goal, "hold " + "yelow" * 4000),
        (parse_goal, "hold yellow sphere " * 1000),
        (parse_goal, "(" * 20_000),
        (parse_goal, "\U000e0001" * 300),
        (parse_rule, "hold black cube " * 1000),
        (world_from_ascii, "#.#\n" + "." * 20_000),
        (parse_task, "x" * 20_000 + ": 1"),
        (parse_task, "x" * 20_000),
        (parse_task, "goal: hold black cube\nobjects: " + "black cube " * 1000),
        (parse_task, "goal: hold black cube\nsteps: " + "9" * 5000 + "\nworld:\n#@#"),
    ],
)
def test_what_is_wrong_with_a_long_text_is_said_in_short(read, text):
    with pytest.raises(GoalError) as error:
        read(text)
    assert one_sentence(error) and len(str(error.value)) < 400


def one_sentence(error) -> bool:
    return str(error.value).endswith(".") and "\n" not in str(error.value)


@FEW
@given(seeds)
def test_world_survives_drawing(seed):
    world = random_world(seed)
    for layout in range(len(world.places)):
        one = world._replace(places=world.places[[layout]], start=world.start[[layout]])
        text = world_to_ascii(world, layout)
        again = world_from_ascii(text, players=world.start.shape[1])
        assert_same(again, one)
        assert world_to_ascii(again) == text


def test_world_from_ascii():
    world = world_from_ascii("\n".join(["#######", "#0.+.1#", "#.>/.N#", "#######"]), players=2, max_objects=3)
    assert world.places.tolist() == [[[1, 1], [1, 5], [0, 0]]] and num_places(world) == 2
    assert world.start.tolist() == [[[2, 2], [2, 5]]] and world.heading.tolist() == [1, 0] and has_starts(world)
    assert world.gates.tolist() == [[1, 3], [2, 3]] and world.gate_open.tolist() == [False, True]
    assert world.terrain[1].tolist() == [WALL, FLOOR, FLOOR, GATE, FLOOR, FLOOR, WALL]


def test_map_without_start_and_with_a_free_heading():
    assert not has_starts(world_from_ascii("###\n#.#\n###"))
    world = world_from_ascii("###\n#@#\n###")
    assert has_starts(world) and world.heading.tolist() == [0]


def test_floor_on_the_border_gets_a_ring_of_wall():
    mended = world_from_ascii("..\n.^")
    assert world_to_ascii(mended) == "####\n#..#\n#.^#\n####"
    assert world_to_ascii(world_from_ascii("####\n#.^+\n####")) == "######\n######\n##.^+#\n######\n######"


def test_trailing_spaces_of_a_map_do_not_matter():
    same = [world_from_ascii(text) for text in ("\n###\n#^#\n###\n", "###  \n#^#\n### ", "###\r\n#^#\r\n###")]
    for world in same[1:]:
        assert_same(world, same[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "map is empty"),
        ("\n  \n", "map is empty"),
        ("####\n#.^#\n###", r"line 1 has 4 characters, line 3 has 3"),
        ("####\n#X^#\n####", r"line 2, column 2: unknown character 'X'"),
        ("####\n#N^#\n####", r"line 2, column 2: 'N' starts a partner.*one-player"),
        ("####\n####", "no floor"),
        ("#####\n#^.>#\n#####", "starts twice, at line 2, column 2 and at line 2, column 4"),
        ("#####\n#0.2#\n#####", "'2' but no '1'"),
        ("#####\n#1.2#\n#####", "'1' but no '0'"),
        ("#####\n#0.0#\n#####", "line 2, column 4: object '0' is on the map twice"),
        ("#" * 61 + "\n" + "." * 61, "at most 60 x 60 cells; this one has 2 x 61"),
        ("\n".join("#.#" for _ in range(61)), "this one has 61 x 3"),
        ("." * 60, "at most 60 x 60 cells; this one has 3 x 62 with the ring of wall"),
        ("####\n#\x00^#\n####", r"line 2, column 2: unknown character '\\x00'"),
        ("####\n#.^\x00\n####", r"line 2, column 4: unknown character '\\x00'"),
    ],
)
def test_wrong_maps_say_what_and_where(text, message):
    with pytest.raises(GoalError, match=message) as error:
        world_from_ascii(text)
    assert one_sentence(error)


def test_more_objects_than_slots():
    with pytest.raises(GoalError, match="at most 1 objects; this one has 2"):
        world_from_ascii("#0.1#", max_objects=1)


def test_what_no_map_can_show_is_refused():
    world = world_from_ascii("#####\n#0^+#\n#####")
    with pytest.raises(GoalError, match="no map can show"):
        world_to_ascii(world._replace(start=np.array([[[1, 1]]], np.int8)))
    with pytest.raises(GoalError, match=r"no map can show '\^' at line 2, column 4: '\+' is there"):
        world_to_ascii(world._replace(start=np.array([[[1, 3]]], np.int8)))


@FEW
@given(seeds, st.lists(rules(), max_size=4), conditions())
def test_task_survives_printing(seed, rows, goal):
    world = random_world(seed)
    task = random_task(world, rows, goal, seed)
    text, players = print_task(task), world.start.shape[1]
    if players == 2:
        assert_same(parse_game(print_game(task.game), players=2, max_rules=4), task.game)
    if players == 1 and "partner" in text:
        with pytest.raises(GoalError, match="no partner"):
            parse_task(text, max_rules=4)
    else:
        again = parse_task(text, players=players, max_rules=4)
        assert_same(again, task)
        assert print_task(again) == text


@pytest.mark.parametrize(
    ("rule", "first", "second", "canonical"),
    [
        ("hold?1 black cube -> nothing", [0, 1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], None),
        ("hold?1/0 black cube -> nothing", [0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], None),
        ("near(black cube?2/3, partner) -> black wall?0/3", [0, 0, 2, 0, 0, 0, 0], [0, 0, 3, 0, 3, 0, 0], None),
        ("[hidden] hold black cube -> nothing", [1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], None),
        ("[ hidden from  Me ] hold black cube -> nothing", [1] + [0] * 6, [0] * 7,
         "[hidden from me] hold black cube -> nothing"),
        ("[hidden from partner] hold black cube?4 -> nothing", [0, 0, 0, 4, 0, 0, 0], [1, 0, 0, 4, 0, 0, 0], None),
    ],
)  # fmt: skip
def test_each_player_has_a_mask(rule, first, second, canonical):
    game = parse_game(f"goal: hold black cube\nrule: {rule}", players=2, max_rules=1)
    assert game.mask.tolist() == [[first], [second]]
    assert print_game(game).splitlines()[1] == f"rule: {canonical or rule}"


@pytest.mark.parametrize(
    ("rule", "players", "message"),
    [
        ("hold?0/0 black cube -> nothing", 2, r"'0' as word 5 .*expected a number from 0 to 16 other than 0"),
        ("hold?2/2 black cube -> nothing", 2, r"'2' as word 5 .*from 0 to 16 other than 2"),
        ("hold?2/17 black cube -> nothing", 2, r"'17' as word 5 .*other than 2"),
        ("hold?0 black cube -> nothing", 2, r"'0' as word 3 .*expected a number from 1 to 16"),
        ("hold?1/2 black cube -> nothing", 1, r"'/' as word 4"),
        ("[hidden from partner] hold black cube -> nothing", 1, r"'\[hidden from partner\]' as word 1"),
        ("[hidden from all] hold black cube -> nothing", 2, r"'\[hidden from all\]' as word 1"),
    ],
)
def test_wrong_masks_say_what_and_where(rule, players, message):
    with pytest.raises(GoalError, match=message) as error:
        parse_game(f"goal: hold black cube\nrule: {rule}", players=players)
    assert one_sentence(error)


TASK = """goal: hold yellow sphere
rule: near?1(me, black cube?2) -> yellow sphere
rule: [hidden] not see(me, purple wall) -> nothing?3
objects: black cube, nothing, purple wall [frozen]
trials: 3
steps: 40
random heading: 0.5
world:
######
#0.^1#
#..2.#
######
"""


def test_task_text():
    task = parse_task(TASK)
    assert print_task(task) == TASK
    assert task.game.mask[:2].tolist() == [[0, 1, 0, 2, 0, 0, 0], [1, 0, 0, 0, 3, 0, 0]]
    assert task.game.objects[:4].tolist() == [CUBE, 0, WALL_, 0] and task.game.frozen.nonzero()[0].tolist() == [2]
    assert (task.trials, task.trial_length, task.random_heading) == (3, 40, 0.5)


def test_a_long_number_is_refused_at_once():
    began = time.perf_counter()
    with pytest.raises(GoalError, match="'random heading' must be a number"):
        parse_task(TASK.replace("0.5", "1" * 8000 + "x"))
    assert time.perf_counter() - began < 0.3


def test_lines_of_sight_are_computed_once_for_all_layouts(monkeypatch):
    calls = []
    monkeypatch.setattr(maps, "line_of_sight", lambda terrain: calls.append(1) or line_of_sight(terrain))
    layouts = ["world:\n#######\n#.#^#.#\n#.....#\n#######", "world:\n#######\n#.#.#^#\n#.....#\n#######"]
    task = parse_task("\n".join(["goal: hold black cube", *layouts]))
    assert len(calls) == 1 and len(task.world.places) == 2
    assert (task.world.sight == line_of_sight(task.world.terrain)).all()


def test_task_defaults_and_free_heading():
    assert parse_task("goal: hold black cube\nworld:\n#@#").random_heading == 1
    task = parse_task("GOAL : hold black cube\n\nworld: \n\n#^#\n\n")
    assert (task.random_heading, task.trials, task.trial_length) == (0, 1, 40)
    assert parse_task("goal: hold black cube\nrandom heading: 0.25\nworld:\n#@#").random_heading == 0.25


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("goal: hold yellow sphere\n", "", "needs a 'goal: ...' line"),
        ("trials", "trails", "line 5: unknown key 'trails'; the nearest known are 'trials'"),
        ("trials: 3", "steps: 3", "line 6: there is a second 'steps' line"),
        ("trials: 3", "hello", "line 5: expected 'KEY: ...'"),
        ("trials: 3", "trials: 0", "'trials' must be a whole number from 1 to 32767; got '0'"),
        ("steps: 40", "steps: 4.5", "'steps' must be a whole number"),
        ("heading: 0.5", "heading: 1.5", "'random heading' must be a number from 0 to 1; got '1.5'"),
        ("heading: 0.5", "heading: nan", "'random heading' must be a number"),
        ("heading: 0.5", "heading: ٠.٥", "'random heading' must be a number"),
        ("trials: 3", "trials: ٣", "'trials' must be a whole number"),
        (
            "objects: black cube, nothing, purple wall [frozen]",
            "objects:",
            "the objects line is empty; write one such as 'black cube, nothing'",
        ),
        ("?1", "?17", r"'17' as word 3 .*a number from 1 to 16"),
        ("?1", "?0", r"'0' as word 3 .*a number from 1 to 16"),
        ("nothing, purple", "nothing, purpel", r"the objects .*'purpel' as word 6"),
        ("[frozen]", "[frzen]", "expected nothing more"),
        ("#..2.#", "#....#", "lists 3 objects, map 1 has places for 2"),
        ("^", ".", "map 1 has no start"),
        ("world:", "world:\n#####\n#^012#\n", "all lines of a map"),
        ("world:", "world:\n#^012#\nworld:", "map 2 differs from map 1"),
        ("#0.^1#\n#..2.#", "#0.^1#\n#..2.", "line 1 has 6 characters, line 3 has 5"),
    ],
)
def test_wrong_tasks_say_what_and_where(old, new, message):
    assert old in TASK
    with pytest.raises(GoalError, match=message) as error:
        parse_task(TASK.replace(old, new, 1))
    assert one_sentence(error)


def test_task_has_room_for_so_many_rules_and_objects():
    with pytest.raises(GoalError, match="room for 1 rules; got 2"):
        parse_task(TASK, max_rules=1)
    with pytest.raises(GoalError, match="room for 2 objects; got 3"):
        parse_task(TASK, max_objects=2)
    with pytest.raises(GoalError, match="needs a map"):
        parse_task("goal: hold black cube")
