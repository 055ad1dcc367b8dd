"""A prior as one file, to give away: policy, replay, curves, decisions, and the manifests of all it was made from.

Either the policy or the replay may be missing. The file is a zip whose entries are stored as they are. `rekindle.json`
lists every other entry with its size and SHA-256; nothing is in it that a program could run, and no report, since that
is a page with scripts. Whoever imports one believes nothing: names, sizes, hashes, schemas, weights and steps are
checked, in this order, before anything is kept. What is large goes from file to file in parts, never whole in memory.
"""

import hashlib
import io
import itertools
import json
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rekindle.core.errors import CheckpointError, LibraryError
from rekindle.library import artefact, dataset, files, provenance, tensors
from rekindle.library.library import Library
from rekindle.library.lineage import Kin
from rekindle.library.manifest import (
    FILE,
    ID_PATTERN,
    MAX_BYTES,
    PARENT_PATTERN,
    Manifest,
    first_problem,
    manifest_from,
    read_manifest,
)
from rekindle.library.records import SHIPPED
from rekindle.library.verify import DECISIONS, METRICS, is_metric

FORMAT = 1
EXTENSION = ".rekindle"
MAX_ENTRIES = 1_000
MAX_SMALL_BYTES = 64 * 2**20
"""Of the manifests of all ancestors."""
MAX_LINES = 1_000_000
MAX_LINES_BYTES = 256 * 2**20
"""Of curves or decisions."""
MAX_LINE_BYTES = 2**20
MAX_FILE_BYTES = tensors.MAX_BYTES + dataset.MAX_BYTES + 2**30
"""Of the whole: weights, replay, and what is small. Entries are stored as they are, so nothing unpacks to more."""
_INDEX = "rekindle.json"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 2**20
_MANIFEST = f"run/{FILE}"
_POLICY = (f"run/{artefact.FOLDER}/{artefact.FACTS}", f"run/{artefact.FOLDER}/{artefact.WEIGHTS}")
_REPLAY = (f"run/{dataset.FOLDER}/{dataset.FACTS}", f"run/{dataset.FOLDER}/{dataset.STEPS}")
_RUN_FILES = (_MANIFEST, *_POLICY, *_REPLAY, f"run/{METRICS}", f"run/{DECISIONS}")
_NAMES = re.compile(rf"({'|'.join(map(re.escape, _RUN_FILES))})|kin/(shipped~)?[A-Za-z0-9][A-Za-z0-9_-]{{0,79}}\.json")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Entry(BaseModel):
    """One file inside."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(max_length=200)
    nbytes: int = Field(ge=0, le=MAX_FILE_BYTES)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Contents(BaseModel):
    """What `rekindle.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rekindle: Literal["prior"]
    format: Literal[1] = 1
    id: str = Field(pattern=ID_PATTERN)
    exported_by: dict[str, str]
    """Versions, for people."""
    entries: tuple[Entry, ...] = Field(max_length=MAX_ENTRIES)


class Exported(NamedTuple):
    """What was written."""

    id: str
    path: Path
    nbytes: int
    sha256: str
    """Of the file: who receives it can compare."""
    kin: int
    """Ancestors whose manifests are in it."""
    transitions: int
    """Steps of the replay in it."""
    replay_nbytes: int
    """Bytes of the replay in it; 0 where there is none."""


class Imported(NamedTuple):
    """What is in the library now."""

    id: str
    new: bool
    """False if the same run was there already."""
    kin: int
    """Ancestors that became known by it."""


def export(library: Library, which: str, path: Path, *, replay: bool = True) -> Exported:
    """Write the prior of a run to `path`, whole or not at all; without `replay`, its replay stays here.

    Raises:
        LibraryError: there is no such run, it kept nothing to export, or the disk refuses.
        CheckpointError: its policy or replay is damaged; that would be exported only to be refused.
    """
    record = library.find(which)
    folder = record.path
    has_replay = replay and (folder / dataset.FOLDER).is_dir()
    if record.policy is None and not has_replay:
        what = "policy and no replay" if replay else "policy, and its replay is to be left out"
        raise LibraryError(f"{record.id} kept no {what}, so there is nothing to export; `rekindle library ls`.")
    path = Path(os.path.realpath(path))
    refuse_to_replace(path, b"PK\x03\x04", "exported prior")
    manifest = read_manifest(folder)
    policy, kept = _checked_parts(folder, has_policy=record.policy is not None, has_replay=has_replay)
    sources: dict[str, Path | bytes] = {_MANIFEST: _json(manifest)}
    if policy is not None:
        sources |= zip(_POLICY, (_json(policy), artefact.weights_file(folder, policy)), strict=True)
    if kept is not None:
        sources |= zip(_REPLAY, (_json(kept), folder / dataset.FOLDER / dataset.STEPS), strict=True)
    for name in (METRICS, DECISIONS):
        if rows := files.read_lines(folder / name):
            sources[f"run/{name}"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    kin = {one.id: one.manifest for one in _flat(library.lineage(record.id).parents) if one.manifest is not None}
    for id, relative in sorted(kin.items()):
        sources[f"kin/{id.replace('/', '~')}.json"] = _json(relative)
    sources = {name: sources[name] for name in sorted(sources, key=lambda name: (name.startswith("kin/"), name))}
    entries = [Entry(name=name, nbytes=size, sha256=sha) for name, (size, sha) in _measured(sources)]
    index = Contents(rekindle="prior", id=manifest.id, exported_by=provenance.versions(), entries=tuple(entries))
    with files.whole_file(path) as temporary, zipfile.ZipFile(temporary, "x", zipfile.ZIP_STORED) as out:
        for name, source in {_INDEX: _json(index), **sources}.items():
            info = zipfile.ZipInfo(name, _ZIP_EPOCH)
            info.external_attr = 0o644 << 16
            with out.open(info, "w", force_zip64=True) as into, _opened(source) as data:
                while part := data.read(_CHUNK):
                    into.write(part)
    for left in files.abandoned(path.parent):
        if left.name.startswith(f"{files.TEMPORARY}{path.name[:120]}-"):
            files.remove(left)
    transitions, replay_nbytes = (0, 0) if kept is None else (kept.transitions, kept.steps.nbytes)
    return Exported(record.id, path, path.stat().st_size, files.sha256(path), len(kin), transitions, replay_nbytes)


def load(library: Library, path: Path, *, sha256: str | None = None) -> Imported:
    """Check a file to the last byte, then keep the prior in it and the manifests of its ancestors.

    Args:
        library: where to.
        path: the file.
        sha256: of the file, as whoever made it told it, if it is to be compared.

    Raises:
        LibraryError, CheckpointError: the first thing that is wrong with it; nothing was kept.
    """
    if not path.is_file():
        raise LibraryError(f"{path} is no file; `rekindle library export ID` makes one that can be imported.")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise LibraryError(f"--sha256 takes the 64 digits that `export` printed; got {sha256[:80]!r}.")
    try:
        with files.errors_named(path, "read"), open(path, "rb") as file:
            if sha256 is not None and (found := files.sha256(path)) != sha256.lower():
                raise LibraryError(f"{path} is not the file you expect: its SHA-256 is {found}.")
            with _archive(file, path) as archive:
                return _load(library, path, archive)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, struct.error, NotImplementedError, RuntimeError,
            ValueError, OverflowError, MemoryError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise LibraryError(f"{path} is damaged or foreign: {reason}.") from None


def looks_like_one(path: Path) -> bool:
    """Whether a file is an exported prior by its looks, whatever its name; nothing of it is verified."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _INDEX in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def refuse_to_replace(path: Path, beginning: bytes, what: str) -> None:
    """Refuse to write over anything but an older file of the same sort.

    Raises:
        LibraryError: something else is there.
    """
    if not path.exists():
        return
    is_same = False
    if path.is_file():
        with files.errors_named(path, "read"), open(path, "rb") as file:
            is_same = file.read(len(beginning)) == beginning
    if not is_same:
        raise LibraryError(f"{path} is there already and is no {what}; name another file, or remove it.")


def _load(library: Library, path: Path, archive: zipfile.ZipFile) -> Imported:
    infos = _checked_infos(path, archive)
    index = _index(path, archive, infos)
    listed = {entry.name: entry for entry in index.entries}
    if len(listed) < len(index.entries):
        raise LibraryError(f"{path} is damaged: {_INDEX} lists a file twice.")
    if missing := [name for name in (*_needed(listed), *listed) if name not in infos or name not in listed]:
        raise LibraryError(f"{path} is damaged or cut off: {missing[0]!r:.90} is missing.")
    if extra := sorted(infos.keys() - listed.keys() - {_INDEX}):
        raise LibraryError(f"{path} was altered: {extra[0]!r:.90} is not listed in {_INDEX}.")
    if (small := sum(info.file_size for name, info in infos.items() if name.startswith("kin/"))) > MAX_SMALL_BYTES:
        raise LibraryError(f"{path}: the manifests of its ancestors are too large, {small} bytes.")
    kin = {name: _kin(path, name, _small(path, archive, infos, listed[name])) for name in listed if name[:4] == "kin/"}
    try:
        with library.store.new(index.id) as folder:
            for name, entry in listed.items():
                if name not in kin:
                    _extract(path, archive, infos[name], entry, folder / name.removeprefix("run/"))
            manifest = _check_run(path, folder, index.id)
            _check_family(path, manifest, kin)
        is_new = True
    except FileExistsError:
        _check_same(library, path, index.id, listed)
        is_new = False
    fresh = {id: one for id, one in _by_id(kin).items() if not _is_known(library, id)}
    for id, relative in fresh.items():
        library.remember(id, relative.model_dump_json())
    return Imported(index.id, is_new, len(fresh))


def _archive(file: io.BufferedIOBase, path: Path) -> zipfile.ZipFile:
    if file.read(4) != b"PK\x03\x04":
        raise LibraryError(f"{path} is no exported prior; `rekindle library export ID` makes one.")
    size = file.seek(0, os.SEEK_END)
    if size > MAX_FILE_BYTES:
        raise LibraryError(f"{path} is too large: it has {size} bytes; at most {MAX_FILE_BYTES} are read.")
    file.seek(max(size - 22, 0))  # the end record of a zip without a comment
    tail = file.read(22)
    if tail[:4] != b"PK\x05\x06":
        raise LibraryError(f"{path} is cut off, or something was added to it: it does not end as it must.")
    count = int.from_bytes(tail[10:12], "little")
    if count > MAX_ENTRIES:
        raise LibraryError(f"{path} holds {count} files; a prior has at most {MAX_ENTRIES}.")
    file.seek(0)
    return zipfile.ZipFile(file)


def _checked_infos(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.orig_filename
        shown = repr(name[:80])
        if name != info.filename or name.startswith("/") or "\\" in name or ".." in name.split("/") or ":" in name:
            raise LibraryError(f"{path} holds {shown}, a path that leads out of its folder; do not trust this file.")
        if name != _INDEX and not _NAMES.fullmatch(name):
            raise LibraryError(
                f"{path} holds {shown}, which is no part of a prior (facts, weights, steps, curves); do not trust it."
            )
        if name in infos:
            raise LibraryError(f"{path} holds {shown} twice.")
        kind = info.external_attr >> 28
        if kind not in (0, 8) or info.is_dir():
            raise LibraryError(f"{path} holds {shown} as a link or a folder; a prior has files only.")
        if info.flag_bits & 0x1 or info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise LibraryError(f"{path} holds {shown} packed or encrypted; a prior has its files as they are.")
        infos[name] = info
    _check_places(path, archive, infos)
    return infos


def _check_places(path: Path, archive: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo]) -> None:
    """Each entry must begin where the one before it ends, the first at 0: no byte is hidden, none is read twice."""
    assert archive.fp is not None
    place = 0
    for info in sorted(infos.values(), key=lambda info: info.header_offset):
        archive.fp.seek(info.header_offset)
        header = archive.fp.read(30)
        if info.header_offset != place or len(header) < 30:
            raise LibraryError(f"{path} was altered: there is something between its files, or they overlap.")
        name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        place += 30 + name + extra + info.file_size
    if place != archive.start_dir:
        raise LibraryError(f"{path} was altered: there is something behind its files.")


def _index(path: Path, archive: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo]) -> Contents:
    if _INDEX not in infos:
        raise LibraryError(f"{path} is no exported prior: it holds no {_INDEX}.")
    if infos[_INDEX].file_size > files.MAX_JSON_BYTES:
        raise LibraryError(f"{path}: {_INDEX} is too large, {infos[_INDEX].file_size} bytes.")
    said: Any = files.json_of(archive.read(infos[_INDEX]), f"{path}: {_INDEX}")
    if isinstance(said, dict) and isinstance(said.get("format"), int) and said["format"] > FORMAT:
        raise LibraryError(f"{path} has format {said['format']!r:.20}, this version reads {FORMAT}: upgrade rekindle.")
    try:
        return Contents.model_validate(said)
    except ValidationError as error:
        raise LibraryError(f"{path}: {_INDEX} is damaged: {first_problem(error)}.") from None


def _small(path: Path, archive: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo], entry: Entry) -> bytes:
    """A manifest, in memory, checked against the index."""
    if infos[entry.name].file_size > MAX_BYTES:
        raise LibraryError(f"{path}: {entry.name} is too large, {infos[entry.name].file_size} bytes.")
    into = io.BytesIO()
    _copy(path, archive, infos[entry.name], entry, into)
    return into.getvalue()


def _extract(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Entry, to: Path) -> None:
    if to.suffix == ".json" and info.file_size > files.MAX_JSON_BYTES:
        raise LibraryError(f"{path}: {entry.name} is too large, {info.file_size} bytes.")
    if to.suffix == ".jsonl" and info.file_size > MAX_LINES_BYTES:
        raise LibraryError(f"{path}: {entry.name} is too large, {info.file_size} bytes.")
    to.parent.mkdir(exist_ok=True)
    with open(to, "xb") as into:
        _copy(path, archive, info, entry, into)


def _copy(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Entry, into: io.BufferedIOBase) -> None:
    if info.file_size != entry.nbytes:
        raise LibraryError(
            f"{path} was altered: {entry.name} has {info.file_size} bytes, {_INDEX} says {entry.nbytes}."
        )
    digest = hashlib.sha256()
    with archive.open(info) as data:
        while part := data.read(_CHUNK):
            digest.update(part)
            into.write(part)
    if digest.hexdigest() != entry.sha256:
        raise LibraryError(f"{path} was altered: the SHA-256 of {entry.name} is not the one in {_INDEX}.")


def _check_run(path: Path, folder: Path, id: str) -> Manifest:
    """The manifest of an unpacked run, whose every file can be used."""
    try:
        manifest = read_manifest(folder)
        if manifest.id != id:
            raise LibraryError(f"it holds run {manifest.id}, {_INDEX} says {id}.")
        _refuse_controls(manifest.model_dump(mode="json"))
        has_policy, has_replay = ((folder / part).is_dir() for part in (artefact.FOLDER, dataset.FOLDER))
        policy, data = _checked_parts(folder, has_policy=has_policy, has_replay=has_replay)
        for meta in filter(None, (policy, data)):
            _refuse_controls(meta.model_dump(mode="json", exclude={"weights", "steps"}))
        for name in (METRICS, DECISIONS):
            _check_lines(folder / name)
    except (LibraryError, CheckpointError) as error:
        said = str(error).replace(f"{folder}/", "")
        raise type(error)(f"{path} cannot be used: {said}") from None
    return manifest


def _checked_parts(
    folder: Path, *, has_policy: bool, has_replay: bool
) -> tuple[artefact.PolicyMeta | None, dataset.DatasetMeta | None]:
    """The facts of what a run has of a policy and a replay, both checked to the last byte, and of one environment."""
    policy = artefact.read_policy(folder).meta if has_policy else None
    data = dataset.read_dataset(folder).meta if has_replay else None
    if policy is not None and data is not None:
        dataset.refuse_two_worlds(policy, data)
    return policy, data


def _needed(listed: Iterable[str]) -> tuple[str, ...]:
    """What must be there: the manifest, and each part of which something is there as a whole, or else a policy."""
    parts = [part for part in (_POLICY, _REPLAY) if not set(part).isdisjoint(listed)]
    return (_MANIFEST, *itertools.chain(*(parts or [_POLICY])))


def _check_lines(path: Path) -> None:
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            where = f"{path.name}, line {number}"
            if number > MAX_LINES:
                raise LibraryError(f"{path.name} has more than {MAX_LINES} lines.")
            if len(line) > MAX_LINE_BYTES:
                raise LibraryError(f"{where} is longer than {MAX_LINE_BYTES} bytes.")
            row = files.json_of(line, where)
            if not isinstance(row, dict):
                raise LibraryError(f"{where} is not a JSON object.")
            if path.name == METRICS and not is_metric(row):
                raise LibraryError(f"{where} has no env_steps or wall_s.")
            _refuse_controls(row)


def _refuse_controls(value: Any) -> None:
    """No text may hold characters that command a terminal or turn the direction of writing."""
    for text in _texts(value):
        if found := _CONTROLS.search(text):
            raise LibraryError(f"the text {text[:40]!r} holds a control character, U+{ord(found[0]):04X}.")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _kin(path: Path, name: str, data: bytes) -> Manifest:
    manifest = manifest_from(data, f"{path}: {name}")
    id = name[4:-5]
    if not id.startswith("shipped~") and manifest.id != id:
        raise LibraryError(f"{path}: {name} is the manifest of {manifest.id}.")
    try:
        _refuse_controls(manifest.model_dump(mode="json"))
    except LibraryError as error:
        raise LibraryError(f"{path}: {name}: {error}") from None
    return manifest


def _check_family(path: Path, manifest: Manifest, kin: dict[str, Manifest]) -> None:
    """Every relative must be one: a parent of the run, or of another relative."""
    by_id = _by_id(kin)
    reached: set[str] = set()
    frontier = [parent.id for parent in manifest.parents]
    while frontier:
        id = frontier.pop()
        if id in by_id and id not in reached:
            reached.add(id)
            frontier += [parent.id for parent in by_id[id].parents]
    if strangers := sorted(by_id.keys() - reached):
        raise LibraryError(f"{path} holds the manifest of {strangers[0]}, of which its prior was not made.")


def _by_id(kin: dict[str, Manifest]) -> dict[str, Manifest]:
    return {name[4:-5].replace("~", "/"): relative for name, relative in kin.items()}


def _check_same(library: Library, path: Path, id: str, listed: dict[str, Entry]) -> None:
    """A run of this id is here: it must have the same facts, weights and steps, as far as the file has them."""
    record = library.find(id)
    here = {_MANIFEST: _digest(record.manifest)}
    if (record.fetch(artefact.FOLDER) / artefact.FACTS).exists():
        policy = artefact.read_meta(record.fetch(artefact.FOLDER))
        here |= zip(_POLICY, (_digest(policy), policy.weights.sha256), strict=True)
    if (record.fetch(dataset.FOLDER) / dataset.FACTS).exists():
        data = dataset.read_meta(record.fetch(dataset.FOLDER))
        here |= zip(_REPLAY, (_digest(data), data.steps.sha256), strict=True)
    if any(here.get(name, listed[name].sha256) != listed[name].sha256 for name in _needed(listed)):
        raise LibraryError(
            f"{path} holds run {id}, and another run of that id is in {library.address} already; nothing was imported."
        )
    if lacking := [part[0].split("/")[1] for part in (_POLICY, _REPLAY) if part[0] in listed and part[0] not in here]:
        raise LibraryError(
            f"{path} holds run {id} with its {lacking[0]}, and in {library.address} that run is without; remove it "
            f"with `rekindle library rm {id}`, then import this again."
        )


def _is_known(library: Library, id: str) -> bool:
    if id.startswith(SHIPPED):
        return id in {record.id for record in library.shipped()} or library.remembered(id) is not None
    return bool(library.store.stamp(id)) or library.remembered(id) is not None


def _flat(kin: tuple[Kin, ...]) -> Iterator[Kin]:
    for one in kin:
        if re.fullmatch(PARENT_PATTERN, one.id):
            yield one
        yield from _flat(one.beyond)


def _digest(model: BaseModel) -> str:
    return hashlib.sha256(_json(model)).hexdigest()


def _json(model: BaseModel) -> bytes:
    return (json.dumps(model.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()


def _opened(source: Path | bytes) -> io.BufferedIOBase:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _measured(sources: dict[str, Path | bytes]) -> Iterator[tuple[str, tuple[int, str]]]:
    for name, source in sources.items():
        if isinstance(source, bytes):
            yield name, (len(source), hashlib.sha256(source).hexdigest())
        else:
            yield name, (source.stat().st_size, files.sha256(source))
