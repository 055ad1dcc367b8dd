from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs import registry
from rekindle.envs.conformance import check_env
from rekindle.envs.minigrid import codes, spec
from rekindle.envs.minigrid.codes import BALL, BLUE, CLOSED, FLOOR, GREEN, KEY, RED, WALL
from rekindle.envs.minigrid.env import MiniGrid, State, Task
from rekindle.envs.minigrid.game import Scene
from rekindle.envs.minigrid.presets import PRESETS
from rekindle.envs.minigrid.rulesets import draw
from rekindle.envs.wrappers import Trials

ENV = MiniGrid()
GLYPHS = {".": (FLOOR, 7), "#": (WALL, 6), "b": (BALL, RED), "k": (KEY, BLUE), "+": (CLOSED, GREEN)}
ROOM = """
#########
#.......#
#..b....#
#..^k...#
#.......#
#.......#
#.......#
#.......#
#########
"""
step = jax.jit(ENV.step)


def scene_of(text: str) -> Scene:
    rows = text.strip().splitlines()
    y = next(y for y, row in enumerate(rows) if set(row) & set("^>v<"))
    x = next(x for x, c in enumerate(rows[y]) if c in "^>v<")
    heading = "^>v<".index(rows[y][x])
    cells = [[GLYPHS.get(c, GLYPHS["."]) for c in row] for row in rows]
    grid = np.array([[16 * tile + colour for tile, colour in row] for row in cells], np.uint8)
    return Scene(jnp.asarray(grid), *(jnp.int32(v) for v in (y, x, heading)), jnp.uint8(0))


def task_of(goal=(0,), rules=((0,),), tiles=((0, 0),), length=243) -> Task:
    pad = partial(np.pad, mode="constant")
    rows = np.array([pad(np.array(rule, np.uint8), (0, 7 - len(rule))) for rule in rules])
    goal = pad(np.array(goal, np.uint8), (0, 5 - len(goal)))
    return Task(goal, rows, np.array(tiles, np.uint8), np.int16(1), np.int16(length))


def play(task: Task, *names: str):
    state, shown = State(scene_of(ROOM), jnp.int32(0)), []
    for name in names:
        state, ts = step(jax.random.key(0), state, jnp.int32(codes.ACTIONS.index(name)), task)
        shown.append(ts)
    return state, shown


def test_the_crop_looks_ahead_through_walls_and_ends_with_the_map():
    state, _ = play(task_of())
    tiles = np.asarray(ENV.look(state.scene))
    drawn = {code: glyph for glyph, code in GLYPHS.items()} | {(0, 0): " "}
    rows = ["".join(drawn[tuple(cell)] for cell in row) for row in tiles.tolist()]
    assert rows == ["     ", "#####", ".....", "..b..", "...k."]
    state, _ = play(task_of(), "right")
    assert np.asarray(ENV.look(state.scene))[3].tolist() == [[1, 7], [1, 7], [KEY, BLUE], [1, 7], [1, 7]]


def test_success_pays_by_time_and_terminates_and_time_out_truncates():
    _, shown = play(task_of(goal=(1, BALL, RED), length=10), "put", "pick")
    assert shown[0].reward == 0 and not shown[0].trial_end
    np.testing.assert_allclose(shown[1].reward, 1 - 0.9 * 2 / 10, rtol=1e-6)
    assert shown[1].terminated and not shown[1].truncated and shown[1].trial_end
    _, shown = play(task_of(length=2), "left", "left")
    assert shown[1].truncated and not shown[1].terminated and shown[1].reward == 0
    _, shown = play(task_of(goal=(1, BALL, RED), length=1), "pick")
    assert shown[0].terminated and not shown[0].truncated


def test_rules_apply_in_order_and_chain_within_a_step():
    there = [1, BALL, RED, BALL, BLUE], [1, BALL, BLUE, KEY, GREEN]
    state, shown = play(task_of(goal=(1, KEY, GREEN), rules=there), "pick")
    assert state.scene.pocket == 16 * KEY + GREEN and shown[0].terminated
    state, _ = play(task_of(rules=there[::-1]), "pick")
    assert state.scene.pocket == 16 * BALL + BLUE


def test_a_rule_waits_for_its_action():
    near = [2, KEY, BLUE, BALL, GREEN]  # the key lies to the right of the start
    state, _ = play(task_of(rules=[near]), "left", "toggle", "put")
    assert state.scene.grid[3, 4] == 16 * KEY + BLUE
    state, _ = play(task_of(rules=[near]), "forward")  # blocked by the ball, but it was the action
    assert state.scene.grid[3, 4] == 16 * BALL + GREEN


