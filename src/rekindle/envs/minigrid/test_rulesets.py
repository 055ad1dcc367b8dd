import jax
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs.minigrid import codes
from rekindle.envs.minigrid.rulesets import (
    RECIPES,
    RulesetPool,
    draw,
    draw_rulesets,
    make_rulesets,
    recipe_of,
)
from rekindle.envs.xland.games import split_of


def key_of(goal, rules):
    return goal.tobytes() + b"".join(sorted(row.tobytes() for row in rules))


@pytest.mark.parametrize("name", RECIPES)
def test_a_pool_holds_different_rulesets_of_its_side(name):
    counts = {"train": 1500, "test": 300}
    pools = {split: make_rulesets(name, split=split, count=count) for split, count in counts.items()}
    keys = {split: [key_of(g, r) for g, r in zip(p.goals, p.rules, strict=True)] for split, p in pools.items()}
    assert {split: len(set(k)) for split, k in keys.items()} == counts
    assert not set(keys["train"]) & set(keys["test"])
    assert all(split_of(key) == "test" for key in keys["test"])
    recipe = recipe_of(name)
    for pool in pools.values():
        assert pool.rules.shape[1:] == (recipe.max_rules, 7) and pool.tiles.shape[1:] == (recipe.max_tiles, 2)
        assert all(leaf.dtype == np.uint8 for leaf in pool)
        np.testing.assert_array_equal((pool.rules[..., 0] > 0).sum(1), pool.num_rules)


def test_repeats_leave_the_kinds_of_goals_as_the_recipe_draws_them():
    """Holding a thing is one goal in eleven; without repeats it is at most 60 of all."""
    shares = [
        (make_rulesets("trivial-21k", split="train", count=9000, repeats=repeats).goals[:, 0] == 1).mean()
        for repeats in (True, False)
    ]
    assert abs(shares[0] - 1 / 11) < 3 * np.sqrt(1 / 11 * 10 / 11 / 9000) + 0.01 and shares[1] <= 60 / 9000


def test_the_same_arguments_give_the_same_pool_and_other_seeds_others():
    one, same, other = (make_rulesets("small-1m", split="train", seed=seed, count=50) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one.goals, other.goals)


def test_the_published_sizes_of_the_tables():
    """Rules and initial things at most, as the original files have them."""
    sizes = {name: (recipe.max_rules, recipe.max_tiles) for name, recipe in RECIPES.items()}
    assert sizes == {"trivial-21k": (1, 5), "small-1m": (4, 10), "medium-1m": (9, 16), "medium-3m": (9, 16),
                     "high-1m": (18, 25), "high-3m": (18, 25)}  # fmt: skip


@pytest.mark.parametrize("name", ["small-1m", "medium-1m", "high-1m"])
def test_a_chain_can_be_followed_from_the_initial_things_to_the_goal(name):
    """Whatever the goal asks for is there at the start or is made by a rule whose own inputs are."""
    drawn = draw_rulesets(np.random.default_rng(5), RECIPES[name], 300)
    for goal, rules, tiles in zip(drawn.goals, drawn.rules, drawn.tiles, strict=True):
        there = {tuple(tile) for tile in tiles.tolist()}
        for _ in range(len(rules)):
            for kind, *rest in rules.tolist():
                pair = codes.NEAR <= kind < codes.AGENT_TOWARDS
                inputs, product = (rest[:4], rest[4:]) if pair else (rest[:2], rest[2:4])
                if kind and {tuple(inputs[i : i + 2]) for i in range(0, len(inputs), 2)} <= there:
                    there.add(tuple(product))
        assert {tuple(goal[1:3].tolist()), tuple(goal[3:5].tolist()) if goal[3] else tuple(goal[1:3].tolist())} <= there


def test_draw_takes_any_ruleset_and_number_of_trials():
    pool = RulesetPool(make_rulesets("trivial-21k", split="test", count=5), np.int16(9))
    tasks = jax.vmap(lambda key: draw(key, pool, min_trials=2, max_trials=3))(jax.random.split(jax.random.key(0), 100))
    assert set(tasks.trials.tolist()) == {2, 3} and set(tasks.trial_length.tolist()) == {9}
    assert {g.tobytes() for g in np.asarray(tasks.goal)} == {g.tobytes() for g in pool.rulesets.goals}


@pytest.mark.parametrize("count", [0, -1, 18_376])
def test_impossible_counts_are_refused(count):
    with pytest.raises(ConfigError, match="1 to 18,375 train rulesets"):
        make_rulesets("trivial-21k", split="train", count=count)


def test_an_unknown_benchmark_names_the_nearest():
    with pytest.raises(ConfigError, match="small-1m"):
        make_rulesets("small", split="train")
