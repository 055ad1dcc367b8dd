"""Named arrays in one safetensors file, beside a table that says what must be in it.

A file from elsewhere is untrusted: its size, its hash, and every leaf's name, dtype and shape are checked against the
table, and the table against limits, before any array is used.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rekindle.core.errors import CheckpointError, LibraryError
from rekindle.library import files

_REALS = ("float16", "float32", "float64")
_WHOLE = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
DTYPES = {name: np.dtype(name) for name in (*_WHOLE, *_REALS)}
_SAFE = {
    **{f"F{8 * DTYPES[name].itemsize}": name for name in _REALS},
    **{f"{name[0].upper()}{8 * DTYPES[name].itemsize}": name for name in _WHOLE if name != "bool"},
    "BOOL": "bool",
}
"""Our names of the types that the file's header speaks of."""
_NAMES = {ours: theirs for theirs, ours in _SAFE.items()}
_ORDER = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "uint16",
    "float16",
    "int32",
    "uint32",
    "float32",
    "float64",
    "int64",
    "uint64",
)
"""Of the types in a file, from its end: what is aligned to more bytes comes first."""
MAX_BYTES = 16 * 2**30
"""Largest file of weights that is read."""
_BLOCK = 2**24
"""Numbers that are looked at at once."""
_BYTES_PER_LEAF = 8192
"""Room in the file's header for one leaf's entry."""


class Leaf(BaseModel):
    """One array of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(max_length=1024)
    dtype: str
    shape: tuple[int, ...] = Field(max_length=32)

    @field_validator("dtype")
    @classmethod
    def _is_known(cls, dtype: str) -> str:
        if dtype not in DTYPES:
            raise ValueError(f"an impossible leaf: its numbers are of type {dtype!r:.40}")
        return dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


class Table(BaseModel):
    """What the file holds, in order, and the SHA-256 of its bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    leaves: tuple[Leaf, ...] = Field(max_length=100_000)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(leaf.nbytes for leaf in self.leaves)


def encode(arrays: Mapping[str, np.ndarray]) -> tuple[bytes, Table]:
    """The bytes of a file with `arrays`, and the table that reads it back.

    Raises:
        CheckpointError: a name or dtype that the file cannot hold.
    """
    file = io.BytesIO()
    table = _write(file, arrays)
    return file.getvalue(), table


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> Table:
    """Write `arrays` to `path`, whole or not at all, and return the table that reads it back.

    They go from where they are to the file, without a copy of all in memory.

    Raises:
        CheckpointError: a name or dtype that the file cannot hold.
    """
    with files.whole_file(path) as temporary, open(temporary, "wb") as file:
        return _write(file, arrays)


