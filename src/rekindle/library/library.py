"""The library: every run and every policy that was kept, with its lineage. The folders are the truth, the index a copy.

Nobody has to tell the index what changed: each question first compares it with the folders, by the time and size of
their files, and reads those that differ. The runs that come with the package are a read-only layer beneath.
"""

import functools
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from rekindle.core.errors import CheckpointError, LibraryError, nearest
from rekindle.library import artefact, files, home, rows
from rekindle.library.manifest import FILE, Manifest, Parent, read_manifest
from rekindle.library.verify import problems_of

if TYPE_CHECKING:
    from rekindle.library.index import Index
else:
    Index = Any

RUNS = "runs"
SHIPPED = "shipped/"


class Record(NamedTuple):
    """One kept run."""

    id: str
    path: Path
    manifest: Manifest
    policy: dict[str, Any] | None
    """`policy.json` without the table of its weights; None if the run kept no policy."""

    @property
    def is_shipped(self) -> bool:
        """Whether it came with the package."""
        return self.id.startswith(SHIPPED)


class Prior(NamedTuple):
    """A policy that can be reused."""

    id: str
    """Of its run."""
    path: Path
    """The policy's folder, for `read_policy`."""
    name: str
    env_id: str
    agent: str
    created: datetime
    card: dict[str, Any]
    parents: tuple[Parent, ...]


class Problem(NamedTuple):
    """Something in the library that cannot be used, and the mend."""

    id: str
    text: str


class Kin(NamedTuple):
    """A run in a family tree, and those beyond it."""

    id: str
    role: str
    """What the parent was to the child."""
    record: Record | None
    """None where it is no longer, or was never, in this library."""
    beyond: "tuple[Kin, ...]"


class Lineage(NamedTuple):
    """What a run was made from, and what was made from it."""

    record: Record
    parents: tuple[Kin, ...]
    children: tuple[Kin, ...]


@runtime_checkable
class HasId(Protocol):
    """A run, or a record of one."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


class Library:
    """The runs below one folder. Several processes may use it at once."""

    def __init__(self, folder: Path, *, shipped: Path | None = None) -> None:
        """Open `folder`, creating what is missing; `shipped` is the layer beneath, by default the package's.

        Raises:
            LibraryError: it cannot be written. A damaged index is reported by the first question that needs it.
        """
        self.folder = folder
        self._shipped = home.shipped() if shipped is None else shipped
        _make_folders(self.runs_folder)

    @classmethod
    def open(cls, home_folder: Path | None = None) -> "Library":
        """The library in `home_folder`, by default the user's: `REKINDLE_HOME`, or the platform's data folder."""
        return cls(home.default_home() if home_folder is None else home_folder)

    @classmethod
    def rebuilt(cls, home_folder: Path | None = None) -> "Library":
        """The same with its index thrown away and made anew from the folders, however damaged it was."""
        folder = home.default_home() if home_folder is None else home_folder
        with files.errors_named(folder / rows.FILE, "remove"):
            rows.remove(folder / rows.FILE)
        library = cls(folder)
        library.refresh()
        return library

    @property
    def runs_folder(self) -> Path:
        """Where the run folders are."""
        return self.folder / RUNS

    def runs(
        self,
        kind: str | None = None,
        env_id: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        *,
        shipped: bool = False,
    ) -> list[Record]:
        """The user's runs, newest first, and with `shipped` those beneath; damaged ones are left to `verify`."""
        self.refresh()
        found = self._index.rows(kind=kind, env_id=env_id, name=name)
        records = [self._record(row) for row in found if row.manifest is not None]
        if shipped:
            wanted = {"kind": kind, "env_id": env_id, "name": name}
            records += [
                record
                for record in self._shipped_records()
                if all(value in (None, getattr(record.manifest, field)) for field, value in wanted.items())
            ]
        return records[:limit]

    def find(self, which: str) -> Record:
        """The run with this id, this unique beginning of an id, or this unique name.

        Raises:
            LibraryError: there is none (the message names the nearest), there are several, or it is damaged.
        """
        records = {record.id: record for record in self.runs(shipped=True)}
        if which in records:
            return records[which]
        broken = {row.id: row.problem for row in self._index.rows() if row.problem}
        if which in broken:
            raise LibraryError(f"{broken[which]} Remove it with `rekindle library rm {which}`.")
        begin = [record for record in records.values() if which and record.id.startswith(which)]
        found = begin or [record for record in records.values() if record.manifest.name == which]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(record.id for record in found[:3])
            raise LibraryError(f"{which!r} begins or names {len(found)} runs (such as {ids}); give a whole id.")
        known = f"the nearest: {nearest(which[:80], records)}" if records else "it is empty"
        raise LibraryError(
            f"the library in {self.folder} has no run {which[:80]!r}; {known}. See `rekindle library ls`."
        )

    def priors(self) -> list[Prior]:
        """Every policy that can be reused, newest first, those that came with the package last."""
        return [_prior(record) for record in self.runs(shipped=True) if record.policy is not None]

    def refresh(self, run: HasId | None = None) -> None:
        """Catch the index up with the folders, or with one run's. Every question does this by itself."""
        with files.errors_named(self.runs_folder, "read"):
            names = [p.name for p in self.runs_folder.iterdir() if not p.name.startswith(".") and p.is_dir()]
        there = {name: stamp for name in names if (stamp := _stamp(self.runs_folder / name))}
        known = self._index.stamps()
        if run is not None:
            there, known = ({k: v for k, v in stamps.items() if k == run.id} for stamps in (there, known))
        changed = [name for name, stamp in there.items() if known.get(name) != stamp]
        gone = known.keys() - there.keys()
        if changed or gone:
            self._index.change([_row(self.runs_folder / name, there[name]) for name in changed], gone)

    def reindex(self) -> int:
        """Make the index anew from the folders alone; how many runs it then has."""
        self._index.clear()
        self.refresh()
        return len(self._index.stamps())

    def rm(self, which: str, force: bool = False) -> str:
        """Remove a run with all that it holds; its id.

        Raises:
            LibraryError: it came with the package; or, unless `force`, it is running or a kept run was made from it.
        """
        id = which if self._own(which) else self.find(which).id
        if id.startswith(SHIPPED):
            raise LibraryError(f"{id} came with the package and cannot be removed.")
        children = [r.id for r in self.runs() if any(parent.id == id for parent in r.manifest.parents)]
        if children and not force:
            raise LibraryError(f"{id} is a parent of {', '.join(children[:3])}; remove those first, or use --force.")
        if not force and any(record.id == id and record.manifest.status == "running" for record in self.runs()):
            raise LibraryError(f"{id} is running, or was killed; resume it, or remove it with --force.")
        files.remove(self.runs_folder / id)
        self.refresh()
        return id

    def lineage(self, which: str) -> Lineage:
        """The family of a run: parents' parents and children's children, as far as this library knows them."""
        record = self.find(which)
        records = {r.id: r for r in self.runs(shipped=True)}
        up = {id: [(p.id, p.role) for p in r.manifest.parents] for id, r in records.items()}
        down: dict[str, list[tuple[str, str]]] = {}
        for id, parents in up.items():
            for parent, role in parents:
                down.setdefault(parent, []).append((id, role))
        return Lineage(record, _kin(record.id, up, records, {record.id}), _kin(record.id, down, records, {record.id}))

    def verify(self, which: str | None = None) -> list[Problem]:
        """Read every byte that a run, or all of them, keeps; what cannot be used, with the mend."""
        if which is None:
            places = [(path.name, path) for path in _folders(self.runs_folder)]
            places += [(SHIPPED + path.name, path) for path in _folders(self._shipped)]
        elif path := self._own(which):
            places = [(which, path)]
        else:
            record = self.find(which)
            places = [(record.id, record.path)]
        damaged = self._index.problem()
        found = [] if damaged is None else [Problem("index", damaged)]
        for id, path in places:
            found += [Problem(id, text) for text in problems_of(path, id, own_id=not id.startswith(SHIPPED))]
        return found

    @functools.cached_property
    def _index(self) -> Index:
        """Opened by the first question: training writes folders, and needs no database."""
        from rekindle.library.index import Index

        return Index(self.folder / rows.FILE)

    def _own(self, id: str) -> Path | None:
        path = self.runs_folder / id
        return path if path in _folders(self.runs_folder) else None

    def _record(self, row: rows.Row) -> Record:
        policy = None if row.policy is None else json.loads(row.policy)
        return Record(row.id, self.runs_folder / row.id, Manifest.model_validate_json(row.manifest or ""), policy)

    def _shipped_records(self) -> Iterable[Record]:
        for path in reversed(_folders(self._shipped)):
            row = _row(path, "")
            if row.manifest is not None:
                yield self._record(row)._replace(id=SHIPPED + path.name, path=path)


