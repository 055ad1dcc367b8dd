import json
import re
from dataclasses import fields
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from rekindle.agents import registry as agents
from rekindle.agents.ppo import ppo
from rekindle.agents.ppo.ppo import Config
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec, Extras, Rollout
from rekindle.envs import registry as envs

SMALL = Config(num_envs=4, minibatches=2, rollout_length=6, hidden=8, width=8, epochs=1)
SPEC = EnvSpec("test/flat", 1, {"x": Box((3,), -10, 10)}, Discrete(3))


def rollout(reward, *, terminated=None, truncated=None, value=None, final_value=None, last=0.0) -> Rollout:
    """One row of so many steps, without what `targets` does not read."""
    x = np.zeros((5, len(reward)), np.float32)
    for i, given in enumerate((reward, terminated, truncated, value, final_value)):
        x[i] = 0 if given is None else given
    reward, terminated, truncated, value, final_value = jnp.asarray(x)[..., None]
    return Rollout({}, (), reward, (), terminated > 0, truncated > 0, (), final_value, Extras(value=value), (),
                   jnp.full(1, last, jnp.float32), (), (), ())  # fmt: skip


def advantages(config: Config, batch: Rollout) -> list[float]:
    return ppo.targets(config, batch).advantage[:, 0].tolist()


def test_targets_run_through_trial_borders_and_stop_at_the_end_of_an_episode():
    """Two episodes of two trials of two steps: the second trial pays the first, never the other episode."""
    config = Config(gamma=0.5, lambda_=1.0, reward_scale=0.1)
    batch = rollout([0, 0, 0, 80, 0, 0, 0, 160], terminated=[0, 0, 0, 1, 0, 0, 0, 1], last=1000)
    assert advantages(config, batch) == pytest.approx([1, 2, 4, 8, 2, 4, 8, 16])


def test_targets_bootstrap_where_a_time_limit_or_the_rollout_cut_the_episode():
    config = Config(gamma=0.5, lambda_=1.0, reward_scale=1.0)
    batch = rollout([0, 1, 0, 0], truncated=[0, 1, 0, 0], final_value=[9, 6, 9, 9], last=8)
    assert advantages(config, batch) == pytest.approx([0.5 * 4, 1 + 3, 0.25 * 8, 0.5 * 8])


def test_targets_subtract_the_value_and_give_it_back():
    batch = rollout([1, 1], value=[3, 5], last=4.0)
    target = ppo.targets(Config(gamma=0.5, lambda_=0.5, reward_scale=2.0), batch)
    assert target.advantage[:, 0].tolist() == pytest.approx([2 + 2.5 - 3 + 0.25 * (2 + 2 - 5), 2 + 2 - 5])
    np.testing.assert_allclose(target.value - target.advantage, batch.extras.value)


def experience(config: Config, spec: EnvSpec = SPEC, seed: int = 0) -> tuple:
    """A fresh state and a rollout of it on random numbers."""
    key, x_key, act_key, reward_key = jax.random.split(jax.random.key(seed), 4)
    steps, rows = config.rollout_length, config.num_envs
    state = ppo.init(config, key, spec)
    x = jax.random.normal(x_key, (steps + 1, rows, 3))
    start = jnp.zeros((steps + 1, rows), bool).at[2, 1].set(True)
    carry = state.net.init_carry(rows)
    last, logits, value = state.net(carry, {"x": x[:-1]}, start[:-1])
    last_value = state.net(last, {"x": x[-1:]}, start[-1:])[2][0]
    action = jax.random.categorical(act_key, logits)
    extras = Extras(value=value, log_prob=ppo.categorical.log_prob(logits, action))
    reward = jax.random.normal(reward_key, (steps, rows))
    no = jnp.zeros((steps, rows), bool)
    numbers = jnp.full((steps, rows), -1, jnp.int32)
    batch = Rollout({"x": x[:-1]}, action, reward, start[:-1], no, no, no, reward, extras, carry, last_value, numbers,
                    ~no, numbers)  # fmt: skip
    return state, batch


def test_tyro_parses_the_config():
    parsed = tyro.cli(Config, args=["--learning-rate", "3e-4", "--memory", "gru", "--num-envs", "8"])
    assert parsed == Config(learning_rate=3e-4, memory="gru", num_envs=8)


def test_a_config_is_json_and_back():
    config = Config(gamma=0.9, memory="none", width=7)
    assert agents.config_from_json("ppo", json.loads(json.dumps(agents.config_to_json(config)))) == config
    with pytest.raises(ConfigError, match=r"'gama'.*'gamma'"):
        agents.config_from_json("ppo", {"gama": 0.9})


def test_impossible_configs_are_refused_at_once():
    with pytest.raises(ConfigError, match="multiple of minibatches=4; got 6; epochs must be at least 1; got 0"):
        Config(num_envs=6, epochs=0)
    for wrong in (dict(minibatches=0), dict(learning_rate=-1.0), dict(learning_rate=float("inf")), dict(gamma=1.5)):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must"):
            Config(**wrong)
    with pytest.raises(ConfigError, match="discrete actions; test/flat has Box"):
        ppo.init(SMALL, jax.random.key(0), EnvSpec("test/flat", 1, SPEC.obs, Box((2,), -1, 1)))


