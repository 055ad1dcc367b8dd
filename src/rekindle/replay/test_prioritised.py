import jax
import jax.numpy as jnp
import numpy as np

from rekindle.replay import prioritised
from rekindle.replay import ring as rings
from rekindle.replay.ring import Step


def filled(steps, slots, truncated=(), n=2):
    """A replay of two rows whose rewards are the numbers of the steps."""
    no = jnp.zeros(2, bool)
    like = Step({"x": jnp.zeros((2, 1))}, jnp.zeros(2, jnp.int32), jnp.zeros(2), no, no)
    replay = prioritised.empty(rings.empty(like, slots))
    for t in range(steps):
        step = like._replace(reward=jnp.full(2, float(t)), truncated=no | (t in truncated))
        replay = prioritised.add(replay, step, n=n)
    return replay


def drawn(replay, n=2, number=4000):
    batch = prioritised.sample(jax.random.key(0), replay, number, n=n, gamma=0.0)
    return np.asarray(batch.reward), batch


def test_a_step_can_be_drawn_once_others_follow_it_and_never_at_a_time_limit():
    rewards, _ = drawn(filled(7, 16, truncated=(3,)))
    assert sorted(set(rewards)) == [0, 1, 2, 4]
    rewards, _ = drawn(filled(21, 8))  # gone round: 13 to 20 are there, the last two wait
    assert sorted(set(rewards)) == [13, 14, 15, 16, 17, 18]


def test_a_replay_begins_with_steps_that_exist_as_if_they_had_been_added():
    by_step = filled(7, 16, truncated=(3, 6))
    begun = prioritised.holding(by_step.ring, by_step.ring.steps.truncated[:7], n=2)
    assert sorted(set(drawn(begun)[0])) == [0, 1, 2, 4]
    np.testing.assert_array_equal(begun.tree.nodes, by_step.tree.nodes)
    step = jax.tree.map(lambda x: x[0], by_step.ring.steps)
    for _ in range(2):  # what came last waits for those behind it, or ended
        begun = prioritised.add(begun, step._replace(reward=jnp.full(2, 9.0)), n=2)
    assert sorted(set(drawn(begun)[0])) == [0, 1, 2, 4, 5]


def test_what_is_revised_is_drawn_in_proportion_and_weighted_against_it():
    replay = filled(7, 16)
    place = jnp.array([2 * 1, 2 * 4], jnp.int32)
    replay = prioritised.revise(replay, place, jnp.array([3.0, 0.0]))
    assert float(replay.highest) == 3.0
    rewards, batch = drawn(replay)
    share = 3.0 / (3.0 + 8)  # row 0 of step 1; row 0 of step 4 is out, eight others have priority 1
    at = (rewards == 1) & (np.asarray(batch.place) % 2 == 0)
    assert abs(at.mean() - share) < 0.02 and not ((rewards == 4) & (np.asarray(batch.place) % 2 == 0)).any()
    np.testing.assert_allclose(np.asarray(batch.weight)[at], 3**-0.5, rtol=1e-4)
    np.testing.assert_allclose(np.asarray(batch.weight)[~at], 1.0, rtol=1e-4)
    later = prioritised.add(replay, jax.tree.map(lambda x: x[0], replay.ring.steps), n=2)
    assert float(later.tree.nodes[later.tree.nodes.shape[0] // 2 + 2 * 5]) == 3.0  # new ones have the highest there was
