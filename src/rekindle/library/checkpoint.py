"""Checkpoints of a run: the whole state of a training as `checkpoints/<step>/`, each there whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rekindle.core.errors import CheckpointError, LibraryError
from rekindle.library import files, tensors
from rekindle.library.manifest import SCHEMA_VERSION, validated

FOLDER = "checkpoints"
KEPT = 2
_META = "meta.json"
_STATE = "state.safetensors"
MAX_BYTES = 64 * 2**30
"""Largest state that is read; a replay of pictures is most of it."""


class CheckpointMeta(BaseModel):
    """What `checkpoints/<step>/meta.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    step: int = Field(ge=0)
    meta: dict[str, JsonValue]
    state: tensors.Table


def save(run: Path, step: int, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write the checkpoint of `step` into the run folder, then remove all but the last two."""
    parent = run / FOLDER
    with files.errors_named(parent, "create"):
        parent.mkdir(exist_ok=True)
    with files.new_folder(parent / str(step), replace=True) as new:
        state = tensors.write_tensors(new / _STATE, arrays)
        facts = {"schema_version": SCHEMA_VERSION, "step": step, "meta": meta, "state": state.model_dump()}
        files.write_json(new / _META, facts)
    prune(run)


def prune(run: Path) -> None:
    """Remove all but the last two checkpoints, and what interrupted writes left."""
    for old in steps(run)[:-KEPT]:
        files.remove(run / FOLDER / str(old))
    files.sweep(run / FOLDER)


def drop(run: Path) -> None:
    """Remove every checkpoint of a run."""
    for step in steps(run):
        files.remove(run / FOLDER / str(step))


def steps(run: Path) -> list[int]:
    """The steps of the kept checkpoints, ascending."""
    parent = run / FOLDER
    return sorted(int(p.name) for p in parent.iterdir() if p.name.isdecimal()) if parent.is_dir() else []


def read(run: Path, step: int) -> tuple[CheckpointMeta, dict[str, np.ndarray]]:
    """The facts and arrays of one checkpoint, checked; CheckpointError if it is missing or damaged."""
    folder = run / FOLDER / str(step)
    try:
        data = files.read_json(folder / _META)
    except LibraryError as error:
        raise CheckpointError(str(error)) from None
    facts = validated(CheckpointMeta, data, folder / _META, CheckpointError)
    if facts.step != step:
        raise CheckpointError(f"{folder / _META} is damaged: it says step {facts.step}.")
    return facts, tensors.read_tensors(folder / _STATE, facts.state, most=MAX_BYTES)


def latest(run: Path) -> tuple[CheckpointMeta, dict[str, np.ndarray]] | None:
    """The newest checkpoint, or None without any. A damaged one is never passed over: that would repeat work unasked.

    Raises:
        CheckpointError: the newest is damaged; the message says what to remove, and where it then goes on from.
    """
    kept = steps(run)
    if not kept:
        return None
    try:
        return read(run, kept[-1])
    except CheckpointError as error:
        other = f"step {kept[-2]}" if len(kept) > 1 else "the beginning"
        raise CheckpointError(
            f"{error} Remove the folder {run / FOLDER / str(kept[-1])} to go on from {other}."
        ) from None
