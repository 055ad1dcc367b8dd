"""A foreign teacher by what a user types: a zip of Stable-Baselines3, an ONNX file, or `module:function`."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, Space, is_vectors
from rekindle.core.types import EnvSpec
from rekindle.reincarnation.teachers import host, stable_baselines

PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_foreign(which: str) -> bool:
    """Whether that is no agent of a library."""
    return which.endswith((".zip", ".onnx")) or PLACE.fullmatch(which) is not None


def executes(which: str, *, trust: bool) -> bool:
    """Whether loading a foreign teacher executes what its maker wrote."""
    return not which.endswith(".onnx") and (trust or not which.endswith(".zip"))


def load(which: str, spec: EnvSpec, *, trust: bool = False, valued: bool = False) -> Any:
    """The teacher, as a policy for an environment.

    Args:
        which: a path or a place.
        spec: of the environment.
        trust: whether a zip may be loaded by Stable-Baselines3 itself, which executes what is in it.
        valued: whether the numbers of an ONNX file or a function are action values; else they are logits.

    Raises:
        ConfigError, CheckpointError: it cannot be read, or was made for another environment; both are named.
    """
    space = spec.action
    if not (isinstance(space, Discrete) or is_vectors(space)):
        raise ConfigError(f"teachers make choices, or give vectors from -x to x; {spec.id} takes {space!r}.")
    if not which.endswith((".zip", ".onnx")):
        return host.checked(host.from_name(which), sample(spec), space, valued=valued, what=which)
    path = Path(which)
    if not path.is_file():
        raise ConfigError(f"no teacher {which!r}: there is no such file.")
    if which.endswith(".onnx"):
        return host.checked(host.from_onnx(path), sample(spec), space, valued=valued, what=which)
    if trust:
        scores = host.from_stable_baselines(path)
        return host.checked(scores, sample(spec), space, valued=False, what=which)
    policy = stable_baselines.read(path)
    refuse_other(policy.facts, spec, which)
    return policy if isinstance(space, Discrete) else replace(policy, reach=space.high)


def size_of(space: Space) -> int:
    """Of a vector."""
    assert isinstance(space, Box)
    return math.prod(space.shape)


def sample(spec: EnvSpec) -> dict[str, np.ndarray]:
    """Two observations of nothing."""
    return {name: np.zeros((2, *space.shape), space.dtype) for name, space in spec.obs.items()}  # pyright: ignore


def refuse_other(facts: stable_baselines.Facts, spec: EnvSpec, which: str) -> None:
    """ConfigError, with both values, where a teacher sees or does something else than the environment has."""
    space = spec.action
    here = f"{space.n} actions" if isinstance(space, Discrete) else f"actions of {size_of(space)} numbers"
    there = f"actions of {facts.actions} numbers" if facts.vectors else f"{facts.actions} actions"
    if there != here:
        raise ConfigError(f"the teacher {which} has {there}, {spec.id} has {here}.")
    shown = [tuple(getattr(space, "shape", ())) for space in spec.obs.values()]
    turned = [(*shape[-1:], *shape[:-1]) for shape in shown]
    if len(shown) != 1 or facts.shape not in (*shown, *turned):
        seen = " and ".join(str(list(shape)) for shape in shown)
        raise ConfigError(f"the teacher {which} sees {list(facts.shape)}, {spec.id} shows {seen}.")
