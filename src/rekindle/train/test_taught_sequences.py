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
from rekindle.reincarnation.phases import OutputKinds, Phase, Scale
from rekindle.reincarnation.weaning import Linear
from rekindle.replay import ring as rings
from rekindle.replay import sum_tree, windows
from rekindle.train import prepare, reincarnate
from rekindle.train.agreement import compare
from rekindle.train.off_policy import Given
from rekindle.train.sequence_engine import OnSequences
from rekindle.train.sequences import Learner, Mixed
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
    return reincarnate.Course(agent, worlds, (), teacher, data, marks, OutputKinds("actions", "policy"), episodes=2)


def test_a_teacher_of_vectors_makes_noisy_data_and_says_its_actions():
    found = course()
    steps = found.data.steps
    assert found.marks.teacher == pytest.approx(12 * 0.7, rel=1e-5) and abs(found.marks.random) < 4.0
    np.testing.assert_allclose(steps.labels, np.broadcast_to(np.float32([0.7, -0.4]), (60, 1, 2)))
    strays = np.asarray(steps.action) - steps.labels
    assert 0.1 < strays.std() < 0.3 and np.abs(steps.action).max() <= 1.0
    assert prepare.output_kinds(found.teacher, found.worlds.spec, jax.random.key(0), found.agent) == found.kinds


@dataclasses.dataclass(frozen=True)
class Everything:
    """What methods do, at once: offline, then with a loss, samples and first steps of the teacher."""

    def phases(self, scale, kinds):
        loss = distils(kinds, 0.1)
        return (
            Phase("offline", scale.offline_updates, scale.guided, 2, offline=True, adds=loss, weight=1.0),
            Phase("online", scale.online_steps, scale.scratch, 2, adds=loss, weight=1.0, weaning=Linear(160),
                  rehearse=0.5, roll_in=7, roll_in_decay=0.5),
        )  # fmt: skip


def test_phases_do_as_they_say_and_one_that_was_stopped_goes_on_exactly(tmp_path):
    found, method, key = course(), Everything(), jax.random.key(4)
    whole = reincarnate.reincarnate(found, method, SCALE, key)
    assert [(p.phase, p.steps, p.multiplier) for p in whole.curve] == [
        ("offline", 10, 1.0), ("offline", 20, 1.0), ("online", 40, 1.0), ("online", 80, 0.75)]  # fmt: skip
    assert whole.env_steps == 80 and int(whole.state.updates) == 20 + 80 - 28  # the replay begins empty
    assert int(whole.loop.replay.filled) == 80 + 6 and float(whole.loop.progress.roll_in) == 1.0
    own = windows.to_arrays(whole.loop.replay)["action"]
    guided = (own == np.float32([0.7, -0.4])).all(axis=(1, 2))
    assert guided[0] and guided[12] and 8 <= guided.sum() < 40  # the first steps of episodes
    assert 0 <= whole.engine.drain(whole.loop)[1]["phase/agreement"] <= 1
    library = Library.open(tmp_path)
    run = Run.create(library, "train", name="test", config={}, seed=0)
    stops = iter([False, False, True])  # with a multiplier of 0.75, in mid-episode, before it has learnt all
    again = dataclasses.replace(found, worlds=slope())
    reincarnate.reincarnate(again, method, SCALE, key, run=run, stop=lambda _: next(stops), checkpoint_seconds=0.0)
    assert len(run.metrics()) == 3
    fresh = dataclasses.replace(found, worlds=slope())
    rest = reincarnate.reincarnate(fresh, method, SCALE, key, run=Run.open(library, run.id), checkpoint_seconds=0.0)
    assert rest.curve == whole.curve
    for name, leaf in flatten_arrays(whole.loop).items():
        np.testing.assert_array_equal(leaf, flatten_arrays(rest.loop)[name], err_msg=name)


