from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.core.tree import flatten_arrays
from rekindle.replay import sum_tree, windows
from rekindle.replay.ring import Step

HORIZON = 5


@cache
def adding(stack=1, horizon=HORIZON):
    return jax.jit(partial(windows.add, horizon=horizon, stack=stack))


@cache
def gathering(**how):
    return jax.jit(partial(windows.gather, **{"length": HORIZON, **how}))


def like(rows=1):
    no = jnp.zeros(rows, bool)
    return Step({"x": jnp.zeros((rows, 1))}, jnp.zeros(rows, jnp.int32), jnp.zeros(rows), no, no)


def played(*episodes, slots=20, replay=None):
    """A replay of one row after episodes `(first observation, rewards, ends)`; ends: t, T (truncated), both, none."""
    replay = windows.empty(like(), slots) if replay is None else replay
    for first, rewards, ends in episodes:
        for i, reward in enumerate(rewards):
            last = i == len(rewards) - 1
            obs, final = ({"x": np.full((1, 1), first + n, np.float32)} for n in (i, i + 1))
            ends_with = (np.array([last and letter in ends]) for letter in "tT")
            step = Step(obs, np.array([i], np.int32), np.array([reward], np.float32), *ends_with)
            replay = adding()(replay, step, final)
    return replay


def drawable(replay):
    places = jnp.arange(replay.slots.reward.shape[0])
    return np.flatnonzero(np.asarray(sum_tree.priorities(replay.tree, places))).tolist()


EIGHT = [1.0] * 8


@pytest.mark.parametrize(
    ("episode", "expected", "head"),
    [
        ((0, EIGHT, "t"), list(range(8)), 9),
        ((0, EIGHT, "T"), [0, 1, 2], 9),
        ((0, EIGHT, "tT"), [0, 1, 2], 9),
        ((0, EIGHT, ""), [0, 1, 2], 8),
        ((0, [1.0] * 3, "t"), [0, 1, 2], 4),
        ((0, [1.0] * 3, "T"), [], 4),
    ],
)
def test_what_can_be_drawn_after_an_episode(episode, expected, head):
    """MR.Q's specification, 6.9."""
    replay = played(episode)
    assert drawable(replay) == expected and int(replay.added[0]) == int(replay.filled) == head


def test_a_ring_that_has_gone_round_can_draw_all_but_the_ends():
    replay = played((0, EIGHT, "t"), (100, [1.0] * 5, "t"), slots=12)
    assert int(replay.added[0]) % 12 == 3
    assert drawable(replay) == [i for i in range(12) if i not in (2, 8)]


@pytest.mark.parametrize(("slots", "held"), [(20, 15), (12, 12)])
def test_slots_without_anything_are_left_out_and_come_back(slots, held):
    """Those of a ring that has gone round are all there."""
    replay = played((0, EIGHT, "t"), (100, [1.0] * 5, "t"), slots=slots)
    few = flatten_arrays(windows.packed(replay))
    assert few["slots.reward"].shape == (held,) and few["slots.obs.x"].shape == (held, 1)
    for arrays in (few, flatten_arrays(replay)):
        whole = windows.unpacked(arrays, prefix="slots.", rows=1, room=slots)
        jax.tree.map(np.testing.assert_array_equal, whole, flatten_arrays(replay))


@pytest.mark.parametrize(("true_ends", "after"), [(True, 108), (False, 100)])
def test_a_window_across_an_end_shows_what_it_ended_with(true_ends, after):
    replay = played((100, EIGHT, "t"), (200, [2.0] * 3, ""))
    seen = gathering(true_ends=true_ends)(replay, jnp.array([6]))
    assert seen.obs["x"].ravel().tolist()[:3] == [106, 107, after]
    assert seen.reward.ravel().tolist() == [1, 1, 0, 2, 2]
    assert seen.terminated.ravel().tolist() == [False, True, True, False, False]
    last = gathering(true_ends=true_ends)(replay, jnp.array([3]))  # the end is its last observation: true either way
    assert last.obs["x"].ravel().tolist() == [103, 104, 105, 106, 107, 108]


def test_the_size_of_rewards_counts_the_ends():
    """6.4 and P8."""
    assert float(windows.past(windows.empty(like(), 20)).reward_size) == pytest.approx(1e-8)
    first = played((0, [1.0, -2.0], ""))
    assert not windows.past(first).terminates
    replay = played((2, [3.0], "t"), (4, [4.0], ""), replay=first)
    assert float(windows.past(replay).reward_size) == 2.0 and windows.past(replay).terminates
    assert not windows.past(played((0, EIGHT, "T"))).terminates


def test_new_slots_begin_with_the_highest_priority_that_was_ever_written():
    """6.3: 6.3096 once, and every later insert starts there even if that slot is scored 1 again."""
    replay = windows.revise(played((0, [1.0] * 7, "")), jnp.array([1, 1]), jnp.array([1.5, 1.5]))
    assert drawable(replay) == [0, 1]
    replay = windows.revise(replay, jnp.array([0]), jnp.array([6.30957344]))
    replay = windows.revise(replay, jnp.array([0]), jnp.array([1.0]))
    replay = played((7, [1.0] * 7, "t"), replay=replay)
    found = np.asarray(sum_tree.priorities(replay.tree, jnp.arange(20)))
    # what was stored before keeps its first priority until it is drawn
    np.testing.assert_allclose(found[:14], [1, 1.5, 1, 1, 1, 1, 1, *[6.30957344] * 7], rtol=1e-6)


