import json
import re
from dataclasses import fields
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents import registry as agents
from rekindle.agents.muesli import muesli
from rekindle.agents.muesli.muesli import Config, improve, improve_sampled, look_ahead
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.tree import flatten_arrays
from rekindle.core.types import EnvSpec, Extras, Rollout

SMALL = Config(num_envs=4, minibatches=2, rollout_length=6, hidden=8, width=8, unroll=2, bins=11)
SPEC = EnvSpec("test/flat", 1, {"x": Box((3,), -10, 10)}, Discrete(3))


def distributions(key, n, actions=4):
    return jax.nn.softmax(3 * jax.random.normal(key, (n, actions)))


@pytest.mark.parametrize("clip", [0.5, 1.0, 2.0])
def test_the_improved_policy_stays_within_its_bound_of_the_prior(clip):
    """The bound is attained: where the advantages are +-c and the favoured action had a share of 1 / (1 + e^c)."""
    keys = jax.random.split(jax.random.key(0), 2)
    prior = distributions(keys[0], 20_000)
    improved = improve(prior, 5 * jax.random.normal(keys[1], prior.shape), clip)
    distance = 0.5 * jnp.abs(improved - prior).sum(-1)
    bound = np.tanh(clip / 2)
    assert distance.max() <= bound + 1e-6
    worst = jax.nn.softmax(jnp.array([0.0, clip]))
    moved = improve(worst, jnp.array([9.0, -9.0]), clip)
    assert 0.5 * float(jnp.abs(moved - worst).sum()) == pytest.approx(bound, abs=1e-6)
    assert improve(prior, jnp.zeros_like(prior), 1.0) == pytest.approx(np.asarray(prior), abs=1e-6)
    assert 0.5 * jnp.abs(improve(prior, jnp.ones_like(prior).at[:, 0].set(-9), 1e-4) - prior).sum(-1).max() < 1e-4


def test_sixteen_sampled_actions_estimate_the_improved_policy():
    """The mean weighted log-likelihood over many draws is near -H(improved, pi); exact in the limit of many samples."""
    keys, prior = jax.random.split(jax.random.key(1), 3), jnp.array([0.5, 0.3, 0.15, 0.05])
    advantage, log_pi = jnp.array([-0.4, 0.8, 0.1, 2.0]), jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    exact = float(improve(prior, advantage, 1.0) @ log_pi)

    def estimate(key, samples):
        action, weight = improve_sampled(key, prior, advantage, 1.0, samples)
        return jnp.mean(weight * log_pi[action])

    many = float(estimate(keys[0], 200_000))
    assert many == pytest.approx(exact, abs=0.01)
    draws = jax.vmap(partial(estimate, samples=16))(jax.random.split(keys[1], 20_000))
    assert float(draws.mean()) == pytest.approx(exact, rel=0.05)  # the initial 1 of the normaliser biases it a little
    # a weight uses the others' samples only, so that it is independent of its own action's luck
    action, weight = improve_sampled(keys[2], prior, advantage, 1.0, 16)
    gain = np.exp(np.clip(advantage, -1, 1))[action]
    np.testing.assert_allclose(weight[3], gain[3] * 16 / (1 + np.delete(gain, 3).sum()), rtol=1e-5)


def experience(config=SMALL, seed=0, **changes):
    """A fresh state and a rollout of its target network on random numbers."""
    keys = jax.random.split(jax.random.key(seed), 5)
    steps, rows = config.rollout_length, config.num_envs
    state = muesli.init(config, keys[0], SPEC)
    x = jax.random.normal(keys[1], (steps, rows, 3))
    start = jnp.zeros((steps, rows), bool).at[0].set(True).at[3, 1].set(True)
    carry = state.target.init_carry(rows)
    _, _, logits, _ = state.target(carry, {"x": x}, start)
    action = jax.random.categorical(keys[2], logits).astype(jnp.int32)
    extras = Extras(logits=logits, value=jnp.zeros((steps, rows)), log_prob=muesli.categorical.log_prob(logits, action))
    no, none = jnp.zeros((steps, rows), bool), jnp.full((steps, rows), -1, jnp.int32)
    reward = jax.random.normal(keys[3], (steps, rows))
    ended = no.at[2, 1].set(True)
    batch = Rollout({"x": x}, action, reward, start, ended, no, ended, reward, extras, carry, jnp.ones(rows), none, ~no,
                    none)  # fmt: skip
    return state, batch._replace(**changes)


