"""Muesli on problems with known answers: a contextual bandit, a chain, and exploring for the sake of later trials."""

import numpy as np
import pytest
from tests.learning.test_probes import ANSWERS, GAMMA, learn, tried_first

from rekindle.agents.muesli import muesli

CONFIG = muesli.Config(learning_rate=5e-3, gamma=GAMMA, reward_scale=1.0, minibatches=2, num_envs=32, rollout_length=20,
                       memory="none", width=16, bins=21)  # fmt: skip
OPTIMUM = {"both": 1.0, "chain": 6.0}
"""Reward of an episode: of a contextual bandit, and of the chain, where it is 1 a step from the fifth step on."""


@pytest.mark.parametrize("name", OPTIMUM)
def test_reaches_the_optimum(name):
    seen = learn(name, muesli.make(CONFIG), updates=150)
    episodes = seen.terminated.sum()
    assert seen.reward.sum() / episodes > 0.95 * OPTIMUM[name]


def test_values_converge_to_returns():
    seen = learn("discount", muesli.make(CONFIG), updates=150)
    assert np.abs(seen.extras.value - ANSWERS["discount"](seen)).max() < 0.1


def test_explores_for_the_sake_of_later_trials():
    config = muesli.Config(learning_rate=2e-3, reward_scale=1.0, num_envs=128, rollout_length=16, memory="gru",
                           hidden=16, width=16, bins=21, entropy_weight=0.3)  # fmt: skip
    seen = learn("bandit-trials", muesli.make(config), updates=200)
    assert tried_first(seen) > 0.75
