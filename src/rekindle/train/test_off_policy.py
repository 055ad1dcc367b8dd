"""What is acted is what is stored, what is stored is what is learnt from, and a phase adds to it what it says."""

import re
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.dqn import dqn
from rekindle.agents.rainbow import rainbow
from rekindle.core.budget import Budget
from rekindle.core.errors import ConfigError
from rekindle.core.tree import flatten_arrays, own, unflatten_arrays
from rekindle.core.types import ActOutput, Extras
from rekindle.envs import registry
from rekindle.evaluate.returns import episodes
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.reincarnation.methods.registry import METHODS, make_method
from rekindle.reincarnation.phases import OutputKinds, Phase, Scale
from rekindle.replay import ring as rings
from rekindle.replay import sum_tree
from rekindle.train import prepare, reincarnate
from rekindle.train.agreement import COMPARED, compare
from rekindle.train.loop import Plan, train
from rekindle.train.off_policy import (
    Given,
    Worlds,
    act_on,
    draw,
    learn,
    pace,
    refuse_replay,
    rehearse,
    ticks_before,
)
from rekindle.train.replay_engine import OffPolicy

MADE = registry.make("probe/chain-v1")
SOURCE = jax.tree.map(jnp.asarray, MADE.pool())
SMALL = {"batch": 8, "width": 8, "capacity": 512, "warmup": 40, "epsilon_steps": 100, "target_period": 5, "num_envs": 4}
AGENT = dqn.make(dqn.Config(**SMALL))
RAINBOW = rainbow.make(rainbow.Config(**SMALL, atoms=11))
WORLDS = Worlds(MADE.env, partial(MADE.draw, min_trials=1, max_trials=1), 4)


class Fixed(eqx.Module):
    """A teacher that always says the same."""

    action: int = eqx.field(static=True)

    def init_carry(self, batch_size):
        return ()

    def act(self, key, carry, obs, start, *, explore):
        q = jnp.zeros((*start.shape, 2)).at[:, self.action].set(1.0)
        return ActOutput(jnp.full(start.shape, self.action, jnp.int32), carry, Extras(q=q))


@pytest.mark.parametrize(
    ("rows", "period", "expected"), [(4, 4, (1, 1)), (8, 4, (1, 2)), (1, 4, (4, 1)), (2, 4, (2, 1)), (3, 1, (1, 3))]
)
def test_acting_and_learning_take_turns(rows, period, expected):
    config = dqn.Config(num_envs=rows, update_period=period, capacity=600)
    assert tuple(pace(dqn.make(config).needs)) == expected


def test_turns_that_never_come_out_even_are_refused():
    with pytest.raises(ConfigError, match="3 worlds side by side and an update every 4 steps do not go together"):
        pace(dqn.make(dqn.Config(num_envs=3, update_period=4, capacity=600)).needs)


