"""One run as a folder: manifest, curves, decisions, checkpoints. It is written by one process and read by any.

Where the library is behind a URL, the folder is on this machine and what is written in it is sent there: the curves
every few seconds, all else at once.
"""

import contextlib
import math
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from rekindle.core.errors import ConfigError, LibraryError
from rekindle.library import checkpoint, files, provenance, store
from rekindle.library.library import Library
from rekindle.library.manifest import (
    FILE,
    SCHEMA_VERSION,
    Kind,
    Manifest,
    Parent,
    Status,
    first_problem,
    now,
    read_manifest,
    validated,
    write_manifest,
)
from rekindle.library.records import SHIPPED
from rekindle.library.sinks import Sinks
from rekindle.library.verify import DECISIONS, METRICS, OFFLINE, read_metrics

_RESUMED = "resumed_from"
LOCK_SECONDS = 2.0
"""For which one waits for a run's lock: whoever only looks whether it is held takes it for a moment."""
SEND_SECONDS = 10.0
"""Between sending the curves to a library behind a URL."""
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Run:
    """A run folder that is open for reading and writing. Nothing in it is ever seen half-written."""

    def __init__(self, path: Path, manifest: Manifest, place: store.Store | None = None) -> None:
        self._path, self._manifest, self._place = path, manifest, place
        self._sinks, self._sent = Sinks.open((), id=manifest.id, name="", folder=path, config={}), time.monotonic()
        self._opened, self._wall_before = time.monotonic(), manifest.wall_s
        self._last_steps, self._resumed_from = manifest.env_steps, None
        self._mended: set[str] = set()
        self._is_ours = place is None or not place.is_remote
        """Whether the folder is the one to write in, not a copy to read."""

    @classmethod
    def create(
        cls,
        library: Library,
        kind: Kind,
        *,
        name: str,
        config: Mapping[str, Any],
        seed: int | None,
        parents: Iterable[Parent | tuple[str, str]] = (),
        command: Sequence[str] | None = None,
        env_id: str | None = None,
    ) -> "Run":
        """Begin a run in `library`: its folder and manifest exist when this returns.

        Args:
            library: where it is kept.
            kind: what is done in it.
            name: for people; part of the id.
            config: everything that decides what happens, as JSON data.
            seed: of all randomness, or None without any.
            parents: the runs it is made from, as `Parent` or `(id, role)`.
            command: the command line that repeats it; by default this process's.
            env_id: the environment, as `rekindle train --env` takes it.
        """
        facts = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            "name": name,
            "created": now().isoformat(),
            "status": "running",
            "config": config,
            "command": provenance.command() if command is None else command,
            "seed": seed,
            "parents": [p if isinstance(p, Parent) else {"id": p[0], "role": p[1]} for p in parents],
            "code": provenance.code(),
            "versions": provenance.versions(),
            "device": provenance.device(),
            "env_id": env_id,
        }
        patch = provenance.patch()
        while True:
            id = new_id(name)
            manifest = validated(Manifest, files.plain(facts | {"id": id}), f"run {id}", ConfigError)
            try:
                with library.alone() if manifest.parents else contextlib.nullcontext():
                    _still_there(library, manifest.parents)
                    with library.store.new(id) as new:
                        if patch is not None:
                            files.write_bytes(new / provenance.PATCH, patch)
                        write_manifest(new, manifest)
            except FileExistsError:
                continue
            made = cls(library.store.writable(id), manifest, library.store)
            made._is_ours = True
            return made

    @classmethod
    def open(cls, library: Library, which: str | Path) -> "Run":
        """The run that has this id, this beginning of an id, this name, or this folder.

        Raises:
            LibraryError: there is none, there are several, or its manifest is damaged.
        """
        folder = Path(which)
        if os.path.isfile(folder / FILE):
            if folder.absolute().parent != library.runs_folder.absolute():
                return cls(folder, read_manifest(folder))
            which = folder.absolute().name
        record = library.find(str(which))
        if record.is_shipped:
            return cls(record.path, record.manifest)
        return cls(record.fetch(), record.manifest, library.store)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While this process works on it: another that tries is refused.

        Raises:
            LibraryError: another process on this machine is at work on it.
        """
        if self._place is None:
            yield
            return
        busy = f"{self.id} is being worked on by another process; wait until that ends, or stop it."
        with store.lock(self._place, self.id, wait_s=LOCK_SECONDS, busy=busy):
            was = self._manifest.status
            self._begin_writing()
            self._manifest = read_manifest(self._path)
            if self._manifest.status == "done" != was:
                self.push()
                raise LibraryError(f"{self.id} was finished by another process; there is nothing to go on with.")
            if self._manifest.status != "done":
                self.update(status="running")
            yield

    def _begin_writing(self) -> None:
        """Behind a URL: from the copy that is read to the folder that is sent."""
        if not self._is_ours and self._place is not None:
            self._path, self._is_ours = self._place.writable(self.id), True

    def log_to(self, names: Sequence[str]) -> None:
        """Let its curves go to trackers, too: `tensorboard`, `wandb`, `mlflow`; ConfigError if one cannot be used."""
        self._sinks = Sinks.open(
            names, id=self.id, name=self._manifest.name, folder=self._path, config=self._manifest.config
        )

    @property
    def problems(self) -> list[str]:
        """What went wrong with the trackers, a sentence each."""
        return self._sinks.problems

    @property
    def path(self) -> Path:
        """The run's folder on this machine."""
        return self._path

    @property
    def location(self) -> str:
        """Where it is kept, for people: a folder or a URL."""
        return str(self._path) if self._place is None else self._place.location(self.id)

    def push(self, part: str = "") -> None:
        """Send what was written in the folder, or in a part of it, if the library is elsewhere."""
        if self._place is not None:
            self._place.push(self.id, part)
            self._sent = time.monotonic()

    @property
    def manifest(self) -> Manifest:
        """Its facts, as last written by this process."""
        return self._manifest

    @property
    def id(self) -> str:
        """Sortable by time: `20261121-143055-f0-a1b2`."""
        return self._manifest.id

    def log(self, env_steps: int, values: Mapping[str, float | int | str | None], *, offline_updates: int = 0) -> None:
        """Append a row to the curves: `values`, with the steps and the seconds of work so far as `wall_s`.

        Args:
            env_steps: environment steps so far.
            values: metrics by name.
            offline_updates: updates so far that were made without acting; in the row if there are any.
        """
        if taken := values.keys() & {"env_steps", OFFLINE, "wall_s", _RESUMED}:
            raise ConfigError(f"a metric cannot be called {min(taken)!r}; the run writes that itself.")
        self._begin_writing()
        self._mend(METRICS)
        values = ({OFFLINE: int(offline_updates)} if offline_updates else {}) | dict(values)
        row = {"env_steps": int(env_steps), "wall_s": round(self.wall_s(), 3), **values}
        if self._resumed_from is not None:
            row[_RESUMED] = self._resumed_from
        files.append_line(self._path / METRICS, row, durable=False)
        self._last_steps, self._resumed_from = int(env_steps), None
        self._sinks.log(int(env_steps), values)
        if time.monotonic() - self._sent >= SEND_SECONDS:
            with contextlib.suppress(LibraryError):  # the network may be back the next time; checkpoints insist
                self.push(METRICS)
            self._sent = time.monotonic()

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of the curves, in order.

        What a resumed run repeats counts once: its rows replace those after the checkpoint that it went on from.
        """
        rows: list[dict[str, Any]] = []
        for row in read_metrics(self._path / METRICS):
            if (step := row.pop(_RESUMED, None)) is not None:
                same = row.get("tag")
                rows = [old for old in rows if reached(old) <= step or old.get("tag") != same]
            rows.append({k: _NOT_FINITE.get(v, v) if isinstance(v, str) else v for k, v in row.items()})
        return rows

    def decide(self, **event: Any) -> None:
        """Write a decision down, with the time; it is on the disk when this returns, before it is carried out."""
        if "time" in event:
            raise ConfigError("a decision cannot have a field 'time'; the run writes that itself.")
        self._begin_writing()
        self._mend(DECISIONS)
        files.append_line(self._path / DECISIONS, {"time": now().isoformat(), **event}, durable=True)
        self.push()

    def decisions(self) -> list[dict[str, Any]]:
        """All decisions, in order."""
        return files.read_lines(self._path / DECISIONS)

    def save_checkpoint(
        self, step: int, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], *, offline_updates: int = 0
    ) -> None:
        """Keep the whole state of the training at `step`, whole or not at all; the last two are kept.

        Args:
            step: environment steps so far, and updates that were made without acting: it never falls.
            arrays: every array of the state by name, as `flatten_arrays` gives them.
            meta: what else is needed to go on, as JSON data.
            offline_updates: how many of them are such updates.
        """
        self._begin_writing()
        checkpoint.save(self._path, int(step), arrays, meta)
        if self._manifest.kind == "train":  # so that a run that is killed does not look as if it had done nothing
            self.update(env_steps=int(step) - offline_updates, wall_s=round(self.wall_s(), 3))
        self.push()

    def latest_checkpoint(self) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        """Step, arrays and meta of the newest checkpoint, or None; rows logged from now on go on from it.

        Raises:
            CheckpointError: it is damaged; the message says what to remove, and where it then goes on from.
        """
        latest = checkpoint.latest(self._path)
        if latest is None:
            self._resumed_from = -1 if (self._path / METRICS).exists() else None
            return None
        facts, arrays = latest
        self._resumed_from = facts.step
        return facts.step, arrays, facts.meta

    def drop_checkpoints(self) -> None:
        """Remove all checkpoints: another training begins in this run, whose steps count from 0."""
        self._begin_writing()
        checkpoint.drop(self._path)
        self.push()

    def update(self, **fields: Any) -> None:
        """Change facts of the manifest: `env_steps`, `scores`, `notes`, `status`, `wall_s`, …; ConfigError if unfit."""
        if fixed := fields.keys() & {"schema_version", "id", "kind", "created"}:
            raise ConfigError(f"{min(fixed)!r} of a run never changes.")
        try:
            manifest = Manifest.model_validate(self._manifest.model_dump(mode="json") | files.plain(fields))
        except ValidationError as error:
            raise ConfigError(f"run {self.id} cannot be changed so: {first_problem(error)}.") from None
        self._begin_writing()
        write_manifest(self._path, manifest)
        self._manifest = manifest
        self.push()

    def finish(self, status: Status, **fields: Any) -> None:
        """Write how it ended, the seconds of work and, unless given, the environment steps that were last logged."""
        checkpoint.prune(self._path)
        known = {"wall_s": round(self.wall_s(), 3), "env_steps": self._last_steps}
        self.update(**(known | fields | {"status": status}))
        self._sinks.close()

    def fail(self, reason: str) -> None:
        """Write down that it failed and why, if that can still be written; what failed is told by its own error."""
        with contextlib.suppress(LibraryError):
            self.finish("failed", notes=reason)

    def how_to_go_on(self) -> str:
        """What a person is told who interrupted it."""
        return f"interrupted; `rekindle resume {self.id}` goes on."

    def wall_s(self) -> float:
        """Seconds of work: those of earlier sittings, and those since this object was made."""
        return self._wall_before + time.monotonic() - self._opened

    def _mend(self, name: str) -> None:
        if name in self._mended:
            return
        files.mend_tail(self._path / name)
        self._mended.add(name)
        if name == METRICS and (rows := read_metrics(self._path / name)):
            self._wall_before = max(self._wall_before, float(rows[-1].get("wall_s", 0.0)))


def reached(row: Mapping[str, Any]) -> int:
    """How far a training was at a row of its curves, in what its checkpoints are numbered by."""
    return row["env_steps"] + row.get(OFFLINE, 0)


def _still_there(library: Library, parents: Sequence[Parent]) -> None:
    """A parent that was removed since it was chosen is missed before anything is built on it."""
    for parent in parents:
        if parent.sha256 is not None and not parent.id.startswith(SHIPPED) and not library.store.stamp(parent.id):
            raise LibraryError(f"{parent.id}, which this is to be made from, was removed from {library.address}.")


def new_id(name: str) -> str:
    """An id from the time (UTC), the name's letters, and chance: `20261121-143055-f0-a1b2`."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32].strip("-")
    return "-".join(filter(None, (now().strftime("%Y%m%d-%H%M%S"), words, secrets.token_hex(2))))