def test_the_model_looks_ahead_to_what_the_rollout_holds():
    """Row 1 terminates with step 2, row 2 is cut by a time limit there, row 3 is not learnt from."""
    _, batch = experience()
    cut = jnp.zeros_like(batch.truncated).at[2, 2].set(True)
    learn = jnp.ones_like(batch.learn).at[:, 3].set(False)
    first, second = look_ahead(batch._replace(truncated=cut, learn=learn), 2)
    f, t = False, True
    assert first.has_reward.T.tolist() == [[t] * 6, [t] * 6, [t] * 6, [f] * 6]
    assert first.over.T.tolist() == [[f] * 6, [f, f, t, f, f, f], [f] * 6, [f] * 6]
    assert first.has_value.T.tolist() == [[t] * 6, [t] * 6, [t, t, f, t, t, t], [f] * 6]
    assert first.has_policy.T.tolist() == [[t] * 5 + [f], [t, t, f, t, t, f], [t, t, f, t, t, f], [f] * 6]
    assert second.has_reward.T.tolist() == [[t] * 5 + [f], [t] * 5 + [f], [t, t, f, t, t, f], [f] * 6]
    assert second.over.T.tolist()[1] == [f, t, t, f, f, f]
    assert second.has_value.T.tolist()[:3] == [[t] * 5 + [f], [t] * 5 + [f], [t, f, f, t, t, f]]
    np.testing.assert_array_equal(second.action[:5], batch.action[1:])
    np.testing.assert_array_equal(second.reward[:5, 0], batch.reward[1:, 0])
    assert float(second.reward[2, 1]) == 0.0  # after the end
    assert first.later.tolist() == [1, 2, 3, 4, 5, 6] and second.later.tolist() == [2, 3, 4, 5, 6, 6]


def test_targets_are_retrace_returns_of_what_another_policy_did():
    """Against the sum of section 3.4 (3), term by term: a terminated row, a time limit, and a mere border of trials."""
    config = SMALL
    state, batch = experience(config)
    truncated, final = jnp.zeros_like(batch.truncated).at[2, 2].set(True), jnp.full_like(batch.final_value, 0.7)
    acted = batch.extras.logits + 2 * jax.random.normal(jax.random.key(9), batch.extras.logits.shape)
    batch = batch._replace(truncated=truncated, final_value=final, trial_end=batch.trial_end.at[1, 0].set(True),
                           extras=batch.extras._replace(logits=acted))  # fmt: skip
    found = muesli.targets(config, state, batch)

    _, root, logits, values = state.target(batch.carry, batch.obs, batch.start)
    after = state.target.imagine_all(root).hidden
    decode = partial(muesli.twohot.decode, bound=config.bound)
    q = np.asarray(decode(state.target.reward(after)) + config.gamma * decode(state.target.value(after)))
    v, mu, pi = np.asarray(decode(values)), np.asarray(jax.nn.softmax(acted)), np.asarray(jax.nn.softmax(logits))
    share = (config.behaviour_share, config.uniform_share)
    prior = (1 - sum(share)) * pi + share[0] * mu + share[1] / 3
    expected, action = (prior * q).sum(-1), np.asarray(batch.action)
    steps, rows = action.shape

    def at(table, t, row):
        return table[t, row, action[t, row]]

    returns = np.zeros((steps, rows))
    for row in range(rows):
        for t in range(steps):
            total, trace = at(q, t, row), 1.0
            for j in range(t, steps):
                if j > t:
                    trace *= config.lambda_ * min(1.0, at(prior, j, row) / at(mu, j, row))
                following = float(batch.last_value[row]) if j == steps - 1 else expected[j + 1, row]
                following = 0.7 if bool(truncated[j, row]) else following
                following = 0.0 if bool(batch.terminated[j, row]) else following
                error = config.reward_scale * float(batch.reward[j, row]) + config.gamma * following - at(q, j, row)
                total += config.gamma ** (j - t) * trace * error
                if batch.terminated[j, row] or truncated[j, row]:
                    break
            returns[t, row] = total
    np.testing.assert_allclose(found.returns[:-1], returns, rtol=2e-4, atol=2e-5)
    scale = np.sqrt(((returns - v) ** 2).mean())
    assert float(found.scale) == pytest.approx(scale, rel=1e-4)
    np.testing.assert_allclose(found.advantage, (returns - v) / scale, rtol=1e-3, atol=1e-4)
    weight = prior * np.exp(np.clip((q - v[..., None]) / scale, -config.clip, config.clip))
    np.testing.assert_allclose(found.improved, weight / weight.sum(-1, keepdims=True), rtol=1e-3, atol=1e-5)


