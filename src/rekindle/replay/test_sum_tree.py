import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from rekindle.replay import sum_tree


def test_leaves_are_drawn_in_proportion_to_their_priorities():
    """Chi-squared over 1e5 draws (U5); leaves without priority are never drawn."""
    priority = jnp.asarray(np.random.default_rng(0).random(37) * (np.arange(37) % 5 > 0), jnp.float32)
    tree = sum_tree.put(sum_tree.empty(37), jnp.arange(37), priority)
    draws = jax.vmap(lambda key: sum_tree.sample(key, tree, 1)[0][0])(jax.random.split(jax.random.key(1), 100_000))
    counts, there = np.bincount(draws, minlength=37), np.asarray(priority) > 0
    assert (counts[~there] == 0).all()
    expected = np.asarray(priority[there], float) / float(priority.sum()) * 100_000
    assert chisquare(counts[there], expected * counts[there].sum() / expected.sum()).pvalue > 1e-3
    index, probability = sum_tree.sample(jax.random.key(2), tree, 64)
    np.testing.assert_allclose(probability, priority[index] / priority.sum(), rtol=1e-5)


def test_sums_follow_what_is_put_and_do_not_drift():
    rng, tree, kept = np.random.default_rng(3), sum_tree.empty(50), np.zeros(50, np.float32)
    put = jax.jit(sum_tree.put)
    for _ in range(200):
        index = rng.permutation(50)[:8].astype(np.int32)
        kept[index] = rng.random(8).astype(np.float32) * 10.0 ** rng.integers(-3, 4, 8)
        tree = put(tree, jnp.asarray(index), jnp.asarray(kept[index]))
    assert float(tree.total) == pytest.approx(kept.sum(), rel=1e-5)
    np.testing.assert_array_equal(tree.nodes[64 : 64 + 50], kept)


def test_a_batch_takes_one_leaf_from_every_part_of_the_total():
    tree = sum_tree.put(sum_tree.empty(8), jnp.arange(8), jnp.ones(8))
    assert sum_tree.sample(jax.random.key(0), tree, 8)[0].tolist() == list(range(8))


def test_points_of_the_total_find_the_leaf_that_reaches_them():
    """MR.Q's specification, 6.3: the first leaf whose cumulative priority is at least the point."""
    priority = jnp.array([1.0, 0.0, 1.3195, 2.5119])
    tree = sum_tree.put(sum_tree.empty(4), jnp.arange(4), priority)
    total = 4.8313943
    find = jax.jit(sum_tree.find)
    found = find(tree, jnp.array([0.10, 0.2071, 0.48, 0.4801, 0.0]) * total)
    assert found.tolist() == [0, 2, 2, 3, 0]
    ends = find(tree, jnp.array([0.0, 1.0, 1.0000002, tree.total, tree.total * 1.00001]))
    assert ends.tolist() == [0, 0, 2, 3, 3]
    later = sum_tree.put(tree, jnp.array([0]), jnp.zeros(1))
    assert find(later, jnp.zeros(5)).tolist() == [2] * 5  # a leaf without priority never


def test_draws_with_replacement_are_in_proportion():
    draw = jax.jit(lambda key, tree: sum_tree.draw(key, tree, 100_000))
    priority = jnp.maximum(jnp.array([0.2, 2.0, 10.0]), 1.0) ** 0.4
    for mask, shares in (((1, 1, 1), (0.20697959, 0.27311120, 0.51990921)), ((1, 0, 1), (0.28474725, 0, 0.71525275))):
        tree = sum_tree.put(sum_tree.empty(3), jnp.arange(3), priority * jnp.array(mask, jnp.float32))
        np.testing.assert_allclose(sum_tree.priorities(tree, jnp.arange(3)) / tree.total, shares, atol=1e-6)
        drawn = np.bincount(draw(jax.random.key(0), tree), minlength=3)
        assert (drawn[np.array(mask) == 0] == 0).all()
        np.testing.assert_allclose(drawn / 100_000, shares, atol=0.006)


def test_the_largest_importance_weight_is_one():
    weight = sum_tree.importance(jnp.array([0.1, 0.4, 0.025]), 0.5)
    np.testing.assert_allclose(weight, [0.5, 0.25, 1.0], rtol=1e-4)
