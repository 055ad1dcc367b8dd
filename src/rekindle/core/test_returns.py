import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.core.returns import generalized_advantage, retrace

GAMMA, LAMBDA = 0.9, 0.5
advantages = jax.jit(jax.vmap(generalized_advantage, in_axes=(0, 0, 0, 0, 0, None)))


def one(r, v, v_last, *, ended=None, cut=None, v_next=None) -> list[float]:
    """Advantages of one sequence; `ended` and `cut` are 1 where an episode terminated, or a time limit cut it."""
    r, v = np.asarray(r, np.float32), np.asarray(v, np.float32)
    ended = np.zeros_like(r) if ended is None else np.asarray(ended, np.float32)
    cut = ended if cut is None else np.maximum(ended, np.asarray(cut, np.float32))
    v_next = np.append(v[1:], np.float32(v_last)) if v_next is None else np.asarray(v_next, np.float32)
    rows = (jnp.asarray(x)[None] for x in (r, GAMMA * (1 - ended), cut, v, v_next))
    return np.asarray(advantages(*rows, LAMBDA)[0]).tolist()


def test_by_hand():
    # deltas: 1 + .9 * 2 - 1 = 1.8; 0 + .9 * 3 - 2 = .7; 2 + .9 * 4 - 3 = 2.6; traces decay by .45
    last = 2.6
    middle = 0.7 + 0.45 * last
    assert one([1, 0, 2], [1, 2, 3], 4) == pytest.approx([1.8 + 0.45 * middle, middle, last], rel=1e-6)


def test_nothing_crosses_the_end_of_an_episode():
    early = one([1, 5, 0, 0], [0, 0, 0, 0], 0, ended=[0, 1, 0, 0])
    assert early == pytest.approx([1 + 0.45 * 5, 5, 0, 0])
    assert one([1, 5, 9, -9], [0, 0, 3, 7], 8, ended=[0, 1, 0, 0])[:2] == pytest.approx(early[:2])


def test_a_time_limit_bootstraps_from_the_final_observation_and_stops_the_trace():
    r, v, v_next = [0, 0, 0, 0], [0, 0, 0, 0], [0, 10, 0, 0]
    assert one(r, v, 0, cut=[0, 1, 0, 0], v_next=v_next) == pytest.approx([0.45 * 9, 9, 0, 0])
    assert one([0, 0, 9, 9], v, 0, cut=[0, 1, 0, 0], v_next=v_next)[:2] == pytest.approx([0.45 * 9, 9])


def loop(r, discount, cut, v, v_next, lambda_):
    """Equation 16 as a sum, not a recursion."""
    steps = len(r)
    delta = [r[t] + discount[t] * v_next[t] - v[t] for t in range(steps)]
    total = []
    for t in range(steps):
        weight, sum_ = 1.0, 0.0
        for i in range(t, steps):
            sum_ += weight * delta[i]
            weight *= lambda_ * discount[i] * (1 - cut[i])
        total.append(sum_)
    return total


numbers = st.lists(st.floats(-10, 10, width=32), min_size=8, max_size=8)
flags = st.lists(st.booleans(), min_size=8, max_size=8)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(r=numbers, v=numbers, v_next=numbers, ended=flags, cut=flags, lambda_=st.floats(0, 1), gamma=st.floats(0, 1))
def test_equals_a_plain_sum(r, v, v_next, ended, cut, lambda_, gamma):
    discount = [gamma * (1 - e) for e in ended]
    cut = [float(e or c) for e, c in zip(ended, cut, strict=True)]
    rows = (jnp.asarray(x, jnp.float32)[None] for x in (r, discount, cut, v, v_next))
    expected = loop(r, discount, cut, v, v_next, lambda_)
    np.testing.assert_allclose(advantages(*rows, lambda_)[0], expected, rtol=1e-4, atol=1e-3)


def test_retrace_on_policy_is_the_discounted_return():
    """With lambda 1, exact values and the target's own actions."""
    r = jnp.array([1.0, 0.0, 2.0, 5.0, 1.0])
    discount = 0.5 * jnp.array([1.0, 1.0, 0.0, 1.0, 1.0])  # the episode ends with the third step, not at a trial's end
    cut = jnp.array([0.0, 0.0, 1.0, 0.0, 0.0])
    want = [1 + 0.25 * 2, 0.5 * 2, 2.0, 5 + 0.5 * (1 + 0.5 * 8), 1 + 0.5 * 8]
    v = jnp.array([want[1], want[2], 99.0, want[4], 8.0])
    got = retrace(r, discount, cut, jnp.ones(5), jnp.array(want), v)
    np.testing.assert_allclose(got, want, atol=1e-6)
    # any values will do when traces are whole and v is the value of the action taken
    q = jnp.array([3.0, -1.0, 4.0, 1.0, 5.0])
    got = retrace(r, discount, cut, jnp.ones(5), q, jnp.append(q[1:], 8.0))
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_retrace_cuts_traces_where_the_target_would_not_have_gone():
    r, discount, none = jnp.array([0.0, 0.0, 8.0]), jnp.full(3, 0.5), jnp.zeros(3)
    q, v = jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 5.0, 6.0])
    got = retrace(r, discount, none, jnp.array([0.9, 0.0, 0.5]), q, v)
    last = 8 + 0.5 * 6
    second = 0.5 * (5 + 0.5 * (last - 3))
    np.testing.assert_allclose(got, [0.5 * 4, second, last])  # c = 0 at the second: the first sees its value only
