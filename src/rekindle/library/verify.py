"""Whether a run folder can be used, byte by byte."""

from collections.abc import Iterator
from pathlib import Path

from rekindle.core.errors import RekindleError
from rekindle.library import artefact, checkpoint, files
from rekindle.library.manifest import read_manifest

METRICS = "metrics.jsonl"
DECISIONS = "decisions.jsonl"


def problems_of(folder: Path, id: str, *, own_id: bool = True) -> Iterator[str]:
    """What is wrong with the manifest, curves, decisions, checkpoints and policy of the run `id`, each with its mend.

    With `own_id` the manifest must have the folder's name as its id.
    """
    try:
        manifest = read_manifest(folder)
    except RekindleError as error:
        yield f"{error} Copy it again, or remove it with `rekindle library rm {id}`."
        return
    if own_id and manifest.id != folder.name:
        yield f"{folder} holds run {manifest.id}; rename the folder to that."
    for name in (METRICS, DECISIONS):
        try:
            files.read_lines(folder / name)
        except RekindleError as error:
            yield str(error)
    for step in checkpoint.steps(folder):
        try:
            checkpoint.read(folder, step)
        except RekindleError as error:
            yield f"{error} Remove its folder to go on from the checkpoint before it."
    if (folder / artefact.FOLDER).is_dir():
        try:
            artefact.read_policy(folder / artefact.FOLDER)
        except RekindleError as error:
            yield str(error)
