"""How programs are compiled where XLA's own way is slow on processors."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

from rekindle.core.spaces import Box, Image
from rekindle.core.types import EnvSpec

LARGE = 36
"""Pixels of the shorter side from which on a picture is large."""
OWN_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""Of XLA's library for processors only the sums are left."""
FEWER_COPIES = {"xla_cpu_copy_insertion_use_region_analysis": True}
"""XLA for processors looks when a value in a loop is read for the last time before it copies it."""


def jit_in_place(function: Callable[..., Any]) -> Any:
    """`jax.jit` of a program that goes on, step by step, from its first argument, whose memory it takes over.

    It cannot be called inside another `jax.jit`, as no program with options can.
    """
    return jax.jit(function, donate_argnums=0, compiler_options=loop_options())


def loop_options() -> dict[str, Any]:
    """For `jax.jit` of programs whose loops change large values, such as weights.

    By itself XLA for processors copies weights, and the tree of a prioritised replay twice, in every round.
    """
    return _known(tuple(FEWER_COPIES.items()))


def compiler_options(spec: EnvSpec) -> dict[str, Any]:
    """For `jax.jit` of programs, not in a loop, on what a world shows: none but for large pictures.

    By itself XLA hands products and convolutions to a library that sorts the weights anew every time, which for a few
    rows and millions of weights takes longer than the product.
    """
    shapes = [space.shape for space in spec.obs.values() if isinstance(space, Box | Image)]
    large = any(len(shape) == 3 and min(shape[:2]) >= LARGE for shape in shapes)
    return _known(tuple(OWN_PRODUCTS.items())) if large else {}


@cache
def _known(options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Those options, or none where XLA does not know one."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except RuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return {}
    return dict(options)
