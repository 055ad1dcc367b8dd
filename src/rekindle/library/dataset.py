"""Datasets: steps of rows that go on side by side, as facts in `dataset.json` and arrays in `steps.safetensors`.

Leaves are `[T, B, ...]`: `obs.<name>` what was seen, `action` what was done, `reward` what that earned (as it came, not
cut off), `terminated` and `truncated` whether it was the end, and perhaps `labels`, what a teacher says of the
observation. What was seen after an episode's end is not kept: nothing is learnt from it. Any number of steps of a
return can be made of that. Names, shapes and types are those of the environment's spec, and actions are within it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, JsonValue, field_validator

from rekindle.core.errors import CheckpointError, LibraryError
from rekindle.core.spaces import Box, Discrete, Image, MultiDiscrete, Space, newest_of, space_from_json
from rekindle.library import artefact, files, tensors
from rekindle.library.manifest import SCHEMA_VERSION, validated

FOLDER = "replay"
FACTS, STEPS = "dataset.json", "steps.safetensors"
FLAGS = ("terminated", "truncated")
NEEDED = ("action", "reward", *FLAGS)
MAX_BYTES = 64 * 2**30
"""Largest file of steps that is read: a million stacks of four Atari screens are 28 GB."""
_MEND = "Copy it again, or collect it anew."


class DatasetMeta(BaseModel):
    """What `dataset.json` says. Any change of the fields is a new schema version; old ones stay readable."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    spec: dict[str, JsonValue]
    """`EnvSpec.to_json()` of the environment."""
    recipe: dict[str, JsonValue] = {}
    """How it came about: whose steps, options of the environment."""
    steps: tensors.Table

    @field_validator("spec")
    @classmethod
    def _spec_is_whole(cls, spec: dict[str, Any]) -> dict[str, Any]:
        return artefact.whole_spec(spec)

    @property
    def transitions(self) -> int:
        """Steps of all rows."""
        return next((math.prod(leaf.shape) for leaf in self.steps.leaves if leaf.name == "reward"), 0)


class Dataset(NamedTuple):
    """The facts, and the arrays as views of the file: memory-mapped, read-only."""

    meta: DatasetMeta
    arrays: dict[str, np.ndarray]

    @property
    def transitions(self) -> int:
        """Steps of all rows."""
        return self.meta.transitions


def save_dataset(
    folder: Path, *, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray], recipe: Mapping[str, Any] | None = None
) -> DatasetMeta:
    """Write a dataset to `folder`, whole or not at all; one that is there is replaced.

    Raises:
        CheckpointError: arrays that are no steps of such an environment, or numbers that are not finite.
        LibraryError: the disk refuses.
    """
    check_steps(arrays, spec, f"the dataset for {folder}")
    with files.new_folder(folder, replace=True) as new:
        table = tensors.write_tensors(new / STEPS, arrays)
        said = {"schema_version": SCHEMA_VERSION, "spec": spec, "recipe": recipe or {}, "steps": table.model_dump()}
        meta = validated(DatasetMeta, files.plain(said), f"the facts for {folder}", CheckpointError)
        files.write_json(new / FACTS, meta.model_dump(mode="json"))
    return meta


def read_meta(folder: Path) -> DatasetMeta:
    """The facts of a dataset, its steps unread. `folder` is its own or a run's.

    Raises:
        CheckpointError: missing, damaged, foreign, or of a newer schema; the message has the mend.
    """
    path = _own_folder(folder) / FACTS
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no dataset ({FACTS} is missing); name a run that kept its replay.")
    try:
        data = files.read_json(path)
    except LibraryError as error:
        raise CheckpointError(f"{error} {_MEND}") from None
    return validated(DatasetMeta, data, path, CheckpointError)


