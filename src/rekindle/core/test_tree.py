from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import CheckpointError
from rekindle.core.tree import flatten_arrays, unflatten_arrays


class State(NamedTuple):
    params: dict
    key: jax.Array
    name: str
    step: np.ndarray
    nothing: None = None


def make(seed, width=3):
    layers = [{"weight": jnp.full((2, width), seed, jnp.float32)}, {"weight": jnp.array([True, False])}]
    return State({"layers": layers, "eps": 0.1}, jax.random.key(seed), "ppo", np.array(seed, np.int64))


def test_names_are_paths_and_what_is_no_array_is_left_out():
    names = ["params.layers.0.weight", "params.layers.1.weight", "key#threefry2x32", "step"]
    assert list(flatten_arrays(make(1))) == names


@pytest.mark.parametrize("abstract", [False, True])
def test_there_and_back_bit_for_bit(abstract):
    saved = make(1)
    like = make(2)
    if abstract:
        like = like._replace(params={**like.params, "layers": jax.eval_shape(lambda: like.params["layers"])})
    back = unflatten_arrays(like, flatten_arrays(saved), where="here")
    assert jax.tree.structure(back) == jax.tree.structure(saved)
    there = flatten_arrays(saved)
    for name, array in flatten_arrays(back).items():
        assert array.dtype == there[name].dtype and array.tobytes() == there[name].tobytes()
    assert back.name == "ppo" and isinstance(back.step, np.ndarray) and back.step == 1
    assert jax.random.bits(back.key) == jax.random.bits(jax.random.key(1))


def test_another_network_is_refused_with_the_first_leaf_there_and_here():
    with pytest.raises(CheckpointError, match=r"layers\.0\.weight' is float32\[2, 3\] there, float32\[2, 5\] here"):
        unflatten_arrays(make(0, width=5), flatten_arrays(make(0)), where="it")
    arrays = flatten_arrays(make(0))
    with pytest.raises(CheckpointError, match="its leaf 'more', float64"):
        unflatten_arrays(make(0), {**arrays, "more": np.zeros(1)}, where="it")
    arrays.pop("step")
    with pytest.raises(CheckpointError, match="no leaf 'step', here int64"):
        unflatten_arrays(make(0), arrays, where="it")


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(CheckpointError, match=r"'a\.b'"):
        flatten_arrays({"a": {"b": jnp.zeros(1)}, "a.b": jnp.zeros(1)})
