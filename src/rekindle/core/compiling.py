"""How programs are compiled where XLA's own way is slow."""

from functools import cache

import jax

from rekindle.core.spaces import Box, Image
from rekindle.core.types import EnvSpec

LARGE = 36
"""Pixels of the shorter side from which on a picture is large."""
OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""Of XLA's library for processors only the sums are left."""


def compiler_options(spec: EnvSpec) -> dict[str, str]:
    """For `jax.jit` of programs, not in a loop, on what a world shows: none but for large pictures.

    They are of use on processors. By itself XLA hands products and convolutions to a library that sorts the weights
    anew every time, which for a few rows and millions of weights takes longer than the product.
    """
    shapes = [space.shape for space in spec.obs.values() if isinstance(space, Box | Image)]
    large = any(len(shape) == 3 and min(shape[:2]) >= LARGE for shape in shapes)
    return dict(_without_library()) if large else {}


@cache
def _without_library() -> dict[str, str]:
    """Empty where XLA does not know the option."""
    try:
        jax.jit(lambda: 0, compiler_options=OPTIONS).lower().compile()
    except RuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return {}
    return OPTIONS
