"""Worlds that are not compiled are acted in as those that are, and a saved loop goes on exactly."""

import signal
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("gymnasium")

import gymnasium

from rekindle.agents.dqn import dqn
from rekindle.agents.rainbow import rainbow
from rekindle.agents.registry import config_to_json, load
from rekindle.core.budget import Budget
from rekindle.core.errors import CheckpointError, ConfigError, WorldError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.tree import flatten_arrays, own
from rekindle.core.types import ActOutput, EnvSpec, Extras
from rekindle.envs import registry
from rekindle.envs.host.worlds import HostWorlds
from rekindle.evaluate.returns import host_episodes
from rekindle.library import files
from rekindle.library.dataset import read_dataset, save_dataset
from rekindle.library.files import sha256
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.reincarnation.methods.registry import make_method
from rekindle.reincarnation.phases import OutputKinds, Scale
from rekindle.replay import mapped
from rekindle.replay import ring as rings
from rekindle.train import order as orders
from rekindle.train import prepare, prepared, reincarnate, session
from rekindle.train.loop import Plan, train
from rekindle.train.off_policy import Given, ticks_before
from rekindle.train.order import Order
from rekindle.train.replay_engine import OffPolicy

SMALL = {
    "batch": 8,
    "width": 8,
    "capacity": 512,
    "warmup": 40,
    "epsilon_steps": 100,
    "target_period": 5,
    "num_envs": 4,
    "network": "dense",
}
AGENTS = {"dqn": dqn.make(dqn.Config(**SMALL)), "rainbow": rainbow.make(rainbow.Config(**SMALL, atoms=11))}


class Corridor:
    """Seven cells, shown in two frames; the right end pays 1, the left ends it for nothing."""

    num_envs = 4

    def __init__(self):
        self.rng = [np.random.default_rng(0) for _ in range(4)]
        self.cell, self.frames = np.zeros(4, int), np.zeros((4, 1, 7, 2), np.uint8)

    def reset(self, *, seed, options):
        which = np.ones(4, bool) if options is None else options["reset_mask"]
        for row in np.flatnonzero(which):
            if seed is not None:
                self.rng[row] = np.random.default_rng(seed[row])
            self.cell[row] = self.rng[row].integers(2, 5)
        self.frames[which] = 0
        self.draw(which)
        return self.frames, {}

    def step(self, action):
        slip = np.array([rng.random() < 0.1 for rng in self.rng])
        self.cell += np.where(slip, 0, 2 * action - 1)
        self.frames[..., 0] = self.frames[..., 1]
        self.draw(np.ones(4, bool))
        end = (self.cell == 0) | (self.cell == 6)
        return self.frames, (self.cell == 6).astype(float), end, np.zeros(4, bool), {}

    def draw(self, which):
        self.frames[which, ..., 1] = 0
        self.frames[np.flatnonzero(which), 0, self.cell[which], 1] = 255


SPEC = EnvSpec("test/corridor", 1, {"obs": Box((1, 7, 2), 0, 255, "uint8")}, Discrete(2), kind="host", stack=2)


def corridor():
    return HostWorlds(Corridor, SPEC, lambda obs: {"obs": obs.copy()}, reseed=50)


class Rightwards(eqx.Module):
    """A teacher that knows where to go, and asks that every picture has two frames but the first."""

    def init_carry(self, batch_size):
        return jnp.zeros(batch_size)

    def act(self, key, carry, obs, start, *, explore):
        lit = jnp.sum(obs["obs"] > 0, axis=(1, 2, 3))
        q = jnp.stack([jnp.zeros(start.shape), jnp.where(lit == jnp.where(start, 1, 2), 1.0, -9.0)], axis=-1)
        return ActOutput(jnp.argmax(q, axis=-1).astype(jnp.int32), carry, Extras(q=q))