def test_a_sweep_over_learning_rates_is_one_program():
    """Configs stacked leaf by leaf: each learns as it would alone."""
    rates = (1e-4, 1e-3, 1e-2)
    configs = [eqx.tree_at(lambda c: c.learning_rate, SMALL, rate) for rate in rates]
    sweep = jax.tree.map(lambda *leaves: jnp.array(leaves), *configs)
    state, batch = experience(SMALL)
    learn = jax.jit(jax.vmap(lambda config: ppo.update(config, jax.random.key(1), state, batch).state.net.value.weight))
    swept = learn(sweep)
    moved = [float(jnp.abs(w - state.net.value.weight).max()) for w in swept]
    assert moved[0] < moved[1] / 5 < moved[2] / 25
    np.testing.assert_allclose(swept[1], learn(jax.tree.map(lambda x: x[1:2], sweep))[0], atol=1e-6)


@pytest.mark.parametrize("spec", ["xland/f0", None], ids=["xland", "flat"])
def test_acting_step_by_step_is_the_windowed_unroll(spec):
    """With starts inside the window, and no row looks at another."""
    spec = SPEC if spec is None else envs.make(spec).spec
    steps, rows = 6, 3
    keys = iter(jax.random.split(jax.random.key(0), 16))
    obs = {name: sample(next(keys), space, (steps, rows)) for name, space in sorted(spec.obs.items())}
    start = jnp.zeros((steps, rows), bool).at[0].set(True).at[3, 1].set(True)
    net = ppo.init(SMALL, next(keys), spec).net
    net = eqx.tree_at(lambda n: n.policy.weight, net, 100 * net.policy.weight)  # logits worth comparing
    unroll = eqx.filter_jit(net)
    last, logits, value = unroll(net.init_carry(rows), obs, start)
    carry = net.init_carry(rows)
    act = jax.jit(lambda carry, obs, start: ppo.act(jax.random.key(0), net, carry, obs, start, explore=False))
    for t in range(steps):
        out = act(carry, {n: x[t] for n, x in obs.items()}, start[t])
        carry = out.carry
        np.testing.assert_allclose(out.extras.logits, logits[t], atol=1e-5)
        np.testing.assert_allclose(out.extras.value, value[t], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), carry, last)
    changed = {n: x.at[:, 0].set(x[:, 2]) for n, x in obs.items()}
    _, logits_2, _ = unroll(net.init_carry(rows), changed, start)
    np.testing.assert_array_equal(logits_2[:, 1:], logits[:, 1:])
    assert (logits_2[:, 0] != logits[:, 0]).any()


def sample(key, space, axes):
    """Small random values of a space."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, axes, 0, space.n).astype(space.dtype)
    high = min(space.high, 4)
    x = jax.random.uniform(key, (*axes, *space.shape), maxval=high)
    return jnp.round(x).astype(space.dtype) if "int" in space.dtype else x


def test_rows_of_a_rollout_stay_together():
    _, batch = experience(SMALL)
    some = batch.rows(jnp.array([2, 0], jnp.int32))
    for rows, major in ((batch.obs["x"][:, 2], some.obs["x"][:, 0]), (batch.reward[:, 0], some.reward[:, 1])):
        np.testing.assert_array_equal(rows, major)
    np.testing.assert_array_equal(some.carry.core, batch.carry.core[jnp.array([2, 0])])
    np.testing.assert_array_equal(some.last_value, batch.last_value[jnp.array([2, 0])])


def test_steps_that_are_not_learnt_from_change_nothing():
    """An update with half of the rows masked is one in which those rows held anything else."""
    state, batch = experience(SMALL)
    mask = jnp.ones(batch.learn.shape, bool).at[:, :2].set(False)
    other = batch._replace(reward=batch.reward.at[:, :2].add(5.0), learn=mask)
    learn = jax.jit(lambda batch: ppo.update(SMALL, jax.random.key(1), state, batch).state.net)
    jax.tree.map(np.testing.assert_array_equal, learn(batch._replace(learn=mask)), learn(other))
    assert (learn(other).value.weight != learn(batch).value.weight).any()


def test_metrics_of_an_unchanged_policy():
    state, batch = experience(SMALL)
    target = ppo.targets(SMALL, batch._replace(last_value=jnp.zeros(4)))
    _, metrics = ppo.loss(SMALL, state.net, batch, target)
    assert float(metrics.approx_kl) == pytest.approx(0, abs=1e-6) == float(metrics.clip_fraction)
    assert float(metrics.policy_loss) == pytest.approx(0, abs=1e-5)
    assert float(metrics.entropy) == pytest.approx(np.log(3), abs=1e-2)
    assert float(metrics.value_loss) == pytest.approx(float(0.5 * jnp.mean(target.advantage**2)), rel=1e-4)


README = Path(__file__).parent / "README.md"


def test_the_readme_explains_every_metric_and_setting():
    text = README.read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    assert explained == set(ppo.Metrics._fields) | {field.name for field in fields(Config)}
    for field in fields(Config):
        assert re.search(rf"^\| `{field.name}` \| {re.escape(str(field.default))} \|", text, flags=re.MULTILINE)