def test_priorities_of_what_was_overwritten_are_forgotten():
    replay = played((0, EIGHT, "t"))
    before = float(replay.tree.total)
    replay = windows.revise(replay, jnp.array([8, 15]), jnp.array([2.0, 2.0]))
    assert float(replay.tree.total) == before and drawable(replay) == list(range(8))


def test_a_replay_without_room_is_refused():
    with pytest.raises(ConfigError, match="needs more than 6 slots per world; got 6"):
        played((0, EIGHT, "t"), slots=6)


class Reference:
    """One row, slowly: lists of everything that was ever stored, and what of it can be drawn."""

    def __init__(self, slots, stack):
        self.slots, self.stack, self.stored, self.open, self.episode = slots, stack, [], {}, []

    def step(self, obs, reward, terminated, truncated, final):
        self.episode.append(len(self.stored))
        self.stored.append((obs, reward, terminated, self.episode[0]))
        if len(self.episode) > HORIZON:
            self.open[self.episode[-1 - HORIZON]] = 1.0
        if terminated and not truncated:
            self.open |= dict.fromkeys(self.episode[-HORIZON:], 1.0)
        if terminated or truncated:
            self.stored.append((final, 0.0, True, self.episode[0]))
            self.episode = []

    @property
    def drawable(self):
        oldest = len(self.stored) - self.slots
        # frames of the steps before are there
        return sorted(n for n in self.open if n >= max(oldest, 0) + (self.stack - 1 if oldest >= 0 else 0))

    def stacked(self, n):
        first = self.stored[n][3]
        return [self.stored[max(n - back, first)][0] for back in range(self.stack - 1, -1, -1)]


@pytest.mark.parametrize(("slots", "stack", "seed"), [(23, 1, 0), (31, 3, 1), (200, 3, 2)])
def test_windows_are_those_of_a_slow_reference(slots, stack, seed):
    """Episodes of random lengths and both kinds of ends in three rows, rings that go round, stacked frames."""
    rng, rows = np.random.default_rng(seed), 3
    references = [Reference(slots, stack) for _ in range(rows)]
    no, zeros = jnp.zeros(rows, bool), jnp.zeros(rows)
    replay = windows.empty(Step({"x": jnp.zeros((rows, 1, 1, 1))}, zeros, zeros, no, no), slots)
    gather, compared = gathering(stack=stack), 0
    for t in range(150):
        obs, final = rng.random((2, rows, 1, 1, 1)).astype(np.float32)
        reward = rng.random(rows).astype(np.float32)
        terminated, truncated = (rng.random((2, rows)) < 0.07) | ((rng.random((2, rows)) < 0.2) & (t % 50 > 35))
        replay = adding(stack)(replay, Step({"x": obs}, reward, reward, terminated, truncated), {"x": final})
        for row, reference in enumerate(references):
            reference.step(obs[row].item(), reward[row].item(), terminated[row], truncated[row], final[row].item())
        if t % 7:
            continue
        wanted = [row * slots + n % slots for row, r in enumerate(references) for n in r.drawable]
        assert drawable(replay) == sorted(wanted)
        assert replay.filled == sum(min(len(r.stored), slots) for r in references)
        total = sum(abs(x[1]) for r in references for x in r.stored[-slots:])
        assert float(windows.past(replay).reward_size) == pytest.approx(total / int(replay.filled), rel=1e-5)
        places = np.resize(np.array(wanted or [0], np.int32), 3 * slots)
        seen = jax.tree.map(np.asarray, gather(replay, jnp.asarray(places)))
        for column, (row, n) in enumerate((row, n) for row, r in enumerate(references) for n in r.drawable):
            for i in range(HORIZON + 1):
                _, earned, over, _ = references[row].stored[n + i]
                np.testing.assert_allclose(seen.obs["x"][i, column].ravel(), references[row].stacked(n + i))
                if i == HORIZON or (i and references[row].stored[n + i - 1][2]):
                    break  # the last observation, or that of a termination: what follows means nothing
                assert seen.reward[i, column] == seen.action[i, column] == np.float32(earned)
                assert seen.terminated[i, column] == over
            compared += 1
    assert compared > 500


def test_draws_are_of_places_that_can_be_drawn_many_batches_at_once():
    replay = played((0, EIGHT, "t"), (100, EIGHT, "T"))
    places = jax.jit(lambda key: windows.draw(key, replay, 6, 50))(jax.random.key(0))
    assert places.shape == (6, 50) and set(np.asarray(places).ravel().tolist()) == set(drawable(replay))
    one = jax.jit(lambda key: windows.sample(key, replay, 9, length=3))(jax.random.key(1))
    assert one.obs["x"].shape == (4, 9, 1) and one.reward.shape == (3, 9)
    assert set(np.asarray(one.place).tolist()) <= set(drawable(replay))


def test_frames_from_before_an_episode_are_its_first():
    """6.9: the indices of steps 0 to 3 are (0, 0, 0), (0, 0, 1), (0, 1, 2), (1, 2, 3)."""
    no = jnp.zeros(1, bool)
    blank = Step({"x": jnp.zeros((1, 1, 1, 1))}, jnp.zeros(1), jnp.zeros(1), no, no)
    replay = windows.empty(blank, 20)
    for t in range(10):
        frame = {"x": jnp.full((1, 1, 1, 1), t, jnp.float32)}
        replay = adding(3)(replay, blank._replace(obs=frame), frame)
    shown = gathering(stack=3)(replay, jnp.array([0])).obs["x"][:, 0, 0, 0]
    assert shown[:4].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]
