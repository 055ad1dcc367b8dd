"""The loop of agents that learn from sequences: when learning begins, what is stored, and that it goes on exactly."""

import math
from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.mrq import mrq
from rekindle.core.budget import Budget
from rekindle.core.errors import CheckpointError, ConfigError, WorldError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.tree import flatten_arrays, own
from rekindle.core.types import EnvSpec
from rekindle.envs import registry
from rekindle.envs.host.worlds import HostWorlds
from rekindle.library.dataset import read_dataset, save_dataset
from rekindle.replay import sum_tree, windows
from rekindle.replay.mapped import on_host as as_stored
from rekindle.replay.ring import Step
from rekindle.train import sequence_engine
from rekindle.train.loop import Plan, train
from rekindle.train.off_policy import Given, Nothing, Worlds
from rekindle.train.sequence_engine import OnSequences
from rekindle.train.sequences import Learner, is_ready

TINY = {"state_width": 8, "pair_width": 8, "action_width": 4, "hidden": 8, "batch": 8, "warmup": 40, "period": 10,
        "encoder_updates": 3, "bins": 11, "capacity": 600, "encoder_horizon": 2, "value_horizon": 2}  # fmt: skip
"""Short sequences make short programs, which take less time to compile."""
AGENT = mrq.make(mrq.Config(**TINY))


class Kind:
    """What a world of the next class is like; may be changed while it is open."""

    def __init__(self, *, steps=12, terminates=True, reward=1.0):
        self.steps, self.terminates, self.reward = steps, terminates, reward


class Line:
    """A place from which actions lead away; episodes end after so many steps, by their nature or by a limit."""

    def __init__(self, rows, kind):
        self.num_envs, self.kind = rows, kind
        self.rng = [np.random.default_rng(0) for _ in range(rows)]
        self.place, self.taken = np.zeros((rows, 2), np.float32), np.zeros(rows, int)

    def reset(self, *, seed, options):
        which = np.ones(self.num_envs, bool) if options is None else options["reset_mask"]
        for row in np.flatnonzero(which):
            if seed is not None:
                self.rng[row] = np.random.default_rng(seed[row])
            self.place[row], self.taken[row] = self.rng[row].normal(size=2), 0
        return self.place.copy(), {}

    def step(self, action):
        self.place[:, 0] += np.asarray(action, np.float32).reshape(self.num_envs, -1)[:, 0]
        self.taken += 1
        end = self.taken >= self.kind.steps
        over = (end, np.zeros_like(end)) if self.kind.terminates else (np.zeros_like(end), end)
        return self.place.copy(), np.full(self.num_envs, self.kind.reward), *over, {}


def on_host(rows=1, *, discrete=False, kind=None, **world):
    kind = kind or Kind(**world)
    action = Discrete(3) if discrete else Box((2,), -1.0, 1.0)
    spec = EnvSpec("test/line", 1, {"obs": Box((2,), -math.inf, math.inf)}, action, kind="host")
    return HostWorlds(lambda: Line(rows, kind), spec, lambda obs: {"obs": obs.copy()}, reseed=50)


def compiled(rows=1):
    made = registry.make("probe/delay-v1")
    agent = mrq.make(mrq.Config(**TINY | {"num_envs": rows}))
    return OnSequences(agent, Worlds(made.env, made.draw, rows), Given(made.pool()), 400)


def hosted(rows=1, **world):
    agent = mrq.make(mrq.Config(**TINY | {"num_envs": rows}))
    return OnSequences(agent, on_host(rows, **world), most_steps=400)


ENGINES = {"compiled": compiled, "hosted": hosted, "hosted, discrete": lambda rows=1: hosted(rows, discrete=True)}


def reopened(engine):
    """The same in another process."""
    worlds = engine.worlds
    return OnSequences(engine.agent, worlds.beside() if isinstance(worlds, HostWorlds) else worlds, engine.given,
                       engine.most_steps)  # fmt: skip


@pytest.mark.parametrize("kind", ENGINES)
def test_learning_begins_with_the_step_before_which_the_replay_is_warm(kind):
    engine = ENGINES[kind]()
    loop = engine.begin(jax.random.key(0), None)
    loop, metrics = engine.chunk(loop, 20, 0.0)
    assert isinstance(metrics, Nothing) and engine.learnt(loop) == 0
    loop, metrics = engine.chunk(loop, 40, 0.0)
    assert engine.steps(loop) == 60 and int(loop.replay.filled) > 60  # each end has a slot
    if kind.startswith("hosted"):
        assert int(loop.updates) == 60 - (40 - 3)
    assert int(loop.agent.updates) == int(loop.updates) and np.isfinite(list(metrics)).all()
    assert engine.drain(loop)[1]["mrq/encoder_loss"] > 0


