"""Where run folders are: on this machine's disks, or behind a URL (`remote.py`) with a copy at hand.

A run is written in a folder on this machine and read from one, so nothing above has to know which it is: behind a URL,
`push` sends what has changed and `fetch` brings what has; on a disk both have nothing to do.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import filelock

from rekindle.core.errors import LibraryError
from rekindle.library import files, home
from rekindle.library.manifest import ID_PATTERN

RUNS = "runs"
LOCKS = "locks"
FACTS = ("manifest.json", "policy/policy.json")
"""What the index reads of a run, and its stamp watches."""


@runtime_checkable
class Store(Protocol):
    """What a library needs of the place that its runs are in."""

    folder: Path
    """On this machine: the home, or the cache of one that is elsewhere."""
    address: str
    """The home as people write it, without secrets."""
    is_remote: bool

    def location(self, id: str) -> str:
        """Where a run is, for people; brings nothing here."""
        ...

    def stamps(self) -> dict[str, str]:
        """For each run a text that changes whenever its facts do."""
        ...

    def stamp(self, id: str) -> str:
        """The same for one run; empty if there is none."""
        ...

    def facts(self, ids: Iterable[str]) -> dict[str, Path]:
        """Folders on this machine with at least the newest facts of these runs."""
        ...

    def fetch(self, id: str, part: str = "") -> Path:
        """A part of a run (a file or a folder; all of it by default), brought up to date, to read."""
        ...

    def writable(self, id: str) -> Path:
        """The folder to write a run in, as it is now."""
        ...

    def new(self, id: str) -> contextlib.AbstractContextManager[Path]:
        """A folder to fill, which becomes the run `id` when the block ends well; FileExistsError if there is one."""
        ...

    def push(self, id: str, part: str = "") -> None:
        """Send what was written in `writable`, or a part of it (a file or a folder)."""
        ...

    def contents(self, id: str) -> dict[str, int]:
        """The names of a run's files and their bytes."""
        ...

    def keep_manifest(self, id: str, name: str, data: bytes) -> None:
        """Keep a run's manifest, which is `data`, as the small file `name`."""
        ...

    def remove(self, id: str, part: str = "") -> None:
        """Remove a run, or a folder of it, with all that it holds."""
        ...

    def orphans(self, *, older_than_s: float) -> list[str]:
        """Ids of runs of which a removal or a sending that was cut off left something."""
        ...

    def read(self, name: str) -> bytes | None:
        """A small file beside the runs, or None."""
        ...

    def write(self, name: str, data: bytes, *, new: bool = False) -> None:
        """Replace a small file beside the runs; with `new`, FileExistsError if it is there."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names of the small files in a folder beside the runs."""
        ...

    def delete(self, name: str) -> None:
        """Remove a small file beside the runs, if it is there."""
        ...


def open_store(at: str | os.PathLike[str]) -> Store:
    """The store for a home: a folder of this machine, or a URL."""
    if not home.is_remote(at):
        return Local(home.near(at))
    from rekindle.library.remote import Remote

    return Remote(os.fspath(at))


@contextlib.contextmanager
def lock(store: Store, name: str, *, wait_s: float, busy: str) -> Iterator[None]:
    """Hold a lock that every process on this machine sees, and that ends with the process, however it ends.

    Raises:
        LibraryError: another holds it for longer than `wait_s`; the message is `busy`.
    """
    path = store.folder / LOCKS / f"{name}.lock"
    make_folders(path.parent)
    with files.errors_named(path, "lock"):
        held = filelock.FileLock(path, timeout=wait_s, thread_local=False, mode=0o666)
        try:
            held.acquire()
        except filelock.Timeout:
            raise LibraryError(busy) from None
        except NotImplementedError:  # a file system without locks: nothing is promised there
            pass
    try:
        yield
    finally:
        held.release()


def is_locked(store: Store, name: str) -> bool:
    """Whether a process on this machine holds the lock."""
    path = store.folder / LOCKS / f"{name}.lock"
    if not path.exists():
        return False
    try:
        with filelock.FileLock(path, timeout=0, mode=0o666):
            return False
    except (filelock.Timeout, PermissionError):  # of another user: better left alone
        return True
    except (OSError, NotImplementedError):
        return False


