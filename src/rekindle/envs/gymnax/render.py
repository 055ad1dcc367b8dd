"""Pictures of worlds that show planes of zeros and ones, as MinAtar's games do: one colour for each plane."""

import colorsys

import numpy as np
from jaxtyping import UInt8

from rekindle.core.spaces import Box
from rekindle.core.types import EnvSpec

GROUND = (24, 26, 34)
MAX_PLANES = 16
"""More have no colours that can be told apart."""


def shows_planes(spec: EnvSpec) -> bool:
    """Whether all that a world shows is a board, `[H, W]` or `[H, W, planes]`, of zeros and ones."""
    (space, *others) = spec.obs.values()
    if others or not isinstance(space, Box) or (space.low, space.high) != (0, 1):
        return False
    return len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] <= MAX_PLANES)


def render(planes: np.ndarray, *, cell: int = 36) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of a board; where planes overlap, the last is seen, as in MinAtar's own pictures.

    Args:
        planes: `[H, W]` or `[H, W, planes]`.
        cell: pixels per cell.
    """
    board = planes.reshape(*planes.shape[:2], -1) > 0
    count = board.shape[2]
    colours = np.array([GROUND, *(colour(plane, count) for plane in range(count))], np.uint8)
    top = np.max(board * np.arange(1, count + 1), axis=2)
    return colours[top].repeat(cell, axis=0).repeat(cell, axis=1)


def colour(plane: int, count: int) -> tuple[int, ...]:
    """Hues go once around; neighbours also differ in lightness."""
    red, green, blue = colorsys.hls_to_rgb((0.55 + plane / count) % 1.0, (0.65, 0.5)[plane % 2], 0.75)
    return tuple(round(255 * part) for part in (red, green, blue))
