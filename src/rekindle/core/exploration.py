"""Random actions now and then."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key


def epsilon(
    clock: Int32[Array, ""], *, last: Float[Array, ""] | float, steps: Array | int, warmup: Array | int
) -> Float[Array, ""]:
    """Share of random actions: 1 for `warmup` agent steps, then falling on a line to `last` over `steps` more.

    Source: Castro et al. 2018 (1812.06110), `linearly_decaying_epsilon`.
    """
    gone = jnp.clip((clock - warmup) / steps, 0.0, 1.0).astype(jnp.float32)
    return 1.0 - gone * (1.0 - last)


def epsilon_greedy(key: Key[Array, ""], q: Float[Array, "B A"], share: Float[Array, ""] | float) -> Int32[Array, " B"]:
    """The best action of each row, or with probability `share` any."""
    coin_key, action_key = jax.random.split(key)
    anything = jax.random.randint(action_key, q.shape[:1], 0, q.shape[-1])
    return jnp.where(jax.random.bernoulli(coin_key, share, q.shape[:1]), anything, greedy(q))


def greedy(q: Float[Array, "B A"]) -> Int32[Array, " B"]:
    """The best action of each row; of several, the first."""
    return jnp.argmax(q, axis=-1).astype(jnp.int32)
