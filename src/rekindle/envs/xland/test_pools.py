from functools import partial

import jax
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs.xland import pools
from rekindle.envs.xland.presets import doors


def small_pool(seed=0, **options):
    return doors(3, split="train", seed=seed, worlds=3, games=5, **options)


def draws(source, n, **trials):
    keys = jax.random.split(jax.random.key(1), n)
    return jax.jit(jax.vmap(partial(pools.draw, **trials), in_axes=(0, None)))(keys, source)


def test_a_pool_without_pairs_holds_every_world_with_every_game():
    pool = small_pool()
    assert pools.num_tasks(pool) == 15
    seventh, by_name = pools.task(pool, 7, 3), pools.task(pool, (1, 2), 3)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), seventh, by_name))
    assert np.array_equal(seventh.world.places, pool.worlds.places[1])
    assert np.array_equal(seventh.game.objects, pool.games.objects[2])
    assert seventh.trials == 3 and seventh.trial_length == 6


def test_pairs_have_their_own_trial_lengths():
    pool = small_pool()._replace(pairs=np.int32([[2, 4], [0, 1]]), trial_length=np.int16([9, 11]))
    second = pools.task(pool, 1, 1)
    assert pools.num_tasks(pool) == 2 and second.trial_length == 11
    assert np.array_equal(second.world.places, pool.worlds.places[0])
    assert np.array_equal(second.game.goal, pool.games.goal[1])
    assert sorted(set(draws(pool, 100, min_trials=1, max_trials=1).trial_length.tolist())) == [9, 11]
    with pytest.raises(ConfigError, match="chosen pairs"):
        pools.task(pool, (0, 1), 1)


def test_draws_cover_worlds_games_and_trials_evenly():
    pool = small_pool()
    drawn = draws(pool, 6000, min_trials=2, max_trials=4)
    for leaf, all_leaves in ((drawn.world.places, pool.worlds.places), (drawn.game.objects, pool.games.objects)):
        counts = np.array([(np.asarray(leaf) == one).reshape(6000, -1).all(1).sum() for one in all_leaves])
        assert counts.sum() == 6000
        share = 1 / len(counts)
        assert np.abs(counts - 6000 * share).max() < 4 * np.sqrt(6000 * share * (1 - share))
    assert np.bincount(drawn.trials, minlength=5)[2:].min() > 1800 and set(drawn.trials.tolist()) == {2, 3, 4}


def test_a_mixture_follows_its_weights():
    fixed, turned = small_pool(random_heading=0.0), small_pool(seed=1, random_heading=1.0)
    mixture = pools.Mixture((fixed, turned), np.float32([1, 3]))
    share = draws(mixture, 2000, min_trials=1, max_trials=1).random_heading.mean()
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 2000)


def test_a_saved_pool_comes_back_bit_for_bit(tmp_path):
    pool = small_pool()
    pools.save(pool, tmp_path / "pool.safetensors")
    again = pools.load(tmp_path / "pool.safetensors")
    same = jax.tree.map(lambda a, b: a.dtype == b.dtype and a.shape == b.shape and (a == b).all(), pool, again)
    assert jax.tree.all(same)
    assert [p.name for p in tmp_path.iterdir()] == ["pool.safetensors"]
    with pytest.raises(ConfigError, match="no task pool"):
        pools.load(tmp_path / "other")