@pytest.mark.parametrize(("kind", "rows"), [("compiled", 3), ("hosted", 1), ("hosted, discrete", 3)])
def test_a_saved_loop_goes_on_exactly(kind, rows):
    engine = ENGINES[kind](rows)
    middle, _ = engine.chunk(engine.begin(jax.random.key(1), None), 45, 0.0)
    saved = engine.saved(middle)
    held, slots = saved["replay.slots.reward"].shape[0], middle.replay.slots.reward.shape[0]
    assert held == rows * int(middle.replay.added.max()) < slots
    ended, _ = engine.chunk(middle, 15, 0.0)
    again = reopened(engine)
    fresh = again.begin(jax.random.key(1), None)
    loop, _ = again.chunk(own(again.restored(fresh, saved)), 15, 0.0)
    for name, found in flatten_arrays(loop).items():
        np.testing.assert_array_equal(found, flatten_arrays(ended)[name], err_msg=name)


def test_a_checkpoint_of_another_room_is_refused_and_one_with_all_slots_is_read():
    engine = hosted()
    loop = engine.begin(jax.random.key(1), None)
    other = reopened(replace(engine, most_steps=10))
    with pytest.raises(CheckpointError, match=r"of a replay of \d+ slots a row, this has \d+"):
        other.restored(other.begin(jax.random.key(1), None), engine.saved(loop))
    older = flatten_arrays(loop)
    for name, found in flatten_arrays(engine.restored(loop, older)).items():
        np.testing.assert_array_equal(found, older[name], err_msg=name)


def test_chunks_of_any_size_do_the_same():
    engine = hosted()
    whole, _ = engine.chunk(engine.begin(jax.random.key(2), None), 60, 0.0)
    cut = engine.begin(jax.random.key(2), None)
    for size in (1, 38, 2, 19):
        cut, _ = engine.chunk(cut, size, 0.0)
    for name, found in flatten_arrays(cut).items():
        np.testing.assert_array_equal(found, flatten_arrays(whole)[name], err_msg=name)


@pytest.mark.parametrize("terminates", [False, True])
def test_the_replay_becomes_a_dataset(terminates, tmp_path):
    engine = hosted(2, steps=7, terminates=terminates)
    loop, _ = engine.chunk(engine.begin(jax.random.key(3), None), 50, 0.0)
    with engine.unrolled(loop) as arrays:
        save_dataset(tmp_path, spec=engine.worlds.spec.to_json(), arrays=arrays)
    found = read_dataset(tmp_path).arrays
    over = np.arange(1, 51) % 7 == 0
    here, other = ("terminated", "truncated") if terminates else ("truncated", "terminated")
    assert (found[here] == over[:, None]).all() and not found[other].any()
    assert found["obs.obs"].shape == (50, 2, 2) and (found["reward"] == 1.0).all()
    moved = found["obs.obs"][:-1, :, 0] + found["action"][:-1, :, 0]
    np.testing.assert_allclose(moved[~over[:-1]], found["obs.obs"][1:, :, 0][~over[:-1]], rtol=1e-5)


def test_a_dataset_of_a_replay_that_went_round_has_its_latest_steps():
    engine = OnSequences(AGENT, on_host(steps=7), most_steps=20)
    loop, _ = engine.chunk(engine.begin(jax.random.key(3), None), 100, 0.0)
    with engine.unrolled(loop) as arrays:
        assert arrays["terminated"].sum() == 5 and len(arrays["reward"]) == 42 - 5
        assert arrays["terminated"][-3, 0]  # step 98 of 100


def test_episodes_that_a_limit_cuts_too_early_are_refused(monkeypatch):
    monkeypatch.setattr(sequence_engine, "HOPELESS", 50)
    engine = OnSequences(AGENT, on_host(steps=2, terminates=False), most_steps=100)
    with pytest.raises(
        ConfigError, match=r"needs 3 steps of an episode .* a time limit cut every episode of test/line before"
    ):
        train(engine, jax.random.key(0), Plan(Budget(env_steps=100), chunk_updates=50))


def test_where_a_world_fails_what_was_learnt_till_then_is_handed_over(monkeypatch):
    engine = hosted()
    loop, _ = engine.chunk(engine.begin(jax.random.key(5), None), 50, 0.0)
    before, step, left = int(loop.updates), engine.worlds.step, [4]

    def breaks(action):
        left[0] -= 1
        if left[0] < 0:
            raise WorldError("it broke", engine.worlds.spec)
        return step(action)

    monkeypatch.setattr(engine.worlds, "step", breaks)
    with pytest.raises(WorldError) as caught:
        engine.chunk(loop, 10, 0.0)
    assert caught.value.env_steps == 54 and int(caught.value.state.updates) == before + 4


