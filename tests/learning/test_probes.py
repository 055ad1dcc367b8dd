"""Does it learn what it must? Problems with known answers, fixed seeds, seconds each."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.ppo import ppo
from rekindle.core.types import Agent, Rollout
from rekindle.curriculum.base import Uniform
from rekindle.envs import registry
from rekindle.train import on_policy
from rekindle.train.worlds import Solo

GAMMA = 0.9
MEMORYLESS = ppo.Config(learning_rate=5e-3, gamma=GAMMA, reward_scale=1.0, entropy_weight=0.01, minibatches=2,
                        num_envs=32, rollout_length=12, memory="none", width=16)  # fmt: skip


def learn(name: str, agent: Agent, *, updates: int, seed: int = 0) -> Rollout:
    """What the agent does and thinks after so many updates on full-length episodes of a probe."""
    made = registry.make(f"probe/{name}")
    pool = jax.tree.map(jnp.asarray, made.pool(split="train", seed=0))
    tasks = Uniform(partial(made.draw, min_trials=made.trials, max_trials=made.trials), agent.needs.batch)
    loop = on_policy.start(agent, Solo(made.env), tasks, pool, jax.random.key(seed))
    loop, _ = on_policy.make_chunk(agent, Solo(made.env), tasks, updates=updates)(loop, pool)
    proposal = tasks.propose(jax.random.key(2), (), pool)
    _, seen = jax.jit(partial(on_policy.collect, agent, Solo(made.env)))(proposal, jax.random.key(1), loop)
    return jax.device_get(seen)


def steps_left(seen: Rollout) -> np.ndarray:
    """Steps left in the trial, from the `trial` input."""
    return np.round(seen.obs["trial"][..., 6] * 64)


ANSWERS = {
    "constant": lambda seen: np.ones_like(seen.reward),
    "observation": lambda seen: 2.0 * seen.obs["cue"] - 1,
    "discount": lambda seen: GAMMA ** (steps_left(seen) - 1),
    "action": lambda seen: np.ones_like(seen.reward),
    "both": lambda seen: np.ones_like(seen.reward),
    "identity": lambda seen: (1 - GAMMA ** steps_left(seen)) / (1 - GAMMA),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_values_of_probes_are_within_a_tenth_of_the_known_answer(name):
    seen = learn(name, ppo.make(MEMORYLESS), updates=150)
    right = ANSWERS[name](seen)
    assert np.abs(seen.extras.value - right).max() < 0.1 * max(1, right.max())
    if name in ("action", "both", "identity"):
        assert seen.reward.mean() > 0.95


EXPLORER = ppo.Config(reward_scale=1.0, entropy_weight=0.2, num_envs=128, rollout_length=16, memory="gru", hidden=16,
                      width=16)  # fmt: skip
"""With less entropy the safe arm is settled on before it is learnt what a try is good for."""


def tried_first(seen: Rollout) -> float:
    """How often the unknown arm is pulled in the first of the four trials."""
    first = seen.obs["trial"][..., 3] == 1
    return float(seen.action[first].mean())


def test_returns_through_trial_borders_make_it_explore():
    seen = learn("bandit-trials", ppo.make(EXPLORER), updates=150)
    assert tried_first(seen) > 0.75  # the optimum is 1, less what the entropy bonus costs: about 0.86
    later = seen.obs["trial"][..., 3] == 0
    lucky, pulled = seen.obs["prev_reward"] == 1, seen.action == 1
    assert pulled[later & lucky].mean() > 0.9  # what paid is kept
    assert pulled[later & (seen.obs["prev_reward"] == 0)].mean() < 0.15  # what did not is left


def test_returns_cut_at_trial_borders_do_not():
    """The control: the same agent, but every trial (here: every step) is the end of the world to its returns."""
    agent = ppo.make(EXPLORER)

    def cut(key, state, batch):
        return agent.update(key, state, batch._replace(terminated=jnp.ones_like(batch.terminated)))

    seen = learn("bandit-trials", agent._replace(update=cut), updates=150)
    assert tried_first(seen) < 0.1