def test_resets_draw_everything_anew_and_evenly():
    things = [[BALL, RED], [KEY, BLUE], [0, 0]]
    env, task = MiniGrid(rooms="R4", size=9), task_of(tiles=things)
    state, first = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(jax.random.split(jax.random.key(0), 4000), task)
    grid, y, x = (np.asarray(v) for v in state.scene[:3])
    for tile, colour in things[:2]:
        assert ((grid == 16 * tile + colour).sum((1, 2)) == 1).all()
    assert (grid[np.arange(4000), y, x] == codes.FLOOR_CELL).all()  # never on a thing, a door or a wall
    rooms = ~env.layout.walls
    for counts in ((grid == 16 * BALL + RED).sum(0), np.histogram2d(y, x, bins=range(10))[0]):
        assert (counts[~rooms] == 0).all()
        share = 1 / rooms.sum()
        assert np.abs(counts[rooms] / 4000 - share).max() < 4.5 * np.sqrt(share / 4000)
    assert np.abs(np.bincount(state.scene.heading) / 4000 - 0.25).max() < 0.03
    np.testing.assert_array_equal(first.obs["heading"], state.scene.heading)


def test_goal_and_rules_are_shown_on_demand_only():
    assert set(ENV.spec.obs) == {"tiles", "heading"}
    assert set(MiniGrid(heading=False).spec.obs) == {"tiles"}
    told = MiniGrid(show_task=True, max_rules=2)
    task = task_of(goal=(1, BALL, RED), rules=([1, BALL, RED, KEY, BLUE], [0]))
    _, first = told.reset(jax.random.key(0), task)
    assert first.obs["goal"].tolist() == [1, BALL, RED, 0, 0]
    assert first.obs["rules"].shape == told.spec.obs["rules"].shape == (2, 7)


def test_every_family_is_listed_and_its_options_are_honoured():
    assert set(spec.ENVS) == set(PRESETS)
    options = {"rooms": "R2", "size": 11, "rulesets": "medium-3m", "trials": 2, "count": 3, "show_task": True}
    made = registry.make("minigrid/x-small", **options)
    pool = made.pool(split="test")
    task = made.draw(jax.random.key(0), pool)
    assert pool.rulesets.goals.shape == (3, 5) and task.trial_length == 3 * 11 * 11 and made.trials == 2
    assert made.spec.obs["rules"].shape == (9, 7) and made.spec.id == "minigrid/x-small-v1"
    assert isinstance(made.env, Trials) and made.env.env.layout.walls.shape == (11, 11)


def test_it_keeps_the_contract_with_the_task_shown():
    made = registry.make("minigrid/x-small", show_task=True, count=8, trial_length=12)
    check_env(made, made.pool(), rows=3, max_steps=40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 10}, "no layout of 'R1' with side 10; there are R1: 9, 11"),
        ({"rooms": "R3"}, "rooms of minigrid/x-small-v1 takes one of R1, R2, R4, R6, R9; got 'R3'"),
        ({"trial_length": 3.5}, "takes a whole number from 1 to 32767; got 3.5"),
        ({"count": "abc"}, "takes a whole number from 1 to 10000000; got 'abc'"),
        ({"foo": 1}, "has no option 'foo'"),
        ({"view": 4}, "odd side"),
        ({"rulesets": "smal-1m"}, "small-1m"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        registry.make("minigrid/x-small", **options)
    with pytest.raises(ConfigError, match="trial_length"):
        registry.make("minigrid/x-small", trial_length=0)


def test_many_tasks_step_in_one_program():
    pool = registry.make("minigrid/x-medium", count=16).pool()
    env = MiniGrid(rooms="R4", size=13)

    @jax.jit
    def run(key):
        keys = jax.random.split(key, 16)
        tasks = jax.vmap(lambda k: draw(k, pool, min_trials=1, max_trials=1))(keys)
        state, _ = jax.vmap(env.reset)(keys, tasks)
        return jax.vmap(env.step, in_axes=(None, 0, 0, 0))(key, state, jnp.zeros(16, jnp.int32), tasks)[1].obs["tiles"]

    with jax.debug_key_reuse(False):
        assert run(jax.random.key(0)).shape == (16, 5, 5, 2)
