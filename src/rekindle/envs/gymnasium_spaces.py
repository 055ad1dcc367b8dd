"""Spaces to and from Gymnasium's. Loads no JAX.

Needs the extra: `pip install -e '.[gym]'`.
"""

from typing import Any

import numpy as np

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, Image, MultiDiscrete, Space, Text

try:
    from gymnasium import spaces
except ImportError as error:
    raise ConfigError("Gymnasium is not installed; pip install -e '.[gym]'.") from error


def to_space(space: Space) -> spaces.Space[Any]:
    """Theirs of ours."""
    match space:
        case Discrete(n=n, dtype=dtype):
            return spaces.Discrete(n, dtype=np.dtype(dtype).type)
        case MultiDiscrete(nvec=nvec, dtype=dtype):
            return spaces.MultiDiscrete(list(nvec), dtype=np.dtype(dtype).type)
        case Box(shape=shape, low=low, high=high, dtype=dtype):
            return spaces.Box(low, high, shape, np.dtype(dtype).type)
        case Image():
            return spaces.Box(0, 255, space.shape, np.uint8)
        case Text(max_length=max_length):
            return spaces.Text(max_length, min_length=0)


def from_space(space: spaces.Space[Any], id: str) -> Space:
    """Ours of theirs; ConfigError, with the `id` of what has it, where we have none that says the same."""
    match space:
        case spaces.Discrete() if space.start == 0:
            return Discrete(int(space.n), str(space.dtype))
        case spaces.MultiDiscrete() if space.nvec.ndim == 1 and not space.start.any():
            return MultiDiscrete(tuple(int(n) for n in space.nvec), str(space.dtype))
        case spaces.Box() if space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[-1] in (1, 3):
            return Image(*space.shape)
        case spaces.Box() if np.prod(space.shape) > 0:
            return Box(space.shape, float(space.low.min()), float(space.high.max()), str(space.dtype))
        case _:
            raise ConfigError(
                f"{id} has the space {space!r}; known are Discrete and MultiDiscrete from 0, pictures, and Box of one "
                "number or more."
            )