@pytest.mark.parametrize("name", AGENTS)
def test_what_is_acted_is_stored(name):
    agent = AGENTS[name]
    engine = OffPolicy(agent, corridor(), Given(()))
    loop, metrics = engine.chunk(engine.begin(jax.random.key(0), None), 90, 0.0)
    assert engine.steps(loop) == 360 and int(loop.agent.updates) == 90 - ticks_before(agent.needs)
    assert all(np.isfinite(metrics))
    with engine.unrolled(loop) as steps:
        cell, over = np.argmax(steps["obs.obs"][:, :, 0, :, 0], axis=-1), steps["terminated"]
        moved = cell[:-1] + 2 * steps["action"][:-1] - 1
        assert ((cell[1:] == moved) | (cell[1:] == cell[:-1]) | over[:-1]).all() and over.any()
        assert steps["obs.obs"].shape == (90, 4, 1, 7, 1)


@pytest.mark.parametrize("name", AGENTS)
def test_a_run_that_was_killed_goes_on_exactly_over_a_replay_that_went_round(name, tmp_path, monkeypatch):
    """The files hold 104 slices, 64 of which are drawn from; 40 more may be written before a checkpoint is useless."""
    monkeypatch.setattr(mapped, "LEAST", 40)
    agent = {"dqn": dqn, "rainbow": rainbow}[name]
    agent = agent.make(agent.Config(**SMALL | {"capacity": 256, "n_step": 3}))
    engine = OffPolicy(agent, corridor(), Given(()), folder=tmp_path / "replay")
    loop = engine.chunk(engine.begin(jax.random.key(0), None), 120, 0.0)[0]
    saved = engine.saved(loop)
    assert sum(array.nbytes for key, array in saved.items() if key.startswith("replay")) < 5_000
    assert engine.room(loop) == 40
    on = engine.chunk(loop, 35, 0.0)[0]
    assert engine.room(on) == 5

    def resumed():
        fresh = OffPolicy(agent, corridor(), Given(()), folder=tmp_path / "replay")
        return fresh, own(fresh.restored(fresh.begin(jax.random.key(9), None), saved))

    fresh, again = resumed()
    assert fresh.room(again) == 40  # known before the first chunk, which may be larger
    again = fresh.chunk(again, 35, 0.0)[0]
    for (leaf, a), b in zip(flatten_arrays(on).items(), flatten_arrays(again).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=leaf)
    with engine.unrolled(on) as mine, fresh.unrolled(again) as theirs:
        assert mine["reward"].shape == (64, 4)
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    fresh.chunk(again, 10, 0.0)
    with pytest.raises(CheckpointError, match=r"was written up to slice 165; the checkpoint needs slices 56 to 120"):
        (lambda fresh, loop: fresh.chunk(loop, 1, 0.0))(*resumed())
    path = tmp_path / "replay" / "obs.obs.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"obs\.obs\.npy is damaged or cut off"):
        (lambda fresh, loop: fresh.chunk(loop, 1, 0.0))(*resumed())


def test_checkpoints_come_before_the_files_are_used_up_and_a_crash_costs_nothing(tmp_path, monkeypatch):
    """None is due by the clock; 40 slices after the last one the next is written, so that the run can go on from it."""
    monkeypatch.setattr(mapped, "LEAST", 40)
    agent = dqn.make(dqn.Config(**SMALL | {"capacity": 256}))
    library = Library.open(tmp_path / "home")
    run = Run.create(library, "train", name="test", config={}, seed=0)
    plan = Plan(Budget(env_steps=640), chunk_updates=10, checkpoint_seconds=1e9)

    def trained(run, **how):
        folder = tmp_path / "whole" if run is None else run.path / "checkpoints" / "replay"
        return train(OffPolicy(agent, corridor(), Given(()), folder=folder), jax.random.key(1), plan, run=run, **how)

    def crash(now):
        if now.env_steps >= 600:
            raise MemoryError

    whole = trained(None)
    assert trained(run, stop=lambda values: True).env_steps == 40
    with pytest.raises(MemoryError):
        trained(Run.open(library, run.id), show=crash)
    saved = Run.open(library, run.id).latest_checkpoint()
    assert saved is not None and saved[0] == 520
    rest = trained(Run.open(library, run.id))
    for name, leaf in flatten_arrays(whole.loop).items():
        np.testing.assert_array_equal(leaf, flatten_arrays(rest.loop)[name], err_msg=name)


