"""Spaces: what an observation or an action may be. Plain data, JSON both ways, no JAX."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeGuard

from rekindle.core.errors import ConfigError


@dataclass(frozen=True)
class Box:
    """Real or integer arrays of `shape`, each element in [`low`, `high`]. Continuous actions use [-1, 1]."""

    shape: tuple[int, ...]
    low: float
    high: float
    dtype: str = "float32"
    set_axis: bool = False
    """The first axis is a set of varying size (masked rows are zero): networks must not depend on its length."""
    kind: Literal["box"] = "box"


@dataclass(frozen=True)
class Discrete:
    """One integer in [0, `n`)."""

    n: int
    dtype: str = "int32"
    kind: Literal["discrete"] = "discrete"

    @property
    def shape(self) -> tuple[int, ...]:
        """Always scalar."""
        return ()


@dataclass(frozen=True)
class MultiDiscrete:
    """A vector of integers, element i in [0, `nvec[i]`)."""

    nvec: tuple[int, ...]
    dtype: str = "int32"
    kind: Literal["multi_discrete"] = "multi_discrete"

    @property
    def shape(self) -> tuple[int, ...]:
        """One axis, as long as `nvec`."""
        return (len(self.nvec),)


@dataclass(frozen=True)
class Text:
    """A string of at most `max_length` characters."""

    max_length: int = 65_536
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Image:
    """An RGB picture `[height, width, channels]`, uint8 in [0, 255]."""

    height: int
    width: int
    channels: int = 3
    kind: Literal["image"] = "image"

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        return (self.height, self.width, self.channels)

    @property
    def dtype(self) -> str:
        """Always bytes."""
        return "uint8"


Space = Box | Discrete | MultiDiscrete | Text | Image
_KINDS: dict[str, type] = {
    "box": Box,
    "discrete": Discrete,
    "multi_discrete": MultiDiscrete,
    "text": Text,
    "image": Image,
}


def is_vectors(space: Space) -> TypeGuard[Box]:
    """Whether these are vectors of numbers from -x to some x."""
    return isinstance(space, Box) and len(space.shape) == 1 and -space.low == space.high and math.isfinite(space.high)


def is_picture(space: Space) -> TypeGuard[Box | Image]:
    """Whether these are pictures, bytes `[H, W, C]`."""
    return isinstance(space, Box | Image) and len(space.shape) == 3 and space.dtype == "uint8"


def newest_of(space: Space, stack: int) -> Space:
    """What a replay stores of pictures that are made of so many frames, side by side in the last axis: one frame."""
    if stack > 1 and isinstance(space, Box) and len(space.shape) == 3:
        return replace(space, shape=(*space.shape[:2], space.shape[2] // stack))
    if stack > 1 and isinstance(space, Image):
        return replace(space, channels=space.channels // stack)
    return space


def space_to_json(space: Space) -> dict[str, Any]:
    """The space as JSON data; `space_from_json` inverts it exactly. Infinite bounds become text."""
    return {k: str(v) if isinstance(v, float) and math.isinf(v) else v for k, v in asdict(space).items()}


def space_from_json(data: dict[str, Any]) -> Space:
    """Rebuild a space from `space_to_json`; ConfigError names an unknown kind or a wrong field."""
    kind = data.get("kind")
    if kind not in _KINDS:
        raise ConfigError(f"space kind must be one of {sorted(_KINDS)}; got {kind!r}.")
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    for bound in {"low", "high"} & fields.keys():  # JSON has no infinity: it comes as text
        fields[bound] = float(fields[bound])
    try:
        space = _KINDS[kind](**fields)
        sizes = [*getattr(space, "shape", ()), *(fields[name] for name in ("n", "max_length") if name in fields)]
    except TypeError as error:
        raise ConfigError(f"space {kind!r} does not take the fields {sorted(fields)}: {error}.") from None
    sizes += fields.get("nvec", ())
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in sizes):
        raise ConfigError(f"sizes of a space are whole numbers; space {kind!r} has {sizes!r:.80}.")
    return space
