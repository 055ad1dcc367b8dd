"""MR.Q in worlds that show pictures of several frames: it learns from the very stacks that it acted on."""

import math

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rekindle.agents.mrq import mrq
from rekindle.core.spaces import Box, Discrete
from rekindle.core.tree import flatten_arrays, own
from rekindle.core.types import EnvSpec
from rekindle.envs.host.worlds import HostWorlds
from rekindle.train.sequence_engine import OnSequences

SIDE, STACK, LONGEST = 31, 3, 9
TINY = {"state_width": 4, "pair_width": 4, "action_width": 4, "hidden": 4, "batch": 8, "warmup": 30, "period": 10,
        "encoder_updates": 2, "bins": 3, "capacity": 120, "encoder_horizon": 1, "value_horizon": 2,
        "num_envs": 2}  # fmt: skip
"""Pictures of one feature for each map; two rings of 60 slots, which 60 steps and their ends go round."""


class Snow(gymnasium.Env):
    """Frames of noise, none of which comes twice, three in a picture, the first one repeated; pays what is done.

    Episodes have one to nine steps, and every other one, by chance, is cut by a time limit.
    """

    observation_space = gymnasium.spaces.Box(0, 255, (SIDE, SIDE, STACK), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.cut = int(self.np_random.integers(1, LONGEST + 1)), bool(self.np_random.random() < 0.5)
        self.picture = np.repeat(self.frame(), STACK, axis=-1)
        return self.picture, {}

    def step(self, action):
        self.picture, self.left = np.concatenate([self.picture[..., 1:], self.frame()], axis=-1), self.left - 1
        over = self.left == 0
        return self.picture, float(action), over and not self.cut, over and self.cut, {}

    def frame(self):
        return self.np_random.integers(0, 256, (SIDE, SIDE, 1), np.uint8)


def watched(agent):
    """The agent; what it acts on and does; and what it learns from, sequence by sequence."""
    acted, learnt = [], []

    def act(key, state, carry, obs, start, *, explore):
        out = agent.act(key, state, carry, obs, start, explore=explore)
        jax.debug.callback(lambda *rows: acted.extend(zip(*map(np.array, rows), strict=True)), obs["obs"], out.action)
        return out

    def read(batch):
        def note(*arrays):
            learnt.extend(zip(*(np.moveaxis(np.array(x), 1, 0) for x in arrays), strict=True))

        jax.debug.callback(note, batch.obs["obs"], batch.action, batch.reward, batch.terminated)
        return batch

    def update(key, state, batch):
        return agent.update(key, state, read(batch))

    def prepare(key, state, places, past, *, fetch):
        return agent.prepare(key, state, places, past, fetch=lambda at: read(fetch(at)))

    return agent._replace(act=act, update=update, prepare=prepare), acted, learnt


@pytest.fixture(scope="module")
def begun():
    """Compiled once for all tests: an engine, its first state, what its agent acted on, and what it learnt from."""
    kwargs = {"autoreset_mode": AutoresetMode.DISABLED}
    shown = {"obs": Box((SIDE, SIDE, STACK), 0, 255, "uint8")}
    spec = EnvSpec("test/snow", 0, shown, Discrete(3), kind="host", stack=STACK)
    agent, acted, learnt = watched(mrq.make(mrq.Config(**TINY)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gymnasium.registry, "Snow-v0", gymnasium.envs.registration.EnvSpec("Snow-v0", Snow))
        worlds = HostWorlds(lambda: gymnasium.make_vec("Snow-v0", 2, vectorization_mode="sync", vector_kwargs=kwargs),
                            spec, lambda obs: {"obs": obs.copy()}, reseed=15)  # fmt: skip
        engine = OnSequences(agent, worlds)
        yield engine, engine.begin(jax.random.key(0), None), acted, learnt


def newest(picture):
    return picture[..., -1].tobytes()


def frames(picture):
    """How many different ones it has."""
    return len({picture[..., i].tobytes() for i in range(STACK)})


def test_what_is_learnt_from_is_what_was_acted_on(begun, monkeypatch):
    """Specification 2.3, from the beginnings of episodes to their ends, while the replay goes round."""
    engine, first, acted, learnt = begun
    acted.clear(), learnt.clear()
    step, ended = engine.worlds.step, {}

    def stepped(actions):
        shown = step(actions)
        ended.update({newest(picture): picture for picture in shown.final_obs["obs"][shown.terminated]})
        return shown

    monkeypatch.setattr(engine.worlds, "step", stepped)
    loop, metrics = engine.chunk(own(first), 90, 0.0)
    jax.effects_barrier()
    updates = int(loop.updates)
    assert int(loop.replay.added.min()) > 60 + LONGEST and updates > 100 and np.isfinite(list(metrics)).all()
    assert len(learnt) == 8 * (updates + 2 * math.ceil(updates / 10)) and len(acted) == 2 * (90 + 1)
    done = {newest(picture): (picture, action) for picture, action in acted}
    assert len(done) == len(acted)
    kinds = set()
    for pictures, actions, rewards, terminated in learnt:
        till = int(np.argmax(terminated)) + 1 if terminated.any() else len(terminated)
        for picture, action, reward in zip(pictures[:till], actions, rewards, strict=False):
            seen, did = done[newest(picture)]
            np.testing.assert_array_equal(picture, seen)
            assert action == did == reward
        after = ended if terminated.any() else {name: seen for name, (seen, _) in done.items()}
        np.testing.assert_array_equal(pictures[till], after[newest(pictures[till])])
        np.testing.assert_array_equal(pictures[1 : till + 1, ..., :-1], pictures[:till, ..., 1:])
        kinds.add((frames(pictures[0]), till, bool(terminated.any())))
    assert kinds == {(n, *how) for n in (1, 2, 3) for how in ((1, True), (2, True), (2, False))}


def test_what_was_saved_in_an_episode_goes_on_exactly(begun):
    """One row has just begun, so that its picture holds its first frame twice; the other row is further."""
    engine, first, *_ = begun
    middle, _ = engine.chunk(own(first), 40, 0.0)
    while sorted(middle.replay.begun.tolist())[0] != 1 or max(middle.replay.begun) < 3:
        middle, _ = engine.chunk(middle, 1, 0.0)
    assert sorted(map(frames, np.asarray(middle.obs["obs"]))) == [2, 3] and int(middle.updates) > 0
    saved = {name: np.array(array) for name, array in engine.saved(middle).items()}
    ended, _ = engine.chunk(middle, 12, 0.0)
    engine.chunk(own(first), 7, 0.0)  # the worlds are elsewhere
    loop, _ = engine.chunk(own(engine.restored(first, saved)), 12, 0.0)
    for name, found in flatten_arrays(loop).items():
        np.testing.assert_array_equal(found, flatten_arrays(ended)[name], err_msg=name)
