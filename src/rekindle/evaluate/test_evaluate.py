"""Rollouts, baselines, evaluations and scores, on doors, where the right answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.core.types import ActOutput, Extras
from rekindle.envs import registry
from rekindle.envs.xland import pools
from rekindle.envs.xland.level import NOOP
from rekindle.evaluate.adaptation import AGENT, FORGETFUL, GREEDY, NO_OP, PLANNER, RANDOM, adapt_curve
from rekindle.evaluate.evaluation_set import evaluate, make_evaluation_set
from rekindle.evaluate.policies import ConstantPolicy, ForgetfulPolicy, RandomPolicy
from rekindle.evaluate.rollout import trial_rewards
from rekindle.evaluate.scores import Normaliser, ScoreRecord, summarise


@pytest.fixture(scope="module")
def doors():
    made = registry.make("xland/doors-2")
    pool = made.pool(split="test", seed=0, worlds=4, games=4)
    return made.env, pool


@pytest.fixture(scope="module")
def held_out(doors, tmp_path_factory):
    env, pool = doors
    return make_evaluation_set(env, pool, tasks=12, cache=tmp_path_factory.mktemp("planned"))


def test_the_planner_can_solve_doors_and_holds_on(held_out):
    assert held_out.left_out == 0
    assert held_out.optimum.shape == (12,)
    assert ((held_out.optimum >= 2.0) & (held_out.optimum <= 4.0)).all()


def test_noop_earns_nothing_and_random_a_little(held_out):
    nothing = evaluate(held_out, ConstantPolicy(NOOP), jax.random.key(0), trials=2, repetitions=3)
    assert (nothing.scores == 0).all()
    assert nothing.scores.shape == (12, 3, 2)
    assert nothing.env_steps == 12 * 3 * 2 * 6
    some = evaluate(held_out, RandomPolicy(7), jax.random.key(0), trials=2, repetitions=8)
    assert 0.0 < some.last.value < 0.3
    assert some.last.low <= some.last.value <= some.last.high


def test_one_program_plays_any_number_of_trials(held_out):
    """Rewards are those of a program made for just so many trials."""
    traces = []

    class Watched(RandomPolicy):
        def act(self, key, carry, obs, start, *, explore):
            traces.append(explore)
            return super().act(key, carry, obs, start, explore=explore)

    def rewards(policy, trials, **more):
        return trial_rewards(
            held_out.env, policy, held_out.tasks, jax.random.key(3), trials=trials, repetitions=2, **more
        )

    one = rewards(Watched(7), 1, most_trials=2)
    made = len(traces)
    two = rewards(Watched(7), 2, most_trials=2)
    assert one.shape == (12, 2, 1) and two.shape == (12, 2, 2)
    assert len(traces) == made > 0
    assert (one == rewards(RandomPolicy(7), 1)).all() and (two == rewards(RandomPolicy(7), 2)).all()


class Counter:
    """Counts its own steps since `start`, in the carry; acts as no-op."""

    def init_carry(self, batch_size):
        return jnp.zeros(batch_size, jnp.int32)

    def act(self, key, carry, obs, start, *, explore):
        carry = jnp.where(start, 0, carry) + 1
        return ActOutput(jnp.full(start.shape, NOOP, jnp.int32), carry, Extras(value=obs["prev_reward"]))


def test_forgetting_empties_memory_and_feedback_at_trial_borders_only():
    policy = ForgetfulPolicy(Counter(), 7)
    first = jnp.zeros((2, 11)).at[0, 9].set(1.0)
    obs = {"trial": first, "prev_reward": jnp.ones(2), "prev_action": jnp.zeros(2, jnp.int32)}
    out = policy.act(jax.random.key(0), jnp.asarray([5, 5]), obs, jnp.zeros(2, bool), explore=True)
    assert out.carry.tolist() == [1, 6]
    assert out.extras.value.tolist() == [0.0, 1.0]


def test_rows_beyond_a_batch_change_nothing(doors, monkeypatch):
    env, pool = doors
    tasks = jax.vmap(lambda i: pools.task(pool, i, 1))(jnp.arange(6))
    tasks = jax.tree.map(np.asarray, tasks)
    all_at_once = trial_rewards(env, RandomPolicy(7), tasks, jax.random.key(1), trials=1, repetitions=4)
    monkeypatch.setattr("rekindle.evaluate.rollout.MAX_ROWS", 8)
    in_turns = trial_rewards(env, RandomPolicy(7), tasks, jax.random.key(1), trials=1, repetitions=4)
    assert all_at_once.shape == in_turns.shape == (6, 4, 1)


def test_the_curve_stands_beside_every_baseline(held_out):
    result = adapt_curve(held_out, RandomPolicy(7), jax.random.key(0), trials=[1, 2], repetitions=2, kind="success")
    assert set(result.records) == {(AGENT, 1), (AGENT, 2), (GREEDY, 1), (GREEDY, 2), (FORGETFUL, 1), (FORGETFUL, 2),
                                   (RANDOM, 1), (NO_OP, 1), (PLANNER, 1)}  # fmt: skip
    by_name = {(row.policy, row.trials): row for row in result.summaries()}
    assert by_name[PLANNER, 1].mean.value == 1.0
    assert by_name[NO_OP, 1].share_above_0.value == 0.0


def record(values, kind="return", source="planner"):
    values = np.asarray(values, float)
    ones = np.ones(len(values))
    return ScoreRecord(values, kind, Normaliser(0.0 * ones, 4.0 * ones, source))


def test_scores_by_hand():
    values = [[[0.0, 4.0], [0.0, 2.0]], [[4.0, 0.0], [4.0, 1.0]]]
    assert record(values).scores().tolist() == [0.75, 0.125]
    assert record(values, "success").scores().tolist() == [1.0, 0.5]
    row = summarise("x", [record(values)])
    assert (row.trials, row.share_mastered.value, row.share_above_0.value) == (2, 0.0, 1.0)
    assert row.mean.value == pytest.approx(0.4375)


def test_different_normalisers_never_share_a_table():
    with pytest.raises(ConfigError, match="normalised alike"):
        summarise("x", [record([[[1.0]]]), record([[[1.0]]], source="random")])
