"""Any registered Gymnasium environment by its id, one process stepping all its worlds."""

import warnings
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rekindle.core.errors import ConfigError
from rekindle.core.extras import from_here
from rekindle.core.spaces import Box, Discrete, MultiDiscrete, Space
from rekindle.core.types import EnvSpec
from rekindle.envs.gymnasium_spaces import from_space
from rekindle.envs.host import mujoco
from rekindle.envs.host.spec import MUJOCO
from rekindle.envs.host.worlds import HostObs, HostWorlds, MisfitError, within_bounds
from rekindle.envs.registry import Hosted

NARROW = {"int64": "int32", "uint64": "uint32", "float64": "float32"}
"""Numbers are stored and learnt from with 32 bits."""
LARGEST = float(np.finfo(np.float32).max)
SHOWN = 60
"""Letters of something wrong that are shown."""
PICTURES = "rgb_array"
"""Gymnasium's name for what `render` gives."""


def make(id: str, **options: Any) -> Hosted:
    """`gymnasium/ID`, `options` going to `gymnasium.make`. An observation that is no dictionary is called `obs`.

    Raises:
        ConfigError: there is none of that name, what it runs on is not installed, or it shows or takes what our spaces
            cannot say.
    """
    own = id.removeprefix("gymnasium/")
    if body := own.partition("-v")[0] in MUJOCO:
        mujoco.ready(id, "mujoco")
    first = _opened(own, 1, options)
    bounds = first.single_action_space
    spec, modes = spec_of(id, first), first.metadata.get("render_modes", [])

    def opened(rows: int, *, seen: bool = False) -> HostWorlds:
        if seen and PICTURES not in modes:
            raise ConfigError(f"{id} cannot be drawn: it has no pictures of its own.")
        if seen and body:
            mujoco.refuse_unseen(id)
        chosen = options | ({"render_mode": PICTURES} if seen else {})
        return HostWorlds(
            lambda: _opened(own, rows, chosen), spec, lambda obs: _named(obs, spec), taken=lambda a: bounded(a, bounds)
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
        {key: _shown(space, id) for key, space in shown.items()},
        action_of(env.single_action_space, id),
        kind="host",
    )


def _shown(space: spaces.Space[Any], id: str) -> Space:
    try:
        return _narrow(from_space(space, id))
    except ConfigError as error:
        wrapper = "FlattenObservation" if space.is_np_flattenable else "TransformObservation"
        raise ConfigError(
            f"{id} shows {space!r}; agents look at numbers, arrays and pictures, by name. {_wrapped(wrapper)}"
        ) from error


def action_of(space: spaces.Space[Any], id: str) -> Space:
    """Ours of theirs; vectors are in [-1, 1] here, whatever their bounds.

    Raises:
        ConfigError: neither numbers from 0 nor one vector within bounds; `id` says whose.
    """
    match space:
        case spaces.Discrete(start=0):
            return _narrow(from_space(space, id))
        case spaces.Box(shape=(size,)) if space.is_bounded():
            return Box((size,), -1.0, 1.0)
        case _:
            raise ConfigError(
                f"{id} takes actions in {space!r}; agents take numbers from 0, or one vector within bounds. "
                f"{_wrapped('TransformAction')}"
            )


def names() -> list[str]:
    """What Gymnasium knows by a name without a folder."""
    return [name for name in gymnasium.registry if "/" not in name]


def _wrapped(wrapper: str) -> str:
    return f"Wrap it in gymnasium.wrappers.{wrapper}, and register that under an id of its own."


def bounded(action: np.ndarray, space: spaces.Space[Any]) -> np.ndarray:
    """Theirs of ours: vectors in [-1, 1] become vectors within the space's bounds."""
    if not isinstance(space, spaces.Box):
        return action
    scaled = within_bounds(action, space.low, space.high)
    return (np.rint(scaled) if np.issubdtype(space.dtype, np.integer) else scaled).astype(space.dtype)


class Shaped(gymnasium.Wrapper):
    """Says so where an observation or a reward has a wrong shape; side by side they only would not fit."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        begun: Any = self.env.reset(seed=seed, options=options)
        if not isinstance(begun, tuple) or len(begun) != 2 or not isinstance(begun[1], dict):
            raise MisfitError("reset() returned something else than obs, info")
        return self._checked(begun[0]), begun[1]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step."""
        stepped: Any = self.env.step(action)
        if not isinstance(stepped, tuple) or len(stepped) != 5:
            count = f"{len(stepped)} values" if isinstance(stepped, tuple) else type(stepped).__name__
            raise MisfitError(f"step() returned {count}, not obs, reward, terminated, truncated, info")
        obs, reward, *ends, info = stepped
        if np.size(reward) != 1 or np.asarray(reward).dtype.kind not in "biuf":
            raise MisfitError(f"it returned the reward {shortened(reward)}, not one number")
        if LARGEST < np.abs(reward) < np.inf:
            raise MisfitError(f"it returned the reward {reward}, which is more than 32 bits hold; scale it")
        if any(np.size(end) != 1 or end not in (False, True) for end in ends):
            told = ", ".join(map(shortened, ends))
            raise MisfitError(f"it returned terminated, truncated = {told}, not True or False")
        return self._checked(obs), reward, ends[0], ends[1], info

    def _checked(self, obs: Any) -> Any:
        space = self.observation_space
        parts = space.spaces if isinstance(space, spaces.Dict) else {"obs": space}
        if isinstance(space, spaces.Dict) and (not isinstance(obs, dict) or obs.keys() != parts.keys()):
            shown = ", ".join(map(str, obs)) if isinstance(obs, dict) else shortened(obs)
            raise MisfitError(f"it showed {shown}, not a dict of {', '.join(parts)}")
        for name, part in parts.items():
            shown = np.asarray(obs[name] if isinstance(space, spaces.Dict) else obs)
            if part.shape is not None and shown.shape != part.shape:
                raise MisfitError(f"it showed an observation {name} of the shape {shown.shape}, not {part.shape}")
            if shown.dtype.kind not in "biuf":
                raise MisfitError(f"it showed {shortened(shown.tolist())} as its observation {name}, not numbers")
        return obs


def shortened(value: Any) -> str:
    """For a sentence."""
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _opened(id: str, rows: int, options: dict[str, Any]) -> gymnasium.vector.VectorEnv:
    if ":" in id:  # a module of the user's
        from_here()
    try:
        with warnings.catch_warnings():  # older versions are asked for where numbers are compared
            warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
            return gymnasium.make_vec(id, rows, vectorization_mode="sync", wrappers=[Shaped],
                                      vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED}, **options)  # fmt: skip
    except Exception as error:  # whatever an environment raises for options that it cannot take
        said = " ".join(str(error).split())
        raise ConfigError(f"Gymnasium cannot make {id!r}: {type(error).__name__}: {said}") from error


def _named(obs: Any, spec: EnvSpec) -> HostObs:
    named = obs if isinstance(obs, dict) else {"obs": obs}
    return {name: np.array(x, getattr(spec.obs[name], "dtype", None)) for name, x in named.items()}


def _narrow(space: Space) -> Space:
    if isinstance(space, Box | Discrete | MultiDiscrete) and space.dtype in NARROW:
        return replace(space, dtype=NARROW[space.dtype])
    return space
