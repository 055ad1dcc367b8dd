"""Convolutional torsos for pictures and planes: Nature CNN, Impala, MinAtar's, and small residual blocks.

Pictures are `[..., H, W, C]`; convolutions pad so that sizes shrink by their strides only (SAME), but for the first one
over MinAtar's planes, which does not pad (VALID). First convolutions and dense layers begin Xavier-uniform, those
inside residual blocks LeCun-normal, biases zero.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rekindle.core.errors import ConfigError, did_you_mean

Padding = Literal["SAME", "VALID"]
PIXELS, INPUTS = 256, 64
"""Up to which a picture is little, and what an output looks at is few."""
_xavier, _lecun = jax.nn.initializers.xavier_uniform(), jax.nn.initializers.lecun_normal()


class Convolution(eqx.Module):
    """Of pictures with channels last."""

    weight: Float[Array, "k k n m"]
    bias: Float[Array, " m"]
    stride: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], n: int, m: int, size: int, *, stride: int = 1, padding: Padding = "SAME",
                 init: Callable = _xavier):  # fmt: skip
        self.weight = init(key, (size, size, n, m), jnp.float32)
        self.bias, self.stride, self.padding = jnp.zeros(m), stride, padding

    def __call__(self, x: Float[Array, "B H W n"]) -> Float[Array, "B h w m"]:
        """SAME: h = ceil(H / stride); VALID: h = ceil((H - k + 1) / stride)."""
        return convolve(x, self.weight, self.stride, self.padding) + self.bias[None, None, None]


def convolve(x: Float[Array, "B H W n"], weight: Float[Array, "k k n m"], stride: int,
             padding: Padding = "SAME") -> Float[Array, "B h w m"]:  # fmt: skip
    """A convolution whose gradient is fast on processors, too.

    There XLA has a fast program for one order of axes alone, and does not bring the gradient's into it within a loop.
    So the gradient is written out in that order. For little pictures of few channels a product of matrices is faster
    still. Gradients of gradients are there, forward derivatives are not.
    """
    if padding not in ("SAME", "VALID") or weight.shape[0] != weight.shape[1]:
        raise ValueError(f"a convolution pads SAME or VALID and has square weights; got {padding}, {weight.shape}.")
    own = partial(_convolve, stride=stride, padding=padding)
    little = x.shape[1] * x.shape[2] <= PIXELS and weight.shape[0] ** 2 * weight.shape[2] <= INPUTS
    here = partial(_patches, stride=stride, padding=padding) if little else partial(_on_processors, stride, padding)
    return jax.lax.platform_dependent(x, weight, cpu=here, default=own)


def _convolve(x: Array, weight: Array, stride: int, padding: str) -> Array:
    return _slide(x, weight, (stride, stride), padding)


def _slide(x: Array, weight: Array, strides: tuple[int, int], padding: Any, **dilated: Any) -> Array:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, weight, strides, padding, dimension_numbers=axes, **dilated)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _on_processors(stride: int, padding: str, x: Array, weight: Array) -> Array:
    return _convolve(x, weight, stride, padding)


def _forward(stride: int, padding: str, x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _on_processors(stride, padding, x, weight), (x, weight)


def _backward(stride: int, padding: str, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """Both are convolutions again: of what was seen with the gradient, and of the gradient with the turned weights."""
    x, weight = kept
    last, apart = weight.shape[0] - 1, (stride, stride)
    sides = [(n, out, before) for n in x.shape[1:3] for out, before, _ in (_padding(n, last + 1, stride, padding),)]
    reach = [(n, before, (out - 1) * stride + 1) for n, out, before in sides]
    around = [(before, last + far - n - before) for n, before, far in reach]
    to_weight = _slide(jnp.swapaxes(x, 0, 3), jnp.moveaxis(gradient, 0, 2), (1, 1), around, rhs_dilation=apart)
    around = [(last - before, n + before - far) for n, before, far in reach]
    turned = jnp.swapaxes(weight[::-1, ::-1], 2, 3)
    return _slide(gradient, turned, (1, 1), around, lhs_dilation=apart), jnp.moveaxis(to_weight, 0, 2)


_on_processors.defvjp(_forward, _backward)


def _patches(x: Array, weight: Array, stride: int, padding: str) -> Array:
    """The same convolution: what every output looks at, side by side, times the weights."""
    size, _, _, m = weight.shape
    (height, *above), (width, *beside) = (_padding(n, size, stride, padding) for n in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), above, beside, (0, 0)))
    rows, columns = (1 + (n - 1) * stride for n in (height, width))
    seen = [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size)]
    flat = jnp.concatenate(seen, axis=-1)
    return (flat.reshape(-1, flat.shape[-1]) @ weight.reshape(-1, m)).reshape(x.shape[0], height, width, m)


def _padding(n: int, size: int, stride: int, padding: str) -> tuple[int, int, int]:
    """Length of the output, and zeros before and after: none for VALID."""
    if padding == "VALID":
        return (n - size) // stride + 1, 0, 0
    out = -(-n // stride)
    total = max((out - 1) * stride + size - n, 0)
    return out, total // 2, total - total // 2


class Dense(eqx.Module):
    """One layer with ReLU."""

    weight: Float[Array, "n m"]
    bias: Float[Array, " m"]

    def __init__(self, key: Key[Array, ""], n: int, m: int):
        self.weight, self.bias = _xavier(key, (n, m), jnp.float32), jnp.zeros(m)

    def __call__(self, x: Float[Array, "B n"]) -> Float[Array, "B m"]:
        """max(x W + b, 0)."""
        return jax.nn.relu(multiply(x, self.weight) + self.bias[None])


def multiply(x: Float[Array, "B n"], weight: Float[Array, "n m"]) -> Float[Array, "B m"]:
    """A product whose gradient by x is (W g^T)^T on processors, not g W^T: so only what is small is transposed.

    No forward derivatives, as in `convolve`.
    """
    plain = lambda x, weight: x @ weight  # noqa: E731
    return jax.lax.platform_dependent(x, weight, cpu=_multiply, default=plain)


@jax.custom_vjp
def _multiply(x: Array, weight: Array) -> Array:
    return x @ weight


def _multiply_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = kept
    return jax.lax.optimization_barrier(weight @ gradient.T).T, x.T @ gradient


_multiply.defvjp(lambda x, weight: (x @ weight, (x, weight)), _multiply_backward)


class Residual(eqx.Module):
    """x + conv(relu(conv(relu(x))))."""

    first: Convolution
    second: Convolution

    def __init__(self, key: Key[Array, ""], channels: int):
        keys = jax.random.split(key)
        self.first, self.second = (Convolution(k, channels, channels, 3, init=_lecun) for k in keys)

    def __call__(self, x: Float[Array, "B H W n"]) -> Float[Array, "B H W n"]:
        """The same shape."""
        return x + self.second(jax.nn.relu(self.first(jax.nn.relu(x))))


class Stack(eqx.Module):
    """Impala's: a convolution, max-pooling that halves the picture, two residual blocks."""

    enter: Convolution
    blocks: tuple[Residual, ...]

    def __init__(self, key: Key[Array, ""], n: int, channels: int):
        enter_key, *keys = jax.random.split(key, 3)
        self.enter = Convolution(enter_key, n, channels, 3)
        self.blocks = tuple(Residual(k, channels) for k in keys)

    def __call__(self, x: Float[Array, "B H W n"]) -> Float[Array, "B h w m"]:
        """H = ceil(H / 2)."""
        x = jax.lax.reduce_window(self.enter(x), -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        for block in self.blocks:
            x = block(x)
        return x


TORSOS = ("nature", "impala", "minatar", "residual")
"""`nature`: Mnih et al. 2015. `impala`: Espeholt et al. 2018 (1802.01561), the large one. `minatar`: Young and Tian
2019 (1903.03176), one convolution. `residual`: two residual blocks after one convolution, for MinAtar (ours)."""


class Convolutional(eqx.Module):
    """A torso over pictures (bytes are divided by 255) or planes (booleans, numbers) and a dense layer on top."""

    layers: tuple[eqx.Module, ...]
    dense: Dense
    bytes: bool = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], name: str, shape: tuple[int, ...], width: int, *, bytes: bool = False):
        """For pictures of this shape `[H, W, C]`.

        Raises:
            ConfigError: an unknown torso, or no picture.
        """
        if name not in TORSOS:
            raise ConfigError(f"no torso {name!r}; {did_you_mean(name, list(TORSOS))}")
        if len(shape) != 3:
            raise ConfigError(f"a convolutional torso takes pictures [H, W, C]; got the shape {list(shape)}.")
        if min(shape[:2]) < 3:
            raise ConfigError(f"a convolutional torso takes pictures of 3 x 3 pixels at least; got {list(shape)}.")
        channels = shape[-1]
        *keys, dense_key = jax.random.split(key, 4)
        if name == "nature":
            sizes = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
            self.layers = tuple(
                Convolution(k, n, m, size, stride=stride)
                for k, n, (m, size, stride) in zip(keys, (channels, 32, 64), sizes, strict=True)
            )
        elif name == "impala":
            self.layers = tuple(Stack(k, n, m) for k, n, m in zip(keys, (channels, 16, 32), (16, 32, 32), strict=True))
        else:
            first = Convolution(keys[0], channels, 16, 3, padding="VALID")
            self.layers = (first, Residual(keys[1], 16), Residual(keys[2], 16)) if name == "residual" else (first,)
        seen = jax.eval_shape(lambda x: _see(self.layers, x), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
        self.dense, self.bytes = Dense(dense_key, seen.size, width), bytes

    def __call__(self, x: Array) -> Float[Array, "*axes width"]:
        """Features of pictures `[..., H, W, C]`."""
        axes = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-3:]).astype(jnp.float32)
        x = x / 255.0 if self.bytes else x
        return self.dense(_see(self.layers, x)).reshape(*axes, -1)


def _see(layers: tuple[eqx.Module, ...], x: Float[Array, "B H W C"]) -> Float[Array, "B n"]:
    for layer in layers:
        x = layer(x)  # pyright: ignore[reportCallIssue]
        x = x if isinstance(layer, Stack | Residual) else jax.nn.relu(x)
    return jax.nn.relu(x).reshape(x.shape[0], -1)
