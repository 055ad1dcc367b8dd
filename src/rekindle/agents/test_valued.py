"""What DQN and Rainbow have in common: weights, guides, targets, clocks, settings."""

import json
import re
from dataclasses import fields
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents import registry as agents
from rekindle.agents.dqn import dqn
from rekindle.agents.rainbow import rainbow
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec, Guidance, Transitions
from rekindle.networks.target import follow

SPEC = EnvSpec("test/flat", 1, {"x": Box((3,), -1, 1)}, Discrete(3))
SMALL = {"width": 8, "batch": 6, "capacity": 64, "target_period": 3}


@pytest.fixture(params=[dqn, rainbow], ids=lambda module: module.NAME)
def valued(request):
    """The module of an agent that learns action values."""
    return request.param


def small(valued):
    return valued.Config(**SMALL)


def batch(seed=0, rows=6):
    keys = jax.random.split(jax.random.key(seed), 4)
    obs, after = ({"x": jax.random.uniform(key, (rows, 3), minval=-1)} for key in keys[:2])
    action, reward = jax.random.randint(keys[2], (rows,), 0, 3), jax.random.normal(keys[3], (rows,))
    discount = jnp.array([0.0, *[0.9] * (rows - 1)])
    return Transitions(obs, action, reward, discount, after, (), jnp.ones(rows), jnp.arange(rows))


def moved(a, b):
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_samples_of_no_weight_change_nothing(valued):
    state = valued.init(small(valued), jax.random.key(0), SPEC)
    one = batch()._replace(weight=jnp.array([0.0, *[1.0] * 5]))
    other = one._replace(reward=one.reward.at[0].set(100.0))
    learn = jax.jit(lambda b: valued.update(small(valued), jax.random.key(1), state, b).state.net)
    jax.tree.map(np.testing.assert_array_equal, learn(one), learn(other))
    assert moved(learn(one), state.net)


def test_a_guide_adds_its_loss_takes_the_agents_away_and_sets_the_step(valued):
    """U8 of a method: what it says is what the gradient is of."""
    state, data = valued.init(small(valued), jax.random.key(0), SPEC), batch()

    def learn(**dials):
        told = {"weight": 1.0, "own": 1.0, "learning_rate": 1e-3, **dials}
        guide = Guidance(lambda q, b: jnp.sum(q**2, axis=-1), *(told[n] for n in ("weight", "own", "learning_rate")))
        return valued.update(small(valued), jax.random.key(1), state, data, guide=guide)

    alone = valued.update(small(valued), jax.random.key(1), state, data)
    off = learn(weight=0.0, learning_rate=small(valued).learning_rate)
    for a, b in zip(jax.tree.leaves(alone.state.net), jax.tree.leaves(off.state.net), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert moved(learn().state.net, off.state.net)
    assert not moved(learn(learning_rate=0.0).state.net, state.net)
    q = valued.act(small(valued), jax.random.key(2), state, (), data.obs, jnp.ones(6, bool), explore=False).extras.q
    assert float(learn().metrics.guide_loss) == pytest.approx(float(jnp.mean(jnp.sum(q**2, axis=-1))), rel=1e-4)
    still = learn(own=0.0, weight=0.0)
    assert float(still.metrics.grad_norm) == 0.0
    whole, half = (learn(own=0.0, weight=weight).metrics.grad_norm for weight in (1.0, 0.5))
    assert float(half) == pytest.approx(0.5 * float(whole), rel=1e-4)


def test_losses_are_means_over_the_batch(valued):
    """U1: the same samples twice are learnt from as once."""
    state, once = valued.init(small(valued), jax.random.key(0), SPEC), batch()
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), once)
    guide = Guidance(lambda q, b: jnp.sum(q**2, axis=-1), 3.0, 1.0, 1e-3)
    a, b = (valued.update(small(valued), jax.random.key(1), state, data, guide=guide).metrics for data in (once, twice))
    np.testing.assert_allclose(a, b, rtol=1e-4)


def test_what_is_logged_of_values_is_of_values(valued):
    """Not of their places, and over the actions of each observation."""
    state, data = valued.init(small(valued), jax.random.key(0), SPEC), batch()
    metrics = valued.update(small(valued), jax.random.key(1), state, data).metrics._asdict()
    start = jnp.ones(6, bool)
    q = np.asarray(valued.act(small(valued), jax.random.key(2), state, (), data.obs, start, explore=False).extras.q)
    best = np.sort(q, axis=1)
    wanted = {"q_mean": q.mean(), "q_max": q.max(), "action_gap": (best[:, -1] - best[:, -2]).mean()}
    for name in wanted.keys() & metrics.keys():
        assert float(metrics[name]) == pytest.approx(float(wanted[name]), rel=1e-4, abs=1e-6)


