"""Students that learn from sequences: what a teacher adds to them, in worlds of either kind."""

import dataclasses
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.mrq import mrq
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Discrete
from rekindle.core.tree import flatten_arrays
from rekindle.core.types import ActOutput, Extras, Guidance, Sequences
from rekindle.envs.host.worlds import HostWorlds
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.reincarnation.methods.qdagger import distils
from rekindle.reincarnation.methods.registry import make_method
from rekindle.reincarnation.phases import Phase, Scale, Told
from rekindle.replay import ring as rings
from rekindle.replay import sum_tree, windows
from rekindle.train import prepare, reincarnate
from rekindle.train.agreement import compare
from rekindle.train.off_policy import Given
from rekindle.train.sequences import Learner, Mixed, OnSequences
from rekindle.train.test_sequences import TINY, Kind, Line, on_host

SCALE = Scale(20, 80, 2, 3e-4, 3e-4, 3e-4)


class Slope(Line):
    """Pays the first number of an action."""

    def step(self, action):
        place, reward, *rest = super().step(action)
        return place, reward * np.asarray(action, np.float32)[:, 0], *rest


def slope(rows=1):
    spec = dataclasses.replace(on_host().spec, id="test/slope")
    return HostWorlds(lambda: Slope(rows, Kind()), spec, lambda obs: {"obs": obs.copy()}, reseed=50)


class Goes(eqx.Module):
    """Always the same vector, or the same choice."""

    action: tuple

    def init_carry(self, batch_size):
        return ()

    def act(self, key, carry, obs, start, *, explore):
        action = jnp.broadcast_to(jnp.array(self.action), (start.shape[0], len(self.action)))
        return ActOutput(action, carry, Extras(mean=action))


@cache
def course(rows=1, **settings):
    agent = mrq.make(mrq.Config(**TINY | {"num_envs": rows, "warmup": 30} | settings))
    worlds, teacher = slope(rows), Goes((0.7, -0.4))
    marks = prepare.marks(worlds, (), teacher, jax.random.key(1), number=8)
    data = prepare.roll_out(worlds, (), teacher, jax.random.key(2), steps=60)
    data = prepare.labelled(data, teacher, worlds.spec)
    return reincarnate.Course(agent, worlds, (), teacher, data, marks, Told("actions", "policy"), episodes=2)


def test_a_teacher_of_vectors_makes_noisy_data_and_says_its_actions():
    found = course()
    steps = found.data.steps
    assert found.marks.teacher == pytest.approx(12 * 0.7, rel=1e-5) and abs(found.marks.random) < 4.0
    np.testing.assert_allclose(steps.labels, np.broadcast_to(np.float32([0.7, -0.4]), (60, 1, 2)))
    strays = np.asarray(steps.action) - steps.labels
    assert 0.1 < strays.std() < 0.3 and np.abs(steps.action).max() <= 1.0
    assert prepare.told_by(found.teacher, found.worlds.spec, jax.random.key(0), found.agent) == found.told


@dataclasses.dataclass(frozen=True)
class Everything:
    """What methods with a single phase do, at once."""

    def phases(self, scale, told):
        loss = distils(told, 0.1)
        return (Phase("online", scale.online_steps, scale.scratch, 2, adds=loss, weight=1.0, rehearse=0.5, roll_in=7,
                      roll_in_decay=0.5, keeps_replay=True),)  # fmt: skip


def test_a_phase_adds_a_loss_rehearses_rolls_in_and_keeps_a_replay():
    found = course()
    done = reincarnate.reincarnate(found, Everything(), SCALE, jax.random.key(0))
    assert [(p.phase, p.steps) for p in done.curve] == [("online", 40), ("online", 80)]
    assert int(done.state.updates) == 80  # what it began with is more than the warm-up
    assert int(done.loop.replay.filled) == (60 + 5 + 80 + 6) and float(done.loop.progress.roll_in) == 1.0
    own = windows.to_arrays(done.loop.replay)["action"][60:]
    guided = (own == np.float32([0.7, -0.4])).all(axis=(1, 2))
    assert guided[0] and guided[12] and 8 <= guided.sum() < 40  # the first steps of episodes
    assert all(np.isfinite(x).all() for x in flatten_arrays(done.state).values() if x.dtype == np.float32)


