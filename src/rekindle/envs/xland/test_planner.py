import jax
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs.xland import planner
from rekindle.envs.xland.ascii import world_from_ascii
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import ACTIONS, NOOP, Task
from rekindle.envs.xland.presets import SMALL
from rekindle.envs.xland.text import parse_game

CORRIDOR = """
#######
#^...0#
#######
"""
PARTED = """
#######
#>.#.0#
#######
"""
GATED = """
#######
#>.+.0#
#######
"""


def task(drawing, game, *, length=20, random_heading=0.0):
    world = world_from_ascii(drawing.strip("\n"), max_objects=12)
    rules = parse_game(game, max_rules=4, max_objects=12)
    return Task(world, rules, np.int16(length), np.int16(1), np.float32(random_heading))


def game(goal, *rules, objects="black cube"):
    return "\n".join([f"goal: {goal}", *(f"rule: {rule}" for rule in rules), f"objects: {objects}"])


def replay(env, params, heading, actions):
    params = jax.tree.map(np.asarray, params)
    state, _ = env.reset(jax.random.key(0), params)
    state = state._replace(scene=state.scene._replace(heading=jax.numpy.full((1,), heading, jax.numpy.int8)))
    step, rewards = jax.jit(env.step), []
    for action in actions:
        state, now = step(jax.random.key(0), state, jax.numpy.int32(action), params)
        rewards.append(float(now.reward))
    return rewards


def test_the_shortest_way_down_a_corridor():
    found = planner.plan(SMALL, task(CORRIDOR, game("hold black cube")))
    assert [ACTIONS[a] for a in found.actions] == ["right", *["forward"] * 3, "pick"]
    assert (found.solvable, found.exact, found.per_start, found.steps) == (True, True, (5,), 5.0)
    assert found.optimum == 16.0 and found.optimum_exact, "rewards in steps 5 to 20"


def test_all_headings_count_when_they_can_occur():
    found = planner.plan(SMALL, task(CORRIDOR, game("hold black cube"), random_heading=1.0))
    assert found.per_start == (5, 4, 5, 6) and found.steps == 5.0 and found.optimum == 16.0
    half = planner.plan(SMALL, task(CORRIDOR, game("hold black cube"), random_heading=0.5))
    assert half.per_start == found.per_start and half.steps == 0.5 * 5 + 0.5 * 5


def test_plans_are_carried_out_by_the_environment():
    params = task(CORRIDOR, game("hold purple cube", "near(me, black cube) -> purple cube"), random_heading=1.0)
    found = planner.plan(SMALL, params)
    rewards = replay(SMALL, params, 0, found.actions)
    assert rewards[-1] == 1.0 and not any(rewards[:-1]) and len(rewards) == found.per_start[0]


def test_gates_have_to_be_opened():
    found = planner.plan(SMALL, task(GATED, game("hold black cube")))
    assert [ACTIONS[a] for a in found.actions] == ["forward", "toggle", "forward", "forward", "pick"]


def test_a_goal_beyond_a_wall_is_proved_impossible():
    found = planner.plan(SMALL, task(PARTED, game("hold black cube")))
    assert not found.solvable and found.exact and found.optimum == 0.0 and found.optimum_exact
    assert "were searched" in found.reason and found.expanded > 0


def test_a_missing_type_is_proved_without_search():
    found = planner.plan(SMALL, task(CORRIDOR, game("hold yellow sphere", "hold black cube -> purple cube")))
    assert found.reason == "no rule can make a yellow sphere and none is in the world." and found.expanded == 0
    assert not found.solvable and found.exact


def test_time_is_a_limit():
    found = planner.plan(SMALL, task(CORRIDOR, game("hold black cube"), length=4))
    assert not found.solvable and found.exact and "the 4 steps" in found.reason
    assert planner.plan(SMALL, task(CORRIDOR, game("hold black cube"), length=5)).optimum == 1.0


def test_a_search_that_is_cut_off_says_so_and_bounds_the_reward():
    params = task(CORRIDOR, game("hold black cube"))
    found = planner.plan(SMALL, params, max_states=4)
    assert not found.solvable and not found.exact and not found.optimum_exact and "cut off" in found.reason
    assert found.optimum >= planner.plan(SMALL, params).optimum


def test_a_goal_that_does_not_last_gives_a_bound_only():
    vanishing = game(
        "near(me, purple cube)", "touching(me, purple cube) -> nothing", "near(me, black cube) -> purple cube"
    )
    params = task(CORRIDOR, vanishing)
    found = planner.plan(SMALL, params)
    assert found.solvable and found.exact and found.steps == 4
    assert found.optimum == 17 and not found.optimum_exact
    assert replay(SMALL, params, 0, [*found.actions, NOOP, NOOP]) == [0, 0, 0, 1, 0, 0]


def test_terminal_reward_pays_once():
    env = XLand(max_rules=4, view=SMALL.view, relations=SMALL.relations, reward="terminal")
    found = planner.plan(env, task(CORRIDOR, game("hold black cube")))
    assert found.optimum == pytest.approx(1 - 0.9 * 5 / 20) and found.optimum_exact


def test_results_are_kept_in_memory_and_on_disk(tmp_path, monkeypatch):
    params = task(CORRIDOR, game("hold black cube"), length=17)
    first = planner.plan(SMALL, params, cache=tmp_path)
    assert len(list(tmp_path.rglob("*.json"))) == 1 and not list(tmp_path.rglob("*.partial"))
    monkeypatch.setattr(planner, "_search_tasks", None)
    assert planner.plan(SMALL, params, cache=tmp_path) is first
    monkeypatch.setattr(planner, "_KNOWN", {})
    assert planner.plan(SMALL, params, cache=tmp_path) == first
    assert planner.plan(SMALL, params._replace(trials=np.int16(3)), cache=tmp_path) == first


def test_two_players_are_refused():
    with pytest.raises(ConfigError, match="players=2"):
        planner.plan(XLand(players=2), task(CORRIDOR, game("hold black cube")))