def read_dataset(folder: Path) -> Dataset:
    """A dataset whose hash, table, shapes and numbers were checked; nothing is copied. `folder` as in `read_meta`.

    Raises:
        CheckpointError: missing, damaged, foreign, or of a newer schema; the message has the mend.
    """
    meta = read_meta(folder)
    steps = _own_folder(folder) / STEPS
    try:
        arrays = tensors.read_tensors(steps, meta.steps, most=MAX_BYTES)
        check_steps(arrays, meta.spec, str(steps))
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_MEND}") from None
    return Dataset(meta, arrays)


def refuse_two_worlds(policy: artefact.PolicyMeta, replay: DatasetMeta) -> None:
    """CheckpointError, with both values, unless a run's policy and its replay are of one environment."""
    for name in ("id", "version", "obs", "action", "players", "stack"):
        theirs, ours = replay.spec.get(name, 1), policy.spec.get(name, 1)
        if theirs != ours:
            raise CheckpointError(
                f"the replay is of another environment than the policy: its {name} is {_shown(theirs)}, the "
                f"policy's {_shown(ours)}. Collect it anew, or leave it out (export --no-replay)."
            )


def check_steps(arrays: Mapping[str, np.ndarray], spec: Mapping[str, Any], where: str) -> None:
    """CheckpointError unless these are steps of the environment, all equally long, and every number is finite."""
    for name in NEEDED:
        if name not in arrays:
            raise CheckpointError(f"{where}: {name!r} is missing.")
    if not any(name.startswith("obs.") for name in arrays):
        raise CheckpointError(f"{where}: there is no observation, 'obs.<name>'.")
    axes = arrays["reward"].shape
    if len(axes) != 2:
        raise CheckpointError(f"{where}: rewards are {list(axes)}, expected one number for each step and row.")
    for name, array in arrays.items():
        if array.shape[:2] != axes:
            raise CheckpointError(f"{where}: {name!r} is {list(array.shape)}, the rewards are {list(axes)}.")
        if name in FLAGS and array.dtype != bool:
            raise CheckpointError(f"{where}: {name!r} is {array.dtype}, expected bool.")
    if arrays["reward"].dtype.kind != "f":
        raise CheckpointError(f"{where}: rewards are {arrays['reward'].dtype}, expected float32.")
    stack = spec.get("stack", 1)
    spaces = {f"obs.{name}": newest_of(space_from_json(space), stack) for name, space in spec["obs"].items()}
    spaces["action"] = space_from_json(spec["action"])
    for name in sorted(spaces.keys() | {name for name in arrays if name.startswith("obs.")}):
        _check_fit(name, arrays.get(name), spaces.get(name), where)
    tensors.check_finite(arrays, where)


def _check_fit(name: str, array: np.ndarray | None, space: Space | None, where: str) -> None:
    """CheckpointError unless an observation or the action is what the environment shows or takes."""
    if not isinstance(space, Box | Discrete | MultiDiscrete | Image) or array is None:
        shown = "nothing" if array is None else _typed(array.dtype.name, array.shape[2:])
        raise CheckpointError(f"{where}: {name!r} is {shown}, in the environment's spec it is {space!r:.100}.")
    if (array.dtype.name, array.shape[2:]) != (space.dtype, space.shape):
        there, here = _typed(array.dtype.name, array.shape[2:]), _typed(space.dtype, space.shape)
        raise CheckpointError(f"{where}: {name!r} is {there} in each step, in the environment's spec it is {here}.")
    if isinstance(space, Discrete | MultiDiscrete) and array.size:
        above = np.max(array, axis=(0, 1)) >= (space.n if isinstance(space, Discrete) else np.asarray(space.nvec))
        if np.min(array) < 0 or np.any(above):
            raise CheckpointError(f"{where}: {name!r} holds numbers that {space!r:.100} does not have.")


def _own_folder(folder: Path) -> Path:
    inner = folder / FOLDER
    return inner if not (folder / FACTS).exists() and inner.is_dir() else folder


def _typed(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype!s:.20}{list(shape)}"[:100]


def _shown(value: Any) -> str:
    return json.dumps(value, sort_keys=True)[:160]
