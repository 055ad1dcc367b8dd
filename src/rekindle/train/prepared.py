"""What is finished of a student's preparation, so that a run that goes on takes it from its files.

Beside the checkpoints stand the marks, and size and hash of every file with the teacher's steps and with its labels;
they are written down once those are on the disk. What is not written down, or is no longer so, is prepared anew, which
comes to the same: all of it follows from the run's seed. Hashing takes about a second for a GB, playing that minutes.
"""

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Array, Key, PyTree
from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer

from rekindle.core.errors import LibraryError
from rekindle.envs.host.worlds import HostWorlds
from rekindle.library import files
from rekindle.library.checkpoint import FOLDER as CHECKPOINTS
from rekindle.library.manifest import validated
from rekindle.replay import mapped
from rekindle.replay.ring import Ring
from rekindle.train import prepare
from rekindle.train.off_policy import Worlds
from rekindle.train.prepare import Marks

TAUGHT, LABELS, NOTES = (f"{CHECKPOINTS}/{name}" for name in ("taught", "labels.npy", "prepared.json"))
"""Where a run keeps, until it is done, steps that a teacher was asked to play in worlds that are not written in JAX,
what it says of those that are learnt from, and what of this is finished."""


class Whole(BaseModel):
    """A file as it was when it was finished."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    nbytes: int
    sha256: str


class Labels(BaseModel):
    """What the teacher says of some steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    of: str
    """Hash of their actions and rewards."""
    files: dict[str, Whole]


def _measured(marks: Marks) -> Marks:
    if marks.episodes <= 0 or not all(map(math.isfinite, marks)):
        raise ValueError("no marks of any episodes")
    return marks


class Notes(BaseModel):
    """What is finished, as `prepared.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    marks: Annotated[Marks, AfterValidator(_measured), PlainSerializer(Marks._asdict)] | None = None
    taught: dict[str, Whole] = {}
    labels: Labels | None = None


def noted(run: Path) -> Notes:
    """What is finished in a run folder; nothing, where that is not written down or cannot be read."""
    try:
        return validated(Notes, files.read_json(run / NOTES), run / NOTES, LibraryError)
    except LibraryError:
        return Notes()


def note(run: Path, **finished: Any) -> None:
    """Write down what is finished, beside what was before.

    Raises:
        LibraryError: the disk refuses.
    """
    with files.errors_named(run / CHECKPOINTS, "create"):
        (run / CHECKPOINTS).mkdir(exist_ok=True)
    known = noted(run).model_copy(update=finished)
    files.write_json(run / NOTES, known)


def data_of(
    run: Path, worlds: Worlds | HostWorlds, source: PyTree, teacher: Any, key: Key[Array, ""], *, steps: int,
    kept: Ring | None,
) -> Ring:  # fmt: skip
    """Steps of a teacher, labelled: those that it kept, or so many that it plays.

    Worlds that are not compiled have them in files of the run, which are used again where they are finished.

    Raises:
        ConfigError: the data show something else than the environment.
        LibraryError: the disk refuses.
    """
    if not isinstance(worlds, HostWorlds):
        data = kept or prepare.roll_out(worlds, source, teacher, key, steps=steps)
        return prepare.labelled(data, teacher, worlds.spec)
    data = kept or played(run, worlds, teacher, key, steps)
    known, of = noted(run).labels, digest(data)
    if known is not None and known.of == of and known.files == files_of(run / LABELS):
        return data._replace(steps=data.steps._replace(labels=np.load(run / LABELS, mmap_mode="r")))
    data = prepare.labelled(data, teacher, worlds.spec, path=run / LABELS)
    note(run, labels=Labels(of=of, files=files_of(run / LABELS)))
    return data


def played(run: Path, worlds: HostWorlds, teacher: Any, key: Key[Array, ""], steps: int) -> Ring:
    """The teacher's own steps, from the run's files where they are finished."""
    if (known := noted(run).taught) and known == files_of(run / TAUGHT):
        return mapped.read(run / TAUGHT)
    data = prepare.roll_out(worlds, (), teacher, key, steps=steps, folder=run / TAUGHT)
    note(run, taught=files_of(run / TAUGHT))
    return data


def files_of(path: Path) -> dict[str, Whole]:
    """A file, or those of a folder, by name; none where there is nothing."""
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: Whole(nbytes=file.stat().st_size, sha256=files.sha256(file)) for file in inside
            if file.is_file()}  # fmt: skip


def digest(data: Ring) -> str:
    """By which one knows steps on the host again."""
    found = hashlib.sha256(str(data.steps.reward.shape).encode())
    for array in (data.steps.action, data.steps.reward):
        found.update(np.asarray(array).tobytes())
    return found.hexdigest()
