"""An actor does what its policy does, in the form that the environment takes."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rekindle
from rekindle.agents.registry import config_from_json, export, load, make_agent
from rekindle.core.errors import ConfigError
from rekindle.envs import registry
from rekindle.envs.gymnasium import to_gymnasium
from rekindle.library.artefact import save_policy


def untrained(folder, name, spec, **settings):
    agent = make_agent(name, config_from_json(name, settings))
    save_policy(folder, **export(agent, agent.init(jax.random.key(3), spec), spec))
    return load(folder)


def test_choices_are_those_of_the_policy(tmp_path):
    env = gymnasium.make("CartPole-v1")
    agent = untrained(tmp_path / "p", "dqn", registry.host("gymnasium/CartPole-v1").spec, width=16)
    actor = rekindle.Actor(agent, env.action_space)
    obs, _ = env.reset(seed=0)
    for _ in range(8):
        batch = {"obs": jnp.asarray(obs, jnp.float32)[None]}
        out = agent.policy.act(jax.random.key(0), (), batch, jnp.ones(1, bool), explore=False)
        action = actor(obs)
        assert type(action) is int and action == int(out.action[0])
        obs, _, ended, cut, _ = env.step(action)
        if ended or cut:
            obs, _ = env.reset()
            actor.reset()


def test_vectors_are_scaled_to_the_bounds(tmp_path):
    env = gymnasium.make("Pendulum-v1")
    agent = untrained(tmp_path / "p", "mrq", registry.host("gymnasium/Pendulum-v1").spec, hidden=8, state_width=8,
                      pair_width=8, action_width=4)  # fmt: skip
    obs, _ = env.reset(seed=0)
    within, scaled = rekindle.Actor(agent)(obs), rekindle.Actor(agent, env.action_space)(obs)
    assert within.shape == (1,) and abs(within[0]) <= 1 and within[0] != 0
    np.testing.assert_allclose(scaled, 2 * within, rtol=1e-6)
    assert env.action_space.contains(scaled)


def test_what_it_remembers_lasts_for_an_episode_and_is_forgotten_with_it(tmp_path):
    env = to_gymnasium("probe/delay-v1")
    agent = untrained(tmp_path / "p", "ppo", registry.make("probe/delay-v1").spec)
    actor, seen = rekindle.Actor(agent, seed=4), []
    obs, _ = env.reset(seed=1)
    for _ in range(3):
        assert env.action_space.contains(actor(obs))
        seen.append(jax.device_get(actor._carry))
    leaves = [jax.tree.leaves(carry) for carry in seen]
    assert any((a != b).any() for a, b in zip(leaves[0], leaves[1], strict=True))
    actor.reset()
    actor(obs)
    for again, first in zip(jax.tree.leaves(jax.device_get(actor._carry)), leaves[0], strict=True):
        np.testing.assert_array_equal(again, first)


def test_what_does_not_fit_is_refused_with_both(tmp_path):
    agent = untrained(tmp_path / "p", "dqn", registry.host("gymnasium/CartPole-v1").spec, width=16)
    with pytest.raises(ConfigError, match=r"agent.s actions are Discrete\(n=2.*this environment.s Discrete\(n=3"):
        rekindle.Actor(agent, gymnasium.spaces.Discrete(3))
    actor = rekindle.Actor(agent)
    with pytest.raises(ConfigError, match=r"shows obs of the shape \(4,\); got \(1, 4\)"):
        actor(np.zeros((1, 4), np.float32))
    with pytest.raises(ConfigError, match="shows obs; got picture"):
        actor({"picture": np.zeros(4)})
