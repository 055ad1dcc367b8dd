"""What a library holds that nobody needs any more, and its removal.

Only these are waste: what crashes left behind; the checkpoints of trainings that are done; runs that failed before they
had anything to keep; finished runs that kept no policy; and answers that a newer run gives to the same goal with the
same weights. A pinned run is never touched, nor one that is being worked on, nor a policy that a run which can still be
resumed was made from. Manifests of removed runs stay among the kin, so that no family tree gets a hole.
"""

import contextlib
import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rekindle.core.errors import LibraryError
from rekindle.library import checkpoint, files, store
from rekindle.library.artefact import FOLDER
from rekindle.library.library import Library
from rekindle.library.manifest import now
from rekindle.library.records import Record


class Waste(NamedTuple):
    """Something to remove."""

    what: Literal["leftover", "orphan", "checkpoints", "run"]
    id: str
    """Of the run; of a leftover its path."""
    why: str
    nbytes: int


def plan(library: Library, *, older_than: datetime.timedelta) -> list[Waste]:
    """What `collect` would remove now; of runs only those that began longer ago than `older_than`."""
    records = library.runs()
    waste = [Waste("leftover", str(path), "a write that was cut off", _size(path)) for path in leftovers(library)]
    orphans = library.store.orphans(older_than_s=files.FOREIGN_SECONDS)
    waste += [Waste("orphan", id, "a removal or a sending that was cut off", 0) for id in orphans]
    pins = library.pins()
    old = {
        record.id: library.store.contents(record.id)
        for record in records
        if record.id not in pins
        and now() - record.manifest.created >= older_than
        and not library.is_being_written(record.id)
    }
    why = reasons(records, old)
    runs: list[Waste] = []
    for record in records:
        inside = old.get(record.id, {})
        saved = sum(size for name, size in inside.items() if name.startswith(f"{checkpoint.FOLDER}/"))
        if record.id in why:
            runs.append(Waste("run", record.id, why[record.id], sum(inside.values())))
        elif saved and record.manifest.status == "done" and record.manifest.kind in ("train", "master"):
            waste.append(Waste("checkpoints", record.id, "the training is done", saved))
    return waste + runs  # first what takes no space to remove


def collect(library: Library, *, older_than: datetime.timedelta) -> list[Waste]:
    """Remove what `plan` finds, while no run that has parents can begin; what was removed.

    Raises:
        LibraryError: the disk or the store refuses; what was removed before that stays removed.
    """
    removed: list[Waste] = []
    with library.alone():
        for one in plan(library, older_than=older_than):
            if one.what == "leftover":
                files.remove(Path(one.id))
                removed.append(one)
            elif one.what == "orphan":
                library.store.remove(one.id)
                removed.append(one)
            elif _remove(library, one):
                removed.append(one)
    library.refresh()
    return removed


def _remove(library: Library, waste: Waste) -> bool:
    """Remove a run or its checkpoints, unless it was pinned, resumed or changed since the plan was made."""
    row = library.row(waste.id)
    with contextlib.suppress(LibraryError), store.lock(library.store, waste.id, wait_s=0.0, busy="at work"):
        if row is None or waste.id in library.pins() or library.store.stamp(waste.id) != row.stamp:
            return False
        if waste.what == "checkpoints":
            library.store.remove(waste.id, checkpoint.FOLDER)
        else:
            library.discard(waste.id)
        return True
    return False


def reasons(records: Sequence[Record], old: Mapping[str, dict[str, int]]) -> dict[str, str]:
    """Which of the `old` runs are waste, and why.

    What only waste needs is waste, too: it is looked again until nothing more is found.
    """
    why: dict[str, str] = {}
    while True:
        needed = {id for record in records if record.id not in why for id in needs(record, records)}
        repeated = set(repeats(records, keep=needed | {record.id for record in records} - old.keys()))
        found = {
            record.id: said
            for record in records
            if record.id in old
            and record.id not in needed
            and (said := reason(record, old[record.id], record.id in repeated))
        }
        if found == why:
            return why
        why = found


def needs(record: Record, records: Iterable[Record]) -> set[str]:
    """The runs without which this one could not be resumed; none if it is done."""
    manifest = record.manifest
    if manifest.status == "done":
        return set()
    named = {word for key in ("init", "source", "agent") if isinstance(word := manifest.config.get(key), str)}
    chosen = {
        other.id for other in records for word in named if other.id.startswith(word) or other.manifest.name == word
    }
    return {parent.id for parent in manifest.parents} | chosen


def reason(record: Record, inside: dict[str, int], is_repeated: bool) -> str:
    """Why a run that nothing needs is waste; empty if it is worth keeping."""
    manifest = record.manifest
    if record.row.problem:  # what is damaged may be copied again
        return ""
    has_policy = any(name == FOLDER or name.startswith(f"{FOLDER}/") for name in inside)
    if has_policy:
        return "a newer run gives the same answer" if is_repeated else ""
    if manifest.kind not in ("train", "master"):
        return ""
    if manifest.status == "done":
        return "it kept no policy"
    has_checkpoint = any(name.startswith(f"{checkpoint.FOLDER}/") for name in inside)
    return "it failed with nothing to keep" if manifest.status == "failed" and not has_checkpoint else ""


def repeats(records: Iterable[Record], *, keep: set[str]) -> Iterable[str]:
    """Answers of which a newer run (or one that is kept anyway) has the same goal and the same weights."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.manifest.kind == "master" and record.manifest.status == "done" and record.policy is not None:
            goal: Any = record.policy["card"].get("goal")
            groups.setdefault((str(goal), str(record.row.weights)), []).append(record)
    for same in groups.values():
        newest = max(same, key=lambda record: (record.manifest.created, record.id))
        yield from (record.id for record in same if record is not newest and record.id not in keep)


def leftovers(library: Library) -> list[Path]:
    """What writers that are gone left in the home and in its run folders on this machine."""
    places = [library.folder, library.runs_folder]
    places += [library.folder / name for name in ("work", "marks", "kin", "pins", "planned")]
    for parent in (library.runs_folder, library.folder / "work"):
        if parent.is_dir():
            for run in parent.iterdir():
                places += [run, run / FOLDER, run / checkpoint.FOLDER]
    return [path for place in places if place.is_dir() for path in files.abandoned(place)]


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