@pytest.mark.parametrize("rows", [1, 4])
def test_what_is_learnt_from_offline_is_all_there_and_is_not_the_students(rows):
    found = course()
    agent = mrq.make(mrq.Config(**TINY | {"num_envs": rows, "capacity": 200}))
    phase = Phase("offline", 20, 3e-4, offline=True)
    engine = OnSequences(agent, slope(rows), Given((), (), found.data), 20, phase)
    loop = engine.begin(jax.random.key(0), None)
    assert int(loop.replay.filled) == 60 + 5 and windows.to_arrays(loop.replay)["action"].shape == (60, 1, 2)
    with engine.unrolled(loop) as arrays:
        assert arrays == {}


@pytest.mark.parametrize("name", ["pretraining", "dqfd", "fine-tuning"])
def test_methods_that_train_action_values_are_refused(name):
    with pytest.raises(ConfigError, match=f"the method {name} trains action values .* Take qdagger"):
        make_method(name).phases(SCALE, course().kinds)


def test_a_policy_is_distilled_with_a_weight_of_its_own():
    assert [make_method("qdagger", student=name).weight for name in ("dqn", "rainbow", "mrq")] == [3.0, 1.0, 0.4]
    assert make_method("qdagger", {"weight": 2.0}, student="mrq").weight == 2.0


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
    guide = Guidance(distils(OutputKinds("values" if discrete else "actions", "policy"), 1.0), 3.0, 0.0,
                     agent.config.value_rate)  # fmt: skip

    def step(number, state):
        return agent.update(jax.random.fold_in(jax.random.key(1), number), state, batch, guide=guide).state

    state = jax.jit(lambda state: jax.lax.fori_loop(0, 400, step, state))(agent.init(jax.random.key(0), spec))
    now = jax.tree.map(lambda x: x[0], batch.obs)
    out = agent.act(jax.random.key(0), state, (), now, jnp.ones(8, bool), explore=False)
    found = jax.nn.softmax(out.extras.logits) if discrete else out.extras.mean
    wanted = jax.nn.softmax(labels) if discrete else labels
    np.testing.assert_allclose(found, jnp.tile(wanted, (8, 1)), atol=0.05)
    agreement = compare(agent, OutputKinds("values" if discrete else "actions"), 1.0, jax.random.key(2), state, now,
                        batch.labels)  # fmt: skip
    assert agreement.agreement == 1.0
    entropy = -jnp.sum(wanted * jnp.log(wanted)) if discrete else 0.0
    assert float(agreement.teacher_entropy) == pytest.approx(float(entropy), rel=1e-5)


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
    steps, phase = rings.unlabelled(found.data), Phase("offline", 20, 3e-4, offline=True)
    engine = OnSequences(found.agent, found.worlds, Given((), (), steps), 20, phase)
    loop, phase = engine.begin(jax.random.key(0), None), Phase("online", 80, 3e-4, rehearse=1.0)
    data, learner = windows.holding(steps.steps, 80, horizon=5), Learner(found.agent, 1, phase)
    after = jax.jit(learner.improve)(loop, data, jax.random.key(1))[0]
    np.testing.assert_array_equal(after.replay.tree.nodes, loop.replay.tree.nodes)
    assert int(after.updates) == int(loop.updates) + 1
    places = learner.draw(jax.random.key(2), loop.replay, data, phase.dials(phase.begin()), 500)
    assert isinstance(places, Mixed) and places.swap.all()
    mixed = learner.sequences(loop.replay, data, places._replace(swap=jnp.arange(500) % 2 == 0))
    mine, theirs = (windows.gather(kept, place, length=2) for kept, place in
                    ((loop.replay, places.place), (data, places.other)))  # fmt: skip
    np.testing.assert_array_equal(mixed.action[:, 1::2], mine.action[:, 1::2])
    np.testing.assert_array_equal(mixed.obs["obs"][:, ::2], theirs.obs["obs"][:, ::2])


def test_data_without_an_episode_that_is_long_enough_are_refused():
    found = course()
    steps = found.data.steps
    cut = np.arange(60)[:, None] % 2 == 1
    data = found.data._replace(steps=steps._replace(terminated=steps.terminated & False, truncated=cut))
    short = dataclasses.replace(found, data=data)
    with pytest.raises(
        ConfigError, match="3 steps of an episode to learn from, and the teacher's data have none of so many"
    ):
        reincarnate.reincarnate(short, make_method("qdagger"), SCALE, jax.random.key(0))
