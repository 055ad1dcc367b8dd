"""The library: every run and every policy that was kept, with its lineage. The folders are the truth, the index a copy.

Nobody has to tell the index what changed: each question first compares it with the folders, by the time and size of
their files, and reads those that differ. The runs that come with the package are a read-only layer beneath.
"""

import contextlib
import functools
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rekindle.core.errors import LibraryError, nearest
from rekindle.library import artefact, files, home, rows, store
from rekindle.library.lineage import Known, Lineage, family
from rekindle.library.manifest import Manifest, manifest_from, now
from rekindle.library.records import SHIPPED, Prior, Problem, Record, prior_of, read_row
from rekindle.library.rows import Link, Row
from rekindle.library.verify import problems_of

if TYPE_CHECKING:
    from rekindle.library.index import Index
else:
    Index = Any

KIN, PINS = "kin", "pins"
"""Folders beside the runs: manifests of relatives that are not kept, and marks of runs that `gc` never touches."""
_NEWEST = 300
"""Ids among which the nearest to a misspelt one is looked for."""


@runtime_checkable
class HasId(Protocol):
    """A run, or a record of one."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


class Library:
    """The runs of one home. Several processes, and behind a URL several machines, may use it at once."""

    def __init__(self, at: str | os.PathLike[str], *, shipped: Path | None = None, database: str | None = None) -> None:
        """Open a home, creating what is missing.

        Args:
            at: a folder, or a URL that fsspec knows.
            shipped: the layer beneath, by default the package's.
            database: URL of the index, by default that of `REKINDLE_DB`, or SQLite beside the runs.

        Raises:
            LibraryError: it cannot be made or reached. A damaged index is reported by the first question that needs it.
        """
        self.store = store.open_store(at)
        self._shipped = home.shipped() if shipped is None else shipped
        self._database = home.database() if database is None else database

    @classmethod
    def open(cls, at: str | os.PathLike[str] | None = None) -> "Library":
        """The library in `at`, by default the user's: `REKINDLE_HOME`, or the platform's data folder."""
        return cls(home.default_home() if at is None else at)

    @classmethod
    def rebuilt(cls, at: str | os.PathLike[str] | None = None) -> "Library":
        """The same with its index thrown away and made anew from the folders, however damaged it was."""
        library = cls.open(at)
        if library._database is None:
            with files.errors_named(library.folder / rows.FILE, "remove"):
                for end in ("", "-wal", "-shm"):
                    (library.folder / f"{rows.FILE}{end}").unlink(missing_ok=True)
        library.reindex()
        return library

    @property
    def folder(self) -> Path:
        """The home on this machine, or the cache of one that is elsewhere; for what can be computed again."""
        return self.store.folder

    @property
    def runs_folder(self) -> Path:
        """Where the run folders are on this machine."""
        return self.folder / store.RUNS

    @property
    def address(self) -> str:
        """The home as people write it."""
        return self.store.address

    def runs(
        self,
        kind: str | None = None,
        env_id: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        *,
        status: str | None = None,
        agent: str | None = None,
        shipped: bool = False,
    ) -> list[Record]:
        """The user's runs, newest first, and with `shipped` those beneath; damaged ones are left to `verify`."""
        self.refresh()
        wanted = {"kind": kind, "env_id": env_id, "name": name, "status": status, "agent": agent}
        found = self._index.rows(limit=limit, whole=True, **wanted)
        records = [Record(row, self.store) for row in found]
        if shipped:
            records += [
                record
                for record in self._beneath
                if all(value in (None, getattr(record.row, column)) for column, value in wanted.items())
            ]
        return records[:limit]

    def shipped(self) -> list[Record]:
        """The runs that came with the package."""
        return list(self._beneath)

    def count(self, **wanted: str | None) -> int:
        """How many of the user's runs there are, by columns as in `runs`; as of the last question."""
        return self._index.count(**wanted)

    def damaged(self) -> list[Problem]:
        """Runs that cannot be read, as of the last question: damaged ones, and those of a newer rekindle."""
        return [Problem(row.id, row.problem or "") for row in self._index.rows(whole=False)]

    def find(self, which: str) -> Record:
        """The run with this id, this unique beginning of an id, or this unique name.

        Raises:
            LibraryError: there is none (the message names the nearest), there are several, or it is damaged.
        """
        self.refresh()
        found = self._index.some([which]) or [r.row for r in self._beneath if r.id == which]
        if not found and which:
            found = [row for row in self._index.beginning(which, limit=4) if row.manifest is not None]
            found += [record.row for record in self._beneath if record.id.startswith(which)]
        if not found and which:
            found = self._index.rows(limit=4, whole=True, name=which)
            found += [record.row for record in self._beneath if record.manifest.name == which]
            found = found or self._index.called(which, limit=4)
        if len(found) > 1:
            more = "more than 3" if len(found) > 3 else len(found)
            ids = ", ".join(row.id for row in found[:3])
            raise LibraryError(f"{which!r} begins or names {more} runs (such as {ids}); give a whole id.")
        if not found:
            known = [*self._index.ids(_NEWEST), *(record.id for record in self._beneath)]
            hint = f"the nearest: {nearest(which[:80], known)}" if known else "it is empty"
            raise LibraryError(
                f"the library in {self.address} has no run {which[:80]!r}; {hint}. See `rekindle library ls`."
            )
        (row,) = found
        if row.manifest is None:
            mend = "" if "newer rekindle" in (row.problem or "") else f" Remove it with `rekindle library rm {row.id}`."
            raise LibraryError(f"{row.problem}{mend}")
        beneath = next((record for record in self._beneath if record.id == row.id), None)
        return beneath or Record(self._now(row), self.store)

    def _now(self, row: Row) -> Row:
        """The row as its folder is: another process may have written, over ours, what it had read before."""
        if row.stamp == self.store.stamp(row.id):
            return row
        self.refresh(row)
        return next((now for now in self._index.some([row.id]) if now.manifest is not None), row)

    def priors(self, fits: Callable[[dict[str, Any]], bool] = lambda spec: True) -> list[Prior]:
        """Every policy that can be reused, newest first, those of the package last.

        Args:
            fits: whether a policy that was made for this `EnvSpec.to_json()` is wanted; asked once for each there is.
        """
        self.refresh()
        known = {spec: json.loads(policy)["spec"] for spec, policy in self._index.specs().items()}
        known |= {r.row.spec: r.policy["spec"] for r in self._beneath if r.row.spec and r.policy}
        specs = {name for name, spec in known.items() if fits(spec)}
        found = [prior_of(row, self.store) for row in self._index.priors(sorted(specs))]
        return found + [self.prior(record) for record in self._beneath if record.row.spec in specs]

    def prior(self, record: Record) -> Prior:
        """The policy of a run that kept one."""
        return prior_of(
            record.row, record.place if not isinstance(record.place, Path) else record.fetch(artefact.FOLDER)
        )

    def refresh(self, run: HasId | None = None) -> None:
        """Catch the index up with the folders, or with one run's. Every question does this by itself.

        Where SQLite beside the runs cannot be written (a full disk), this process goes on with one in memory.
        """
        from rekindle.library.index import NoRoom

        try:
            self._catch_up(run)
        except NoRoom:
            if self._database is not None or (self.folder / rows.FILE).is_dir():
                raise
            self.__dict__["_index"] = self._in_memory()
            self._catch_up(run)

    def _catch_up(self, run: HasId | None) -> None:
        known = self._index.stamps()
        if run is None:
            there = self.store.stamps()
        else:
            there = {run.id: stamp} if (stamp := self.store.stamp(run.id)) else {}
            known = {id: stamp for id, stamp in known.items() if id == run.id}
        changed = [id for id, stamp in there.items() if known.get(id) != stamp]
        gone = known.keys() - there.keys()
        if changed or gone:
            put: list[Row] = []
            kin: list[Link] = []
            for id, folder in self.store.facts(changed).items():
                row, links = read_row(folder, id, there[id], own_id=True)
                put.append(row)
                kin += links
            self._index.change(put, kin, gone)

    def reindex(self) -> int:
        """Make the index anew from the folders alone; how many runs it then has."""
        self._index.clear()
        self.refresh()
        return len(self._index.stamps())

    def rm(self, which: str, force: bool = False) -> str:
        """Remove a run with all that it holds; its id. Its manifest stays among the kin, so that lineage stays whole.

        Raises:
            LibraryError: it came with the package; or, unless `force`, it is running or a kept run was made from it.
        """
        with self.alone():
            id = self._remove(which, force)
        self.refresh()
        return id

    def _remove(self, which: str, force: bool) -> str:
        id = which if self._is_own(which) else self.find(which).id
        if id.startswith(SHIPPED):
            raise LibraryError(f"{id} came with the package and cannot be removed.")
        self.refresh()
        if not force and self.is_being_written(id):
            raise LibraryError(f"{id} is being worked on; wait until that ends, or remove it with --force.")
        children = [link.child for link in self._index.kin([id], up=False)]
        if children and not force:
            raise LibraryError(f"{id} is a parent of {', '.join(children[:3])}; remove those first, or use --force.")
        row = next(iter(self._index.some([id])), None)
        if not force and row is not None and row.status == "running":
            raise LibraryError(f"{id} is running, or was killed; resume it, or remove it with --force.")
        if not force and id in self.pins():
            raise LibraryError(f"{id} is pinned; `rekindle library unpin {id}`, or use --force.")
        self.discard(id)
        return id

    def discard(self, id: str) -> None:
        """Remove a run without asking anything; its manifest stays among the kin. The next question notices."""
        row = next(iter(self._index.some([id])), None)
        if row is not None and row.manifest is not None:
            self.store.keep_manifest(id, f"{KIN}/{id}.json", row.manifest.encode())
        self.store.remove(id)
        self.store.delete(f"{PINS}/{id}")

    def row(self, id: str) -> Row | None:
        """What the index knows of a run, as of the last question."""
        return next(iter(self._index.some([id])), None)

    def remember(self, id: str, manifest: str) -> None:
        """Keep the manifest of a relative that is not, or no longer, in this library."""
        self.store.write(f"{KIN}/{id.replace('/', '~')}.json", manifest.encode())

    def remembered(self, id: str) -> Manifest | None:
        """The manifest of a relative that is not in this library, if it is known."""
        data = self.store.read(f"{KIN}/{id.replace('/', '~')}.json")
        if data is None:
            return None
        with contextlib.suppress(LibraryError):
            return manifest_from(data, f"{KIN}/{id}")
        return None

    def pin(self, which: str) -> str:
        """Mark a run so that `gc` never touches it; its id."""
        id = self.find(which).id
        if id.startswith(SHIPPED):
            raise LibraryError(f"{id} came with the package; nothing ever removes it.")
        note = json.dumps({"pinned": now().isoformat()}) + "\n"
        self.store.write(f"{PINS}/{id}", note.encode())
        return id

    def unpin(self, which: str) -> str:
        """Take the mark away; its id."""
        id = self.find(which).id
        if id not in self.pins():
            raise LibraryError(f"{id} is not pinned; `rekindle library ls` shows which are.")
        self.store.delete(f"{PINS}/{id}")
        return id

    def pins(self) -> set[str]:
        """The ids of the pinned runs."""
        return set(self.store.names(PINS))

    def is_being_written(self, id: str) -> bool:
        """Whether a process on this machine is at work on a run."""
        return store.is_locked(self.store, id)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While runs are removed, and while one that has parents begins: the parents are still there then."""
        busy = f"another process has been collecting garbage in {self.address} for minutes; try again."
        with store.lock(self.store, "library", wait_s=300.0, busy=busy):
            yield

    def lineage(self, which: str) -> Lineage:
        """The family of a run: parents' parents and children's children, as far as this library knows them."""
        record = self.find(which)
        parents = family(record.id, self._facts, self._parents, up=True)
        return Lineage(record, parents, family(record.id, self._facts, self._children, up=False))

    def verify(self, which: str | None = None) -> list[Problem]:
        """Read every byte that a run, or all of them, keeps; what cannot be used, with the mend."""
        if which is None:
            try:
                self.refresh()
                damaged = self._index.problem()
            except LibraryError as error:
                damaged = str(error)
            found = [] if damaged is None else [Problem("index", damaged)]
            strange = [name for name in _folders(self.runs_folder) if not store.is_id(name)]
            found += [Problem(repr(name), "this folder among the runs is none; move it away.") for name in strange]
            ids = sorted({*self.store.stamps(), *_folders(self.runs_folder)} - set(strange))
            places = [(id, self.store.fetch(id)) for id in ids]
            places += [(record.id, record.path) for record in self._beneath]
        else:
            id = which if self._is_own(which) else self.find(which).id
            beneath = next((record for record in self._beneath if record.id == id), None)
            found, places = [], [(id, beneath.path if beneath else self.store.fetch(id))]
        for id, path in places:
            found += [Problem(id, text) for text in problems_of(path, id, own_id=not id.startswith(SHIPPED))]
        return found

    @functools.cached_property
    def _index(self) -> Index:
        """Opened by the first question: training writes folders, and needs no database."""
        from sqlalchemy import URL

        from rekindle.library.index import Index, address

        if self._database is not None:
            return Index(address(self._database), self._identity())
        if not os.access(self.folder, os.W_OK):
            return self._in_memory()
        return Index(URL.create("sqlite", database=str(self.folder / rows.FILE)))

    @staticmethod
    def _in_memory() -> Index:
        """For a library that can only be read."""
        from sqlalchemy import URL

        from rekindle.library.index import Index

        return Index(URL.create("sqlite"))

    @functools.cached_property
    def _beneath(self) -> list[Record]:
        found = [read_row(self._shipped / name, SHIPPED + name, "")[0] for name in reversed(_folders(self._shipped))]
        return [Record(row, self._shipped / row.id.removeprefix(SHIPPED)) for row in found if row.manifest is not None]

    @property
    def _gone(self) -> list[Link]:
        """The links of the relatives that are not kept."""
        ids = [name.removesuffix(".json").replace("~", "/") for name in self.store.names(KIN)]
        known = ((id, self.remembered(id)) for id in ids)
        return [Link(id, parent.id, parent.role) for id, manifest in known if manifest for parent in manifest.parents]

    def _identity(self) -> str:
        """Which library this is, in a database that several share; made once, kept beside the runs."""
        while (data := self.store.read("library.json")) is None:
            with contextlib.suppress(FileExistsError):
                fresh = json.dumps({"schema_version": 1, "id": uuid.uuid4().hex}) + "\n"
                self.store.write("library.json", fresh.encode(), new=True)
        try:
            return str(json.loads(data)["id"])
        except (ValueError, KeyError, TypeError):
            raise LibraryError(
                f"library.json in {self.address} is damaged; remove it, then run `rekindle library reindex`."
            ) from None

    def _is_own(self, id: str) -> bool:
        return store.is_id(id) and (id in self.store.stamps() or id in _folders(self.runs_folder))

    def _parents(self, ids: list[str], known: Known) -> Iterable[Link]:
        yield from self._index.kin(ids, up=True)
        for id in ids:
            manifest, kept = known[id]
            if manifest is not None and (id.startswith(SHIPPED) or not kept):
                yield from (Link(id, parent.id, parent.role) for parent in manifest.parents)

    def _children(self, ids: list[str], known: Known) -> Iterable[Link]:
        del known
        yield from self._index.kin(ids, up=False)
        yield from (link for link in self._gone if link.parent in ids)

    def _facts(self, ids: list[str]) -> Known:
        own = {
            row.id: (Record(row, self.store).manifest if row.manifest else None, True) for row in self._index.some(ids)
        }
        beneath = {record.id: (record.manifest, True) for record in self._beneath if record.id in ids}
        return {id: own.get(id) or beneath.get(id) or (self.remembered(id), False) for id in ids}


def _folders(parent: Path) -> list[str]:
    if not parent.is_dir():
        return []
    return sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))
