"""Work that few rows of a batch need in any one step: it costs what those rows cost, not what the batch would."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, PyTree

X = TypeVar("X")
BLOCK = 32
"""Rows computed at a time."""


def rarely(flag: Bool[Array, ""], f: Callable[..., X], x: X, *args: PyTree) -> X:
    """`f(x, *args)` where the flag is set, else `x`.

    Under `vmap`, `lax.cond` computes `f` for every row and throws most of it away; this gathers the rows with a set
    flag, `BLOCK` at a time, and scatters the results back.

    Args:
        flag: whether to compute.
        f: returns a tree like `x`; closes over no traced value.
        x: what is kept where the flag is not set.
        args: further arguments of `f`.
    """
    return _cond(f)(flag, x, args)


def _cond(f: Callable[..., X]) -> Callable[..., X]:
    @custom_vmap
    def cond(flag: Array, x: X, args: tuple) -> X:
        return jax.lax.cond(flag, lambda: f(x, *args), lambda: x)

    @cond.def_vmap
    def in_blocks(size: int, batched: list, flag: Array, x: X, args: tuple) -> tuple[X, Any]:
        flag, x = jax.tree.map(lambda leaf, b: leaf if b else _repeat(leaf, size), (flag, x), (batched[0], batched[1]))
        axes = jax.tree.map(lambda b: 0 if b else None, batched[2])
        data = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, args)

        def one(x: X, data: Any) -> X:
            return f(x, *jax.tree.map(_wrap_like, args, data))

        def block(carry: tuple[Array, X]) -> tuple[Array, X]:
            left, x = carry
            rows = jnp.nonzero(left, size=min(size, BLOCK), fill_value=size)[0]
            take = jax.tree.map(lambda leaf, b: leaf.at[rows].get(mode="clip") if b else leaf, data, batched[2])
            some = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="clip"), x)
            done = jax.vmap(one, in_axes=(0, axes))(some, take)
            x = jax.tree.map(lambda leaf, new: leaf.at[rows].set(new, mode="drop"), x, done)
            return left.at[rows].set(False, mode="drop"), x

        x = jax.lax.while_loop(lambda carry: jnp.any(carry[0]), block, (flag, x))[1]
        return x, jax.tree.map(lambda _: True, x)

    return cond


def _repeat(leaf: Array, size: int) -> Array:
    return jnp.broadcast_to(leaf, (size, *jnp.shape(leaf)))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _wrap_like(leaf: Any, data: Any) -> Any:
    """Keys enter the loop as data: every turn uses other rows, which the check for reused keys cannot see."""
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else data
