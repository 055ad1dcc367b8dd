"""Files and folders that exist whole or not at all: write beside, fsync, rename, fsync the folder.

A name that begins with `.tmp-` belongs to a write that is going on or was interrupted; no reader looks at it. It says
which process on which machine writes it, so that what a dead one left can be swept away whatever the clock says.
JSON has no NaN and no infinities: they are written as the words "NaN", "Infinity" and "-Infinity", which `float` reads.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rekindle.core.errors import LibraryError

TEMPORARY = ".tmp-"
MAX_JSON_BYTES = 16 * 2**20
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escape that may be half of a character, which nothing can print."""
FOREIGN_SECONDS = 86400.0
"""What another machine left is taken for abandoned when nobody touched it for so long."""


def write_bytes(path: Path, data: bytes, *, new: bool = False) -> None:
    """Replace `path` by `data`, whole or not at all; with `new`, FileExistsError if it is there."""
    with whole_file(path, new=new) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def whole_file(path: Path, *, new: bool = False) -> Iterator[Path]:
    """A file to write; it becomes `path` when the block ends well, and nothing is left of it otherwise.

    Raises:
        FileExistsError: `path` exists and `new` is true.
        LibraryError: the disk refuses.
    """
    temporary = _beside(path)
    if path.exists() and not path.is_file():
        raise LibraryError(f"cannot write {path}: a folder or a device is there; name another file.")
    with errors_named(path, "write"):
        try:
            yield temporary
            _sync_file(temporary)
            if new:
                os.link(temporary, path)
                temporary.unlink()
            else:
                os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(path: Path, value: Any, *, durable: bool) -> None:
    """Add `value` as one line of JSON; with `durable` it is on the disk when this returns."""
    line = json.dumps(plain(value), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with errors_named(path, "append to"):
        new = not path.exists()
        with open(path, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(line):
                    written += file.write(line[written:])
                if durable:
                    os.fsync(file.fileno())
            except BaseException:  # a full disk takes a part: the next line must not run into it
                file.truncate(size)
                raise
        if durable and new:
            sync_folder(path.parent)


def read_json(path: Path, *, most: int = MAX_JSON_BYTES) -> Any:
    """The JSON in `path`; LibraryError where it is missing, not JSON, or larger than `most` bytes."""
    with errors_named(path, "read"):
        size = path.stat().st_size
        if size > most:
            raise LibraryError(f"{path} holds {size} bytes; at most {most} are read.")
        data = path.read_bytes()
    return json_of(data, path)


def json_of(data: bytes, where: Path | str) -> Any:
    """The value of JSON in UTF-8, without what strict JSON does not have: NaN, infinities, halves of characters.

    Raises:
        LibraryError: it is none; `where` says where it came from.
    """
    try:
        value = _DECODER.decode(data.decode())
        if _HALF.search(data):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise LibraryError(f"{where} is damaged: it is not JSON ({str(error)[:120]}).") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a last line without its end was being written and is left out.

    Raises:
        LibraryError: a finished line that is not a JSON object; the message has its number.
    """
    if not path.exists():
        return []
    with errors_named(path, "read"):
        lines = path.read_bytes().split(b"\n")[:-1]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json_of(line, path)
        except LibraryError:
            row = None
        if not isinstance(row, dict):
            raise LibraryError(f"{path} is damaged: line {number} is not a JSON object; remove that line.")
        rows.append(row)
    return rows


def mend_tail(path: Path) -> None:
    """Cut a last line that was never finished, so that the next one does not run into it."""
    if not path.exists():
        return
    with errors_named(path, "mend"), open(path, "r+b") as file:
        data = file.read()
        if not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill; it becomes `path` when the block ends well, and nothing is left of it otherwise.

    Raises:
        FileExistsError: `path` exists and `replace` is false.
        LibraryError: the disk refuses.
    """
    temporary = _beside(path)
    with errors_named(path, "write"):
        temporary.mkdir()
    try:
        yield temporary
        with errors_named(path, "write"):
            _sync_tree(temporary)
            old = _beside(path)
            if replace and path.exists():
                os.rename(path, old)
            _rename_folder(temporary, path)
            sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sha256(path: Path) -> str:
    """The hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file or folder: it is gone at once, even if emptying it is interrupted. Links are not followed."""
    temporary = _beside(path)
    with errors_named(path, "remove"):
        os.rename(path, temporary)
        if temporary.is_symlink() or temporary.is_file():
            temporary.unlink()
        else:
            shutil.rmtree(temporary)


def leftovers(folder: Path) -> list[Path]:
    """What interrupted writes left directly in `folder`, and what is being written."""
    return sorted(folder.glob(f"{TEMPORARY}*"))


def abandoned(folder: Path) -> list[Path]:
    """The leftovers directly in `folder` whose writer is gone."""
    return [path for path in leftovers(folder) if _is_abandoned(path)]


def sweep(folder: Path) -> None:
    """Remove the abandoned leftovers in `folder`."""
    for path in abandoned(folder):
        with contextlib.suppress(LibraryError):  # another process sweeps too
            remove(path)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, where the system lets a folder be synced."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def plain(value: Any) -> Any:
    """`value` as JSON data: NumPy, JAX, pydantic models, paths, tuples and dataclasses become plain data.

    Raises:
        LibraryError: a value that JSON cannot hold.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else json.dumps(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if (tolist := getattr(value, "tolist", None)) is not None:
        return plain(tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise LibraryError(f"{value!r} ({type(value).__name__}) is no JSON; use numbers, text, lists and dicts.")


@contextlib.contextmanager
def errors_named(path: Path, verb: str) -> Iterator[None]:
    """Turn the system's refusals into one sentence about `path`."""
    try:
        yield
    except FileExistsError:
        raise
    except FileNotFoundError:
        missing = path if path.parent.is_dir() else path.parent
        mend = "make it first" if missing != path else "check its name"
        raise LibraryError(f"cannot {verb} {path}: {missing} does not exist; {mend}.") from None
    except OSError as error:
        mend = {
            errno.EACCES: "give yourself the right to it, or set REKINDLE_HOME to a folder of yours",
            errno.EPERM: "give yourself the right to it, or set REKINDLE_HOME to a folder of yours",
            errno.EROFS: "set REKINDLE_HOME to a folder that can be written",
            errno.ENOSPC: "free some space, or set REKINDLE_HOME to another disk",
            errno.EDQUOT: "free some space, or set REKINDLE_HOME to another disk",
            errno.ENOTDIR: "a file is where a folder should be: move it away, or set REKINDLE_HOME to another folder",
        }.get(error.errno or 0, "check the disk, or set REKINDLE_HOME to another folder")
        raise LibraryError(f"cannot {verb} {path}: {error.strerror or error}; {mend}.") from None


def _beside(path: Path) -> Path:
    return path.parent / f"{TEMPORARY}{path.name[:120]}-{machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@functools.cache
def machine() -> str:
    """Where process numbers mean the same, as the names of unfinished files have it: a container, or a machine."""
    marks = [platform.node()]
    with contextlib.suppress(OSError):
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        marks.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(marks).encode()).hexdigest()[:8]


def _is_abandoned(path: Path) -> bool:
    mark = re.search(r"-([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{8}$", path.name)
    if mark is None or mark[1] != machine():
        try:
            return time.time() - path.lstat().st_mtime >= FOREIGN_SECONDS
        except FileNotFoundError:
            return False
    try:
        os.kill(int(mark[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _rename_folder(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(error.errno, "the folder exists", str(target)) from None
        raise


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync_file(Path(parent) / name)
        sync_folder(Path(parent))
