from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError, GoalError
from rekindle.envs.xland import pools, presets
from rekindle.envs.xland.ascii import world_to_ascii
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.game import AWAY, opening
from rekindle.envs.xland.games import F0, FULL, canonical, split_of
from rekindle.envs.xland.level import HOLD, ME, PARTNER, World
from rekindle.envs.xland.planner import plan_many
from rekindle.envs.xland.render import render
from rekindle.envs.xland.text import parse_task
from rekindle.envs.xland.worlds import world_bytes


def rows(stacked):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(stacked[0].shape[0])]


@pytest.mark.parametrize(("n", "size", "distance"), [(2, 7, 2), (3, 7, 2), (4, 7, 2), (6, 11, 4), (8, 11, 4)])
def test_doors_have_the_geometry_of_the_family(n, size, distance):
    pool = presets.pool_for(f"xland/doors-{n}", split="train", seed=0, worlds=20, games=20)
    assert pool.worlds.terrain.shape[1:] == (size, size) and pool.trial_length.tolist() == [distance + 4]
    for world in rows(pool.worlds):
        cells = world.places[0, :n].astype(int)
        offsets = cells - world.start[0, 0]
        assert (np.abs(offsets).sum(1) == distance).all() and len({tuple(c) for c in cells}) == n
        apart = np.abs(cells[:, None] - cells[None]).max(-1) + 9 * np.eye(n, dtype=int)
        assert apart.min() >= 2, "doors must not be neighbours"
        if n <= 4:
            assert (offsets == 0).any(1).all()


def test_doors_hide_one_rule_from_one_object_to_the_goal_object():
    pool = presets.pool_for("xland/doors-4-v1", split="train", seed=0, worlds=2, games=200)
    chosen = []
    for game in rows(pool.games):
        objects = game.objects[:4].tolist()
        goal = int(game.goal[3])
        assert len(set(objects)) == 4 and goal not in objects and not game.objects[4:].any()
        assert game.goal.tolist() == [0, HOLD, ME, goal]
        rule = game.rules[0].tolist()
        assert rule[:3] == [0, HOLD, ME] and rule[4:] == [goal, 0, 0] and not game.rules[1:].any()
        assert game.mask[0].tolist() == [1, 0, 0, 0, 0, 0, 0]
        chosen.append(objects.index(rule[3]))
    assert np.bincount(chosen, minlength=4).min() > 25, "every object is as likely to be the right one"


def goal_and_objects(game):
    return bytes([game.goal[3], *sorted(game.objects.tolist())])


@pytest.mark.parametrize(("id", "encode"), [("xland/doors-4", goal_and_objects), ("xland/f1", canonical)])
def test_train_and_test_share_neither_worlds_nor_games(id, encode):
    train, test = (presets.pool_for(id, split=split, seed=7, worlds=60, games=300) for split in ("train", "test"))
    for part, code in (("worlds", world_bytes), ("games", encode)):
        seen, held_out = ({code(row) for row in rows(getattr(pool, part))} for pool in (train, test))
        assert len(seen) > 20 and held_out and not seen & held_out


def test_no_rule_of_the_doors_is_held_out_so_that_no_object_is_known_to_be_wrong():
    pool = presets.pool_for("xland/doors-4", split="train", seed=0, worlds=1, games=4000)
    assert len({canonical(game) for game in rows(pool.games)}) == 12 * 11


def test_a_pool_is_a_function_of_its_seed():
    one, same, other = (
        presets.pool_for("xland/doors-3-v1", split="train", seed=seed, worlds=4, games=9) for seed in (0, 0, 1)
    )
    assert np.array_equal(one.games.objects, same.games.objects)
    assert not np.array_equal(one.games.objects, other.games.objects)


def test_in_a_drawn_pair_nothing_happens_by_itself():
    pool = presets.from_recipe(F0, "R1", 7, (40, 40), split="train", seed=0, worlds=20, games=100, pairs=2000)
    everything = pool._replace(pairs=np.stack(np.divmod(np.arange(2000), 100), 1), trial_length=np.int16([40]))
    calm = presets.quiet(presets.SMALL, everything)
    assert 0.5 < calm.mean() < 0.95
    assert np.array_equal(calm.nonzero()[0], np.sort(pool.pairs[:, 0] * 100 + pool.pairs[:, 1]))

    near = next(i for i in np.flatnonzero(~calm) if not everything.games.rules[i % 100].any())
    task = pools.task(everything, int(near), 1)
    found = plan_many(presets.SMALL, [task._replace(trial_length=np.int16(1))])[0]
    assert found.per_start == (1, 1, 1, 1), "already there, whatever one does"


