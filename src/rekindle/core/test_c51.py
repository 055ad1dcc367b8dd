import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core import c51

SUPPORT = c51.atoms(51, 10.0)


def test_projection_keeps_mass_and_inside_the_support_the_mean():
    """U4."""
    keys = jax.random.split(jax.random.key(0), 3)
    p = jax.nn.softmax(2 * jax.random.normal(keys[0], (200, 51)))
    reward, discount = jax.random.uniform(keys[1], (200,), minval=-2.0, maxval=2.0), jnp.full(200, 0.7)
    got = c51.project(p, reward, discount, SUPPORT)
    np.testing.assert_allclose(got.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(got @ SUPPORT, reward + 0.7 * (p @ SUPPORT), atol=1e-4)


def test_what_falls_outside_goes_to_the_ends_and_an_end_is_the_reward_alone():
    p = jnp.zeros((3, 51)).at[:, 50].set(1.0)
    got = c51.project(p, jnp.array([5.0, -30.0, 0.2]), jnp.array([1.0, 1.0, 0.0]), SUPPORT)
    assert float(got[0, 50]) == float(got[1, 0]) == 1.0
    assert float(got[2] @ SUPPORT) == pytest.approx(0.2, abs=1e-5) and (got[2] > 0).sum() == 2


def test_the_mean_of_a_distribution():
    logits = jnp.log(jnp.zeros(51).at[jnp.array([25, 50])].set(0.5) + 1e-20)
    assert float(c51.mean(logits, SUPPORT)) == pytest.approx(5.0, abs=1e-4)
