"""A replay on the host: slices of steps in files that are mapped into memory, one file for each array.

What is drawn is decided on the device, which knows of the ring only how many slices it has (`ring.Outline`). The slices
around a drawn step are copied from the files to the device (`ring.Window`), and `ring.made_of` makes of them what it
makes of any ring. Steps that exist already are adopted where they lie: they are read there, and never written.

A checkpoint holds no steps: the files stay. They have more slots than steps that can be drawn, so that what the last
checkpoint needs is not overwritten before the next; whoever goes on from it writes the same steps over the later ones.
"""

import itertools
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import jax
import numpy as np
from jaxtyping import Bool, Int

from rekindle.core.errors import CheckpointError
from rekindle.library import files
from rekindle.replay import ring as rings
from rekindle.replay.ring import Ring, Step, Window

SLACK, LEAST = 1 / 8, 1024
"""Slots beyond those that are drawn from: this share of them, at least so many."""
WRITTEN = "written"


class Mapped:
    """Slices of steps: the last of those that are adopted, then those that are added; number k is the k-th of both."""

    def __init__(self, folder: Path | None, slots: int, adopted: Ring | None = None):
        """Nothing is opened yet.

        Args:
            folder: where the files are; without one, a temporary folder.
            slots: the latest slices that can be drawn from.
            adopted: a full ring of arrays on the host, which are only read.
        """
        self._folder, self.slots, self.adopted = folder, slots, adopted
        self.kept = 0 if adopted is None else min(adopted.slots, slots)
        self.added = self.kept
        self._own: Step | None = None
        self._files: list[Any] = []
        weakref.finalize(self, _close, self._files)
        self._written: Any = None
        self._saved: int | None = None

    @cached_property
    def folder(self) -> Path:
        """Where the files are."""
        if self._folder is not None:
            return self._folder
        with files.errors_named(Path(tempfile.gettempdir()), "write"):
            made = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        return Path(made) / "replay"

    @property
    def rows(self) -> int:
        """B."""
        ring = self.adopted if self._own is None else _ring(self._own, np.int32(0))
        assert ring is not None
        return ring.rows

    def stand_at(self, added: int, like: Step) -> None:
        """Bring the files to where a loop left them: begin them, or open those that are there.

        Args:
            added: slices so far, with those that are adopted.
            like: shapes and types of a slice.

        Raises:
            CheckpointError: files that are missing, damaged, or do not hold what the loop was in.
            LibraryError: the disk refuses.
        """
        if self._own is not None and self.added == added:
            return
        if added == self.kept:
            self._create(rings.named(like))
            self._saved = None
        else:
            self._saved = added
        self._open(rings.named(like), added)
        self.added = added

    def write(self, step: Step) -> None:
        """One more slice.

        Raises:
            LibraryError: the disk refuses.
        """
        assert self._own is not None
        slot = (self.added - self.kept) % self._physical
        self._written[0] = max(int(self._written[0]), self.added + 1)  # before what was there is lost
        with files.errors_named(self.folder, "write"):
            for array, whole, file in zip(rings.named(step).values(), self._leaves(), self._files, strict=True):
                data = np.ascontiguousarray(array, whole.dtype)
                file.seek(whole.offset + slot * data.nbytes)
                put(file, data)
        self.added += 1

    def truncated(self, number: int) -> Bool[np.ndarray, " B"]:
        """Where a time limit was met in a slice, or what follows it is another's; nowhere, if there is none of it."""
        if number < 0:
            return np.zeros(self.rows, bool)
        if self.adopted is not None and number < self.kept:
            theirs, at = self.adopted.steps, number - self.kept
            last = np.array(number == self.kept - 1)
            return np.asarray(theirs.truncated[at]) | last & ~np.asarray(theirs.terminated[at])
        assert self._own is not None
        return np.array(self._own.truncated[(number - self.kept) % self._physical])

    def window(self, index: Int[np.ndarray, " b"], *, before: int, after: int) -> Window:
        """The slices around the steps at places `slot * B + row`: so many before them, and after."""
        oldest = max(self.added - self.slots, 0)
        number = oldest + (index // self.rows - oldest) % self.slots
        around = np.arange(-before, after + 1)[:, None]
        steps = self._read(number + around, index % self.rows)
        age: Any = (number - oldest).astype(np.int32)
        return Window(_ring(steps, np.int32(len(around))), age)

    def ring(self) -> Ring:
        """All that was ever added, where it lies; nothing may have been overwritten yet."""
        assert self._own is not None and self.kept == 0 and self.added <= self.slots
        return _ring(jax.tree.map(lambda x: np.asarray(x)[: self.added], self._own), np.int32(self.added))

    def room(self) -> int | None:
        """Slices until what the last checkpoint needs is overwritten; None where there is no checkpoint."""
        return None if self._saved is None else self._physical - self.slots - (self.added - self._saved)

    def save(self) -> None:
        """Make all durable, before a checkpoint is written that needs it."""
        with files.errors_named(self.folder, "write"):
            for file in self._files:
                os.fsync(file.fileno())
        if self._written is not None:
            self._written.flush()
            self._saved = self.added

    @contextmanager
    def unrolled(self) -> Iterator[dict[str, np.ndarray]]:
        """What can be drawn from, the oldest first, by name: where it lies, or put in order on the disk."""
        whole = {} if self._own is None else rings.named(self._own)
        theirs = {} if self.adopted is None else rings.named(self.adopted.steps)
        with files.errors_named(self.folder, "write"):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            ordered = tempfile.TemporaryDirectory(prefix=files.TEMPORARY, dir=self.folder.parent)
        with ordered as folder:
            yield {name: self._ordered(name, whole.get(name), theirs.get(name), Path(folder))
                   for name in whole or theirs if name != "labels"}  # fmt: skip

    @property
    def _physical(self) -> int:
        return self.slots + max(math.ceil(self.slots * SLACK), LEAST)

    def _leaves(self) -> Iterable[np.memmap]:
        assert self._own is not None
        return rings.named(self._own).values()

    def _read(self, number: Int[np.ndarray, "W b"], row: Int[np.ndarray, " b"]) -> Step:
        """Copies of the slices of these numbers."""
        own, theirs = self._own, None if self.adopted is None else self.adopted.steps
        at, row = (number - self.kept) % self._physical, np.broadcast_to(row, number.shape)
        if theirs is None:
            return jax.tree.map(lambda x: np.asarray(x)[at, row], own)
        earlier = np.clip(number, 0, self.kept - 1) + len(theirs.reward) - self.kept
        found = jax.tree.map(lambda x: np.asarray(x)[earlier, row], theirs)
        if own is not None:
            mine = number >= self.kept
            for into, x in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
                into[mine] = np.asarray(x)[at[mine], row[mine]]
            found.truncated[(number == self.kept - 1) & ~found.terminated] = True  # what follows is another's
        return found

    def _ordered(self, name: str, own: Any, theirs: Any, folder: Path) -> np.ndarray:
        oldest = max(self.added - self.slots, 0)
        parts = [] if theirs is None else [theirs[len(theirs) - self.kept :][oldest:]]
        if own is not None:
            begin, count = (max(oldest, self.kept) - self.kept) % self._physical, self.added - max(oldest, self.kept)
            parts += [own[begin : begin + count], own[: max(begin + count - self._physical, 0)]]
        parts = [part for part in parts if len(part)]
        if len(parts) == 1:
            return np.asarray(parts[0])
        if name == "truncated" and oldest < self.kept:
            assert self.adopted is not None
            parts[0] = np.array(parts[0])
            parts[0][-1] |= ~np.asarray(self.adopted.steps.terminated[-1])
        return stored(folder / _file(name), parts[0].dtype, (sum(map(len, parts)), *parts[0].shape[1:]), parts)

    def _create(self, like: dict[str, Any]) -> None:
        with files.errors_named(self.folder, "create"):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        with files.new_folder(self.folder, replace=True) as new:
            for name, leaf in like.items():
                stored(new / _file(name), leaf.dtype, (self._physical, *leaf.shape), ())
            stored(new / _file(WRITTEN), np.dtype(np.int64), (1,), (np.zeros(1, np.int64),))

    def _open(self, like: dict[str, Any], added: int) -> None:
        arrays = {name: opened(self.folder / _file(name), leaf.dtype, (self._physical, *leaf.shape))
                  for name, leaf in like.items()}  # fmt: skip
        self._written = opened(self.folder / _file(WRITTEN), np.dtype(np.int64), (1,), writable=True)
        needed, last = max(added - self.slots, self.kept), int(self._written[0])
        if added > self.kept and not added <= last <= needed + self._physical:
            raise CheckpointError(
                f"{self.folder} was written up to slice {last:,}; the checkpoint needs slices {needed:,} to {added:,}, "
                "which are not all there. Begin anew."
            )
        _close(self._files)
        with files.errors_named(self.folder, "open"):
            self._files += [open(self.folder / _file(name), "r+b", buffering=0) for name in like]  # noqa: SIM115
        self._own = rings.unnamed(arrays)


def on_host(obs: Mapping[str, Any], action: Any, reward: Any, terminated: Any, truncated: Any,
            labels: Any = ()
            ) -> Step:  # fmt: skip
    """Steps of NumPy's arrays; what terminated in the step of a time limit has terminated."""
    return Step(dict(obs), action, reward, terminated, truncated & ~terminated, labels)


def _ring(steps: Any, added: Any) -> Ring:
    """Of NumPy's arrays, where the types say JAX's."""
    return Ring(steps, added)


def stored(path: Path, dtype: np.dtype, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> np.memmap:
    """An array as a file that begins with these parts, one after the other; what is not given is 0 and takes no space.

    Raises:
        LibraryError: the disk refuses.
    """
    head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with files.errors_named(path, "write"), open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        whole = file.tell() + math.prod(shape) * dtype.itemsize
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)
        file.truncate(whole)
    return opened(path, dtype, shape)


def gathered(path: Path | None, axes: tuple[int, ...], parts: Iterator[Any]) -> np.ndarray:
    """Parts along the first of these axes as one array: of the file at `path`, or in memory without one.

    The file is there whole or not at all.

    Raises:
        LibraryError: the disk refuses.
    """
    first = np.asarray(next(parts))
    every = itertools.chain([first], map(np.asarray, parts))
    if path is None:
        return np.concatenate(list(every))
    with files.errors_named(path.parent, "create"):
        path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*axes, *first.shape[len(axes) :])
    with files.whole_file(path) as new:
        stored(new, first.dtype, shape, every)
    return opened(path, first.dtype, shape)