@pytest.mark.parametrize("name", ["fine-tuning", "rehearsal"])
def test_a_students_replay_begins_with_the_teachers_where_that_lies(name, tmp_path):
    """Capacity is for 128 slices: of the teacher's 100 and the student's own the oldest leave."""
    agent, worlds = AGENTS["dqn"], corridor()
    data = prepare.roll_out(worlds, (), Rightwards(), jax.random.key(1), steps=400, folder=tmp_path / "taught")
    (tmp_path / "data").mkdir()
    save_dataset(tmp_path / "data" / "replay", spec=SPEC.to_json(), arrays=rings.to_arrays(data))
    stored = read_dataset(tmp_path / "data").arrays
    data = prepare.labelled(rings.in_place(stored), Rightwards(), SPEC)
    kinds, marks = OutputKinds("values"), reincarnate.Marks(0.0, 1.0)
    course = reincarnate.Course(agent, worlds, (), Rightwards(), data, marks, kinds, 4, folder=tmp_path / "replay")
    state = agent.init(jax.random.key(5), SPEC)
    hashed = sha256(tmp_path / "data" / "replay" / "steps.safetensors")
    done = reincarnate.reincarnate(course, make_method(name), Scale(8, 240, 2, 1e-3, 1e-4, 1e-3), jax.random.key(0),
                                   state=state if name == "fine-tuning" else None)  # fmt: skip
    assert done.status == "done" and done.env_steps == 240
    given = done.engine.given.data
    assert np.shares_memory(given.steps.obs["obs"], stored["obs.obs"])
    with done.engine.unrolled(done.loop) as steps:
        kept = 128 - 60 if name == "fine-tuning" else 0
        assert steps["reward"].shape == (kept + 60, 4)
        np.testing.assert_array_equal(steps["obs.obs"][:kept], stored["obs.obs"][100 - kept :])
        assert not kept or (steps["truncated"] | steps["terminated"])[kept - 1].all()
    assert sha256(tmp_path / "data" / "replay" / "steps.safetensors") == hashed


def test_every_row_plays_equally_many_episodes():
    played = host_episodes(corridor(), Rightwards(), jax.random.key(0), number=10)
    assert played.returns.shape == (12,) and (played.returns == 1).all() and (played.lengths >= 2).all()


def test_a_student_comes_of_a_teacher_whose_labels_see_all_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "BLOCK", 120)  # of 30 slices: the last is shorter
    worlds = corridor()
    marks = prepare.marks(worlds, (), Rightwards(), jax.random.key(0), number=32)
    assert marks.teacher > 0.95 and 0.2 < marks.random < 0.8
    data = prepare.roll_out(worlds, (), Rightwards(), jax.random.key(1), steps=400, stray=0.1)
    data = prepare.labelled(data, Rightwards(), SPEC, path=tmp_path / "labels.npy")
    assert isinstance(data.steps.labels, np.memmap) and data.steps.obs["obs"].shape == (100, 4, 1, 7, 1)
    assert (np.asarray(data.steps.labels[..., 1]) == 1.0).all()
    kinds = prepare.output_kinds(Rightwards(), SPEC, jax.random.key(2), AGENTS["dqn"])
    course = reincarnate.Course(AGENTS["dqn"], worlds, (), Rightwards(), data, marks, kinds, episodes=16)
    scale = Scale(100, 400, 2, 1e-2, 1e-3, 1e-3)
    before = worlds.save()
    course.worlds.beside().reset(0)
    np.testing.assert_array_equal(worlds.save().since, before.since)  # evaluations are in worlds of their own
    done = reincarnate.reincarnate(course, make_method("qdagger"), scale, jax.random.key(3))
    assert done.status == "done" and done.env_steps == 400 and done.curve[-1].score > 0.7
    with pytest.raises(ConfigError, match="one student at a time"):
        reincarnate.reincarnate_many(course, make_method("qdagger"), scale, jax.random.split(jax.random.key(0)))