def _kin(
    id: str, links: dict[str, list[tuple[str, str]]], records: dict[str, Record], seen: set[str]
) -> tuple[Kin, ...]:
    return tuple(
        Kin(other, role, records.get(other), _kin(other, links, records, seen | {other}))
        for other, role in sorted(links.get(id, []))
        if other not in seen
    )


def _prior(record: Record) -> Prior:
    policy, manifest = record.policy or {}, record.manifest
    return Prior(
        record.id,
        record.path / artefact.FOLDER,
        manifest.name,
        policy["spec"]["id"],
        policy["agent"],
        manifest.created,
        policy["card"],
        tuple(manifest.parents),
    )


def _row(folder: Path, stamp: str) -> rows.Row:
    """The facts of one folder; damage is written down, and left out of every answer but `verify`'s."""
    try:
        manifest = read_manifest(folder)
    except LibraryError as error:
        return rows.Row(folder.name, stamp, problem=str(error))
    policy, problem = None, None
    if (folder / artefact.FOLDER / artefact.FACTS).exists():
        try:
            meta = artefact.read_meta(folder / artefact.FOLDER)
            policy = json.dumps(meta.model_dump(mode="json", exclude={"weights"}))
        except CheckpointError as error:
            problem = str(error)
    return rows.Row(
        folder.name, stamp, manifest.kind, manifest.env_id, manifest.name, manifest.model_dump_json(), policy, problem
    )


def _stamp(folder: Path) -> str:
    """Changes whenever manifest or policy do; empty if there is neither."""
    marks = []
    for path in (folder / FILE, folder / artefact.FOLDER / artefact.FACTS):
        try:
            stat = path.stat()
            marks.append(f"{stat.st_mtime_ns}-{stat.st_ino}-{stat.st_size}")
        except OSError:
            marks.append("")
    return "|".join(marks) if any(marks) else ""


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))


def _make_folders(folder: Path) -> None:
    try:
        with files.errors_named(folder, "create"):
            folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise LibraryError(
            f"cannot create {folder}: a file is where a folder should be; move it away, or set REKINDLE_HOME."
        ) from None