class Local:
    """Runs below a folder of this machine. They are written and read where they are."""

    is_remote = False

    def __init__(self, folder: Path) -> None:
        """Open `folder`, creating what is missing if it can be; a folder that cannot be written can still be read."""
        self.folder, self.address = folder, str(folder)
        self._runs = folder / RUNS
        if not self._runs.is_dir():
            make_folders(self._runs)

    def location(self, id: str) -> str:
        """The folder."""
        return str(self._runs / id)

    def stamps(self) -> dict[str, str]:
        """From the times, numbers and sizes of the files."""
        with files.errors_named(self._runs, "read"), os.scandir(self._runs) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        return {name: stamp for name in names if is_id(name) and (stamp := self.stamp(name))}

    def stamp(self, id: str) -> str:
        """From the times, numbers and sizes of the files; empty if there are none."""
        marks = []
        for name in FACTS:
            try:
                stat = os.stat(f"{self._runs}/{id}/{name}")
                marks.append(f"{stat.st_mtime_ns}-{stat.st_ino}-{stat.st_size}")
            except OSError:
                marks.append("")
        return "|".join(marks) if any(marks) else ""

    def facts(self, ids: Iterable[str]) -> dict[str, Path]:
        """Where they are."""
        return {id: self._runs / id for id in ids}

    def fetch(self, id: str, part: str = "") -> Path:
        """Where it is."""
        return self._runs / id / part

    def writable(self, id: str) -> Path:
        """Where it is."""
        return self._runs / id

    def new(self, id: str) -> contextlib.AbstractContextManager[Path]:
        """Written beside, renamed when it is whole."""
        return files.new_folder(self._runs / id)

    def push(self, id: str, part: str = "") -> None:
        """It is there already."""

    def contents(self, id: str) -> dict[str, int]:
        """Names and sizes."""
        return {name: size for name, (size, _) in inventory(self._runs / id).items()}

    def keep_manifest(self, id: str, name: str, data: bytes) -> None:
        """By a second name for the same file where there can be one: that takes no space, and the disk may be full."""
        make_folders((self.folder / name).parent)
        try:
            (self.folder / name).unlink(missing_ok=True)
            os.link(self._runs / id / FACTS[0], self.folder / name)
        except OSError:
            self.write(name, data)

    def remove(self, id: str, part: str = "") -> None:
        """Gone at once, even if emptying it is interrupted."""
        files.remove(self._runs / id / part)

    def orphans(self, *, older_than_s: float) -> list[str]:
        """None: a folder comes and goes at once."""
        del older_than_s
        return []

    def read(self, name: str) -> bytes | None:
        """A small file, or None."""
        path = self.folder / name
        if not path.is_file():
            return None
        with files.errors_named(path, "read"):
            return path.read_bytes()

    def write(self, name: str, data: bytes, *, new: bool = False) -> None:
        """Whole or not at all."""
        path = self.folder / name
        if not path.parent.is_dir():
            make_folders(path.parent)
        files.write_bytes(path, data, new=new)

    def names(self, folder: str) -> list[str]:
        """The files whose names do not begin with a dot."""
        path = self.folder / folder
        return sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) if path.is_dir() else []

    def delete(self, name: str) -> None:
        """Nothing happens if it is not there."""
        path = self.folder / name
        with files.errors_named(path, "remove"):
            path.unlink(missing_ok=True)


def is_id(name: str) -> bool:
    """Whether a folder can be a run's; others are not ours."""
    return re.fullmatch(ID_PATTERN, name) is not None


def make_folders(folder: Path) -> None:
    """Create a folder and those above it.

    Raises:
        LibraryError: a file is in the way, or the disk refuses.
    """
    try:
        with files.errors_named(folder, "create"):
            folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise LibraryError(
            f"cannot create {folder}: a file is where a folder should be; move it away, or set REKINDLE_HOME."
        ) from None


def inventory(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file that is to be sent."""
    found: dict[str, tuple[int, int]] = {}
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                path = Path(top) / name
                stat = path.stat()
                found[path.relative_to(folder).as_posix()] = (stat.st_size, stat.st_mtime_ns)
    return found
