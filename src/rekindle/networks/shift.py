"""Pictures moved a little at random, so that a network does not learn by heart (Yarats et al. 2021, 2107.09645)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

PAD = 4


def shift(x: Array, down: Int[Array, " B"], right: Int[Array, " B"]) -> Array:
    """`out[y, x] = in[y + down - PAD, x + right - PAD]` for pictures `[B, H, W, C]`; borders are repeated."""
    padded = jnp.pad(x, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), mode="edge")
    cut = lambda one, y, x_: jax.lax.dynamic_slice(one, (y, x_, 0), x.shape[1:])  # noqa: E731
    return jax.vmap(cut)(padded, down, right)


def random_shift(key: Key[Array, ""], x: Array) -> Array:
    """Every picture of `[B, H, W, C]` moved on its own by up to `PAD` pixels each way, all its frames alike."""
    down, right = jax.random.randint(key, (2, x.shape[0]), 0, 2 * PAD + 1)
    return shift(x, down, right)
