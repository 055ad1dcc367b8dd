"""Last layers of value networks: plain, or with noise that explores."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

_xavier = jax.nn.initializers.xavier_uniform()


class Head(eqx.Module):
    """`x @ weight + bias`, Xavier-uniform."""

    weight: Float[Array, "n m"]
    bias: Float[Array, " m"]

    def __init__(self, key: Key[Array, ""], n: int, m: int):
        self.weight, self.bias = _xavier(key, (n, m), jnp.float32), jnp.zeros(m)

    def __call__(self, x: Float[Array, "B n"], key: Key[Array, ""] | None = None) -> Float[Array, "B m"]:
        """Apply; without noise, whatever the key."""
        del key
        return x @ self.weight + self.bias[None]


class NoisyHead(eqx.Module):
    """A layer whose weights have noise of learnt size, factorised (Fortunato et al. 2018, 1706.10295, eq. 10)."""

    weight: Float[Array, "n m"]
    bias: Float[Array, " m"]
    weight_noise: Float[Array, "n m"]
    bias_noise: Float[Array, " m"]

    def __init__(self, key: Key[Array, ""], n: int, m: int, *, size: float = 0.5):
        keys, bound = jax.random.split(key), n**-0.5
        self.weight = jax.random.uniform(keys[0], (n, m), minval=-bound, maxval=bound)
        self.bias = jax.random.uniform(keys[1], (m,), minval=-bound, maxval=bound)
        self.weight_noise, self.bias_noise = (
            jnp.full((n, m), size * bound, jnp.float32),
            jnp.full(m, size * bound, jnp.float32),
        )

    def __call__(self, x: Float[Array, "B n"], key: Key[Array, ""] | None = None) -> Float[Array, "B m"]:
        """Apply with noise drawn from the key, the same for the whole batch; without a key, with none."""
        if key is None:
            return x @ self.weight + self.bias[None]
        keys = jax.random.split(key)
        into, out = (_scaled(jax.random.normal(k, (size,))) for k, size in zip(keys, self.weight.shape, strict=True))
        noisy = self.weight + self.weight_noise * into[:, None] * out[None]
        return x @ noisy + (self.bias + self.bias_noise * out)[None]


def _scaled(x: Array) -> Array:
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x))