@pytest.mark.parametrize("agent", [AGENT, RAINBOW], ids=["dqn", "rainbow"])
def test_what_is_acted_is_stored_and_a_state_that_is_saved_goes_on_exactly(agent):
    """U10; in the chain an action moves by one, so that every stored step must lead to the next."""
    engine = OffPolicy(agent, WORLDS, Given(SOURCE))
    loop = engine.chunk(engine.begin(jax.random.key(0), None), 40, 0.0)[0]
    assert engine.steps(loop) == 160 and int(loop.agent.updates) == 40 - ticks_before(agent.needs)
    ring = loop.replay if agent is AGENT else loop.replay.ring
    steps = rings.unrolled(ring)
    cue, action, over = (np.asarray(x) for x in (steps.obs["cue"], steps.action, steps.terminated))
    moved = np.clip(cue[:-1] + 2 * action[:-1] - 1, 0, 4)
    assert ((moved == cue[1:]) | over[:-1]).all() and (cue[1:][over[:-1]] == 0).all() and over.any()
    np.testing.assert_array_equal(np.asarray(steps.reward), ((cue == 4) & (action == 1)).astype(np.float32))
    saved = flatten_arrays(loop)
    on = engine.chunk(loop, 20, 0.0)[0]
    again = own(unflatten_arrays(engine.begin(jax.random.key(9), None), saved, where="the checkpoint"))
    resumed = engine.chunk(again, 20, 0.0)[0]
    for (name, a), b in zip(flatten_arrays(on).items(), flatten_arrays(resumed).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize(("module", "more"), [(dqn, {}), (rainbow, {"atoms": 11})], ids=["dqn", "rainbow"])
def test_a_chunk_does_not_copy_the_replay(module, more):
    """Of which a tick changes a slice; a copy of all of it would cost more than the update."""
    agent = module.make(module.Config(**SMALL | {"capacity": 4 * 771}, **more))
    loop = OffPolicy(agent, WORLDS, Given(SOURCE)).begin(jax.random.key(0), None)
    chunk = jax.jit(partial(act_on, agent, WORLDS, None, True), donate_argnums=0)
    program = chunk.lower(loop, Given(SOURCE), 8).compile().as_text()
    assert "[771,4" in program
    assert not re.findall(r"\[771,4[^ ]* copy\(.*", program)


def test_the_target_follows_and_the_clock_goes_by_steps():
    """U7, U8: a copy every five updates; epsilon is 1 at first and counts agent steps."""
    engine = OffPolicy(AGENT, WORLDS, Given(SOURCE))
    loop, copies = engine.begin(jax.random.key(0), None), 0
    loop, nothing = engine.chunk(loop, ticks_before(AGENT.needs), 0.0)
    assert nothing == () and engine.learnt(loop) == 0
    for _ in range(25):
        before = flatten_arrays(loop.agent.target)
        loop = engine.chunk(loop, 1, 0.0)[0]
        after = flatten_arrays(loop.agent.target)
        copies += any((before[name] != after[name]).any() for name in before)
    assert int(loop.agent.updates) == 25 and copies == 5
    assert int(loop.agent.clock) == engine.steps(loop)


def test_a_phase_offline_reads_its_data_and_acts_nothing():
    data = rings.from_arrays(rings.to_arrays(_data(reward=1.0)))
    phase = Phase("offline", 20, 1e-3, offline=True, adds=lambda q, batch: jnp.sum(q**2, axis=-1), weight=1.0)
    engine = OffPolicy(AGENT, WORLDS, Given(SOURCE, (), data), phase)
    begun = engine.begin(jax.random.key(0), None)
    before = flatten_arrays(begun.replay)
    loop, metrics = engine.chunk(begun, 20, 0.0)
    assert engine.steps(loop) == 20 == int(loop.agent.clock) and float(metrics.guide_loss) > 0
    for name, array in flatten_arrays(loop.replay).items():
        np.testing.assert_array_equal(array, before[name])  # U12: none of it is the student's


@pytest.mark.parametrize("n", [1, 3])
def test_returns_of_the_teachers_data_are_as_long_as_the_students(n):
    agent = dqn.make(dqn.Config(**SMALL, n_step=n))
    phase = Phase("offline", 5, 1e-3, offline=True, adds=lambda q, batch: batch.reward, weight=1.0)
    engine = OffPolicy(agent, WORLDS, Given(SOURCE, (), _data(reward=1.0)), phase)
    metrics = engine.chunk(engine.begin(jax.random.key(0), None), 5, 0.0)[1]
    assert float(metrics.guide_loss) == pytest.approx(sum(0.99**i for i in range(n)), rel=1e-5)


@pytest.mark.parametrize(("valued", "tau"), [(True, 0.5), (True, 5.0), (False, 0.5)])
def test_a_student_is_compared_with_what_its_teacher_says(valued, tau):
    """Three quarters of the labels agree with a student that always goes left."""
    data, says = _data(0.0), jnp.log(jnp.array([0.9, 0.1]))
    labels = jnp.where((jnp.arange(4) < 3)[None, :, None], says, says[::-1])
    data = data._replace(steps=data.steps._replace(labels=jnp.broadcast_to(labels, (64, 4, 2))))
    loop = OffPolicy(AGENT, WORLDS, Given(SOURCE)).begin(jax.random.key(0), None)
    left = AGENT._replace(act=lambda key, state, carry, obs, start, *, explore:
                          Fixed(0).act(key, carry, obs, start, explore=explore))  # fmt: skip
    batch = draw(replace(AGENT.needs, batch=COMPARED), jax.random.key(1), data, loop.obs)
    kinds = OutputKinds("values" if valued else "logits")
    found = compare(left, kinds, tau, jax.random.key(2), loop.agent, batch.obs, batch.labels)
    assert float(found.agreement) == pytest.approx(0.75, abs=0.1)
    assert float(found.teacher_spread) == pytest.approx(np.log(9) / 2, rel=1e-5)
    p = 1 / (1 + 9 ** (1 / tau)) if valued else 0.1
    assert float(found.teacher_entropy) == pytest.approx(-p * np.log(p) - (1 - p) * np.log(1 - p), rel=1e-4)


def _data(reward):
    """Steps that nobody would take by himself: rewards tell them apart."""
    shape = (64, 4)
    no, cue = jnp.zeros(shape, bool), jnp.zeros(shape, jnp.int32)
    like = jax.eval_shape(lambda: OffPolicy(AGENT, WORLDS, Given(SOURCE)).begin(jax.random.key(0), None)).obs
    obs = {name: jnp.zeros((*shape, *x.shape[1:]), x.dtype) for name, x in like.items()}
    return rings.Ring(rings.Step(obs, cue, jnp.full(shape, reward), no, no), jnp.int32(64))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_rehearsal_mixes_the_teachers_samples_in(share):
    """U12: the share of samples that are the teacher's is that which was asked for."""
    needs = dqn.make(dqn.Config(**{**SMALL, "batch": 4000})).needs
    mine, theirs = _data(0.0), _data(1.0)
    batch = draw(needs, jax.random.key(0), mine, jax.tree.map(lambda x: x[0], mine.steps.obs))
    other = draw(needs, jax.random.key(2), theirs, batch.obs)
    mixed, swapped = rehearse(jax.random.key(1), batch, other, jnp.float32(share))
    np.testing.assert_array_equal(np.asarray(mixed.reward) > 0.5, np.asarray(swapped))
    assert abs(float(jnp.mean(mixed.reward > 0.5)) - share) <= 3 * (share * (1 - share) / 4000) ** 0.5


@pytest.mark.parametrize(("most", "theirs"), [(0, None), (3, 3), (1000, 10)])
def test_the_teacher_plays_the_first_steps(most, theirs):
    """A teacher that always goes right, in episodes of ten steps; its steps are stored like any other."""
    config = {**SMALL, "epsilon": 1.0}  # the student itself acts at random
    agent = dqn.make(dqn.Config(**config))
    phase = make_method("jsrl", {"most": most}).phases(Scale(10, 4000, 1, 1e-3, 1e-4, 1e-3), OutputKinds("values"))[0]
    engine = OffPolicy(agent, WORLDS, Given(SOURCE, Fixed(1), _data(0.0)), phase)
    loop = engine.chunk(engine.begin(jax.random.key(0), None), 100, 0.0)[0]
    steps = rings.unrolled(loop.replay)
    begins = np.flatnonzero(np.asarray(steps.terminated)[:, 0])[:-1] + 1
    first = np.stack([np.asarray(steps.action)[at : at + 10] for at in begins if at + 10 <= len(steps.action)])
    rights = first.mean(axis=(0, 2))
    if theirs is None:
        assert (np.abs(rights - 0.5) < 0.2).all()
    else:
        assert rights[0] == 1.0 and (rights[:3] > 0.6).all() and (rights[theirs:] < 0.75).all()


def test_a_training_that_was_stopped_resumes_exactly(tmp_path):
    engine = OffPolicy(AGENT, WORLDS, Given(SOURCE))
    plan = Plan(Budget(env_steps=410), chunk_updates=10, checkpoint_seconds=0.0)
    whole = train(engine, jax.random.key(1), plan)
    run = Run.create(Library.open(tmp_path), "train", name="test", config={}, seed=0)
    first = train(engine, jax.random.key(1), plan, run=run, stop=lambda values: True)
    rest = train(engine, jax.random.key(1), plan, run=Run.open(Library.open(tmp_path), run.id))
    assert first.env_steps < rest.env_steps == whole.env_steps == 412
    for name, leaf in flatten_arrays(whole.loop).items():
        np.testing.assert_array_equal(leaf, flatten_arrays(rest.loop)[name], err_msg=name)


class Muddled(Fixed):
    """A teacher that says what is no number."""

    def act(self, key, carry, obs, start, *, explore):
        out = super().act(key, carry, obs, start, explore=explore)
        return out._replace(extras=Extras(logits=jnp.full((*start.shape, 2), jnp.nan)))


def taught(agent, data=None):
    """A course in the chain, whose teacher always goes right."""
    teacher = Fixed(1)
    marks = prepare.marks(WORLDS, SOURCE, teacher, jax.random.key(1), number=50)
    data = data or prepare.roll_out(WORLDS, SOURCE, teacher, jax.random.key(2), steps=200)
    data = prepare.labelled(data, teacher, MADE.spec)
    return reincarnate.Course(agent, WORLDS, SOURCE, teacher, data, marks, OutputKinds("values"), episodes=20)


TINY = Scale(20, 80, 2, 1e-3, 1e-4, 1e-3)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_is_carried_out_as_its_phases_say(name):
    course = taught(AGENT)
    method = make_method(name)
    state = AGENT.init(jax.random.key(5), MADE.spec) if name == "fine-tuning" else None
    done = reincarnate.reincarnate(course, method, TINY, jax.random.key(0), state=state)
    phases = method.phases(TINY, OutputKinds("values"))
    assert [(p.phase, p.steps) for p in done.curve] == [
        (phase.name, phase.steps // 2 * turn) for phase in phases for turn in (1, 2)
    ]
    assert phases[-1].steps == 80 and all(phase.steps == 20 for phase in phases[:-1])
    assert (len(phases) == 2) == (name in ("qdagger", "pretraining", "dqfd", "dagger", "dagger+ql"))
    assert done.status == "done" and done.env_steps == 80
    updates = 20 * (len(phases) - 1) + (80 // 4 if name == "fine-tuning" else 80 // 4 - ticks_before(AGENT.needs))
    assert int(done.state.updates) == updates
    begun = 0 if state is None else int(state.clock)
    assert int(done.state.clock) == begun + 20 * (len(phases) - 1) + 80
    added = int(done.loop.replay.added)
    assert added == 80 // 4 + (50 if name == "fine-tuning" else 0)


def test_students_with_priorities_keep_them_to_themselves():
    course = taught(RAINBOW)
    done = reincarnate.reincarnate(course, make_method("qdagger", student="rainbow"), TINY, jax.random.key(0))
    replay = done.loop.replay
    assert done.env_steps == 80 and int(replay.ring.added) == 80 // 4
    priority = np.asarray(sum_tree.priorities(replay.tree, jnp.arange(replay.ring.slots * 4))).reshape(-1, 4)
    own = (np.arange(replay.ring.slots) < 80 // 4 - RAINBOW.needs.n_step)[:, None] & ~np.asarray(
        replay.ring.steps.truncated
    )
    np.testing.assert_array_equal(priority > 0, own)


def test_samples_of_the_teacher_change_no_priority():
    engine = OffPolicy(RAINBOW, WORLDS, Given(SOURCE))
    loop = engine.chunk(engine.begin(jax.random.key(0), None), 20, 0.0)[0]
    phase = Phase("online", 80, 1e-3, rehearse=1.0)
    given = Given(SOURCE, (), rings.unlabelled(_data(1.0)))
    dials = phase.dials(phase.begin())
    after = jax.jit(lambda loop, key: learn(RAINBOW, phase, given, dials, key, loop)[0])(loop, jax.random.key(1))
    np.testing.assert_array_equal(after.replay.tree.nodes, loop.replay.tree.nodes)
    changed = jax.jit(lambda loop, key: learn(RAINBOW, None, given, None, key, loop)[0])(loop, jax.random.key(1))
    assert (changed.replay.tree.nodes != loop.replay.tree.nodes).any()


def test_a_replay_that_is_kept_ends_before_the_students_own_begins():
    data = _data(1.0)
    kept = rings.adopted(data, 100)
    assert int(kept.added) == 64 and bool(kept.steps.truncated[63].all()) and kept.slots == 100
    assert int(rings.adopted(data, 10).added) == 10
    with pytest.raises(ConfigError, match=r"of 4 worlds side by side, the student's of 8; take --set num_envs=4"):
        refuse_replay(dqn.make(dqn.Config(**{**SMALL, "num_envs": 8})).needs, data.rows)


def test_priorities_begin_with_a_teachers_replay_too():
    """Fine-tuning of Rainbow: all of the teacher's steps that others follow can be drawn, then its own beside them."""
    course = taught(RAINBOW)
    state = RAINBOW.init(jax.random.key(5), MADE.spec)
    done = reincarnate.reincarnate(course, make_method("fine-tuning"), TINY, jax.random.key(0), state=state)
    replay, n = done.loop.replay, RAINBOW.needs.n_step
    begun, added = course.data.slots, int(replay.ring.added)
    assert added == begun + 80 // 4 and int(done.state.updates) == 80 // 4
    priority = np.asarray(sum_tree.priorities(replay.tree, jnp.arange(added * 4))).reshape(added, 4)
    cut, ended = (np.asarray(x[:added]) for x in (replay.ring.steps.truncated, replay.ring.steps.terminated))
    assert (cut | ended)[begun - 1].all()  # nothing runs on from the teacher's last step into the student's first
    waiting = np.arange(added)[:, None] >= added - n
    np.testing.assert_array_equal(priority > 0, ~cut & ~waiting)


def test_data_that_are_too_short_are_refused():
    short = prepare.roll_out(WORLDS, SOURCE, Fixed(1), jax.random.key(2), steps=8)
    with pytest.raises(ConfigError, match=r"are 2 steps of 4 worlds; returns of 1 steps take more than 2"):
        reincarnate.reincarnate(taught(AGENT, short), make_method("qdagger"), TINY, jax.random.key(0))


def test_one_student_of_many_does_as_it_does_alone():
    """The same steps and updates; other random streams, so that only what does not depend on them is compared."""
    course, keys = taught(AGENT), jax.random.split(jax.random.key(0), 2)
    with jax.debug_key_reuse(False):  # a vmapped scan that carries a key passes for one that uses it up
        many = reincarnate.reincarnate_many(course, make_method("dagger"), TINY, keys)
    alone = reincarnate.reincarnate(course, make_method("dagger"), TINY, jax.random.key(0))
    assert many.states.updates.tolist() == [int(alone.state.updates)] * 2
    assert many.states.clock.tolist() == [int(alone.state.clock)] * 2
    assert many.scores.shape == many.multipliers.shape == (2, len(alone.curve))
    with pytest.raises(ConfigError, match="one student at a time"):
        reincarnate.reincarnate_many(course, make_method("fine-tuning"), TINY, keys)


class Torn(Fixed):
    """Goes the other way when it explores."""

    def act(self, key, carry, obs, start, *, explore):
        return Fixed(1 - self.action if explore else self.action).act(key, carry, obs, start, explore=explore)


def test_student_and_teacher_are_measured_alike():
    """Greedy but for one action in a thousand, so that who plays as the teacher does scores as it does."""
    course = taught(AGENT)
    marks = prepare.marks(WORLDS, SOURCE, Torn(1), jax.random.key(3), number=50)
    score, env_steps = reincarnate.evaluated(course, Torn(1), jax.random.key(4))
    assert env_steps == 20 * 10 and marks.random < 3
    assert marks.teacher == pytest.approx(6.0, abs=0.2) and score.value == pytest.approx(6.0, abs=0.4)


class Idle(Fixed):
    """In a world of several actions."""

    def act(self, key, carry, obs, start, *, explore):
        return ActOutput(jnp.zeros(start.shape, jnp.int32), carry, Extras())


def test_worlds_of_many_tasks_have_an_evaluation():
    """Every episode is of a task that is drawn for it."""
    made = registry.make("xland/doors-2", worlds=4)
    draws = partial(made.draw, min_trials=1, max_trials=2)
    source = jax.tree.map(jnp.asarray, made.pool(split="train", seed=0))
    played = episodes(made.env, Idle(0), draws, source, jax.random.key(0), number=6)
    assert played.returns.shape == (6,) and len(set(played.lengths.tolist())) > 1


def test_a_teacher_that_says_no_number_is_named():
    data = prepare.roll_out(WORLDS, SOURCE, Fixed(1), jax.random.key(2), steps=20)
    with pytest.raises(ConfigError, match=r"the teacher says what is no number \(NaN\)"):
        prepare.labelled(data, Muddled(1), MADE.spec)
