"""Layers between which activations are normalised without anything learnt, and pictures read by such a network.

As in MR.Q (Fujimoto et al. 2025, 2501.16142): weights begin Xavier-uniform with gain sqrt 2, biases zero, in the last
layers too.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rekindle.networks.convolution import convolve

EPS = 1e-5
xavier = jax.nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
"""Xavier-uniform with gain sqrt 2: within sqrt(12 / (inputs + outputs))."""


def normalise(x: Float[Array, "*axes n"]) -> Float[Array, "*axes n"]:
    """Mean 0 and variance 1 over the last axis (layer normalisation without scale and shift)."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + EPS)


def elu(x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Identity above 0, e^x - 1 below. Not `jax.nn.elu`, whose expm1 takes three times as long on processors."""
    return jnp.where(x > 0, x, jnp.exp(jnp.where(x > 0, 0.0, x)) - 1.0)


class Layer(eqx.Module):
    """`x @ weight + bias`."""

    weight: Float[Array, "n m"]
    bias: Float[Array, " m"]

    def __init__(self, key: Key[Array, ""], n: int, m: int):
        self.weight, self.bias = xavier(key, (n, m)), jnp.zeros(m)

    def __call__(self, x: Float[Array, "B n"]) -> Float[Array, "B m"]:
        """Apply."""
        return x @ self.weight + self.bias[None]


class Perceptron(eqx.Module):
    """Layers between which activations are normalised, then bent; the last one's output is left as it is."""

    layers: tuple[Layer, ...]

    def __init__(self, key: Key[Array, ""], *sizes: int):
        """Of these sizes, from the input's to the output's."""
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(Layer(k, n, m) for k, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True))

    def __call__(self, x: Float[Array, "B n"], bend: Callable[[Array], Array]) -> Float[Array, "B m"]:
        """Apply with this activation function."""
        for layer in self.layers[:-1]:
            x = bend(normalise(layer(x)))
        return self.layers[-1](x)


class Joint(eqx.Module):
    """A layer on two inputs side by side, whose weights lie apart, so that each product is computed only if needed."""

    left: Float[Array, "n m"]
    right: Float[Array, "k m"]
    bias: Float[Array, " m"]

    def __init__(self, key: Key[Array, ""], n: int, k: int, m: int):
        weight = xavier(key, (n + k, m))
        self.left, self.right, self.bias = weight[:n], weight[n:], jnp.zeros(m)

    def __call__(self, x: Float[Array, "B n"], y: Float[Array, "B k"]) -> Float[Array, "B m"]:
        """Apply."""
        return x @ self.left + y @ self.right + self.bias[None]


class Maps(eqx.Module):
    """Four convolutions 3x3 of 32 maps, strides 2, 2, 2, 1, without padding; ELU after each. Bytes in, vectors out."""

    weights: tuple[Float[Array, "3 3 n m"], ...]
    biases: tuple[Float[Array, " m"], ...]

    def __init__(self, key: Key[Array, ""], channels: int, maps: int = 32):
        keys = jax.random.split(key, len(STRIDES))
        self.weights = tuple(xavier(k, (3, 3, channels if i == 0 else maps, maps)) for i, k in enumerate(keys))
        self.biases = tuple(jnp.zeros(maps) for _ in STRIDES)

    def __call__(self, x: Array) -> Float[Array, "B n"]:
        """Features of pictures `[B, H, W, C]`: 1,568 of 84 x 84."""
        x = x.astype(self.biases[0].dtype) / 255.0 - 0.5
        for weight, bias, stride in zip(self.weights, self.biases, STRIDES, strict=True):
            x = elu(convolve(x, weight, stride, "VALID") + bias[None, None, None])
        return x.reshape(x.shape[0], -1)


STRIDES = (2, 2, 2, 1)


def features_of(height: int, width: int, maps: int = 32) -> int:
    """Features that `Maps` makes of pictures of this size; 0 where they are too small."""
    for stride in STRIDES:
        height, width = ((side - 3) // stride + 1 for side in (height, width))
    return maps * height * width if min(height, width) > 0 else 0