def test_f2_is_the_full_recipe_in_four_rooms():
    pool = presets.pool_for("xland/f2", split="train", seed=0, worlds=16, games=64)
    assert pool.worlds.terrain.shape == (16, 13, 13) and pool.worlds.gates.shape[1] == 4
    assert pool.games.rules.shape == (64, 16, 7) and pool.worlds.places.shape[2] == 20
    assert pool.trial_length.min() >= 100 and pool.trial_length.max() <= 200 and np.ptp(pool.trial_length) > 80
    assert set(pool.games.goal[:, 1].tolist()) == {1, 2, 3, 4}
    rules = (pool.games.rules[:, :, 1] > 0).sum(axis=1)
    assert rules.min() >= 1 and rules.max() <= 6 and len(set(rules.tolist())) >= 5


def test_negated_goals_of_the_full_recipe_hold_from_the_start():
    """Which is why F2 leaves them out."""
    recipe = replace(FULL, negation=1.0)
    pool = presets.from_recipe(recipe, "R4", 13, (9, 9), split="train", seed=0, worlds=8, games=64, env=XLand())
    assert len(pool.pairs) == 0


@pytest.mark.parametrize(
    ("id", "size", "gates", "times"), [("xland/c2", 7, 1, (40, 40)), ("xland/c2-f1", 9, 4, (60, 100))]
)
def test_two_players_have_rooms_with_gates_and_each_its_own_start(id, size, gates, times):
    pool = presets.pool_for(id, split="test", seed=0, worlds=16, games=128, pairs=512)
    assert pool.worlds.terrain.shape == (16, size, size) and pool.worlds.gates.shape == (16, gates, 2)
    assert pool.worlds.start.shape == (16, 1, 2, 2) and pool.games.mask.shape == (128, 2, 4, 7)
    assert times[0] <= pool.trial_length.min() and pool.trial_length.max() <= times[1]
    assert (pool.games.rules[..., 2:4] == PARTNER).any() and (pool.games.goal == PARTNER).any()
    share = np.asarray(pool.games.frozen).any(axis=1).mean()
    assert 0.1 < share < 0.5
    different = (pool.games.mask[:, 0] != pool.games.mask[:, 1]).any()
    assert different == (id == "xland/c2-f1"), "F0 hides all rules from both"
    assert all(split_of(canonical(game)) == "test" for game in rows(pool.games))
    assert presets.joined(pool).all() and presets.quiet(presets.PAIR, pool).all()


def test_a_share_of_the_games_for_two_can_be_for_one_who_is_alone():
    pool = presets.pool_for("xland/c2", split="train", seed=0, worlds=16, games=128, pairs=512, alone=0.25)
    alone = pool.worlds.start[pool.pairs[:, 0], 0, 1, 0] == AWAY
    for_one = pool.pairs[:, 1] >= 96
    assert np.array_equal(alone, for_one) and 0.15 < alone.mean() < 0.35
    assert (pool.worlds.start[:, 0, 0] > 0).all() and presets.quiet(presets.PAIR, pool).all()
    games = jax.tree.map(lambda leaf: leaf[96:], pool.games)
    assert not games.frozen.any() and not (games.goal == PARTNER).any() and not (games.rules == PARTNER).any()
    assert (games.mask[:, 0] == games.mask[:, 1]).all() and games.mask.any()
    with pytest.raises(ConfigError, match="in families for two players; got"):
        presets.pool_for("xland/f0", split="train", seed=0, alone=0.5)
    task = pools.task(pool, int(np.flatnonzero(alone)[0]), 1)
    with pytest.raises(GoalError, match="leaves a player out"):
        world_to_ascii(task.world)
    task = jax.tree.map(jnp.asarray, task)
    scene = opening(task.world, task.game, jnp.int32(0), task.world.heading)
    there = scene._replace(player_y=scene.player_y.at[1].set(1), player_x=scene.player_x.at[1].set(1))
    assert (render(scene, task) != render(there, task)).any()


