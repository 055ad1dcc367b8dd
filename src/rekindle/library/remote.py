"""Runs behind any fsspec URL, with copies on this machine.

A file is sent before those that speak of it (weights before `policy.json`, all before `manifest.json`) and removed
after them, so where a store takes an object whole or not at all, as S3 does, whoever reads never meets half a run.
"""

import contextlib
import datetime
import errno
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from rekindle.core.errors import LibraryError
from rekindle.library import files, home
from rekindle.library.store import FACTS, RUNS, inventory, is_id, lock, make_folders

SPEAKS_OF_OTHERS = ("meta.json", "policy.json", "dataset.json", "manifest.json")
"""Files that say what the others must hold; sent last and removed first, in this order and its reverse."""


class _Changed(Exception):
    """An object went while it was being fetched: its run has changed."""


class Remote:
    """Runs behind an fsspec URL.

    On this machine lie copies for reading (`runs/`) and the folders in which runs are being written (`work/`); both can
    be thrown away whenever nothing is running.
    """

    is_remote = True

    def __init__(self, url: str) -> None:
        """Open `url`; the driver of its protocol must be installed, and its credentials be where the driver looks."""
        import fsspec
        from fsspec.core import split_protocol

        protocol = str(split_protocol(url)[0])
        self.address, self._secret = _without_secrets(url)
        self.folder = home.near(url)
        try:
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            extra = "-e '.[s3]'" if protocol in ("s3", "s3a") else f"the fsspec driver of {protocol}://"
            raise LibraryError(f"REKINDLE_HOME={self.address} needs a driver: {error}; pip install {extra}.") from None
        except Exception as error:  # drivers raise what they like
            reason = self._scrubbed(error)
            raise LibraryError(f"REKINDLE_HOME={self.address} cannot be opened: {reason}; check the address.") from None
        self._root = str(root).rstrip("/")
        make_folders(self.folder)

    def location(self, id: str) -> str:
        """The URL."""
        return f"{self.address.rstrip('/')}/{RUNS}/{id}"

    def stamps(self) -> dict[str, str]:
        """From the marks that the store gives its objects."""
        runs: dict[str, dict[str, str]] = {}
        for name, mark in self._listing(RUNS).items():
            id, _, file = name.partition("/")
            if file in FACTS:
                runs.setdefault(id, {})[file] = mark
        return {id: _joined(marks) for id, marks in runs.items() if FACTS[0] in marks and is_id(id)}

    def stamp(self, id: str) -> str:
        """The same for one run."""
        return _joined(self._listing(f"{RUNS}/{id}"))

    def facts(self, ids: Iterable[str]) -> dict[str, Path]:
        """Manifests and policies' facts, many at once."""
        places = {id: self.folder / RUNS / id for id in ids}
        names = {f"{self._root}/{RUNS}/{id}/{file}": places[id] / file for id in places for file in FACTS}
        with self._errors("read"):
            found: dict[str, Any] = self._fs.cat(list(names), on_error="return", recursive=False) if names else {}
        for name, path in names.items():
            data = found.get(name)
            if isinstance(data, bytes):
                make_folders(path.parent)
                files.write_bytes(path, data)
            elif isinstance(data, FileNotFoundError) or data is None:
                path.unlink(missing_ok=True)
            else:
                raise LibraryError(f"cannot read {self.location(name)}: {data}; check the network.")
        return places

    def fetch(self, id: str, part: str = "") -> Path:
        """Brings what changed since the last time; what is gone there goes here too."""
        with lock(self, f"fetch-{id}", wait_s=600.0, busy=f"another process is still fetching {self.location(id)}."):
            return self._bring(id, part, self.folder / RUNS / id)

    def writable(self, id: str) -> Path:
        """A folder of its own, so that nobody who reads disturbs it.

        What another machine sent since is brought, what was written here and not sent yet is kept; only whoever holds
        the run's lock may ask for it.
        """
        folder = self.folder / "work" / id
        make_folders(folder)
        return self._bring(id, "", folder, keep_unsent=True)

    @contextlib.contextmanager
    def new(self, id: str) -> Iterator[Path]:
        """Filled here; it is there once its manifest is, which is sent last and only if there is none."""
        make_folders(self.folder / "work")
        folder = self.folder / "work" / id
        with files.new_folder(folder, replace=True) as filled:
            yield filled
        self._book(folder).unlink(missing_ok=True)
        with self._errors("read"):
            if self._fs.exists(f"{self._root}/{RUNS}/{id}/{FACTS[0]}"):
                files.remove(folder)
                raise FileExistsError(errno.EEXIST, "the run exists", self.location(id))
        self._send(id, folder, new=True)

    def push(self, id: str, part: str = "") -> None:
        """What changed since the last time, in the order that readers need."""
        self._send(id, self.folder / "work" / id, new=False, part=part)

    def contents(self, id: str) -> dict[str, int]:
        """Names and sizes."""
        return {name: int(mark.rpartition(" ")[2]) for name, mark in self._listing(f"{RUNS}/{id}").items()}

    def keep_manifest(self, id: str, name: str, data: bytes) -> None:
        """One object more."""
        self.write(name, data)

    def remove(self, id: str, part: str = "") -> None:
        """First what speaks of the rest: without its manifest a run is not there."""
        there = self._listing(f"{RUNS}/{id}/{part}")
        for name in sorted(there, key=_order, reverse=True):
            with self._errors("remove"), contextlib.suppress(FileNotFoundError):
                self._fs.rm_file("/".join(filter(None, (self._root, RUNS, id, part, name))))
        for copy in (self.folder / RUNS / id / part, self.folder / "work" / id / part):
            if copy.exists():
                files.remove(copy)
        if not part:
            for folder in (RUNS, "work"):
                self._book(self.folder / folder / id).unlink(missing_ok=True)

    def orphans(self, *, older_than_s: float) -> list[str]:
        """Ids of which there is something but no manifest, for so long that nobody can be sending it any more."""
        with self._errors("list"):
            try:
                found: dict[str, Any] = self._fs.find(f"{self._root}/{RUNS}", detail=True)
            except FileNotFoundError:
                return []
        cut = len(f"{self._root}/{RUNS}/".lstrip("/"))
        runs: dict[str, dict[str, Any]] = {}
        for name, info in found.items():
            id, _, file = name.lstrip("/")[cut:].partition("/")
            runs.setdefault(id, {})[file] = info
        limit = time.time() - older_than_s
        return [
            id
            for id, inside in runs.items()
            if is_id(id) and FACTS[0] not in inside and all(_time(info) < limit for info in inside.values())
        ]

    def read(self, name: str) -> bytes | None:
        """A small object, or None."""
        with self._errors("read"):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes, *, new: bool = False) -> None:
        """One object."""
        with self._errors("write"):
            self._fs.pipe_file(f"{self._root}/{name}", data, mode="create" if new else "overwrite")

    def names(self, folder: str) -> list[str]:
        """The objects directly below."""
        return sorted(name for name in self._listing(folder) if "/" not in name)

    def delete(self, name: str) -> None:
        """Nothing happens if it is not there."""
        with self._errors("remove"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def _listing(self, below: str) -> dict[str, str]:
        """Every object below, by its name from there, with a mark that changes when it does."""
        top = f"{self._root}/{below}".rstrip("/")
        with self._errors("list"):
            try:
                found: dict[str, Any] = self._fs.find(top, detail=True)
            except FileNotFoundError as error:
                if "bucket" in str(error).lower():
                    raise LibraryError(
                        f"{self.address} cannot be used: {error}; make it, or check the address."
                    ) from None
                return {}
        cut = len(top.lstrip("/")) + 1
        return {name.lstrip("/")[cut:]: _mark(info) for name, info in found.items() if info["type"] == "file"}

    def _bring(self, id: str, part: str, folder: Path, *, keep_unsent: bool = False) -> Path:
        for _ in range(5):
            with contextlib.suppress(_Changed):
                self._bring_once(id, part, folder, keep_unsent)
                return folder / part
        raise LibraryError(f"{self.location(id)} changes faster than it can be read; try again.")

    def _bring_once(self, id: str, part: str, folder: Path, keep_unsent: bool) -> None:
        """Fetch what changed; `_Changed` if the run did so in the meantime: its files would not be of one moment."""
        there = self._wanted(id, part)
        book, here = _read_book(self._book(folder)), inventory(folder)
        for name, mark in sorted(there.items(), key=lambda item: _order(item[0])):
            told = book.get(name)
            if (
                told is not None
                and told[2] == mark
                and name in here
                and (keep_unsent or here[name] == (told[0], told[1]))
            ):
                continue
            path = folder / _inside(name)
            make_folders(path.parent)
            with self._errors("read"), files.whole_file(path) as temporary:
                try:
                    self._fs.get_file(f"{self._root}/{RUNS}/{id}/{name}", str(temporary))
                except FileNotFoundError:
                    raise _Changed from None
            stat = path.stat()
            book[name] = (stat.st_size, stat.st_mtime_ns, mark)
        for name in here:
            told = book.get(name)
            is_unsent = keep_unsent and (told is None or here[name] != (told[0], told[1]))
            if _is_below(name, part) and name not in there and not is_unsent:
                (folder / name).unlink(missing_ok=True)
                book.pop(name, None)
        _write_book(self._book(folder), book)
        if self._wanted(id, part) != there:
            raise _Changed

    def _wanted(self, id: str, part: str) -> dict[str, str]:
        there = _whole(self._listing(f"{RUNS}/{id}"))
        return {name: mark for name, mark in there.items() if _is_below(name, part)}

    def _send(self, id: str, folder: Path, *, new: bool, part: str = "") -> None:
        top = f"{self._root}/{RUNS}/{id}"
        book, now = _read_book(self._book(folder)), inventory(folder)
        changed = [name for name in now if _is_below(name, part) and (name not in book or book[name][:2] != now[name])]
        gone = {name for name in book.keys() - now.keys() if _is_below(name, part)}
        if not changed and not gone:
            return
        try:
            with self._errors("write"):
                for name in changed:
                    if name.endswith("/dataset.json") and name in book:  # its arrays keep their name: it goes first
                        with contextlib.suppress(FileNotFoundError):
                            self._fs.rm_file(f"{top}/{name}")
                for name in sorted(changed, key=_order):
                    if name == FACTS[0] and new:
                        self._fs.pipe_file(f"{top}/{name}", (folder / name).read_bytes(), mode="create")
                    else:
                        self._fs.put_file(str(folder / name), f"{top}/{name}")
                    book[name] = (*now[name], "")
                for name in sorted(gone, key=_order, reverse=True):
                    with contextlib.suppress(FileNotFoundError):
                        self._fs.rm_file(f"{top}/{name}")
                    del book[name]
            marks = self._listing(f"{RUNS}/{id}")
            book |= {name: (*book[name][:2], marks.get(name, "")) for name in changed}
        finally:
            _write_book(self._book(folder), book)

    def _book(self, folder: Path) -> Path:
        """The file that says of each file in a folder how it was when it and its object were last the same."""
        return self.folder / "marks" / f"{folder.parent.name}-{folder.name}.json"

    def _scrubbed(self, error: Exception) -> str:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return reason.replace(self._secret, "***") if self._secret else reason

    @contextlib.contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        """Whatever a driver raises, as one sentence; what the caller understands passes."""
        try:
            yield
        except (FileExistsError, LibraryError, _Changed):
            raise
        except Exception as error:  # drivers raise what they like
            if isinstance(error, FileNotFoundError) and verb != "write":
                raise
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            mend = "free some space" if full else "check the address, the network and your credentials"
            reason = self._scrubbed(error)
            raise LibraryError(f"cannot {verb} in {self.address}: {reason}; {mend}.") from None


def _order(name: str) -> tuple[int, str]:
    """Of sending: first what is spoken of."""
    file = PurePosixPath(name).name
    return (SPEAKS_OF_OTHERS.index(file) + 1 if file in SPEAKS_OF_OTHERS else 0, name)


def _whole(there: Mapping[str, str]) -> dict[str, str]:
    """Without checkpoints and replays that are still being sent or removed."""

    def is_spoken_of(name: str) -> bool:
        folder = name.rpartition("/")[0]
        is_checkpoint = re.fullmatch(r"checkpoints/[0-9]+", folder) is not None
        facts = "meta.json" if is_checkpoint else "dataset.json" if folder == "replay" else None
        return facts is None or f"{folder}/{facts}" in there

    return {name: mark for name, mark in there.items() if is_spoken_of(name)}


def _mark(info: Mapping[str, Any]) -> str:
    """What a store says of an object that changes when the object does."""
    keys = (
        "ETag",
        "etag",
        "md5",
        "md5Hash",
        "content_md5",
        "mtime",
        "LastModified",
        "last_modified",
        "updated",
        "created",
    )
    found = next((str(info[key]) for key in keys if info.get(key)), "")
    return f"{found} {info.get('size')}"


def _joined(marks: Mapping[str, str]) -> str:
    return "|".join(marks.get(file, "") for file in FACTS) if any(file in marks for file in FACTS) else ""


def _inside(name: str) -> PurePosixPath:
    """A name that stays below its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise LibraryError(f"the store holds an object with an impossible name, {name!r}; remove it.")
    return path


def _without_secrets(url: str) -> tuple[str, str]:
    """A URL without user and password, and what was taken out of it."""
    scheme, _, rest = url.partition("://")
    user = re.match(r"[^/@]*@|[^/@:]*:[^@]*@", rest)
    secret = user[0] if user else ""
    return f"{scheme}://{rest[len(secret) :]}", secret.rstrip("@")


def _is_below(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(f"{part}/")


def _time(info: Mapping[str, Any]) -> float:
    """When an object was written; the future, where the store does not say."""
    for key in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value = info.get(key)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return math.inf


def _read_book(path: Path) -> dict[str, tuple[int, int, str]]:
    try:
        return {name: (int(told[0]), int(told[1]), str(told[2])) for name, told in files.read_json(path).items()}
    except (LibraryError, TypeError, ValueError, AttributeError, IndexError):  # none yet: all is fetched again
        return {}


def _write_book(path: Path, book: Mapping[str, tuple[int, int, str]]) -> None:
    make_folders(path.parent)
    files.write_json(path, book)
