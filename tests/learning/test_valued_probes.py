"""DQN and Rainbow on problems whose action values are known: each is what one fault of a value learner gets wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learning.probes import Several, Which, tasks_of

from rekindle.agents.dqn import dqn
from rekindle.agents.rainbow import rainbow
from rekindle.core.types import Agent
from rekindle.envs.probe.probe import PROBLEMS
from rekindle.train.off_policy import Given, Worlds, act_on, begin, ticks_before

G = 0.5
UNKNOWN = float("nan")
VALUES = {
    "constant": [[1, 1]],
    "observation": [[-1, -1], [1, 1]],
    "delay": [[G**2, G**2], [G, G], [1, 1]],
    "action": [[-1, 1]],
    "both": [[1, -1], [-1, 1]],
    "choice": [[G, G], [-1, 1]],
    "wages": [[1 + G + G**2 + G**3] * 2, [1 + G + G**2] * 2, [1 + G] * 2, [1, 1]],
    "limit": [[1 / (1 - G)] * 2],
}
"""Of both actions, by what is shown, with a discount of G. `limit` pays for ever; `wages` come to an end."""
COMMON = {"gamma": G, "learning_rate": 1e-2, "epsilon": 1.0, "capacity": 2_048, "warmup": 64, "num_envs": 4,
          "update_period": 4, "target_period": 20, "batch": 32, "width": 16}  # fmt: skip
AGENTS = {
    "dqn": dqn.make(dqn.Config(n_step=1, **COMMON)),
    "dqn of 3 steps": dqn.make(dqn.Config(n_step=3, **COMMON)),
    "rainbow": rainbow.make(rainbow.Config(n_step=3, bound=3.0, atoms=21, **COMMON)),
}
WORLD = Several(tuple(VALUES), cues=max(map(len, VALUES.values())))
UPDATES = 400
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""It runs for less than a second, so that only compiling counts."""


@pytest.fixture(scope="module", params=AGENTS)
def learner(request):
    """An agent's steps of return, and what it has learnt of every probe: [probes, cues, actions]."""
    agent = AGENTS[request.param]
    which = tasks_of(tuple(VALUES))
    learnt = jax.jit(jax.vmap(lambda key, which: learn(agent, key, which)), compiler_options=QUICKLY)
    return agent.needs.n_step, np.asarray(learnt(jax.random.split(jax.random.key(0), len(VALUES)), which))


def learn(agent: Agent, key: jax.Array, which: Which) -> jax.Array:
    """The action values of one probe after so many updates on random actions."""
    worlds, given = Worlds(WORLD, lambda key, source: source, agent.needs.rows), Given(which)
    loop = begin(agent, worlds, None, given, key)
    loop, _ = act_on(agent, worlds, None, False, loop, given, ticks_before(agent.needs))
    loop, _ = act_on(agent, worlds, None, True, loop, given, UPDATES)
    cues = jnp.arange(worlds.spec.obs["cue"].n)
    return agent.act(jax.random.key(1), loop.agent, (), {"cue": cues}, cues == cues, explore=False).extras.q


@pytest.mark.parametrize("name", VALUES)
def test_action_values_are_within_a_tenth_of_the_known_answer(name, learner):
    n_step, learnt = learner
    right = np.array(VALUES[name])
    if name == "choice" and n_step > 1:  # returns of several steps are of what was done, here at random
        right = right[1:]
    found = learnt[list(VALUES).index(name), : len(VALUES[name])][-len(right) :]
    np.testing.assert_allclose(found, right, atol=0.1)


def test_probes_are_those_that_the_world_knows():
    assert all(PROBLEMS[f"probe/{name}-v1"].cues == len(values) for name, values in VALUES.items())