def test_frozen_objects_may_not_part_the_room():
    def pool(*frozen):
        text = "goal: hold black cube\nobjects: {}\nworld:\n######\n#01.2#\n#@3+P#\n######"
        kinds = ["black cube", "purple cube", "black wall", "purple wall"]
        named = ", ".join(kind + " [frozen]" * (i in frozen) for i, kind in enumerate(kinds))
        task = parse_task(text.format(named), players=2)
        return pools.make_pool([task.world], [task.game], trial_length=9, pairs=np.zeros((1, 2)))

    joined = {frozen: bool(presets.joined(pool(*frozen))[0]) for frozen in ((), (0,), (1,), (3,), (1, 3), (0, 3))}
    assert joined == {(): True, (0,): True, (1,): True, (3,): True, (1, 3): False, (0, 3): False}


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("xland/f0", {"world": 3}, "has no option 'world'; did you mean 'worlds'"),
        ("xland/doors-3-v1", {"pairs": 3}, "the pool of xland/doors-3-v1 has no option 'pairs'"),
        ("xland/probe-push-dont-lift", {"worlds": 3}, "has no option 'worlds'; it has none"),
        ("xland/f0", {"games": 0.5}, "games of the pool of xland/f0 takes a whole number from 1 to 1000000; got 0.5"),
        ("xland/f0", {"hidden": "all"}, "takes one of none, rules, random; got 'all'"),
        ("xland/c2", {"alone": 2}, "takes a number from 0 to 1; got 2"),
        ("xland/c2", {"env": 2}, "has no option 'env'"),
    ],
)
def test_options_that_a_pool_does_not_have_are_refused(id, options, message):
    with pytest.raises(ConfigError, match=message):
        presets.make(id, **options)


@pytest.mark.parametrize("hidden", ["rules", "none", "random"])
def test_what_is_hidden_is_a_choice(hidden):
    for id in ("xland/f0", "xland/f0t"):
        options = {} if id == "xland/f0t" else {"worlds": 8, "games": 64}
        pool = presets.pool_for(id, split="train", seed=0, hidden=hidden, **options)
        used = pool.games.rules[..., 1] > 0
        share = (pool.games.mask[..., 0] > 0)[used].mean()
        assert share == {"rules": 1, "none": 0}.get(hidden, share)
        assert hidden != "random" or (0.05 < share < 0.3 and (pool.games.mask[..., 2:] > 0).any())
        assert not pool.games.mask[~used].any()


@pytest.mark.parametrize(("split", "size"), [("train", 4096), ("test", 512)])
def test_the_shipped_tasks_take_one_rule_and_leave_time_for_one_attempt(split, size):
    pool = presets.pool_for("xland/f0t", split=split, seed=0)
    assert pool.pairs.shape == (size, 2) and len(np.unique(pool.pairs, axis=0)) == size
    assert all(split_of(canonical(game)) == split for game in rows(pool.games))
    assert all(split_of(world_bytes(world)) == split for world in rows(pool.worlds))
    some = np.random.default_rng(0).choice(size, 24, replace=False)
    plans = plan_many(presets.env_for("xland/f0t"), presets.keep(pool, some))
    for number, found in zip(some, plans, strict=True):
        worst = max(found.per_start)
        assert found.solvable and pool.trial_length[number] == max(np.ceil(1.5 * worst), worst + 2)
    without = pool._replace(games=pool.games._replace(rules=np.zeros_like(pool.games.rules)))
    assert not any(found.solvable for found in plan_many(presets.SMALL, presets.keep(without, some)))


def test_ids_resolve_to_the_newest_version_or_name_the_nearest():
    assert presets.env_for("xland/doors-4").spec.id == "xland/doors-4-v1"
    with pytest.raises(ConfigError, match="did you mean 'xland/doors-"):
        presets.env_for("xland/door-4")
    assert isinstance(presets.pool_for("xland/doors-2", split="test", seed=0, worlds=1, games=1).worlds, World)
