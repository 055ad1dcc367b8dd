from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.ppo import ppo
from rekindle.core.tree import flatten_arrays, own, unflatten_arrays
from rekindle.core.types import Proposal, TimeStep
from rekindle.curriculum.base import Uniform
from rekindle.envs import registry
from rekindle.train import on_policy
from rekindle.train.worlds import Solo

CONFIG = ppo.Config(num_envs=4, rollout_length=25, minibatches=2, epochs=1, hidden=8, width=8)
MADE = registry.make("probe/identity")
ENV = Solo(MADE.env)
AGENT = ppo.make(CONFIG)
TASKS = Uniform(partial(MADE.draw, min_trials=1, max_trials=3), CONFIG.num_envs)


@pytest.fixture(scope="module")
def pool():
    return jax.tree.map(jnp.asarray, MADE.pool(split="train", seed=0))


@pytest.fixture(scope="module")
def chunk():
    return on_policy.make_chunk(AGENT, ENV, TASKS, updates=5)


def begin(pool, seed: int = 0) -> on_policy.LoopState:
    return on_policy.start(AGENT, ENV, TASKS, pool, jax.random.key(seed))


def proposed(pool) -> Proposal:
    return TASKS.propose(jax.random.key(9), (), pool)


def differing(a: dict, b: dict) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if a[name].tobytes() != b[name].tobytes()]


def test_the_same_seed_is_the_same_thousand_steps_bit_for_bit(pool, chunk):
    def thousand(seed: int) -> dict:
        loop = begin(pool, seed)
        for _ in range(2):
            loop, _ = chunk(loop, pool)
        assert int(loop.updates) * CONFIG.num_envs * CONFIG.rollout_length == 1000
        return flatten_arrays(loop)

    first = thousand(0)
    assert differing(first, thousand(0)) == []
    other = differing(first, thousand(1))
    assert any(name.startswith("agent.net") for name in other) and any(name.startswith("worlds") for name in other)


def test_a_checkpoint_resumes_bit_for_bit(pool, chunk):
    loop, _ = chunk(begin(pool), pool)
    saved = flatten_arrays(loop)
    straight, _ = chunk(loop, pool)
    again = own(unflatten_arrays(begin(pool, seed=7), saved, where="the checkpoint"))
    resumed, _ = chunk(again, pool)
    assert differing(flatten_arrays(straight), flatten_arrays(resumed)) == []
    assert int(resumed.updates) == 10


def test_memory_starts_anew_at_episode_borders_only(pool):
    """And what the rollout says of starts and ends agrees with what the observations say."""
    loop, seen = jax.device_get(
        jax.jit(lambda loop: on_policy.collect(AGENT, ENV, proposed(pool), jax.random.key(1), loop))(begin(pool))
    )
    assert seen.start[0].all()
    np.testing.assert_array_equal(seen.start[1:], seen.terminated[:-1])
    np.testing.assert_array_equal(loop.start, seen.terminated[-1])
    no_action = seen.obs["prev_action"] == 4
    np.testing.assert_array_equal(no_action, seen.start)  # trial borders keep it
    borders = (seen.obs["trial"][..., 9] == 1) & ~seen.start
    assert borders.any() and seen.terminated.any() and not seen.truncated.any()


def test_trials_are_booked_under_their_index():
    zeros = jnp.zeros(on_policy.MAX_TRIALS)
    counts = on_policy.TrialCounts(jnp.zeros(2), jnp.zeros(2, jnp.int32), zeros, zeros, zeros)
    steps = [  # rewards, trial ends, episode ends of two worlds
        ([1, 0], [0, 1], [0, 0]),
        ([1, 0], [1, 1], [0, 1]),
        ([0, 4], [1, 1], [1, 0]),
        ([5, 7], [0, 0], [0, 0]),
    ]
    for reward, trial_end, ended in steps:
        flags = [jnp.array(x, bool) for x in (ended, [0, 0], trial_end)]
        step = TimeStep({}, jnp.array(reward, jnp.float32), *flags, {}, {})
        counts = on_policy.count(counts, step, flags[0], jnp.ones(2, bool))
    assert counts.ended[:3].tolist() == [3, 2, 0] and counts.reward[:3].tolist() == [6, 0, 0]
    assert counts.success[:3].tolist() == [2, 0, 0]
    assert counts.running.tolist() == [5, 7] and counts.trial.tolist() == [0, 1]


def test_draining_reads_means_and_starts_anew(pool, chunk):
    loop, _ = chunk(begin(pool), pool)
    ended, reward = np.asarray(loop.counts.ended), np.asarray(loop.counts.reward)
    emptied, values = on_policy.drain(loop)
    assert values["trial/reward_1"] == pytest.approx(reward[0] / ended[0])
    assert set(values) == {f"trial/{x}{i}" for x in ("reward", "success") for i in ("", "_1", "_2", "_3")}
    assert not np.asarray(emptied.counts.ended).any()
    np.testing.assert_array_equal(emptied.counts.running, loop.counts.running)