@pytest.mark.parametrize("name", ["pretraining", "dqfd"])
def test_methods_that_train_action_values_are_refused(name):
    with pytest.raises(ConfigError, match=f"the method {name} trains action values .* Take qdagger"):
        reincarnate.reincarnate(course(), make_method(name), SCALE, jax.random.key(0))


def batch_of(space, labels):
    """Random steps with these labels."""
    key, rows = jax.random.key(7), 8
    obs = {"obs": jax.random.normal(key, (6, rows, 2))}
    shape = (5, rows) if isinstance(space, Discrete) else (5, rows, 2)
    none = jnp.zeros((5, rows))
    return Sequences(obs, jnp.zeros(shape, space.dtype), none, none > 0, jnp.arange(rows), jnp.tile(labels, (rows, 1)))


@pytest.mark.parametrize("kind", ["vectors", "choices"])
def test_a_student_comes_to_act_as_its_teacher_says(kind):
    """By actions, or by the divergence of its policy from that of a teacher that says action values."""
    discrete = kind == "choices"
    spec = on_host(discrete=discrete).spec
    agent = mrq.make(mrq.Config(**TINY | {"policy_rate": 1e-2}))
    labels = jnp.array([-1.0, 1.0, 0.0] if discrete else [0.7, -0.4])
    batch = batch_of(spec.action, labels)
    guide = Guidance(distils(Told("values" if discrete else "actions", "policy"), 1.0), 3.0, 0.0,
                     agent.config.value_rate)  # fmt: skip

    def step(number, state):
        return agent.update(jax.random.fold_in(jax.random.key(1), number), state, batch, guide=guide).state

    state = jax.jit(lambda state: jax.lax.fori_loop(0, 400, step, state))(agent.init(jax.random.key(0), spec))
    now = jax.tree.map(lambda x: x[0], batch.obs)
    out = agent.act(jax.random.key(0), state, (), now, jnp.ones(8, bool), explore=False)
    found = jax.nn.softmax(out.extras.logits) if discrete else out.extras.mean
    wanted = jax.nn.softmax(labels) if discrete else labels
    np.testing.assert_allclose(found, jnp.tile(wanted, (8, 1)), atol=0.05)
    agreement = compare(agent, Told("values" if discrete else "actions"), 1.0, jax.random.key(2), state, now,
                        batch.labels)  # fmt: skip
    assert discrete or (agreement.agreement == 1.0 and agreement.teacher_entropy == 0.0)


def test_without_weight_a_teacher_adds_nothing():
    spec = on_host().spec
    agent, batch = mrq.make(mrq.Config(**TINY)), batch_of(spec.action, jnp.array([0.7, -0.4]))
    begun, rate = agent.init(jax.random.key(0), spec), agent.config.value_rate
    loss = lambda said, batch: jnp.sum(said**2, axis=-1)  # noqa: E731
    alone = jax.jit(lambda: agent.update(jax.random.key(3), begun, batch).state)()
    guided = jax.jit(lambda rate: agent.update(jax.random.key(3), begun, batch, guide=Guidance(
        loss, 0.0, 1.0, rate)).state)  # fmt: skip
    for name, x in flatten_arrays(alone).items():
        np.testing.assert_allclose(x, flatten_arrays(guided(rate))[name], rtol=1e-5, atol=1e-7, err_msg=name)
    slower = guided(rate / 10)
    for net in (lambda nets: nets.values[0].layers[0].weight, lambda nets: nets.actor.net.layers[0].weight):
        moved = [np.abs(net(state.nets) - net(begun.nets)).mean() for state in (alone, slower)]
        assert moved[0] == pytest.approx(10 * moved[1], rel=0.05)


