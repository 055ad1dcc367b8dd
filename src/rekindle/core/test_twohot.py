import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.twohot import decode, encode, squash, unsquash

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
