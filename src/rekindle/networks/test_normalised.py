import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.networks.normalised import Joint, Layer, Maps, Perceptron, elu, features_of, normalise
from rekindle.networks.shift import random_shift, shift


def key(seed=0):
    return jax.random.key(seed)


def test_activations_are_normalised_without_anything_learnt():
    """MR.Q's specification, 6.10."""
    with jax.enable_x64(True):
        x = normalise(jnp.array([1.0, 2.0, 3.0, 4.0]))
        np.testing.assert_allclose(elu(x), [-0.73858221, -0.36059154, 0.44721181, 1.34163542], atol=1e-8)
        np.testing.assert_allclose(jax.nn.relu(x), [0, 0, 0.44721181, 1.34163542], atol=1e-8)
    assert [x.shape for x in jax.tree.leaves(Perceptron(key(), 3, 4, 2))] == [(3, 4), (4,), (4, 2), (2,)]


def test_elu_and_its_slope_are_those_of_jax():
    x = jnp.linspace(-20.0, 20.0, 999)
    np.testing.assert_allclose(elu(x), jax.nn.elu(x), atol=1e-7)
    slopes = [jax.jit(jax.grad(lambda x, f=f: jnp.sum(f(x))))(x) for f in (elu, jax.nn.elu)]
    np.testing.assert_allclose(*slopes, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "m", "bound"),
    [(512, 512, 0.108253), (17, 512, 0.150613), (512, 578, 0.104925), (512, 1, 0.152944), (6, 256, 0.214013),
     (1568, 512, 0.075955)],
)  # fmt: skip
def test_layers_begin_within_their_bounds(n, m, bound):
    layer = Layer(key(), n, m)
    assert 0.98 * bound < float(jnp.abs(layer.weight).max()) <= bound + 1e-6
    assert not layer.bias.any()


def test_a_layer_of_two_inputs_is_one_on_both_side_by_side():
    joint, keys = Joint(key(), 512, 256, 512), jax.random.split(key(1))
    assert max(float(jnp.abs(w).max()) for w in (joint.left, joint.right)) == pytest.approx(0.096825, abs=1e-5)
    x, y = jax.random.normal(keys[0], (2, 512)), jax.random.normal(keys[1], (2, 256))
    whole = jnp.concatenate([x, y], axis=-1) @ jnp.concatenate([joint.left, joint.right])
    np.testing.assert_allclose(joint(x, y), whole, atol=1e-4)


def test_maps_of_pictures_and_their_bounds():
    maps, pictures = Maps(key(), 4), jnp.full((2, 84, 84, 4), 255, jnp.uint8)
    assert (
        jax.eval_shape(maps, pictures).shape == (2, 1568) and features_of(84, 84) == 1568 and features_of(30, 99) == 0
    )
    assert features_of(31, 31) == 32
    bounds = [float(jnp.abs(w).max()) for w in maps.weights[:2]]
    assert bounds == pytest.approx([0.192450, 0.144338], rel=0.02) and bounds[0] <= 0.19246 and bounds[1] <= 0.14434
    middle = Maps(key(), 1)(jnp.full((1, 31, 31, 1), 127, jnp.uint8))  # nearly 0 after x / 255 - 0.5
    assert float(jnp.abs(middle).max()) < 0.01


def test_pictures_are_shifted_within_repeated_borders():
    picture = jnp.arange(84, dtype=jnp.uint8)[None, None, :, None] + jnp.zeros((3, 84, 1, 1), jnp.uint8)
    still = jnp.full(3, 4)
    moved = np.asarray(shift(picture, still, jnp.array([4, 0, 8])))[:, 0, :, 0]
    np.testing.assert_array_equal(moved[0], np.arange(84))
    np.testing.assert_array_equal(moved[1], [0] * 4 + list(range(80)))
    np.testing.assert_array_equal(moved[2], list(range(4, 84)) + [83] * 4)
    upright = np.asarray(shift(picture.transpose(0, 2, 1, 3), jnp.array([4, 0, 8]), still))[:, :, 0, 0]
    np.testing.assert_array_equal(upright, moved)


def test_every_picture_is_shifted_on_its_own_by_up_to_four_and_its_frames_alike():
    x = np.random.default_rng(0).integers(0, 255, (84, 84, 2), dtype=np.uint8)
    many = np.asarray(random_shift(key(), jnp.broadcast_to(jnp.asarray(x), (300, *x.shape))))
    padded = np.pad(x, ((4, 4), (4, 4), (0, 0)), mode="edge")
    seen = set()
    for one in many:
        places = np.argwhere((padded[:9, :9] == one[0, 0]).all(-1))
        seen |= {(y, x_) for y, x_ in places.tolist() if (padded[y : y + 84, x_ : x_ + 84] == one).all()}
    assert len(seen) > 70 and {y for y, _ in seen} == {x_ for _, x_ in seen} == set(range(9))
