"""What goes from one phase to the next, and from the teacher's data into a batch."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.dqn import dqn
from rekindle.core.tree import flatten_arrays
from rekindle.core.types import Update
from rekindle.envs import registry
from rekindle.reincarnation.methods.registry import make_method
from rekindle.reincarnation.phases import OutputKinds, Phase, Scale
from rekindle.replay.ring import Ring, Step
from rekindle.train import reincarnate
from rekindle.train.loop import Trained
from rekindle.train.off_policy import Given, LoopState, Nothing, Worlds, learn
from rekindle.train.prepare import Marks

AGENT = dqn.make(dqn.Config(batch=8, width=8, capacity=512, num_envs=4))
MADE = registry.make("probe/chain-v1")
WORLDS = Worlds(MADE.env, partial(MADE.draw, min_trials=1, max_trials=1), 4)
SCALE = Scale(20, 80, 2, guided=1e-3, alone=1e-4, scratch=1e-3)


def steps(reward, label):
    shape = (16, 4)
    no, cue, labels = jnp.zeros(shape, bool), jnp.zeros(shape, jnp.int32), jnp.full((*shape, 2), label)
    return Ring(Step({"cue": cue}, cue, jnp.full(shape, reward), no, no, labels), jnp.int32(16))


class Loop(NamedTuple):
    agent: Any
    progress: Any


def after(phase, state, key):
    """Of learning offline, a network and moments that have moved; online nothing more happens."""
    if not phase.offline:
        return state
    begun = AGENT.init(key, MADE.spec)
    net, opt = jax.tree.map(lambda x: x + 1, (begun.net, begun.opt))
    return begun._replace(net=net, opt=opt)


def begin(agent, worlds, phase, given, key, *, state):
    return Loop(after(phase, state, key), phase.begin())


def carry_out(course, engine, phase, number, before, key, run, state, *others):
    return Trained(after(phase, state, key), 0, 0.0, "done", ()), []


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize(("name", "kept"), [("qdagger", 1.0), ("pretraining", 0.0)])
def test_the_target_follows_at_the_switch_and_moments_are_kept_or_zeroed(name, kept, many, monkeypatch):
    monkeypatch.setattr(reincarnate, "carry_out", carry_out)
    monkeypatch.setattr(reincarnate, "begin", begin)
    monkeypatch.setattr(reincarnate, "iteration", lambda course, engine, loop, *others: (loop, jnp.zeros(())))
    teacher = AGENT.policy(AGENT.init(jax.random.key(1), MADE.spec))
    course = reincarnate.Course(AGENT, WORLDS, (), teacher, steps(0.0, 0.0), Marks(0.0, 1.0), OutputKinds("values"))
    method, key = make_method(name), jax.random.key(0)
    if many:
        state = reincarnate.reincarnate_many(course, method, SCALE, key[None]).states
    else:
        state = reincarnate.reincarnate(course, method, SCALE, key).state
    target = flatten_arrays(state.target)
    for leaf, array in flatten_arrays(state.net).items():
        np.testing.assert_array_equal(target[leaf], array, err_msg=leaf)
    for leaf, array in flatten_arrays(state.opt).items():
        np.testing.assert_array_equal(array, np.full_like(array, kept), err_msg=leaf)


def test_a_rehearsed_sample_has_the_label_that_the_teachers_data_have():
    phase = Phase("online", 80, 1e-3, adds=lambda said, batch: batch.labels[:, 0], weight=1.0, rehearse=1.0)

    def update(key, state, batch, *, guide):
        return Update(guide.loss(batch.labels, batch), Nothing())

    loop = LoopState(*[()] * len(LoopState._fields))._replace(replay=steps(0.0, 2.0), obs={"cue": jnp.zeros(4)})
    given, dials = Given((), (), steps(1.0, 7.0)), phase.dials(phase.begin())
    agent = AGENT._replace(update=update)
    added = jax.jit(lambda key: learn(agent, phase, given, dials, key, loop)[0].agent)(jax.random.key(0))
    np.testing.assert_array_equal(added, np.full(8, 7.0))
