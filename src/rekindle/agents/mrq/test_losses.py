"""MR.Q's specification, section 6, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rekindle.agents.mrq import losses, mrq
from rekindle.agents.mrq.actions import add_noise, gumbel_softmax, space_of, to_env, to_network
from rekindle.core.errors import ConfigError
from rekindle.core.optimisers import decayed_adam
from rekindle.core.spaces import Box, Discrete, MultiDiscrete
from rekindle.core.types import EnvSpec
from rekindle.networks.target import descend

SPACE, CHOICES = Box((2,), -1, 1), Discrete(3)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def assert_near(x, expected, tolerance=1e-6):
    np.testing.assert_allclose(np.asarray(x), expected, atol=tolerance)


def goal(reward, over, value, scale, target_scale, counts):
    columns = (jnp.array([x]).T for x in (reward, over))
    earned, discount = losses.returns(*columns, 0.99, counts)
    y = losses.continued(earned, discount, *(jnp.array(x) for x in ([value], scale, target_scale)))
    return float(earned[0]), float(discount[0]), float(y[0])


@pytest.mark.parametrize(
    ("reward", "over", "earned", "discount", "goals"),
    [
        ((1.0, 2.0, 3.0), (False, False, False), 5.9203, 0.970299, (10.2373925,) * 3),
        ((1.0, 2.0, 3.0), (False, False, True), 5.9203, 0.0, (2.96015, 2.96015, 1.49)),
        ((1.0, 2.0, 0.0), (False, True, True), 2.98, 0.0, (1.49, 1.49, 0.5)),
        ((1.0, 0.0, 7.0), (True, True, False), 1.0, 0.0, (0.5, 3.93035, 3.43035)),
    ],
)
def test_returns_of_three_steps(reward, over, earned, discount, goals):
    """6.5, P2: right, and as in two states of the published code."""
    found = {counts: goal(reward, over, 10.0, 2.0, 1.5, counts) for counts in losses.RETURNS}
    assert_near(found["correct"][:2], (earned, discount))
    assert_near([found[counts][2] for counts in losses.RETURNS], goals)


def test_values_of_an_older_unit_are_carried_over():
    assert_near(goal((0.1, 0.2, 0.3), (False,) * 3, 3.0, 0.2, 0.15, "correct"), (0.59203, 0.970299, 5.14332275))


@pytest.mark.parametrize(("terminates", "total"), [(True, 1.04065809), (False, 1.01365809)])
def test_losses_of_the_model(terminates, total):
    """6.6: what lies behind a termination counts as 0, not as absent."""
    config, none = mrq.Config(), jnp.zeros((2, 2))
    predicted = losses.Predicted(
        done=jnp.array([[0.3, 0.1], [5.0, 0.2]]),
        state=jnp.array([[[0.1, 0.2], [0.5, -0.5]], [[9.0, 9.0], [1.0, 0.0]]]),
        reward=jnp.zeros((2, 2, 65)),
    )
    errors = mrq.reward_categories(config, predicted.reward, none)
    over = jnp.array([[True, False], [False, False]])
    found = losses.model_losses(predicted, jnp.zeros((2, 2, 2)), errors, over, jnp.array(terminates))
    assert_near(found, (0.1375 + 0.25, 4.17438727 + 2.08719363, 0.27 * terminates))
    assert_near(mrq.weighted(config, found), total)


def test_losses_of_critics_and_priorities():
    """6.7 and 6.3."""
    q, y = jnp.array([[1.0, 2.0], [3.0, 0.5]]).T, jnp.array([1.4, -2.0])

    def loss(q):
        return jnp.mean(mrq.PARTS.value_error(q - y[None]))

    assert_near(mrq.PARTS.value_error(q - y[None]).T, [[0.08, 0.18], [4.5, 2.0]])
    assert_near(loss(q), 1.69)
    assert_near(jax.grad(loss)(q).T, [[-0.1, 0.15], [0.25, 0.25]])
    error = jnp.max(jnp.abs(q - y[None]), axis=0)
    assert_near(mrq.PARTS.priority(mrq.Config(), error), [1, 1.90365394])
    sizes = jnp.array([0, 0.3, 1, 1.5, 2, 5, 10, -100, 1000])
    assert_near(
        losses.priority(sizes, 1.0, 0.4),
        [1, 1, 1, 1.17607902, 1.31950791, 1.90365394, 2.51188643, 6.30957344, 15.84893192],
    )


def test_loss_of_the_policy():
    plain = jnp.array([[1.0, -2.0], [0.5, 0.0]])
    assert_near(losses.policy_loss(jnp.array([[1.0, 3.0], [2.0, 0.5]]), plain, 1e-5)[0], -1.624986875, 1e-12)
    assert_near(losses.policy_loss(jnp.zeros((2, 1)), jnp.array([[1.0, 2.0, 3.0]]), 1e-5)[0], 4.6666667e-5, 1e-11)


def test_the_gradient_of_both_critics_together_is_clipped():
    values = (jnp.zeros(1), jnp.zeros(1))
    steps = []
    for size in (1.0, 0.4):  # a gradient of norm 50 does what 0.4 of it does
        config = mrq.Config(grad_clip=20.0, weight_decay=0.0, value_rate=1.0)
        opt = decayed_adam(0.0).init(values)
        _, opt, norm = mrq.clipped_step(config, values, (jnp.array([30.0]) * size, jnp.array([40.0]) * size), opt)
        assert_near(norm, 50.0 * size)
        steps.append(opt)
    assert_near(steps[0][0].mu, [[1.2], [1.6]])
    assert_near(steps[1][0].mu, [[1.2], [1.6]])


def test_weights_and_biases_decay_with_the_step_size():
    """6.7, P12."""
    net = {"weight": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    optimiser = decayed_adam(1e-4)
    found, _ = descend(net, jax.tree.map(lambda x: 0.5 * x, net), optimiser.init(net), optimiser, 3e-4)
    for leaf in jax.tree.leaves(found):
        assert_near(leaf.ravel(), [0.9996999700], 1e-10)
    assert optax.tree.norm(jax.tree.map(lambda x: x - 1.0, found)) > 0


def test_continuous_actions():
    """6.8."""
    action = jnp.tanh(jnp.array([0.5, -2.0]))
    assert_near(action, [0.46211716, -0.96402758])
    assert_near(add_noise(SPACE, action, jnp.array([0.35, -0.1])), [0.81211716, -1])
    assert_near(add_noise(SPACE, action, jnp.clip(jnp.array([0.35, -0.5]), -0.3, 0.3)), [0.76211716, -1])


def test_discrete_actions():
    logits, gumbel = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, -0.2, 0.1])
    soft = gumbel_softmax(logits, gumbel, 10.0)
    assert_near(soft, [0.3121132, 0.3216185, 0.3662683])
    other = gumbel_softmax(logits, jnp.array([2.5, 0.0, -0.6]), 10.0)
    assert_near(other, [0.3627733, 0.3122419, 0.3249847])
    assert to_env(CHOICES, jnp.stack([soft, other])).tolist() == [2, 0]
    noise = jnp.array([0.08, -0.30, -0.02])
    assert_near(soft + noise, [0.3921132, 0.0216185, 0.3462683])
    assert_near(add_noise(CHOICES, soft, noise), [1, 0, 0])
    assert_near(soft + jnp.clip(noise, -0.15, 0.15), [0.3921132, 0.1716185, 0.3462683])
    assert_near(add_noise(CHOICES, soft, jnp.clip(noise, -0.15, 0.15)), [1, 0, 0])
    back = jax.vjp(lambda x: gumbel_softmax(x, gumbel, 10.0), logits)[1](jnp.array([1.0, 0.0, 0.0]))[0]
    assert_near(back, [0.02146986, -0.01003814, -0.01143172], 1e-8)


def test_actions_are_scaled_at_the_border():
    box = Box((2, 2), -0.4, 0.4)
    action = jnp.array([[1.0, -1.0, 0.5, 0.0]])
    assert_near(to_env(box, action), [[[0.4, -0.4], [0.2, 0.0]]])
    assert_near(to_network(box, to_env(box, action)), action)
    assert_near(to_network(CHOICES, jnp.array([[2, 0]])), [[[0, 0, 1], [1, 0, 0]]])
    for space in (Box((2,), 0, 1), Box((2,), -np.inf, np.inf), MultiDiscrete((2, 2))):
        with pytest.raises(ConfigError, match="discrete actions, or a box from -x to x; test has"):
            space_of(EnvSpec("test", 1, {}, space))
    with pytest.raises(ConfigError, match="plays alone; test is for 2 players"):
        space_of(EnvSpec("test", 1, {}, CHOICES, players=2))
