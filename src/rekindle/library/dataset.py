"""Datasets: steps of rows that go on side by side, as facts in `dataset.json` and arrays in `steps.safetensors`.

Leaves are `[T, B, ...]`: `obs.<name>` what was seen, `action` what was done, `reward` what that earned (as it came, not
cut off), `terminated` and `truncated` whether it was the end, and perhaps `labels`, what a teacher says of the
observation. What was seen after an episode's end is not kept: nothing is learnt from it. Any number of steps of a
return can be made of that.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, JsonValue

from rekindle.core.errors import CheckpointError, LibraryError
from rekindle.library import files, tensors
from rekindle.library.manifest import SCHEMA_VERSION, validated

FOLDER = "replay"
FACTS, STEPS = "dataset.json", "steps.safetensors"
FLAGS = ("terminated", "truncated")
NEEDED = ("action", "reward", *FLAGS)
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


class Dataset(NamedTuple):
    """The facts, and the arrays as views of the file: memory-mapped, read-only."""

    meta: DatasetMeta
    arrays: dict[str, np.ndarray]

    @property
    def transitions(self) -> int:
        """Steps of all rows."""
        return int(self.arrays["reward"].size)


def save_dataset(
    folder: Path, *, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray], recipe: Mapping[str, Any] | None = None
) -> DatasetMeta:
    """Write a dataset to `folder`, whole or not at all; one that is there is replaced.

    Raises:
        CheckpointError: arrays that are no steps, or numbers that are not finite.
        LibraryError: the disk refuses.
    """
    check_steps(arrays, f"the dataset for {folder}")
    with files.new_folder(folder, replace=True) as new:
        table = tensors.write_tensors(new / STEPS, arrays)
        said = {"schema_version": SCHEMA_VERSION, "spec": spec, "recipe": recipe or {}, "steps": table.model_dump()}
        meta = validated(DatasetMeta, files.plain(said), f"the facts for {folder}", CheckpointError)
        files.write_json(new / FACTS, meta.model_dump(mode="json"))
    return meta


def read_dataset(folder: Path) -> Dataset:
    """A dataset whose hash, table, shapes and numbers were checked; nothing is copied. `folder` is its own or a run's.

    Raises:
        CheckpointError: missing, damaged, foreign, or of a newer schema; the message has the mend.
    """
    inner = folder / FOLDER
    folder = inner if not (folder / FACTS).exists() and inner.is_dir() else folder
    if not (folder / FACTS).is_file():
        raise CheckpointError(f"{folder} holds no dataset ({FACTS} is missing); name a run that kept its replay.")
    try:
        data = files.read_json(folder / FACTS)
    except LibraryError as error:
        raise CheckpointError(f"{error} {_MEND}") from None
    meta = validated(DatasetMeta, data, folder / FACTS, CheckpointError)
    try:
        arrays = tensors.read_tensors(folder / STEPS, meta.steps)
        check_steps(arrays, str(folder / STEPS))
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_MEND}") from None
    return Dataset(meta, arrays)


def check_steps(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """CheckpointError unless all that makes steps is there, equally long, and every reward is a finite number."""
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
    tensors.check_finite(arrays, where)
