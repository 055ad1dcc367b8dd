import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.networks.convolution import Convolutional, _convolve, convolve, multiply
from rekindle.networks.memory import num_parameters

ATARI = (84, 84, 4)


@pytest.mark.parametrize(
    ("name", "shape", "width", "convolutions", "dense"),
    [
        ("nature", ATARI, 512, 77_984, 7744 * 512 + 512),
        ("impala", ATARI, 512, 97_744, 1_982_976),
        ("minatar", (10, 10, 4), 128, 9 * 4 * 16 + 16, 1024 * 128 + 128),
        ("residual", (10, 10, 4), 128, 592 + 4 * (9 * 16 * 16 + 16), 1024 * 128 + 128),
    ],
)
def test_numbers_of_parameters(name, shape, width, convolutions, dense):
    """U11: 4,043,424 for Nature's, dense layer included; Impala's convolutions and dense layer as published."""
    net = Convolutional(jax.random.key(0), name, shape, width)
    assert (num_parameters(net.layers), num_parameters(net.dense)) == (convolutions, dense)
    assert name != "nature" or convolutions + dense == 4_043_424
    assert jax.eval_shape(net, jnp.zeros((2, 3, *shape))).shape == (2, 3, width)


def test_bytes_are_divided_and_planes_taken_as_they_are():
    net, keys = (
        Convolutional(jax.random.key(0), "minatar", (10, 10, 4), 8, bytes=True),
        jax.random.split(jax.random.key(1)),
    )
    picture = jax.random.randint(keys[0], (2, 10, 10, 4), 0, 256).astype(jnp.uint8)
    plain = Convolutional(jax.random.key(0), "minatar", (10, 10, 4), 8)
    np.testing.assert_allclose(net(picture), plain(picture.astype(jnp.float32) / 255.0), rtol=1e-5)
    planes = picture > 128
    np.testing.assert_allclose(plain(planes), plain(planes.astype(jnp.float32)))


def test_what_is_no_picture_or_no_torso_is_refused():
    with pytest.raises(ConfigError, match="no torso 'natur'; did you mean 'nature'"):
        Convolutional(jax.random.key(0), "natur", ATARI, 8)
    with pytest.raises(ConfigError, match="takes pictures"):
        Convolutional(jax.random.key(0), "nature", (84,), 8)
    with pytest.raises(ConfigError, match="3 x 3 pixels at least"):
        Convolutional(jax.random.key(0), "minatar", (1, 7, 2), 8)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "stride", "n", "height"),
    [(3, 1, 4, 10), (3, 1, 16, 9), (4, 2, 8, 21), (8, 4, 4, 84), (3, 2, 5, 12), (1, 2, 5, 20)],
)
def test_the_gradient_is_that_of_the_convolution(size, stride, n, height, padding):
    """On processors it is written out; also where strides leave pixels over."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, w = jax.random.normal(keys[0], (2, height, height, n)), jax.random.normal(keys[1], (size, size, n, 5))
    right, way_back = jax.vjp(lambda x, w: _convolve(x, w, stride, padding), x, w)
    out, way = jax.vjp(lambda x, w: convolve(x, w, stride, padding), x, w)
    g = jax.random.normal(keys[2], right.shape)
    np.testing.assert_allclose(out, right, atol=1e-3)
    for a, b in zip(way(g), way_back(g), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 * float(jnp.abs(b).max()))


def test_gradients_of_products_and_of_gradients_are_the_plain_ones_for_many_seeds():
    keys = jax.random.split(jax.random.key(0), 3)
    x, w = jax.random.normal(keys[0], (3, 6, 5)), jax.random.normal(keys[1], (3, 5, 4))

    def steep(product):
        loss = lambda x, w: jnp.sum(jnp.sin(product(x, w)))  # noqa: E731
        slope = lambda x, w: jnp.sum(jnp.cos(jax.grad(loss)(x, w)))  # noqa: E731
        return jax.vmap(jax.grad(slope, argnums=(0, 1)))(x, w)

    for a, b in zip(steep(multiply), steep(lambda x, w: x @ w), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_other_paddings_and_sides_of_weights_are_refused():
    with pytest.raises(ValueError, match="SAME or VALID"):
        convolve.__wrapped__(jnp.zeros((1, 30, 30, 3)), jnp.zeros((3, 3, 3, 4)), 1, "SAME_LOWER")
