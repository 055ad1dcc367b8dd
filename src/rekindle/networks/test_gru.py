import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.networks.gru import GRU
from rekindle.networks.linear import Linear

T, B, N, D = 7, 3, 4, 5


@pytest.fixture(scope="module")
def run():
    keys = jax.random.split(jax.random.key(0), 3)
    x, h = jax.random.normal(keys[1], (T, B, N)), jax.random.normal(keys[2], (B, D))
    gru = GRU(keys[0], N, D)
    return gru, x, h, jax.jit(gru.__call__)


def test_equals_the_equations(run):
    gru, x, h, call = run
    _, out = call(h, x, jnp.zeros((T, B), bool))
    w, u, b = (np.asarray(a, float) for a in (gru.inputs.weight, gru.recurrent.weight, gru.inputs.bias))
    memory = np.asarray(h, float)
    for t in range(T):
        (rx, zx, nx), (rh, zh, nh) = np.split(np.asarray(x[t]) @ w + b, 3, 1), np.split(memory @ u, 3, 1)
        r, z = 1 / (1 + np.exp(-rx - rh)), 1 / (1 + np.exp(-zx - zh))
        memory = (1 - z) * np.tanh(nx + r * nh) + z * memory
        np.testing.assert_allclose(out[t], memory, atol=1e-5)


def test_a_start_empties_its_row_before_the_step_and_no_other(run):
    _, x, h, call = run
    start = jnp.zeros((T, B), bool).at[3, 1].set(True)
    last, out = call(h, x, start)
    _, kept = call(h, x, jnp.zeros((T, B), bool))
    np.testing.assert_array_equal(out[:, [0, 2]], kept[:, [0, 2]])
    np.testing.assert_array_equal(out[:3], kept[:3])
    assert (out[3, 1] != kept[3, 1]).any()
    _, fresh = call(jnp.zeros((B, D)), jnp.roll(x, -3, axis=0), jnp.zeros((T, B), bool))
    np.testing.assert_allclose(out[3:, 1], fresh[: T - 3, 1], atol=1e-6)
    np.testing.assert_array_equal(last, out[-1])


def test_linear_is_orthogonal_and_takes_any_axes():
    layer = Linear(jax.random.key(0), 6, 4, scale=2.0)
    np.testing.assert_allclose(layer.weight.T @ layer.weight, 4 * np.eye(4), atol=1e-5)
    x = jax.random.normal(jax.random.key(1), (2, 3, 6))
    np.testing.assert_allclose(layer(x)[1, 2], layer(x[1, 2]), atol=1e-5)
