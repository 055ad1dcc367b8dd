"""A whole preparation and a whole update, recomputed line by line as the paper has them, with optax's own AdamW."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rekindle.agents.mrq import mrq
from rekindle.agents.mrq.test_mrq import CHOICES, FLAT, PAST, sequences, tiny
from rekindle.networks.normalised import elu

TOLERANCE = {"rtol": 2e-4, "atol": 2e-6}
RATES = {"encoder_rate": 2e-3, "value_rate": 3e-3, "policy_rate": 5e-3, "weight_decay": 4.0}
"""All of them different, and a decay that one step shows."""


def config_of(**settings):
    return tiny(**RATES, grad_clip=0.05, plain_weight=0.3, batch=6, **settings)


def away_from_its_targets(config, spec):
    """A state whose nets, target nets and units of reward are all different; errors lie on both sides of 1."""
    state = jax.jit(lambda key: mrq.init(config, key, spec))(jax.random.key(0))
    other = jax.jit(lambda key: mrq.init(config, key, spec))(jax.random.key(1))
    modest = lambda nets: nets.replace(values=jax.tree.map(lambda x: 0.2 * x, nets.values))  # noqa: E731
    return state._replace(nets=modest(state.nets), targets=modest(other.nets), scale=jnp.float32(0.5),
                          target_scale=jnp.float32(0.2))  # fmt: skip


def adamw(net, grads, rate):
    """Its first step."""
    optimiser = optax.adamw(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=RATES["weight_decay"])
    arrays = eqx.filter(net, eqx.is_array)
    with jax.numpy_dtype_promotion("standard"):
        steps, _ = optimiser.update(grads, optimiser.init(arrays), arrays)
    return eqx.apply_updates(net, steps)


def assert_close(found, wanted):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(eqx.filter(wanted, eqx.is_array)), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, **TOLERANCE)


def assert_gradient(opt, grads):
    """Adam's first moment after one step, which shows the gradient's size, as the step itself does not."""
    assert_close(opt[0].mu, jax.tree.map(lambda g: 0.1 * g, grads))


def goes_on(terminated):
    return 1.0 - np.asarray(terminated, np.float64)


def earned(batch, row, counts):
    """Three rewards and the discount behind them; see `losses.returns`."""
    total, alive = 0.0, 1.0
    for i in range(3):
        lives = goes_on(batch.terminated[i, row])
        share = {"correct": alive, "pre_release": 1.0, "feb2025": lives}[counts]
        total += 0.99**i * share * float(batch.reward[i, row])
        alive *= lives
    return total, alive * 0.99**3


def wanted_values(config, key, state, batch, spec):
    """2.7: the critics' targets."""
    targets, (soft_key, noise_key) = state.targets, jax.random.split(key)
    z = targets.encoder.features(jax.tree.map(lambda x: x[3], batch.obs))
    plain, half = targets.actor(z), 0.5 if spec is CHOICES else 1.0
    noise = np.clip(0.2 * half * jax.random.normal(noise_key, plain.shape), -0.3 * half, 0.3 * half)
    if spec is CHOICES:
        soft = jax.nn.softmax((plain + jax.random.gumbel(soft_key, plain.shape)) / 10.0)
        action = jnp.eye(3)[jnp.argmax(soft + noise, axis=1)]
    else:
        action = jnp.clip(jnp.tanh(plain) + noise, -1.0, 1.0)
    pair = targets.encoder.join(z, targets.encoder.read(action))
    ahead = np.minimum(*(np.asarray(critic(pair, elu)[:, 0]) for critic in targets.values))
    total, discount = np.transpose([earned(batch, row, config.n_step) for row in range(6)])
    return jnp.asarray((total + discount * 0.2 * ahead) / 0.5, jnp.float32)


@pytest.mark.parametrize(
    ("spec", "counts"),
    [(FLAT, "correct"), (FLAT, "pre_release"), (FLAT, "feb2025"), (CHOICES, "correct")],
    ids=["continuous", "pre_release", "feb2025", "discrete"],
)
def test_an_update(spec, counts):
    """2.7 and 2.8: loss, gradient, clipping, AdamW, priorities from before the step, the policy's step after it."""
    config = config_of(n_step=counts)
    state, batch = away_from_its_targets(config, spec), sequences(spec, seed=4)
    terminated = batch.terminated.at[1, 1].set(True).at[2, 2].set(True)  # row 0 ends in its first step
    batch = batch._replace(reward=(0.2 if spec is CHOICES else 1.7) * batch.reward, terminated=terminated)
    result = jax.jit(partial(mrq.update, config))(jax.random.key(9), state, batch)
    _, target_key, policy_key = jax.random.split(jax.random.key(9), 3)

    encoder, nets = state.nets.encoder, state.nets
    y = wanted_values(config, target_key, state, batch, spec)
    z = encoder.features(jax.tree.map(lambda x: x[0], batch.obs))
    did = jnp.eye(3)[batch.action[0]] if spec is CHOICES else batch.action[0] / 2.0
    pair = encoder.join(z, encoder.read(did))

    def value_loss(values):
        gaps = [jnp.abs(critic(pair, elu)[:, 0] - y) for critic in values]
        huber = [jnp.where(gap < 1.0, gap**2 / 2.0, gap - 0.5) for gap in gaps]
        return (jnp.mean(huber[0]) + jnp.mean(huber[1])) / 2.0, jnp.maximum(*gaps)

    (loss, gaps), grads = eqx.filter_value_and_grad(value_loss, has_aux=True)(nets.values)
    assert 1 <= int(jnp.sum(gaps < 1.0)) <= 5  # both branches of the loss and of priorities
    norm = float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))))
    assert norm > config.grad_clip
    grads = jax.tree.map(lambda g: g * (config.grad_clip / norm), grads)
    values = adamw(nets.values, grads, 3e-3)
    np.testing.assert_allclose(result.metrics.value_loss, loss, rtol=1e-4)
    np.testing.assert_allclose(result.metrics.grad_norm, norm, rtol=1e-4)
    np.testing.assert_allclose(result.metrics.target_mean, jnp.mean(y), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.priorities, np.maximum(gaps, 1.0) ** 0.4, rtol=1e-4)
    assert_gradient(result.state.opts.values, grads)
    assert_close(result.state.nets.values, values)

    def policy_loss(actor):
        plain = actor(z)
        soft = jax.nn.softmax((plain + jax.random.gumbel(policy_key, plain.shape)) / 10.0)
        with_it = encoder.join(z, encoder.read(soft if spec is CHOICES else jnp.tanh(plain)))
        q = [critic(with_it, elu)[:, 0] for critic in values]
        return -(jnp.mean(q[0]) + jnp.mean(q[1])) / 2.0 + 0.3 * jnp.mean(plain**2)

    loss, grads = eqx.filter_value_and_grad(policy_loss)(nets.actor)
    np.testing.assert_allclose(result.metrics.policy_loss, loss, rtol=1e-4, atol=1e-6)
    assert_gradient(result.state.opts.policy, grads)
    assert_close(result.state.nets.actor, adamw(nets.actor, grads, 5e-3))


