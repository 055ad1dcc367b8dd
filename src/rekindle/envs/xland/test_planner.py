from dataclasses import replace

import jax
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs.xland import planner
from rekindle.envs.xland.ascii import world_from_ascii
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import ACTIONS, NOOP, Task
from rekindle.envs.xland.presets import PAIR, SMALL
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


def task(drawing, game, *, length=20, random_heading=0.0, players=1):
    world = world_from_ascii(drawing.strip("\n"), max_objects=12, players=players)
    rules = parse_game(game, max_rules=4, max_objects=12, players=players)
    return Task(world, rules, np.int16(length), np.int16(1), np.float32(random_heading))


def game(goal, *rules, objects="black cube"):
    return "\n".join([f"goal: {goal}", *(f"rule: {rule}" for rule in rules), f"objects: {objects}"])


def replay(env, params, heading, actions):
    params = jax.tree.map(np.asarray, params)
    state, _ = env.reset(jax.random.key(0), params)
    if heading is not None:
        state = state._replace(scene=state.scene._replace(heading=jax.numpy.full((1,), heading, jax.numpy.int8)))
    step, rewards = jax.jit(env.step), []
    for action in actions:
        state, now = step(jax.random.key(0), state, jax.numpy.asarray(action, jax.numpy.int32), params)
        rewards.append(np.asarray(now.reward))
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


FACING = """
#######
#>...W#
##0####
#######
"""


def pair(drawing, goal, *rules, objects="black cube", **options):
    return task(drawing, game(goal, *rules, objects=objects), players=2, **options)


def test_two_players_are_planned_for_together_and_alone():
    """The object lies behind a corner: the nearer player takes it, alone or with the other's leave."""
    params = pair(FACING, "hold black cube")
    together = planner.plan(PAIR, params)
    alone = [planner.plan(PAIR, params, acting=(p,)) for p in (0, 1)]
    assert (together.solvable, together.exact, together.steps) == (True, True, 3)
    assert together.actions[-1][0] == ACTIONS.index("pick")
    assert alone[0].steps == 3 and all(joint[1] == NOOP for joint in alone[0].actions)
    assert not alone[1].solvable and alone[1].exact and "in the hands of me" in alone[1].reason
    rewards = replay(PAIR, params, None, together.actions)
    assert [r.tolist() for r in rewards] == [[0, 0], [0, 0], [1, 1]]


def test_some_goals_take_both():
    rules = ("hold black cube -> yellow cube", "hold(partner, purple cube) -> black wall")
    params = pair(
        "#######\n#>0.1W#\n#######", "near(yellow cube, black wall)", *rules, objects="black cube, purple cube"
    )
    together = planner.plan(PAIR, params)
    assert together.exact and together.steps == 3, "both take, one comes nearer while the other puts, and puts"
    assert not any(planner.plan(PAIR, params, acting=(p,)).solvable for p in (0, 1))


@pytest.mark.parametrize(("reverse", "steps"), [(False, 2), (True, 1)])
def test_the_order_of_action_is_part_of_the_plan(reverse, steps):
    """Player 2 has to leave the cell that player 1 wants to enter; in the same step only if player 2 acts first."""
    params = pair("######\n#>S0##\n##.###\n######", "touching(me, black cube)")
    found = planner.plan(replace(PAIR, reverse_order=reverse), params)
    assert found.exact and found.steps == steps


def test_two_players_start_with_every_pair_of_headings():
    found = planner.plan(PAIR, pair(FACING, "hold black cube", random_heading=1.0), acting=(0,))
    assert len(found.per_start) == 16 and found.per_start[:4] == (4,) * 4 and found.per_start[4:8] == (3,) * 4


def test_only_players_that_there_are_can_act():
    with pytest.raises(ConfigError, match=r"from 0 to 0; got \(1,\)"):
        planner.plan(SMALL, task(CORRIDOR, game("hold black cube")), acting=(1,))
    with pytest.raises(ConfigError, match=r"got \(\)"):
        planner.plan(PAIR, pair(FACING, "hold black cube"), acting=())
