"""The smoke test of meta-learning: four doors, a fixed heading, about a million steps, under a minute when idle."""

from functools import partial

import jax
import jax.numpy as jnp

from rekindle.agents.ppo import ppo
from rekindle.curriculum.base import Uniform
from rekindle.envs import registry
from rekindle.train import on_policy
from rekindle.train.worlds import Solo

CHUNK, MOST = 10, 200
"""Updates between two looks, and at most (of 6,144 steps each)."""


def test_four_doors_are_tried_in_turn():
    """The best possible success in trial k is k / 4, and only memory reaches it."""
    made = registry.make("xland/doors-4", random_heading=0.0)
    agent = ppo.make(ppo.Config(num_envs=256, rollout_length=24))
    pool = jax.tree.map(jnp.asarray, made.pool(split="train", seed=0))
    tasks = Uniform(partial(made.draw, min_trials=4, max_trials=4), agent.needs.batch)
    loop = on_policy.start(agent, Solo(made.env), tasks, pool, jax.random.key(0))
    chunk = on_policy.make_chunk(agent, Solo(made.env), tasks, updates=CHUNK)
    for _ in range(MOST // CHUNK):
        loop, _ = chunk(loop, pool)
        loop, values = on_policy.drain(loop)
        if values["trial/success_4"] > 0.95:
            break
    loop, _ = chunk(loop, pool)
    _, values = on_policy.drain(loop)
    assert values["trial/success_4"] > 0.9
    assert abs(values["trial/success_1"] - 0.25) < 0.1
    assert values["trial/success_2"] - values["trial/success_1"] > 0.1