def two_hot(reward, bins):
    """Between the two bins around each reward, in its own space."""
    code = np.zeros((*reward.shape, len(bins)))
    for at in np.ndindex(reward.shape):
        k = int(np.searchsorted(bins, reward[at], side="right")) - 1
        share = (reward[at] - bins[k]) / (bins[k + 1] - bins[k])
        code[at][k], code[at][k + 1] = 1.0 - share, share
    return jnp.asarray(code, jnp.float32)


@pytest.mark.parametrize("terminates", [True, False])
def test_a_preparation(terminates):
    """2.4 and 2.5: of one batch; the loss of the unroll, its gradient, unclipped, and AdamW at the encoder's rate."""
    config = config_of(encoder_horizon=5)
    state, batch = away_from_its_targets(config, FLAT), sequences(FLAT, seed=5)
    past = PAST._replace(terminates=jnp.array(terminates))
    result = jax.jit(partial(mrq.prepare, config))(
        jax.random.key(1), state, jax.tree.map(lambda x: x[None], batch), past
    )
    exponents = -10.0 + 0.3125 * np.arange(65)
    code = two_hot(np.asarray(batch.reward), np.sign(exponents) * np.expm1(np.abs(exponents)))
    at = lambda t: jax.tree.map(lambda x: x[t], batch.obs)  # noqa: E731

    def loss(encoder):
        z, alive, total = encoder.features(at(0)), jnp.ones(6), 0.0
        for t in range(5):
            said = encoder.model(encoder.join(z, encoder.read(batch.action[t] / 2.0)))
            done, z, logits = said[:, 0], said[:, 1:9], said[:, 9:]
            over = jnp.asarray(batch.terminated[t], jnp.float32)
            goal = state.nets.encoder.features(at(t + 1))  # the targets have just been copied
            total += jnp.mean(alive[:, None] * (z - jax.lax.stop_gradient(goal)) ** 2)
            total += 0.1 * jnp.mean(alive * -jnp.sum(code[t] * jax.nn.log_softmax(logits), axis=-1))
            total += 0.1 * jnp.mean(alive * (done - over) ** 2) * float(terminates)
            alive = alive * (1.0 - over)
        return total

    found, grads = eqx.filter_value_and_grad(loss)(state.nets.encoder)
    np.testing.assert_allclose(result.metrics.encoder_loss, found, rtol=1e-4)
    assert_gradient(result.state.opts.encoder, grads)
    assert_close(result.state.nets.encoder, adamw(state.nets.encoder, grads, 2e-3))


def test_noise_of_discrete_actions_is_half_as_wide():
    """2.2: the largest of the soft action (temperature 10) plus N(0, 0.1)."""
    state, rng, rows = away_from_its_targets(tiny(), CHOICES), np.random.default_rng(0), 40_000
    logits = np.array([1.0, 3.0, 6.0], np.float32)
    last = lambda s: (s.nets.actor.net.layers[-1].weight, s.nets.actor.net.layers[-1].bias)  # noqa: E731
    only_them = (jnp.zeros_like(last(state)[0]), jnp.asarray(logits))
    state = eqx.tree_at(last, state._replace(warm=jnp.array(True)), only_them)
    obs = jax.tree.map(lambda x: jnp.repeat(x[0, :1], rows, axis=0), sequences(CHOICES).obs)
    taken = mrq.act(tiny(), jax.random.key(3), state, (), obs, jnp.ones(rows, bool), explore=True).action

    def shares(width):
        raised = np.exp((logits + rng.gumbel(size=(200_000, 3))) / 10.0)
        soft = raised / raised.sum(axis=1, keepdims=True)
        return np.bincount(np.argmax(soft + width * rng.normal(size=soft.shape), axis=1)) / 200_000

    assert abs(shares(0.1) - shares(0.2)).max() > 0.05
    np.testing.assert_allclose(np.bincount(taken) / rows, shares(0.1), atol=0.012)
