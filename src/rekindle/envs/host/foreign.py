"""Any registered Gymnasium environment by its id, one process stepping all its worlds."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, MultiDiscrete, Space
from rekindle.core.types import EnvSpec
from rekindle.envs.gymnasium_spaces import from_space
from rekindle.envs.host.worlds import HostObs, HostWorlds
from rekindle.envs.registry import Hosted

NARROW = {"int64": "int32", "uint64": "uint32", "float64": "float32"}
"""Numbers are stored and learnt from with 32 bits."""
PICTURES = "rgb_array"
"""Gymnasium's name for what `render` gives."""


def make(id: str, **options: Any) -> Hosted:
    """`gymnasium/ID`, `options` going to `gymnasium.make`. An observation that is no dictionary is called `obs`.

    Raises:
        ConfigError: there is none of that name, or it shows or takes what our spaces cannot say.
    """
    own = id.removeprefix("gymnasium/")
    first = _opened(own, 1, options)
    bounds = first.single_action_space
    spec, modes = spec_of(id, first), first.metadata.get("render_modes", [])

    def opened(rows: int, *, seen: bool = False) -> HostWorlds:
        if seen and PICTURES not in modes:
            raise ConfigError(f"{id} cannot be drawn: it has no pictures of its own.")
        chosen = options | ({"render_mode": PICTURES} if seen else {})
        return HostWorlds(
            lambda: _opened(own, rows, chosen), spec, lambda obs: _named(obs, spec), taken=lambda a: _bounded(a, bounds)
        )

    return Hosted(spec, opened)


def spec_of(id: str, env: gymnasium.vector.VectorEnv) -> EnvSpec:
    """What one world shows and takes."""
    inner = env.single_observation_space
    shown = inner.spaces if isinstance(inner, spaces.Dict) else {"obs": inner}
    name, _, version = id.rpartition("-v")
    return EnvSpec(
        id,
        int(version) if name and version.isdigit() else 0,
        {key: _narrow(from_space(space, id)) for key, space in shown.items()},
        _action(env.single_action_space, id),
        kind="host",
    )


def _action(space: spaces.Space[Any], id: str) -> Space:
    """Ours; vectors are in [-1, 1] here, whatever their bounds."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        return _narrow(from_space(space, id))
    if not space.is_bounded():
        raise ConfigError(f"{id} takes actions without bounds, {space!r}; Gymnasium's ClipAction gives it some.")
    return Box(space.shape, -1.0, 1.0)


def _bounded(action: np.ndarray, space: spaces.Space[Any]) -> np.ndarray:
    """Theirs of ours: vectors in [-1, 1] become vectors within the space's bounds."""
    if not isinstance(space, spaces.Box):
        return action
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    scaled = np.clip(low + (action.astype(np.float64) + 1) / 2 * (high - low), low, high)
    return (np.rint(scaled) if np.issubdtype(space.dtype, np.integer) else scaled).astype(space.dtype)


def _opened(id: str, rows: int, options: dict[str, Any]) -> gymnasium.vector.VectorEnv:
    try:
        return gymnasium.make_vec(id, rows, vectorization_mode="sync",
                                  vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED}, **options)  # fmt: skip
    except Exception as error:  # whatever an environment raises for options that it cannot take
        raise ConfigError(f"Gymnasium cannot make {id!r}: {type(error).__name__}: {error}") from error


def _named(obs: Any, spec: EnvSpec) -> HostObs:
    named = obs if isinstance(obs, dict) else {"obs": obs}
    return {name: np.array(x, getattr(spec.obs[name], "dtype", None)) for name, x in named.items()}


def _narrow(space: Space) -> Space:
    if isinstance(space, Box | Discrete | MultiDiscrete) and space.dtype in NARROW:
        return replace(space, dtype=NARROW[space.dtype])
    return space