def read_tensors(path: Path, table: Table, *, most: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """The arrays of `path`, exactly as `table` says, in its order: views of the file, mapped into memory, read-only.

    Raises:
        CheckpointError: the file is missing, larger than `most` bytes, or differs from the table in any way.
    """
    data = _read_checked(path, table, most)
    try:
        with safetensors.safe_open(path, framework="numpy") as checked:
            names: set[str] = set(checked.keys())
        entries = _header(data)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it is not a safetensors file ({str(error)[:120]!r}).") from None
    for leaf in table.leaves:
        entry = entries.get(leaf.name)
        if entry is None:
            raise CheckpointError(f"{path} is damaged: leaf {leaf.name!r:.80} of its table is missing.")
        if (entry.dtype, entry.shape) != (leaf.dtype, leaf.shape):
            raise CheckpointError(
                f"{path} is damaged: leaf {leaf.name!r:.80} is {_shown(entry)}, its table says {_shown(leaf)}."
            )
    if len(names) != len(table.leaves):
        extra = min(names - {leaf.name for leaf in table.leaves})
        raise CheckpointError(f"{path} is damaged: leaf {extra!r:.80} is not in its table.")
    return {leaf.name: _view(data, entries[leaf.name]) for leaf in table.leaves}


def check_finite(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """CheckpointError names the first leaf that holds a NaN or an infinity."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not all(np.isfinite(block).all() for block in _blocks(array)):
            raise CheckpointError(f"{where}: leaf {name!r} holds numbers that are not finite; the training diverged.")


def check_file(path: Path, table: Table) -> None:
    """CheckpointError unless the size and hash of `path` are those of the table; decodes nothing."""
    _read_checked(path, table, MAX_BYTES)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array in parts along its first axis, so that what is computed of one takes little memory."""
    if array.ndim == 0:
        yield array
        return
    rows = max(_BLOCK * len(array) // max(array.size, 1), 1)
    for begin in range(0, len(array), rows):
        yield array[begin : begin + rows]


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _shown(leaf: Leaf | _Entry) -> str:
    text = f"{leaf.dtype}{list(leaf.shape)}"[:80]
    return text if text.isprintable() else repr(text)


def _header(data: np.ndarray) -> dict[str, _Entry]:
    """What the file says of its arrays; their places are bytes of the whole file. The library has checked it before."""
    size = int.from_bytes(data[:8].tobytes(), "little")
    said = json.loads(data[8 : 8 + size].tobytes())
    return {
        name: _Entry(
            _SAFE[entry["dtype"]], tuple(entry["shape"]), *(8 + size + int(at) for at in entry["data_offsets"])
        )
        for name, entry in said.items()
        if name != "__metadata__"
    }


def _view(data: np.ndarray, entry: _Entry) -> np.ndarray:
    dtype = DTYPES[entry.dtype]
    part = data[entry.begin : entry.end]
    if entry.begin % dtype.itemsize:  # only a file from elsewhere: ours are aligned
        part = part.copy()
    return part.view(dtype).reshape(entry.shape)


def _read_checked(path: Path, table: Table, most: int) -> np.ndarray:
    """The bytes of the file, mapped into memory, once size and hash are those of the table."""
    expected = _expected_bytes(path, table, most)
    try:
        with files.errors_named(path, "read"):
            size = path.stat().st_size
            if size < expected:
                raise CheckpointError(f"{path} is cut off: it has {size} bytes, its leaves need {expected}.")
            if size > expected + 1024 + _BYTES_PER_LEAF * len(table.leaves):
                raise CheckpointError(f"{path} is damaged: it has {size} bytes, its leaves need {expected}.")
            data = np.asarray(np.memmap(path, np.uint8, "r")) if size else np.zeros(0, np.uint8)
    except LibraryError as error:
        raise CheckpointError(str(error)) from None
    if (digest := hashlib.sha256(data.data).hexdigest()) != table.sha256:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is {digest[:12]}…, recorded is {table.sha256[:12]}….")
    return data


def _expected_bytes(path: Path, table: Table, most: int) -> int:
    if len({leaf.name for leaf in table.leaves}) < len(table.leaves):
        raise CheckpointError(f"the table of {path} names a leaf twice.")
    for leaf in table.leaves:
        if leaf.dtype not in DTYPES or any(n < 0 for n in leaf.shape):
            raise CheckpointError(f"the table of {path} has an impossible leaf: {leaf.name!r:.80}, {_shown(leaf)}.")
    if table.nbytes > most:
        raise CheckpointError(f"the table of {path} asks for {str(table.nbytes)[:20]} bytes; at most {most} are read.")
    return table.nbytes


def _write(file: io.BufferedIOBase, arrays: Mapping[str, np.ndarray]) -> Table:
    """Byte for byte what the safetensors library makes of them, array by array."""
    standard = {name: _standard(name, array) for name, array in arrays.items()}
    leaves = [Leaf(name=name, dtype=array.dtype.name, shape=array.shape) for name, array in standard.items()]
    header: dict[str, Any] = {}
    at = 0
    for leaf in (order := sorted(leaves, key=lambda leaf: (-_ORDER.index(leaf.dtype), leaf.name))):
        header[leaf.name] = {"dtype": _NAMES[leaf.dtype], "shape": leaf.shape, "data_offsets": (at, at + leaf.nbytes)}
        at += leaf.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    for part in (len(text).to_bytes(8, "little"), text, *(_bytes(standard[leaf.name]) for leaf in order)):
        digest.update(part)
        file.write(part)
    return Table(sha256=digest.hexdigest(), leaves=tuple(leaves))


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _standard(name: str, array: np.ndarray) -> np.ndarray:
    if name == "__metadata__" or len(name) > 1024:
        raise CheckpointError(f"a leaf cannot be named {name[:80]!r}; use another field name.")
    if array.dtype.newbyteorder("=").name not in DTYPES:
        raise CheckpointError(f"leaf {name!r} has dtype {array.dtype}; a file holds only {', '.join(DTYPES)}.")
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
