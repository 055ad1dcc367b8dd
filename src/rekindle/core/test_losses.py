import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core import categorical
from rekindle.core.losses import clipped_policy_gradient, clipped_value_error


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # good and already likelier: no further
        (0.5, 2.0, -1.0, -1.0),  # good but less likely: still pulled back
        (0.5, -2.0, 1.6, 0.0),  # bad and already less likely: no further
        (1.5, -2.0, 3.0, 3.0),
    ],
)
def test_the_policy_loss_stops_pushing_outside_the_clip(ratio, advantage, loss, slope):
    value, gradient = jax.value_and_grad(clipped_policy_gradient)(
        jnp.log(jnp.float32(ratio)), jnp.float32(0), jnp.float32(advantage), 0.2
    )
    assert float(value) == pytest.approx(loss, rel=1e-6)
    assert float(gradient) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [
        (1.0, 3.0, 2.0, -2.0),
        (1.1, 3.0, 0.5 * 1.9**2, -1.9),
        (2.0, 3.0, 0.5 * 1.8**2, 0.0),  # moved towards the target by more than the clip: no further
        (0.0, 3.0, 4.5, -3.0),  # moved away: the full error counts
    ],
)
def test_the_value_loss_stops_pulling_outside_the_clip(value, target, loss, slope):
    error, gradient = jax.value_and_grad(clipped_value_error)(
        jnp.float32(value), jnp.float32(1), jnp.float32(target), 0.2
    )
    assert float(error) == pytest.approx(loss, rel=1e-5)
    assert float(gradient) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_categorical_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [1.0, 1.0, 1.0]])) + jnp.array([[7.0], [-7.0]])
    np.testing.assert_allclose(categorical.log_prob(logits, jnp.array([1, 2])), np.log([0.25, 1 / 3]), rtol=1e-5)
    np.testing.assert_allclose(categorical.entropy(logits), [1.5 * np.log(2), np.log(3)], rtol=1e-5)


def test_categorical_takes_leading_axes_and_extreme_logits():
    logits = jnp.array([[[1000.0, 0.0], [0.0, -1000.0]]])
    actions = jnp.zeros((1, 2), jnp.int32)
    np.testing.assert_allclose(categorical.log_prob(logits, actions), 0, atol=1e-6)
    np.testing.assert_allclose(categorical.entropy(logits), 0, atol=1e-6)
    gradient = jax.grad(lambda x: categorical.entropy(x).sum())(logits)
    assert jnp.isfinite(gradient).all()
