import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.replay.ring import Step, add, empty, gather, newest, sample, stack_of

GAMMA = 0.9


def filled(reward, terminated, truncated, slots):
    """A ring with one step after the other; observations and actions are their numbers. Arrays are `[T, B]`."""
    reward, terminated, truncated = np.asarray(reward, np.float32), np.asarray(terminated), np.asarray(truncated)
    steps, rows = reward.shape
    number = np.arange(steps * rows, dtype=np.int32).reshape(steps, rows)
    shown = jnp.asarray(number)
    every = Step({"x": shown}, shown, *map(jnp.asarray, (reward, terminated, truncated)), labels=shown)
    ring = empty(jax.tree.map(lambda x: x[0], every), slots)
    return jax.lax.scan(lambda ring, step: (add(ring, step), None), ring, every)[0], number


def by_hand(t, row, reward, terminated, truncated, n):
    """Return, discount, and the step whose observation is bootstrapped from."""
    total, discount, at = 0.0, 1.0, t
    for i in range(n):
        at = t + i
        if truncated[at, row] and i > 0:
            return total, discount, at
        total += discount * reward[at, row]
        discount *= GAMMA
        if terminated[at, row]:
            return total, 0.0, None
        at += 1
    return total, discount, at


@pytest.mark.parametrize("n", [1, 3, 10])
def test_returns_of_n_steps_end_with_the_episode_and_before_a_time_limit(n):
    """A terminal, a time limit and a ring that has gone round, against a loop (U3)."""
    rng = np.random.default_rng(0)
    reward = rng.normal(size=(60, 3))
    terminated, truncated = rng.random((60, 3)) < 0.1, rng.random((60, 3)) < 0.1
    truncated &= ~terminated
    ring, number = filled(reward, terminated, truncated, 32)
    assert int(ring.filled) == 32 and int(ring.added) == 60
    oldest = 60 - 32
    t, row = (axis.ravel() for axis in np.meshgrid(np.arange(oldest, 60 - n), np.arange(3), indexing="ij"))
    got = gather(ring, jnp.asarray((t % 32) * 3 + row, jnp.int32), n=n, gamma=GAMMA)
    for i, (step, who) in enumerate(zip(t, row, strict=True)):
        total, discount, after = by_hand(step, who, reward, terminated, truncated, n)
        assert float(got.reward[i]) == pytest.approx(total, rel=1e-4, abs=1e-5)
        assert float(got.discount[i]) == pytest.approx(discount, rel=1e-5)
        assert int(got.obs["x"][i]) == int(got.action[i]) == int(got.labels[i]) == number[step, who]
        assert after is None or int(got.next_obs["x"][i]) == number[after, who]
        assert float(got.weight[i]) == (0.0 if truncated[step, who] else 1.0)


def test_what_is_sampled_is_there_and_n_steps_follow_it():
    no = np.zeros((50, 2), bool)
    ring, _ = filled(np.zeros((50, 2)), no, no, 16)
    seen = sample(jax.random.key(0), ring, 4000, n=3, gamma=GAMMA)
    steps = np.asarray(seen.obs["x"]) // 2
    assert set(steps.tolist()) == set(range(34, 47))  # the last 16 of 50, but the last three
    counts = np.bincount(np.asarray(seen.obs["x"]) - 68)
    assert counts.min() > 0.7 * counts.mean() and counts.max() < 1.3 * counts.mean()
    np.testing.assert_array_equal(np.asarray(seen.next_obs["x"]), np.asarray(seen.obs["x"]) + 6)


def test_a_ring_that_is_not_full_gives_only_what_was_added():
    no = np.zeros((5, 2), bool)
    ring, _ = filled(np.ones((5, 2)), no, no, 16)
    seen = sample(jax.random.key(0), ring, 200, n=1, gamma=GAMMA)
    assert set((np.asarray(seen.obs["x"]) // 2).tolist()) == set(range(4)) and (seen.reward == 1).all()


@pytest.mark.parametrize(("added", "slots"), [(9, 12), (12, 12), (29, 12)])
def test_frames_are_stored_once_and_put_together_again(added, slots):
    """As the worlds showed them, over ends of episodes and the ring's own; what is gone has no weight."""
    rng, stack, rows = np.random.default_rng(added), 4, 2
    over = rng.random((added, rows)) < 0.2
    frames, shown = rng.integers(1, 255, (added, rows, 3, 3, 1), dtype=np.uint8), []
    for t in range(added):
        last = np.zeros((rows, 3, 3, stack), np.uint8) if t == 0 else shown[-1] * ~over[t - 1][:, None, None, None]
        shown.append(np.concatenate([last[..., 1:], frames[t]], axis=-1))
    like = Step({"obs": jnp.asarray(frames[0])}, jnp.zeros(rows, int), jnp.zeros(rows), *[jnp.zeros(rows, bool)] * 2)
    kept = empty(like, slots)
    for t in range(added):
        obs = newest({"obs": jnp.asarray(shown[t])}, stack)
        np.testing.assert_array_equal(obs["obs"], frames[t])
        kept = add(kept, like._replace(obs=obs, terminated=jnp.asarray(over[t])))
    assert stack_of({"obs": jnp.asarray(shown[0])}, kept.steps.obs) == stack
    number = np.arange(max(added - slots, 0), added - 1).repeat(rows)
    row = np.tile(np.arange(rows), len(number) // rows)
    index = jnp.asarray(number % slots * rows + row)
    found = gather(kept, index.astype(jnp.int32), n=1, gamma=0.9, stack=stack)
    whole, first = np.asarray(found.weight) > 0, max(added - slots, 0)
    cut = np.array([over[max(t - 3, first) : t, r].any() for t, r in zip(number, row, strict=True)])
    np.testing.assert_array_equal(whole, (number - first >= 3) | cut)
    np.testing.assert_array_equal(np.asarray(found.obs["obs"])[whole], np.array(shown)[number, row][whole])
    goes_on = whole & ~over[number, row]
    np.testing.assert_array_equal(np.asarray(found.next_obs["obs"])[goes_on], np.array(shown)[number + 1, row][goes_on])