def test_a_world_that_draws_from_elsewhere_than_its_seed_is_told(monkeypatch):
    engine = hosted()
    loop, _ = engine.chunk(engine.begin(jax.random.key(6), None), 30, 0.0)
    again = reopened(engine)
    reset = Line.reset

    def elsewhere(self, *, seed, options):
        reset(self, seed=seed, options=options)
        self.place += 1.0
        return self.place.copy(), {}

    monkeypatch.setattr(Line, "reset", elsewhere)
    with pytest.raises(WorldError, match="does not come back to where it stood"):
        again.chunk(loop, 1, 0.0)


def test_room_is_made_for_the_steps_that_will_be_taken():
    agent = mrq.make(mrq.Config(**TINY | {"capacity": 100_000}))
    assert OnSequences(agent, on_host(), most_steps=1_000).slots == 2_002
    picture = EnvSpec("test/picture", 1, {"obs": Box((36, 36, 2), 0, 255, "uint8")}, Discrete(2), kind="host")
    worlds = HostWorlds(lambda: Line(1, Kind()), picture, lambda obs: obs)
    assert OnSequences(agent, worlds, most_steps=1_000).slots == 1_001 + 100 + 50
    assert OnSequences(agent, worlds).slots == 100_000


HORIZONS = {"encoder_horizon": 5, "value_horizon": 3}
"""The published ones."""


@pytest.mark.parametrize("discrete", [False, True])
def test_whatever_the_world_pays_and_however_it_ends_losses_are_numbers(discrete):
    """Every combination; where nothing terminates, six steps of an episode are the fewest that can be learnt from."""
    kind = Kind()
    agent = mrq.make(mrq.Config(**TINY | HORIZONS))
    engine = OnSequences(agent, on_host(discrete=discrete, kind=kind), most_steps=400)
    begun = engine.begin(jax.random.key(4), None)
    lengths = [(steps, True) for steps in (1, 2, 9)] + [(steps, False) for steps in (6, 9)]
    for (steps, terminates), reward in product(lengths, (0.0, 1.0, -1e6, 1e6)):
        kind.steps, kind.terminates, kind.reward = steps, terminates, reward
        loop, metrics = engine.chunk(own(begun), 100, 0.0)
        assert int(loop.updates) > 30 and float(loop.replay.terminates) == terminates
        assert all(np.isfinite([*metrics, *engine.drain(loop)[1].values()])), (steps, terminates, reward)
        assert all(np.isfinite(x).all() for x in flatten_arrays(loop.agent).values() if x.dtype == np.float32)


def test_the_first_update_comes_when_more_than_10000_slots_are_filled():
    """MR.Q's specification, 6.9: an episode's end is a slot, too."""
    no, needs = jnp.zeros(1, bool), mrq.make(mrq.Config()).needs
    blank = Step({"x": jnp.zeros((1, 1))}, jnp.zeros(1, jnp.int32), jnp.zeros(1), no, no)

    def before_each_step(steps):
        def step(replay, number):
            one = blank._replace(truncated=no | ((number + 1) % steps == 0))
            return windows.add(replay, one, one.obs, horizon=needs.length), is_ready(needs, replay)

        return jax.lax.scan(step, windows.empty(blank, 10_100), jnp.arange(10_000))[1]

    ready = jax.jit(before_each_step)
    assert [int(np.argmax(ready(steps))) + 1 for steps in (500, 1000)] == [9_982, 9_992]


def test_a_termination_in_the_step_of_a_time_limit_counts_as_a_time_limit():
    """6.9, from the worlds on: of the episode's last five steps none is drawn; another replay takes it for an end."""
    worlds = on_host(steps=8)
    step = worlds._vector.step
    worlds._vector.step = lambda action: (lambda now: (*now[:3], now[2], now[4]))(step(action))
    engine = OnSequences(mrq.make(mrq.Config(**TINY | HORIZONS)), worlds, most_steps=100)
    loop, _ = engine.chunk(engine.begin(jax.random.key(3), None), 9, 0.0)
    places = jnp.arange(10)
    assert np.flatnonzero(sum_tree.priorities(loop.replay.tree, places)).tolist() == [0, 1, 2]
    assert loop.replay.slots.number[:10].tolist() == [*range(9), 0] and bool(loop.replay.terminates)
    kept = as_stored({}, np.zeros(1), np.zeros(1), *(np.ones(1, bool) for _ in range(2)))
    assert kept.terminated.all() and not kept.truncated.any()


@pytest.mark.parametrize("switch", ["correct", "compat"])
def test_what_follows_a_termination_is_shown_as_the_switch_says(switch):
    agent = mrq.make(mrq.Config(**TINY | HORIZONS | {"terminal_obs": switch}))
    engine = OnSequences(agent, on_host(steps=7), most_steps=100)
    loop, _ = engine.chunk(engine.begin(jax.random.key(3), None), 20, 0.0)
    shown = Learner(agent, 1).sequences(loop.replay, (), jnp.array([5])).obs["obs"]
    slots = loop.replay.slots.obs["obs"]
    np.testing.assert_array_equal(shown[:3, 0], slots[jnp.array([5, 6, 7 if switch == "correct" else 0])])