def test_the_target_follows_after_its_period(valued):
    state = valued.init(small(valued), jax.random.key(0), SPEC)
    learn = jax.jit(lambda state, key: valued.update(small(valued), key, state, batch()).state)
    for number in range(1, 7):
        before, state = state, learn(state, jax.random.key(number))
        assert moved(before.target, state.target) == (number % 3 == 0)
        assert moved(state.target, state.net) == (number % 3 != 0)


def test_published_periods_make_the_published_number_of_copies(valued):
    """U7: 500 in a million updates, 312 in those of 2.5 million steps."""

    class Number(eqx.Module):
        value: jax.Array

    config = valued.Config(**valued.PRESETS["atari"])
    target, net = Number(jnp.zeros(())), Number(jnp.ones(()))
    for updates, copies in ((1_000_000, 500), (2_500_000 // config.update_period, 312)):
        count = jnp.arange(1, updates + 1)
        followed = jax.jit(jax.vmap(lambda n: follow(target, net, n, config.target_period).value))(count)
        assert int(followed.sum()) == copies


def test_a_policy_that_goes_on_learning_explores_no_more(valued):
    config = valued.Config(**SMALL, epsilon=0.0)
    agent = valued.make(config)
    policy = agent.policy(agent.init(jax.random.key(0), SPEC))
    state = valued.adopt(config, jax.random.key(1), SPEC, policy)
    assert not moved(state.net, policy.net) and not moved(state.target, policy.net)
    obs, start = {"x": jax.random.uniform(jax.random.key(2), (200, 3))}, jnp.ones(200, bool)
    explores, is_best = (agent.act(jax.random.key(3), state, (), obs, start, explore=e).action for e in (True, False))
    np.testing.assert_array_equal(explores, is_best)


def test_a_phase_begins_with_its_target_and_perhaps_a_new_optimiser(valued):
    agent = valued.make(small(valued))
    state = agent.update(jax.random.key(1), agent.init(jax.random.key(0), SPEC), batch()).state
    kept, forgot = (agent.restart(state, optimiser=fresh) for fresh in (False, True))
    assert not moved(kept.target, state.net) and not moved(kept.opt, state.opt) and moved(forgot.opt, state.opt)


def test_exploration_falls_with_the_clock(valued):
    config = valued.Config(width=8, epsilon=0.0, epsilon_steps=100, epsilon_warmup=0)
    state = valued.init(config, jax.random.key(0), SPEC)
    obs, start = {"x": jnp.zeros((500, 3))}, jnp.ones(500, bool)
    best = valued.act(config, jax.random.key(1), state, (), obs, start, explore=False).action
    for clock, strays in ((0, 2 / 3), (50, 1 / 3), (100, 0.0), (10**6, 0.0)):
        at = state._replace(clock=jnp.int32(clock))
        action = valued.act(config, jax.random.key(2), at, (), obs, start, explore=True).action
        assert abs(float(jnp.mean((action != best).astype(jnp.float32))) - strays) < 0.08


def test_a_config_is_json_and_back_and_nonsense_is_refused(valued):
    config = valued.Config(gamma=0.9, network="dense", width=7)
    assert agents.config_from_json(valued.NAME, json.loads(json.dumps(agents.config_to_json(config)))) == config
    for word, settings in valued.PRESETS.items():
        assert agents.variant_of(f"{valued.NAME}:{word}") == (valued.NAME, settings)
        assert agents.config_from_json(valued.NAME, settings).num_envs == 1
    assert agents.variant_of(f"{valued.NAME}:impala") == (valued.NAME, {"network": "impala"})
    with pytest.raises(ConfigError, match=rf"{valued.NAME} has no variant 'atary'; did you mean 'atari'"):
        agents.variant_of(f"{valued.NAME}:atary")
    with pytest.raises(ConfigError, match=r"batch must be at least 1; got 0; .*optimiser must be one of adam, rmsprop"):
        valued.Config(batch=0, optimiser="sgd")
    with pytest.raises(ConfigError, match="capacity must be a multiple of num_envs; got 10 and 4"):
        valued.Config(capacity=10)
    with pytest.raises(ConfigError, match=r"discrete actions; test/flat has Box"):
        valued.init(small(valued), jax.random.key(0), EnvSpec("test/flat", 1, SPEC.obs, Box((2,), -1, 1)))
    with pytest.raises(ConfigError, match=r"sees one picture; test/flat shows x\. Take 'dense'"):
        valued.init(valued.Config(network="impala"), jax.random.key(0), SPEC)
    with pytest.raises(ConfigError, match=r"no network 'natur'; .*nature"):
        valued.init(valued.Config(network="natur"), jax.random.key(0), SPEC)


def test_the_readme_explains_every_metric_and_setting(valued):
    text = (Path(__file__).parent / valued.NAME / "README.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    assert explained == set(valued.Metrics._fields) | {field.name for field in fields(valued.Config)}
    for field in fields(valued.Config):
        assert re.search(rf"^\| `{field.name}` \| {re.escape(str(field.default))} \|", text, flags=re.MULTILINE)
