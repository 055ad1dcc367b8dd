from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.reincarnation.losses import conservative, distillation, hard_margin, soft_margin

KEYS = jax.random.split(jax.random.key(0), 3)
Q, TEACHER = 5 * jax.random.normal(KEYS[0], (32, 6)), 5 * jax.random.normal(KEYS[1], (32, 6))
ACTION = jax.random.randint(KEYS[2], (32,), 0, 6)


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_distillation_is_the_divergence_of_two_policies(tau):
    """U1: 0 where they agree, gradient (pi - pi_T) / tau, blind to a constant."""
    kl = jax.vmap(lambda q, teacher_logits: distillation(q / tau, teacher_logits))
    np.testing.assert_allclose(kl(Q, Q / tau), 0.0, atol=1e-4)
    gradient = jax.grad(lambda q: jnp.sum(kl(q, TEACHER / tau)))(Q)
    wanted = (jax.nn.softmax(Q / tau) - jax.nn.softmax(TEACHER / tau)) / tau
    np.testing.assert_allclose(tau * gradient, tau * wanted, atol=1e-5)
    np.testing.assert_allclose(kl(Q + 3.0, TEACHER / tau), kl(Q, TEACHER / tau), rtol=1e-3, atol=1e-3)


def test_what_a_teacher_never_does_adds_nothing():
    value, gradient = jax.value_and_grad(distillation)(jnp.array([1.0, 2.0, 3.0]), jnp.array([-jnp.inf, 0.0, 0.0]))
    chances = jax.nn.softmax(jnp.array([1.0, 2.0, 3.0]))
    assert float(value) == pytest.approx(float(-0.5 * jnp.log(4 * chances[1] * chances[2])), rel=1e-5)
    np.testing.assert_allclose(gradient, chances - jnp.array([0.0, 0.5, 0.5]), atol=1e-6)


def test_large_logits_stay_finite():
    value, gradient = jax.value_and_grad(distillation)(jnp.array([1000.0, -1000.0]), jnp.array([-1000.0, 1000.0]))
    assert np.isfinite(float(value)) and np.isfinite(gradient).all()


def test_the_conservative_term_is_the_cross_entropy_at_the_action_of_the_data():
    """U6."""
    got = jax.vmap(partial(conservative, tau=0.5))(Q, ACTION)
    wanted = -jnp.take_along_axis(jax.nn.log_softmax(Q / 0.5), ACTION[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_margins_against_enumeration():
    """U6: soft <= hard <= A soft."""
    hard, soft = (jax.vmap(partial(loss, margin=0.8))(Q, ACTION) for loss in (hard_margin, soft_margin))
    for q, a, h, s in zip(np.asarray(Q), np.asarray(ACTION), hard, soft, strict=True):
        lifted = [q[b] + (0.8 if b != a else 0.0) - q[a] for b in range(6)]
        assert float(h) == pytest.approx(max(lifted), rel=1e-5)
        assert float(s) == pytest.approx(np.mean([max(x, 0.0) for x in lifted]), rel=1e-5)
        assert float(s) <= float(h) + 1e-6 and float(h) <= 6 * float(s) + 1e-5
