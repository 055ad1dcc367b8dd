"""Curricula that choose, in the loop that runs them; episodes are as long as rollouts, so that proposals come late."""

from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.muesli import muesli
from rekindle.agents.ppo import ppo
from rekindle.core.budget import Budget
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.tree import flatten_arrays
from rekindle.core.types import EnvSpec, TimeStep
from rekindle.curriculum.base import Uniform
from rekindle.curriculum.noop import NoOpFilter
from rekindle.curriculum.plr import PLR
from rekindle.train import on_policy
from rekindle.train.loop import Plan, train
from rekindle.train.on_policy import OnPolicy
from rekindle.train.worlds import Solo

STEPS, NOOP = 4, 2
AGENT = ppo.make(
    ppo.Config(num_envs=8, rollout_length=STEPS, minibatches=2, epochs=1, hidden=8, width=8, memory="none")
)
MUESLI = muesli.make(
    muesli.Config(num_envs=8, rollout_length=STEPS, minibatches=2, hidden=8, width=8, unroll=2, bins=11, memory="none")
)
POOL = jnp.arange(64)


class Paying:
    """Action 0 pays in odd tasks; nothing pays in even ones. Four steps."""

    spec = EnvSpec("test/paying", 1, {"task": Box((), 0, 99, "int32")}, Discrete(3))

    def reset(self, key, params):
        del key
        no, obs = jnp.zeros((), bool), {"task": params["number"]}
        return jnp.int32(0), TimeStep(obs, jnp.zeros(()), no, no, no, obs, {})

    def step(self, key, state, action, params):
        del key
        over, obs = state + 1 >= STEPS, {"task": params["number"]}
        reward = ((action == 0) & (params["number"] % 2 == 1)).astype(jnp.float32)
        return state + 1, TimeStep(obs, reward, over, jnp.zeros((), bool), over, obs, {})


COMMON = {"task": lambda pool, number, trials: {"number": pool[number] + 0 * trials}, "batch": 8, "min_trials": 1,
          "max_trials": 1, "size": lambda pool: pool.shape[0]}  # fmt: skip
PLRS = PLR(gamma=0.9, reward_scale=1.0, capacity=24, fill=1.0, train_trials=3, **COMMON)
FILTER = NoOpFilter(noop=NOOP, episodes=3, repetitions=3, **COMMON)


def run(curriculum, updates):
    """Loop states before and after every update."""
    worlds = Solo(Paying())
    loop = on_policy.make_start(AGENT, worlds, curriculum)(POOL, jax.random.key(0), None)
    chunk = jax.jit(lambda loop: on_policy.chunk(AGENT, worlds, curriculum, 1, loop, POOL)[0])
    states = [loop]
    for _ in range(updates):
        states.append(chunk(states[-1]))
    return states


@pytest.mark.parametrize("curriculum", [PLRS, FILTER], ids=["plr", "no-op"])
def test_trying_tasks_changes_no_parameter_and_training_on_chosen_ones_does(curriculum):
    states = run(curriculum, 60)
    learnt = np.array([float(state.learnt) for state in states])
    agents = [flatten_arrays(state.agent) for state in states]
    tried = int(np.argmax(learnt > 0))
    assert tried > 2 and learnt[-1] > 0.3  # thousands of steps
    for before, after, steps in zip(agents, agents[1:], np.diff(learnt), strict=False):
        same = all(np.array_equal(before[name], after[name]) for name in before)
        assert same == (steps == 0)


def test_plr_trains_on_a_task_for_so_many_trials_and_goes_on_to_another():
    tasks = np.array([state.curriculum.task for state in run(PLRS, 80)])
    for row in range(8):
        spells = [len(list(same)) for number, same in groupby(tasks[:, row]) if number >= 0]
        assert len(spells) > 8
        assert 3 <= np.median(spells) <= 6  # three trials that count, one that was proposed before they were over


def test_the_filter_accepts_what_pays_now_and_then_and_drops_it_after_its_episodes():
    states = run(FILTER, 120)
    numbers = np.array([state.curriculum.number[:8] for state in states])
    assert (numbers[numbers >= 0] % 2 == 1).all() and float(states[-1].curriculum.tried) > 8 * 120 / 8 / 2
    spells = [len(list(same)) for row in range(8) for number, same in groupby(numbers[:, row]) if number >= 0]
    assert len(np.unique(numbers[numbers >= 0])) > 8 and len(spells) > 12


def test_a_budget_that_ends_before_anything_is_learnt_is_an_error():
    plan = Plan(Budget(env_steps=16 * STEPS), chunk_updates=1)
    with pytest.raises(ConfigError, match=r"on trying \(archive 14, .*nothing was learnt from\. Give a larger budget"):
        train(OnPolicy(AGENT, Solo(Paying()), PLRS, lambda share: POOL), jax.random.key(0), plan)


@pytest.mark.parametrize("agent", [AGENT, MUESLI], ids=["ppo", "muesli"])
def test_a_rollout_that_is_not_learnt_from_changes_nothing(agent):
    """Minibatches of such rows only would otherwise move weights by the optimiser's momentum."""
    worlds = Solo(Paying())
    tasks = Uniform(lambda key, pool: {"number": pool[jax.random.randint(key, (), 0, 64)]}, 8)
    loop = on_policy.make_start(agent, worlds, tasks)(POOL, jax.random.key(0), None)
    proposal = tasks.propose(jax.random.key(1), (), POOL)
    _, rollout = jax.jit(lambda loop: on_policy.collect(agent, worlds, proposal, jax.random.key(2), loop))(loop)
    update = jax.jit(lambda state, rollout: agent.update(jax.random.key(3), state, rollout).state)
    state = update(loop.agent, rollout)  # momentum
    same = update(state, rollout._replace(learn=jnp.zeros_like(rollout.learn)))
    before, after, further = (flatten_arrays(x) for x in (state, same, update(state, rollout)))
    before.pop("updates", None)  # counted either way
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not all(np.array_equal(before[name], further[name]) for name in before)