class Mill(gymnasium.Env):
    """Shows noise, pays for action 1, and can break down."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Discrete(2)
    steps, breaks_after = 0, 130

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        Mill.steps += 1
        obs = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        if Mill.steps == Mill.breaks_after:
            obs[0] = np.nan
        return obs, float(action), bool(obs[0] > 0.9), False, {}


def test_a_world_that_breaks_down_ends_a_run_that_then_goes_on_exactly(tmp_path, monkeypatch):
    """In the 66th step of two worlds; checkpoints are of every 20 steps, so that the last is of 120."""
    monkeypatch.setitem(session.CHUNK_STEPS, "transition", 20)
    monkeypatch.setattr(Mill, "steps", 0)
    monkeypatch.setitem(gymnasium.registry, "Mill-v0", gymnasium.envs.registration.EnvSpec("Mill-v0", Mill))
    library = Library.open(tmp_path / "home")
    small = config_to_json(dqn.Config(**SMALL | {"num_envs": 2, "warmup": 8}))
    order = Order("dqn", small, "gymnasium/Mill-v0", "200steps", checkpoint_seconds=0.0)
    run = session.begin(order, library, name="mill", seed=0)
    told = (
        r"^gymnasium/Mill-v0 showed nan in its observation obs, \d+ steps after world 2 of 2 began from the seed "
        rf"\d+\. The policy of 128 steps is kept; mend the world, then `rekindle resume {run.id}` goes on from the "
        r"checkpoint at step 120\.$"
    )
    with pytest.raises(WorldError, match=told):
        session.carry_out(run, library)
    failed = library.find(run.id)
    assert failed.manifest.status == "failed" and "showed nan" in failed.manifest.notes
    load(failed.path / "policy")
    again = session.carry_out(Run.open(library, run.id), library)
    whole = session.carry_out(session.begin(order, library, name="whole", seed=0), library)
    assert again.env_steps == whole.env_steps == 200 and library.find(run.id).manifest.status == "done"
    for name, leaf in flatten_arrays(whole.state).items():
        np.testing.assert_array_equal(leaf, flatten_arrays(again.state)[name], err_msg=name)


class Shift(Mill):
    """The same in episodes of five steps."""

    def reset(self, *, seed=None, options=None):
        self.left = 5
        return super().reset(seed=seed, options=options)

    def step(self, action):
        obs, reward, *_ = super().step(action)
        self.left -= 1
        return obs, reward, self.left == 0, False, {}


ASKED = []


def paid(obs):
    """A teacher from elsewhere that counts what it is asked."""
    ASKED.append(len(obs["obs"]))
    return np.ones(len(obs["obs"]), np.int32)


def test_a_student_is_prepared_once_whatever_interrupts_it(tmp_path, monkeypatch):
    """A world breaks down while the teacher plays, then Ctrl-C while the student learns from that.

    Only the 26 slices of two worlds that broke off are played twice; each sitting asks the teacher for two examples.
    """
    monkeypatch.setattr(orders, "HOST_EPISODES", 2)
    monkeypatch.setitem(gymnasium.registry, "Shift-v0", gymnasium.envs.registration.EnvSpec("Shift-v0", Shift))
    library, roll_out = Library.open(tmp_path / "home"), prepare.host_roll_out
    small = config_to_json(dqn.Config(**SMALL | {"num_envs": 2, "warmup": 8}))
    order = Order("dqn", small, "gymnasium/Shift-v0", "200steps", teacher=f"{__name__}:paid",
                  method="pretraining", checkpoint_seconds=0.0)  # fmt: skip
    counts = []

    def is_read(values):
        return values["phase/steps"] == 80  # the end of what is learnt offline

    def sitting(run, show=None):
        ASKED.clear()
        monkeypatch.setattr(Mill, "steps", 0)
        try:
            return session.carry_out(Run.open(library, run.id), library, show=show, stop=is_read)
        finally:
            counts.append((Mill.steps, sum(ASKED)))

    def break_down(*given):
        patch.setattr(Mill, "breaks_after", Mill.steps + 51)
        return roll_out(*given)

    monkeypatch.setattr(Mill, "breaks_after", 0)
    whole = sitting(session.begin(order, library, name="whole", seed=0))
    run = session.begin(order, library, name="broken", seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "host_roll_out", break_down)
        with pytest.raises(WorldError, match="Nothing was learnt by then"):
            sitting(run)
    scores = library.find(run.id).manifest.scores
    assert sitting(run, lambda now: signal.raise_signal(signal.SIGINT)).status == "interrupted"
    again = sitting(run)
    assert again.status == "done" and library.find(run.id).manifest.scores[:2] == scores
    once, *parts = np.array(counts)
    assert (np.sum(parts, axis=0) == once + np.array([52, 52 + 2 * 2])).all()
    jax.tree.map(np.testing.assert_array_equal, flatten_arrays(whole.state), flatten_arrays(again.state))
    assert not any((run.path / name).exists() for name in (prepared.TAUGHT, prepared.LABELS, prepared.NOTES))


def test_what_is_damaged_is_prepared_anew_and_nothing_else(tmp_path, monkeypatch):
    done, notes, labels = [], tmp_path / prepared.NOTES, tmp_path / prepared.LABELS
    frames = tmp_path / prepared.TAUGHT / "obs.obs.npy"

    def counted(name):
        do = getattr(prepare, name)
        monkeypatch.setattr(prepare, name, lambda *given, **more: (done.append(name), do(*given, **more))[1])

    def given(kept=None):
        done.clear()
        data = prepared.data_of(tmp_path, corridor(), (), Rightwards(), jax.random.key(1), steps=80, kept=kept)
        return data, jax.tree.map(np.array, data.steps), list(done)

    def put(path, change):
        path.write_bytes(change(path.read_bytes()))

    counted("roll_out")
    counted("labelled")
    _, first, did = given()
    assert did == ["roll_out", "labelled"] and first.obs["obs"].shape == (20, 4, 1, 7, 1)
    for damage, anew in (
        (lambda: None, []),
        (lambda: put(frames, lambda old: old[:-1]), ["roll_out"]),
        (lambda: put(frames, lambda old: old.replace(b"\xff", b"\xfe", 1)), ["roll_out"]),
        (lambda: put(labels, lambda old: old[: len(old) // 2]), ["labelled"]),
        (lambda: put(labels, lambda old: old + b"0"), ["labelled"]),
        (labels.unlink, ["labelled"]),
        (lambda: put(notes, lambda old: old[:-9]), ["roll_out", "labelled"]),
        (lambda: put(notes, lambda old: old.replace(b'"schema_version": 1', b'"schema_version": 2')),
         ["roll_out", "labelled"]),
    ):  # fmt: skip
        damage()
        data, steps, did = given()
        assert did == anew
        jax.tree.map(np.testing.assert_array_equal, steps, first)
    assert given(rings.unlabelled(data))[2] == []
    other = data._replace(steps=data.steps._replace(reward=np.array(data.steps.reward) + 1, labels=()))
    assert given(other)[2] == ["labelled"]


def test_marks_come_back_exactly_or_not_at_all(tmp_path):
    marks = prepare.Marks(-0.1, 1 / 3, 0.7, 1e-9, 32, 12_345)
    prepared.note(tmp_path, marks=marks)
    assert prepared.noted(tmp_path).marks == marks
    for wrong in ({"teacher": "NaN"}, {"episodes": 0}, {"random": None}):
        prepared.note(tmp_path, marks=marks)
        path = tmp_path / prepared.NOTES
        files.write_json(path, files.read_json(path) | {"marks": marks._asdict() | wrong})
        assert prepared.noted(tmp_path) == prepared.Notes()


@pytest.mark.parametrize("id", ["gymnasium/CartPole-v1", "ALE/Pong-v5"])
def test_it_runs_in_real_worlds(id):
    small = partial(dqn.Config, **SMALL | {"num_envs": 2, "warmup": 8, "capacity": 64, "network": "auto"})
    engine = OffPolicy(dqn.make(small()), registry.host(id).open(2), Given(()))
    loop, metrics = engine.chunk(engine.begin(jax.random.key(0), None), 12, 0.0)
    assert engine.steps(loop) == 48 and all(np.isfinite(metrics))
