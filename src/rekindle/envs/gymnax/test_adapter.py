"""Whatever gymnax has is ours: its ends apart from its limits, its actions within [-1, 1], its planes as bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec, TimeStep
from rekindle.envs import registry
from rekindle.envs.conformance import check_env
from rekindle.envs.wrappers import Sticky


@pytest.mark.parametrize("id", ["CartPole-v1", "MountainCarContinuous-v0", "Catch-bsuite", "FrozenLake-misc"])
def test_worlds_of_gymnax_conform(id):
    made = registry.make(f"gymnax/{id}")
    check_env(made, made.pool(), rows=4, max_steps=60)


def test_spaces_are_said_in_our_words():
    breakout = registry.make("minatar/breakout").spec
    assert breakout == EnvSpec("minatar/breakout-v1", 1, {"obs": Box((10, 10, 4), 0, 1, "uint8")}, Discrete(3))
    car = registry.make("gymnax/MountainCarContinuous-v0").spec
    assert car.action == Box((), -1.0, 1.0) or car.action == Box((1,), -1.0, 1.0)
    assert car.version == 0


def test_a_pole_that_falls_terminates_and_a_limit_truncates():
    """Always to the left: it falls before ten steps are over; with a limit of five it is cut off there."""
    made = registry.make("gymnax/CartPole-v1")
    task = jax.tree.map(jnp.asarray, made.pool())
    state, _ = made.env.reset(jax.random.key(0), task)
    for limit, terminated, truncated, steps in ((500, True, False, range(7, 12)), (5, False, True, range(5, 6))):
        now, taken, at = None, 0, state
        while now is None or not (now.terminated | now.truncated):
            short = task._replace(trial_length=jnp.int16(limit))
            at, now = made.env.step(jax.random.key(taken), at, jnp.int32(0), short)
            taken += 1
        assert (bool(now.terminated), bool(now.truncated)) == (terminated, truncated) and taken in steps


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("gymnax/CartPol-v1", {}, "gymnax has no world 'CartPol-v1'; .*CartPole-v1"),
        (
            "minatar/breakout",
            {"sticky": 1.5},
            "breakout-v1 takes a number from 0 to below 1; got 1.5",
        ),
        ("minatar/brekout", {}, "no environment 'minatar/brekout'; .*breakout"),
    ],
)
def test_what_there_is_not_is_refused(id, options, message):
    with pytest.raises(ConfigError, match=message):
        registry.make(id, **options)


class Echo:
    """Rewards are the actions that reach it."""

    spec = EnvSpec("test/echo", 1, {"x": Box((1,), 0, 1)}, Discrete(9))

    def reset(self, key, params):
        return (), self._show(jnp.float32(0))

    def step(self, key, state, action, params):
        return (), self._show(action.astype(jnp.float32))

    def _show(self, reward):
        no, obs = jnp.zeros((), bool), {"x": jnp.zeros(1)}
        return TimeStep(obs, reward, no, no, no, obs, {})


def test_actions_stick_with_their_probability():
    env = Sticky(Echo(), 0.25)
    asked = jnp.arange(1, 8001) % 8 + 1

    def step(state, now):
        state, ts = env.step(now[1], state, now[0], None)
        return state, ts.reward

    keys = jax.random.split(jax.random.key(0), len(asked))
    played = np.asarray(jax.lax.scan(step, env.reset(jax.random.key(1), None)[0], (asked, keys))[1])
    stuck = played != np.asarray(asked)
    assert abs(stuck.mean() - 0.25) < 0.02
    np.testing.assert_array_equal(played[1:][stuck[1:]], played[:-1][stuck[1:]])  # what was played, not what was asked