def test_values_are_regressed_on_returns_and_the_target_follows_every_step():
    """Pitfalls of other implementations: a target that never moves; a value that chases its own copy."""
    config = Config(num_envs=4, minibatches=2, rollout_length=6, hidden=8, width=16, unroll=2, learning_rate=3e-3,
                    gamma=0.0, reward_scale=1.0)  # fmt: skip
    state, batch = experience(config)
    batch = batch._replace(reward=jnp.full_like(batch.reward, 2.0))
    learn = jax.jit(lambda state, key: muesli.update(config, key, state, batch).state)
    first = state
    for i in range(150):
        before, state = state, learn(state, jax.random.key(i))
        if i < 3:
            a, b, net = (flatten_arrays(x)["policy.out.weight"] for x in (before.target, state.target, state.net))
            assert (a != b).any() and np.abs(b - net).max() > 0
    value = muesli.twohot.decode(state.net(batch.carry, batch.obs, batch.start)[3], config.bound)
    assert np.abs(value - 2.0).max() < 0.1  # G = r at gamma 0; the first values were near 0
    assert np.abs(muesli.twohot.decode(first.net(batch.carry, batch.obs, batch.start)[3], config.bound)).max() < 0.5


def test_the_step_size_falls_to_nothing():
    config = Config(learning_rate=0.5, decay_updates=10, epochs=2, minibatches=4)
    assert [float(muesli.step_size(config, jnp.int32(n))) for n in (0, 40, 80, 99)] == [0.5, 0.25, 0.0, 0.0]
    assert float(muesli.step_size(Config(), jnp.int32(10**6))) == pytest.approx(1e-3)


def test_all_actions_at_once_are_each_alone():
    state, batch = experience()
    _, root, _, _ = state.net(batch.carry, batch.obs, batch.start)
    every = state.net.imagine_all(root)
    for action in range(3):
        one = state.net.imagine(root, jnp.full(batch.action.shape, action, jnp.int32))
        np.testing.assert_allclose(every.hidden[..., action, :], one.hidden, atol=1e-6)


def test_steps_that_are_not_learnt_from_change_nothing():
    state, batch = experience()
    mask = jnp.ones_like(batch.learn).at[:, :2].set(False)
    other = batch._replace(reward=batch.reward.at[:, :2].add(5.0), learn=mask)
    learn = jax.jit(lambda batch: muesli.update(SMALL, jax.random.key(1), state, batch).state.net)
    jax.tree.map(np.testing.assert_array_equal, learn(batch._replace(learn=mask)), learn(other))


def test_a_config_is_json_and_back_and_nonsense_is_refused():
    config = Config(gamma=0.9, memory="transformer-xl", width=7)
    assert agents.config_from_json("muesli", json.loads(json.dumps(agents.config_to_json(config)))) == config
    with pytest.raises(ConfigError, match=r"bins must be odd.*got 4"):
        Config(bins=4)
    with pytest.raises(ConfigError, match="must not add up"):
        Config(behaviour_share=0.7, uniform_share=0.5)
    with pytest.raises(ConfigError, match="discrete actions; test/flat has Box"):
        muesli.init(SMALL, jax.random.key(0), EnvSpec("test/flat", 1, SPEC.obs, Box((2,), -1, 1)))


README = Path(__file__).parent / "README.md"


def test_the_readme_explains_every_metric_and_setting():
    text = README.read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    assert explained == set(muesli.Metrics._fields) | {field.name for field in fields(Config)}
    for field in fields(Config):
        assert re.search(rf"^\| `{field.name}` \| {re.escape(str(field.default))} \|", text, flags=re.MULTILINE)
