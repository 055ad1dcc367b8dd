"""MR.Q on problems whose answer is known: what is worth doing, and how much it is worth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.learning.probes import Several, tasks_of

from rekindle.agents.mrq import mrq
from rekindle.agents.mrq.actions import to_network
from rekindle.core.tree import apart, stacked
from rekindle.train.off_policy import Given, Worlds
from rekindle.train.sequence_engine import OnSequences
from rekindle.train.sequences import Turns

G = 0.5
VALUES = {"action": [[-1, 1]], "both": [[1, -1], [-1, 1]], "delay": [[G**2] * 2, [G] * 2, [1] * 2]}
"""Of both actions, by what is shown."""
AGENT = mrq.make(mrq.Config(
    gamma=G, batch=32, capacity=2_048, warmup=256, num_envs=4, period=20, encoder_updates=20, state_width=32,
    pair_width=32, action_width=8, hidden=32, encoder_rate=1e-3, value_rate=1e-2, policy_rate=1e-2, temperature=1.0,
    eval_discrete="greedy",
))  # fmt: skip
"""It begins with enough of random actions for both critics to see each action at each cue; over eight seeds no value
is then further off than 0.04."""
TICKS = 250
WORLD = Several(tuple(VALUES), cues=3)


@pytest.fixture(scope="module")
def learnt():
    """The agent's state after so many steps of four worlds, by probe; all are trained in one program."""
    worlds, which = Worlds(WORLD, lambda key, source: source, 4), tasks_of(tuple(VALUES))
    begun = [OnSequences(AGENT, worlds, Given(task)).begin(jax.random.key(3), None)
             for task in apart(which, len(VALUES))]  # fmt: skip
    turns = Turns(AGENT, 1, many=True)
    loop, _ = turns.chunk([worlds] * len(VALUES), stacked(begun), Given(which), TICKS)
    return dict(zip(VALUES, apart(loop.agent, len(VALUES)), strict=True))


@pytest.mark.parametrize("name", VALUES)
def test_critics_know_what_actions_are_worth(name, learnt):
    state, known = learnt[name], np.array(VALUES[name], float)
    cues = {"cue": jnp.arange(len(known))}
    z = state.nets.encoder.features(cues)
    for action in range(2):
        taken = to_network(state.nets.actor.space, jnp.full(len(known), action))
        q = mrq.q_values(state.nets.values, state.nets.encoder.join(z, state.nets.encoder.read(taken)))
        np.testing.assert_allclose(np.mean(q, axis=0) * state.scale, known[:, action], atol=0.1)


@pytest.mark.parametrize("name", ["action", "both"])
def test_its_policy_does_what_is_worth_most(name, learnt):
    known = np.array(VALUES[name])
    cues = {"cue": jnp.arange(len(known))}
    start = jnp.ones(len(known), bool)
    out = AGENT.act(jax.random.key(0), learnt[name], (), cues, start, explore=False)
    np.testing.assert_array_equal(out.action, np.argmax(known, axis=1))