def test_a_reincarnation_that_was_stopped_goes_on_exactly(tmp_path):
    found, method, key = course(), make_method("qdagger"), jax.random.key(4)
    whole = reincarnate.reincarnate(found, method, SCALE, key)
    assert [(p.phase, p.steps) for p in whole.curve] == [
        ("offline", 10), ("offline", 20), ("online", 40), ("online", 80)]  # fmt: skip
    assert whole.env_steps == 80 and int(whole.state.updates) == 20 + 80 - 28  # the replay begins empty
    assert 0 <= whole.engine.drain(whole.loop)[1]["phase/agreement"] <= 1
    library = Library.open(tmp_path)
    run = Run.create(library, "train", name="test", config={}, seed=0)
    stops = iter([False, True])
    again = dataclasses.replace(found, worlds=slope())
    reincarnate.reincarnate(again, method, SCALE, key, run=run, stop=lambda _: next(stops, False),
                            checkpoint_seconds=0.0)  # fmt: skip
    fresh = dataclasses.replace(found, worlds=slope())
    rest = reincarnate.reincarnate(fresh, method, SCALE, key, run=Run.open(library, run.id), checkpoint_seconds=0.0)
    assert rest.curve == whole.curve
    for name, leaf in flatten_arrays(whole.loop).items():
        np.testing.assert_array_equal(leaf, flatten_arrays(rest.loop)[name], err_msg=name)


def test_a_replay_of_steps_that_exist_is_that_of_having_taken_them():
    found = course(2)
    steps = jax.tree.map(jnp.asarray, found.data.steps)
    replay = windows.holding(steps, 50, horizon=5)
    kept = np.asarray(sum_tree.priorities(replay.tree, jnp.arange(100))).reshape(2, 50) > 0
    # 30 steps of each row: episodes of 12 and 12 that terminated, each with its end, and 6 that are another's behind
    drawn = np.ones(32, bool)
    drawn[[12, 25]] = drawn[-5:] = False
    np.testing.assert_array_equal(kept[:, :32], [drawn] * 2)
    assert not kept[:, 32:].any() and int(replay.filled) == 2 * 33
    arrays = windows.to_arrays(replay)
    np.testing.assert_array_equal(arrays["action"], steps.action)
    batch = windows.sample(jax.random.key(0), replay, 64, length=5)
    np.testing.assert_array_equal(batch.labels, np.broadcast_to(np.float32([0.7, -0.4]), (64, 2)))


def test_rehearsed_samples_change_no_priority():
    found = course()
    steps = rings.unlabelled(found.data)
    phase = Phase("online", 80, 3e-4, rehearse=1.0, keeps_replay=True)
    loop = OnSequences(found.agent, found.worlds, Given((), (), steps), 80, phase).begin(jax.random.key(0), None)
    data, learner = windows.holding(steps.steps, 80, horizon=5), Learner(found.agent, 1, phase)
    after = jax.jit(learner.improve)(loop, data, jax.random.key(1))[0]
    np.testing.assert_array_equal(after.replay.tree.nodes, loop.replay.tree.nodes)
    assert int(after.updates) == int(loop.updates) + 1
    places = learner.draw(jax.random.key(2), loop.replay, data, phase.dials(phase.begin()), 500)
    assert isinstance(places, Mixed) and places.swap.all()
    mixed = learner.sequences(loop.replay, data, places._replace(swap=jnp.arange(500) % 2 == 0))
    mine, theirs = (windows.gather(kept, place, length=5) for kept, place in
                    ((loop.replay, places.place), (data, places.other)))  # fmt: skip
    np.testing.assert_array_equal(mixed.action[:, 1::2], mine.action[:, 1::2])
    np.testing.assert_array_equal(mixed.obs["obs"][:, ::2], theirs.obs["obs"][:, ::2])


def test_a_replay_of_other_rows_is_not_kept():
    found = dataclasses.replace(course(), data=course(2).data)
    with pytest.raises(ConfigError, match=r"of 2 worlds side by side, the student's of 1; take --set num_envs=2"):
        reincarnate.reincarnate(found, make_method("fine-tuning"), SCALE, jax.random.key(0),
                                state=found.agent.init(jax.random.key(1), found.worlds.spec))  # fmt: skip


def test_data_without_an_episode_that_is_long_enough_are_refused():
    found = course()
    steps = found.data.steps
    cut = np.arange(60)[:, None] % 4 == 3
    data = found.data._replace(steps=steps._replace(terminated=steps.terminated & False, truncated=cut))
    short = dataclasses.replace(found, data=data)
    with pytest.raises(ConfigError, match="5 steps in a row, and the teacher's data have no episode of so many"):
        reincarnate.reincarnate(short, make_method("qdagger"), SCALE, jax.random.key(0))