def read(folder: Path) -> Ring:
    """All that was ever added to the files in a folder, where it lies; nothing may have been overwritten.

    The files have to be whole: they are taken as they are.
    """
    arrays = {unquote(path.stem): np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    added = int(arrays.pop(WRITTEN)[0])
    return rings.in_place({name: np.asarray(array)[:added] for name, array in arrays.items()})


def opened(path: Path, dtype: np.dtype, shape: tuple[int, ...], *, writable: bool = False) -> np.memmap:
    """An array of a file, mapped into memory.

    Raises:
        CheckpointError: it is missing, cut off, or holds something else.
    """
    try:
        found = np.lib.format.open_memmap(path, mode="r+" if writable else "r")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing, without which the run cannot go on. Begin anew.") from None
    except (OSError, ValueError, EOFError) as error:
        reason = str(error)[:120]
        raise CheckpointError(f"{path} is damaged or cut off ({reason}); the run cannot go on. Begin anew.") from None
    if (found.dtype, found.shape) != (dtype, shape):
        there, here = (f"{np.dtype(of).name}{list(form)}" for of, form in ((found.dtype, found.shape), (dtype, shape)))
        raise CheckpointError(f"{path} holds {there}, expected {here}; it is of another run. Begin anew.")
    return found


def put(file: Any, data: np.ndarray) -> None:
    """All bytes of an array, to a file without a buffer, which may take fewer at once."""
    left = data.data.cast("B")
    while left:
        left = left[file.write(left) :]


def _close(opened: list[Any]) -> None:
    while opened:
        opened.pop().close()


def _file(name: str) -> str:
    return f"{quote(name, safe='')}.npy"
