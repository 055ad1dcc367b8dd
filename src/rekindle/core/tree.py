"""Pytrees as flat tables of named arrays, and back: the form in which weights and training states are stored."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from rekindle.core.errors import CheckpointError


def flatten_arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """Every array leaf of `tree` under its path, in the tree's order; leaves that are not arrays are left out.

    A path joins field names, dictionary keys and positions with dots: `params.layers.0.weight`. A typed random key
    is stored as its key data under `path#implementation`, as in `key#threefry2x32`.

    Raises:
        CheckpointError: two leaves have the same path (a dictionary key that contains a dot).
    """
    arrays: dict[str, np.ndarray] = {}
    for name, leaf in _named_leaves(tree):
        if name in arrays:
            raise CheckpointError(f"two leaves share the path {name!r}; rename the dictionary key that holds a dot.")
        arrays[name] = np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    return arrays


def unflatten_arrays(like: PyTree, arrays: Mapping[str, np.ndarray], *, where: str) -> PyTree:
    """`like` with its array leaves replaced by `arrays`, bit for bit; inverts `flatten_arrays`.

    Args:
        like: a tree of the wanted structure; its arrays may be `jax.ShapeDtypeStruct`, so nothing need be allocated.
        arrays: exactly the leaves of `like`: same paths, shapes and dtypes.
        where: what the arrays were read from, for the error message.

    Raises:
        CheckpointError: names the first leaf that differs, its shape and dtype there and here.
    """
    _check_same(_named_leaves(like), arrays, where)
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    return structure.unflatten(
        [_restored(leaf, arrays[_name(path, leaf)]) if _is_array(leaf) else leaf for path, leaf in paths]
    )


def only_if(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """`new` where the condition holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def own(tree: PyTree) -> PyTree:
    """The tree with a buffer of its own for every array, as donation demands."""
    return jax.tree.map(lambda x: jnp.copy(x) if _is_array(x) else x, tree)


def stacked(trees: Sequence[Any]) -> Any:
    """Trees of the same form as one, with an axis for them first."""
    return jax.tree.map(lambda *leaves: _as_keys(jnp.stack([_as_numbers(x) for x in leaves]), leaves[0]), *trees)


def apart(tree: Any, number: int) -> list[Any]:
    """Its inverse."""
    return [jax.tree.map(lambda x, i=i: _as_keys(_as_numbers(x)[i], x), tree) for i in range(number)]


def describe(array: Any) -> str:
    """An array's dtype and shape as text: `float32[96, 32]`."""
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"


def _check_same(leaves: list[tuple[str, Any]], arrays: Mapping[str, np.ndarray], where: str) -> None:
    mend = "Rebuild it with the configuration that was saved beside it."
    for name, leaf in leaves:
        here = _described(leaf)
        if name not in arrays:
            raise CheckpointError(f"{where} is for something else: it has no leaf {name!r}, here {here}. {mend}")
        if (there := describe(arrays[name])) != here:
            raise CheckpointError(f"{where} is for something else: leaf {name!r} is {there} there, {here} here. {mend}")
    wanted = {name for name, _ in leaves}
    for name, array in arrays.items():
        if name not in wanted:
            there = describe(array)
            raise CheckpointError(f"{where} is for something else: its leaf {name!r}, {there}, is not here. {mend}")


def _named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(_name(path, leaf), leaf) for path, leaf in paths if _is_array(leaf)]


def _name(path: tuple[Any, ...], leaf: Any) -> str:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return f"{name}#{_key_impl(leaf)}" if _is_key(leaf) else name


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_impl(leaf: Any) -> str:
    key = jnp.zeros((), leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
    return str(jax.random.key_impl(key))


def _described(leaf: Any) -> str:
    return describe(jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf)


def _restored(leaf: Any, array: np.ndarray) -> Any:
    if isinstance(leaf, np.generic):
        return array[()]
    if isinstance(leaf, np.ndarray):
        return np.array(array)
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=_key_impl(leaf))
    return jnp.asarray(array)


def _as_numbers(leaf: Any) -> Any:
    """Random keys are moved as what they consist of."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _as_keys(numbers: Any, like: Any) -> Any:
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(like)) if _is_key(like) else numbers
