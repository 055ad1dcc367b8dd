"""The loop around the chunk: it resumes exactly, stops cleanly, and says how far it is."""

import os
import signal
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.ppo import ppo
from rekindle.core.budget import Budget
from rekindle.core.errors import DivergedError, WorldError
from rekindle.core.tree import flatten_arrays
from rekindle.curriculum.base import Uniform
from rekindle.envs import registry
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.train import loop
from rekindle.train.loop import Clock, Plan, spent, train
from rekindle.train.on_policy import OnPolicy
from rekindle.train.worlds import Solo

STEPS = 8 * 12 * 6
AGENT = ppo.make(ppo.Config(num_envs=8, rollout_length=12, minibatches=2, hidden=8, width=8))


@pytest.fixture(scope="module")
def world():
    made = registry.make("probe/bandit-trials")
    tasks = Uniform(partial(made.draw, min_trials=1, max_trials=4), AGENT.needs.batch)
    pool = jax.tree.map(jnp.asarray, made.pool(split="train", seed=0))
    return Solo(made.env), tasks, lambda share: pool


def a_run(folder) -> Run:
    return Run.create(Library.open(folder), "train", name="test", config={}, seed=0)


def weights(trained):
    return flatten_arrays(trained.state)


def go(world, run, *, steps=STEPS, first=False, **options):
    env, tasks, source = world
    plan = Plan(Budget(env_steps=steps), chunk_updates=2, checkpoint_seconds=0.0, evaluate_first=first)
    return train(OnPolicy(AGENT, env, tasks, source), jax.random.key(3), plan, run=run, **options)


def test_an_interrupted_run_resumes_exactly(world, tmp_path):
    whole = go(world, a_run(tmp_path / "a"))
    run = a_run(tmp_path / "b")
    first = go(world, run, stop=lambda values: True)
    assert first.status == "stopped"
    assert first.env_steps < STEPS
    rest = go(world, Run.open(Library.open(tmp_path / "b"), run.id))
    assert (rest.env_steps, rest.status) == (whole.env_steps, "done")
    for name, leaf in weights(whole).items():
        np.testing.assert_array_equal(leaf, weights(rest)[name], err_msg=name)


def test_ctrl_c_finishes_the_chunk_and_saves_it(world, tmp_path):
    run, before = a_run(tmp_path), signal.getsignal(signal.SIGINT)
    trained = go(world, run, show=lambda now: os.kill(os.getpid(), signal.SIGINT))
    assert trained.status == "interrupted"
    step, _, meta = run.latest_checkpoint()
    assert step == trained.env_steps == meta["env_steps"] == 2 * 8 * 12
    assert signal.getsignal(signal.SIGINT) is before


def test_a_checkpoint_of_another_training_in_the_same_run_is_left_alone(world, tmp_path):
    run = a_run(tmp_path)
    go(world, run, tag="first", stop=lambda values: True)
    assert go(world, run, tag="second").env_steps == STEPS


def test_evaluations_come_at_their_share_and_at_the_end(world, tmp_path):
    seen = []

    def evaluate(policy, env_steps, key):
        seen.append(env_steps)
        return {"validation/score": 0.5}

    run = a_run(tmp_path)
    go(world, run, evaluate=evaluate)
    assert seen[-1] == STEPS
    assert [row["validation/score"] for row in run.metrics() if "validation/score" in row] == [0.5] * len(seen)


def test_an_evaluation_before_all_changes_none_of_the_others(world, tmp_path):
    def evaluate(policy, env_steps, key):
        return {"validation/score": float(jax.random.uniform(key)) + env_steps}

    runs = [a_run(tmp_path / name) for name in "ab"]
    go(world, runs[0], evaluate=evaluate)
    go(world, runs[1], evaluate=evaluate, first=True, stop=lambda values: True)
    go(world, Run.open(Library.open(tmp_path / "b"), runs[1].id), evaluate=evaluate, first=True)
    name = "validation/score"
    without, found = ([(row["env_steps"], row[name]) for row in run.metrics() if name in row] for run in runs)
    assert found[1:] == without and found[0][0] == 0 and 0 < found[0][1] < 1


def test_an_evaluation_before_all_takes_nothing_of_a_budget_in_seconds(world):
    env, tasks, source = world
    plan = Plan(Budget(seconds=0.4), chunk_updates=1, evaluate_first=True)

    def evaluate(policy, env_steps, key):
        time.sleep(0.0 if env_steps else 0.5)
        return {}

    trained = train(OnPolicy(AGENT, env, tasks, source), jax.random.key(3), plan, evaluate=evaluate)
    assert trained.env_steps > 0


def test_progress_says_how_far_it_is(world):
    shown = []
    go(world, None, show=shown.append)
    assert [round(now.share, 3) for now in shown] == [0.333, 0.667, 1.0]
    assert shown[-1].eta_s == 0.0
    assert shown[0].metrics["trial/reward"] >= 0.0


def test_what_is_left_is_reckoned_by_the_pace_of_the_last_chunks(monkeypatch):
    """Half of the steps took a second, as nothing was learnt by then; each hundredth since takes one, too."""
    now = iter(range(31))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    clock = Clock()
    left = [clock.eta(share) for share in [0.5, *(0.5 + number / 100 for number in range(1, 30))]]
    assert left[0] == pytest.approx(1.0) and left[-1] == pytest.approx(21.0)


@pytest.mark.parametrize(
    ("budget", "steps", "seconds", "learnt", "share"),
    [
        (Budget(env_steps=100), 50, 9e9, 0, 0.5),
        (Budget(seconds=10.0), 10**9, 5.0, 0, 0.5),
        (Budget(seconds=10.0, env_steps=100), 90, 1.0, 0, 0.9),
        (Budget(env_steps=100), 150, 0.0, 0, 1.0),
        (Budget(learnt_steps=100), 10**9, 9e9, 25, 0.25),
    ],
)
def test_what_is_spent(budget, steps, seconds, learnt, share):
    assert spent(budget, steps, seconds, learnt) == pytest.approx(share)


def test_a_diverged_value_is_an_error_not_a_checkpoint(world, tmp_path):
    env, tasks, source = world
    bad = ppo.make(ppo.Config(num_envs=8, rollout_length=12, minibatches=2, hidden=8, width=8, reward_scale=1e38))
    run = a_run(tmp_path)
    with pytest.raises(DivergedError, match="learning_rate"):
        train(
            OnPolicy(bad, env, tasks, source), jax.random.key(0), Plan(Budget(env_steps=400), chunk_updates=1), run=run
        )
    assert run.latest_checkpoint() is None


def test_a_failure_that_several_trainings_are_told_takes_along_what_each_of_them_has():
    """They may share a program, and so the error; the policy that is kept has to be their own."""
    told, kept = WorldError("it broke", registry.make("xland/f0").spec), []
    for state in ("mine", "theirs"):
        with pytest.raises(WorldError) as caught, loop.handing_over(state, 7):
            raise told
        kept.append(caught.value.state)
    assert kept == ["mine", "theirs"] and told.state is None
