"""Tests of optimisers.py."""

import jax
import jax.numpy as jnp
import numpy as np

from rekindle.core.optimisers import grad_norm


def test_a_norm_is_of_all_weights_together() -> None:
    """Beside numpy's, of weights of several shapes."""
    grads = {"weight": jax.random.normal(jax.random.key(0), (8, 3)), "bias": jnp.array([3.0, -4.0])}
    flat = np.concatenate([np.ravel(x) for x in grads.values()])
    np.testing.assert_allclose(grad_norm(grads), np.linalg.norm(flat), rtol=1e-6)


def test_a_norm_makes_no_array_of_the_squares() -> None:
    """Compiled beside what Adam makes of them, the squares are in no buffer of their own."""

    def both(grad: jax.Array, square: jax.Array) -> tuple[jax.Array, jax.Array]:
        return grad_norm(grad), 0.999 * square + 0.001 * grad**2

    weights = jnp.ones((256, 256))
    compiled = jax.jit(both).lower(weights, weights).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < weights.nbytes
