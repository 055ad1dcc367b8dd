import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.twohot import (
    cross_entropy,
    decode,
    encode,
    encode_between,
    squash,
    symexp_bins,
    unsquash,
)

VALUES = jnp.asarray(np.concatenate([-np.logspace(-3, 3.9, 40), [0.0], np.logspace(-3, 3.9, 40)]), jnp.float32)


def test_squashing_is_undone():
    np.testing.assert_allclose(unsquash(squash(VALUES)), VALUES, rtol=1e-4, atol=1e-5)
    assert float(squash(jnp.array(3.0))) == pytest.approx(1 + 0.003)


@pytest.mark.parametrize(("bins", "bound"), [(601, 300.0), (51, 5.0)])
def test_what_is_encoded_is_decoded(bins, bound):
    inside = VALUES[jnp.abs(squash(VALUES)) < bound]
    p = encode(inside, bins, bound)
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-4)
    assert ((p > 0).sum(-1) <= 2).all()
    np.testing.assert_allclose(decode(jnp.log(p), bound), inside, rtol=2e-4 if bound < 10 else 2e-3, atol=2e-4)


def test_what_lies_outside_is_clipped():
    ends = encode(jnp.array([-1e6, 1e6]), 5, 2.0)
    np.testing.assert_array_equal(ends, [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]])


BINS = {32: 0, 33: 0.36683794, 34: 0.86824596, 35: 1.55358946, 36: 2.49034296, 40: 11.18249396, 61: 8624.68794105,
        64: 22025.46579481}  # fmt: skip
BETWEEN = {
    0.0: {32: 1}, 0.1: {32: 0.72740006, 33: 0.27259994}, 0.5: {33: 0.73442375, 34: 0.26557625},
    1.0: {34: 0.80775474, 35: 0.19224526}, -1.0: {29: 0.19224526, 30: 0.80775474},
    2.0: {35: 0.52344929, 36: 0.47655071}, -2.5: {27: 0.00754227, 28: 0.99245773},
    1e-4: {32: 0.9997274, 33: 0.0002726}, 5.0: {37: 0.29759631, 38: 0.70240369},
    10.0: {39: 0.36166419, 40: 0.63833581}, 100.0: {46: 0.26015732, 47: 0.73984268},
    -100.0: {17: 0.73984268, 18: 0.26015732}, 1000.0: {54: 0.90641389, 55: 0.09358611},
    21000.0: {63: 0.17346791, 64: 0.82653209},
}  # fmt: skip
"""MR.Q's specification, 6.1 and 6.2."""


def test_exponential_bins():
    with jax.enable_x64(True):
        bins = symexp_bins(65, 10.0)
        assert {k: pytest.approx(float(bins[k]), abs=1e-6) for k in BINS} == BINS
        np.testing.assert_allclose(bins, -bins[::-1])


@pytest.mark.parametrize("x64", [True, False])
def test_rewards_lie_between_two_bins_at_the_ends_in_one(x64):
    with jax.enable_x64(x64):
        bins, far = symexp_bins(65, 10.0), 22025.4657948067
        rewards = jnp.array([*BETWEEN, float(bins[33]), far, 1e6, -far, -1e6])
        codes = encode_between(rewards, bins)
        expected = np.zeros(codes.shape)
        for row, code in enumerate([*BETWEEN.values(), {33: 1}, {64: 1}, {64: 1}, {0: 1}, {0: 1}]):
            expected[row, list(code)] = list(code.values())
        np.testing.assert_allclose(codes, expected, atol=1e-6)
        np.testing.assert_allclose((codes @ bins)[: len(BETWEEN)], list(BETWEEN), rtol=1e-5, atol=1e-4)
        assert abs(float(codes[3, 35]) - 0.21807098) > 0.02  # what interpolation after squashing would give


def test_cross_entropy_to_rewards_between_bins():
    with jax.enable_x64(True):
        bins, logits = symexp_bins(65, 10.0), jnp.zeros(65).at[34].set(2.0).at[35].set(1.0)
        for reward, loss in ((1.0, 2.48417401), (0.5, 3.76077625), (-3.0, 4.29192874)):
            code = encode_between(jnp.array(reward), bins)
            assert float(cross_entropy(logits, code)) == pytest.approx(loss, abs=1e-7)
            assert float(cross_entropy(jnp.zeros(65), code)) == pytest.approx(4.17438727, abs=1e-7)
        assert float(jax.nn.softmax(logits) @ bins) == pytest.approx(0.11239332, abs=1e-7)
