"""Whether a run folder can be used, byte by byte."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rekindle.core.errors import CheckpointError, LibraryError, RekindleError
from rekindle.library import artefact, checkpoint, dataset, files
from rekindle.library.manifest import Manifest, read_manifest

METRICS = "metrics.jsonl"
DECISIONS = "decisions.jsonl"
OFFLINE = "offline_updates"
"""In a row of the curves: updates so far that were made without acting, if there are any."""


def is_metric(row: Mapping[str, Any]) -> bool:
    """Whether a row of the curves has what `Run.log` always writes."""
    numbers = (row.get("env_steps"), row.get("resumed_from", 0), row.get(OFFLINE, 0))
    seconds = row.get("wall_s")
    if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
        return False
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and -1 < seconds < 1e12


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of curves, as they were written.

    Raises:
        LibraryError: a row that `Run.log` could not have written; the message has its number.
    """
    rows = files.read_lines(path)
    for number, row in enumerate(rows, start=1):
        if not is_metric(row):
            raise LibraryError(f"{path} is damaged: line {number} has no env_steps or wall_s; remove that line.")
    return rows


class Facts(NamedTuple):
    """What a run folder says of itself."""

    manifest: Manifest | None
    policy: artefact.PolicyMeta | None
    problem: str | None
    """Why one of them cannot be used."""


def facts_of(folder: Path) -> Facts:
    """Manifest and policy of a run folder, as far as they can be used; weights are not read."""
    try:
        manifest = read_manifest(folder)
    except LibraryError as error:
        return Facts(None, None, str(error))
    if not (folder / artefact.FOLDER / artefact.FACTS).exists():
        return Facts(manifest, None, None)
    try:
        return Facts(manifest, artefact.read_meta(folder / artefact.FOLDER), None)
    except CheckpointError as error:
        return Facts(manifest, None, str(error))


def problems_of(folder: Path, id: str, *, own_id: bool = True) -> Iterator[str]:
    """What is wrong with the manifest, curves, decisions, checkpoints, policy and replay of a run, with the mends.

    With `own_id` the manifest must have the folder's name as its id.
    """
    try:
        manifest = read_manifest(folder)
    except RekindleError as error:
        yield f"{error} Copy it again, or remove it with `rekindle library rm {id}`."
        return
    if own_id and manifest.id != folder.name:
        yield f"{folder} holds run {manifest.id}; rename the folder to that."
    for name, read in ((METRICS, read_metrics), (DECISIONS, files.read_lines)):
        try:
            read(folder / name)
        except RekindleError as error:
            yield str(error)
    for step in checkpoint.steps(folder):
        try:
            checkpoint.read(folder, step)
        except RekindleError as error:
            yield f"{error} Remove its folder to go on from the checkpoint before it."
    policy = replay = None
    if (folder / artefact.FOLDER).is_dir():
        try:
            policy, _ = artefact.read_policy(folder / artefact.FOLDER)
        except RekindleError as error:
            yield str(error)
    if (folder / dataset.FOLDER).is_dir():
        try:
            replay, _ = dataset.read_dataset(folder / dataset.FOLDER)
        except RekindleError as error:
            yield str(error)
    if policy is not None and replay is not None:
        try:
            dataset.refuse_two_worlds(policy, replay)
        except RekindleError as error:
            yield f"{folder}: {error}"
