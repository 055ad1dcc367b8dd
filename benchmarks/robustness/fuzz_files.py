"""Fuzzing of the files that come from elsewhere: manifests, policies' facts, curves, and exported priors.

Inputs are real files with something wrong: bytes changed, cut or added; or, inside valid JSON, a value or a key
replaced, with every hash made right again, so that what lies behind the hashes is reached, too.
"""

import contextlib
import copy
import functools
import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.robustness.fuzz import Target, pick, scratch, take
from rekindle.cli import library as cli
from rekindle.cli.reproduce import recipe
from rekindle.core.errors import RekindleError
from rekindle.library import artefact, bundle, files, gc, provenance, verify
from rekindle.library.library import Library
from rekindle.library.manifest import Manifest, Parent, Score, manifest_from
from rekindle.library.records import Record, read_row
from rekindle.library.run import Run

SPEC = {
    "id": "xland/f0",
    "version": 1,
    "obs": {"view": {"kind": "box", "shape": [3], "low": 0, "high": 1, "dtype": "float32"}},
    "action": {"kind": "discrete", "n": 3},
    "players": 1,
    "kind": "jax",
}
JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, 2**63, -(2**70), 10**400, "", "\x00", "\x1b[31m", "\u202e", "\ud800", "[/x]", "a\nb",
    "x" * 5000, "../../x", "NaN", [], {}, [[]], [0] * 300, {"a": {"b": 1}}, "2026-11-25T00:00:00", "shipped/x", 0.5,
)  # fmt: skip
NAMES = ("run/../evil", "/etc/passwd", "run/policy/weights.pkl", "run/code.py", "run\\manifest.json", "kin/x.json",
         "run/manifest.json", "kin/..json", "C:/x", "run/report.html", "rekindle.json", "kin/shipped~x.json",
         "")  # fmt: skip


def folder() -> Path:
    """Where the files of inputs lie."""
    return Path(scratch())


def manifest(id: str, parents: tuple[str, ...] = ()) -> dict[str, Any]:
    """A whole manifest, as JSON data."""
    facts = Manifest(
        kind="train", id=id, name="a goal", created="2026-01-02T03:04:05+00:00",  # pyright: ignore
        status="done", config={"agent": "ppo", "settings": {"gamma": 0.9}, "env": "xland/f0", "budget": "1m"},
        command=["rekindle", "train", "ppo"], seed=7, code=provenance.Code(revision="0" * 40, dirty=True),
        parents=[Parent(id=parent, role="init", sha256="ab" * 32) for parent in parents],
        versions={"python": "3.11.7"}, device="cpu", env_id="xland/f0", env_steps=2048, wall_s=1.5,
        scores=[Score(name="score", value=0.5, low=0.25, high=0.75)], notes="A note, ünicode.",
    )  # fmt: skip
    return facts.model_dump(mode="json")


@functools.cache
def parts() -> dict[str, bytes]:
    """What a whole bundle holds, without its index."""
    place = folder() / "seed"
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([1, 2], np.int32)}
    place.mkdir()
    artefact.save_policy(place / "policy", agent="ppo", agent_version=1, config={}, spec=SPEC, arrays=arrays,
                         card={"score": 0.5, "goal": "hold"})  # fmt: skip
    rows = [{"env_steps": 10 * i, "wall_s": 0.5 * i, "loss": 1.0 / (i + 1)} for i in range(4)]
    return {
        "run/manifest.json": json.dumps(manifest("a-1", ("b-2", "shipped/x"))).encode(),
        "run/policy/policy.json": (place / "policy" / "policy.json").read_bytes(),
        "run/policy/weights.safetensors": (place / "policy" / "weights.safetensors").read_bytes(),
        "run/metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "run/decisions.jsonl": b'{"time": "2026-01-02T03:04:05+00:00", "choice": "train"}\n',
        "kin/b-2.json": json.dumps(manifest("b-2")).encode(),
    }


def packed(inside: dict[str, bytes], index: dict[str, Any] | None = None) -> bytes:
    """A bundle with an index that is right for these parts, unless another is given."""
    entries = [
        {"name": name, "nbytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in inside.items()
    ]
    right = {"rekindle": "prior", "format": 1, "id": "a-1", "exported_by": {"python": "3.11.7"}, "entries": entries}
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_STORED) as out:
        for name, data in {"rekindle.json": json.dumps(right if index is None else index).encode(), **inside}.items():
            out.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return into.getvalue()


def changed(value: Any, where: int, junk: Any, how: str) -> Any:
    """JSON data with the `where`-th of its values replaced, removed, doubled, or given a name of its own."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def visit(inner: Any) -> None:
        for key, one in list(inner.items() if isinstance(inner, dict) else enumerate(inner)):
            places.append((inner, key))
            if isinstance(one, dict | list):
                visit(one)

    visit(value)
    inner, key = places[where % len(places)]
    if how == "replace":
        inner[key] = junk
    elif how == "remove":
        del inner[key]
    elif isinstance(inner, list):
        inner.append(inner[key])
    else:
        inner[str(junk)[:50]] = inner[key]
    return value


def bent(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """Bytes with some flipped, cut, added or moved."""
    for how, where, more in edits:
        at = where % (len(data) + 1)
        if how == "flip" and data:
            at %= len(data)
            data = data[:at] + bytes([data[at] ^ (more[0] if more else 1) or 1]) + data[at + 1 :]
        elif how == "cut":
            data = data[:at]
        elif how == "insert":
            data = data[:at] + more + data[at:]
        elif how == "remove":
            data = data[:at] + data[at + len(more) + 1 :]
    return data


EDITS = st.lists(
    st.tuples(pick(("flip", "flip", "cut", "insert", "remove")), st.integers(0, 2**20), st.binary(max_size=6)),
    max_size=3,
)
CHANGES = st.tuples(st.integers(0, 400), pick(JUNK), pick(("replace", "replace", "remove", "add")))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def facts(whole: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A file of JSON with something wrong, and now and then with nothing wrong."""
    inside = st.lists(CHANGES, max_size=2).map(
        lambda changes: _json(functools.reduce(lambda value, change: changed(value, *change), changes, whole))
    )
    outside = st.builds(bent, st.just(_json(whole)), EDITS)
    nested = st.integers(1, 3000).map(lambda depth: b'{"config":' + b"[" * depth + b"]" * depth + b"}")
    return st.one_of(inside, inside, inside, outside, nested, st.binary(max_size=200))


def check_manifest(data: bytes) -> bool:
    """Reading it as the index does, and all that a person is shown of it."""
    place = folder() / "manifest"
    place.mkdir(exist_ok=True)
    (place / "manifest.json").write_bytes(data)
    read = take(manifest_from, data, "manifest.json")
    row, _ = read_row(place, "a-1", "stamp")
    if read is None:
        assert row.problem and row.manifest is None
        return False
    record = Record(row, place)
    assert all(line.isprintable() for line in recipe(record)), "a line of the recipe is more than a line"
    gc.needs(record, [record])
    console = Console(file=io.StringIO(), markup=False)
    console.print(cli._table(Library(folder() / "home", shipped=folder() / "none"), [record], set()))
    for line in cli._lines(record, {"checkpoints": [], "metrics": {"last": None}, "replay": None}, read.status):
        console.print(*line)
    json.dumps(files.plain(cli._facts(record)), allow_nan=False).encode()
    again = manifest_from(read.model_dump_json().encode(), "again")
    assert again.model_dump_json() == read.model_dump_json()  # as text: a score may be no number, which equals nothing
    return True


def check_policy(data: bytes) -> bool:
    """Reading its facts."""
    place = folder() / "policy"
    place.mkdir(exist_ok=True)
    (place / artefact.FACTS).write_bytes(data)
    meta = take(artefact.read_meta, place)
    if meta is None:
        return False
    json.dumps(meta.model_dump(mode="json"), allow_nan=True).encode()
    take(artefact.read_policy, place)
    return True


def check_metrics(data: bytes) -> bool:
    """Reading curves, and drawing one."""
    place = folder() / "curves"
    place.mkdir(exist_ok=True)
    (place / verify.METRICS).write_bytes(data)
    rows = take(Run(place, Manifest.model_validate(manifest("a-1"))).metrics)
    if rows is None:
        return False
    for name in {name for row in rows for name in row}:
        if points := cli._points(rows, name, 10):
            cli._spark([value for _, value in points])
    json.dumps(files.plain(rows), allow_nan=False).encode()
    return True


def check_import(data: bytes) -> bool:
    """Importing it into a library; whatever is kept must be whole, and nothing may be outside."""
    home = folder() / "home"
    library = Library(home, shipped=folder() / "none")
    path = folder() / "file.rekindle"
    path.write_bytes(data)
    kept = take(bundle.load, library, path)
    loose = [name for name in os.listdir(home) if name not in ("runs", "kin", "locks", "index.sqlite")]
    assert not [name for name in loose if not name.startswith("index.sqlite")], loose
    if kept is None:
        assert not [name for name in os.listdir(home / "runs") if not name.startswith(".")], "refused, but kept"
        return False
    problems = library.verify(kept.id)
    assert not problems, problems[0].text
    recipe(library.find(kept.id))
    with contextlib.suppress(RekindleError):
        library.lineage(kept.id)
    shutil.rmtree(home / "runs" / kept.id)
    shutil.rmtree(home / "kin", ignore_errors=True)
    return True


def altered(
    inside: dict[str, bytes], name: str, change: tuple[int, Any, str], edits: list[tuple[str, int, bytes]]
) -> bytes:
    """A bundle of which one part is wrong, and all hashes right."""
    data = inside[name]
    if name.endswith(".json"):
        data = _json(changed(json.loads(data), *change))
    return packed({**inside, name: bent(data, edits)})


def bundles() -> st.SearchStrategy[bytes]:
    """Whole ones, with wrong bytes, with a wrong part behind right hashes, with a wrong index, with a strange name."""
    inside = parts()
    good = packed(inside)
    entries = zipfile.ZipFile(io.BytesIO(good))
    index = json.loads(entries.read("rekindle.json"))
    part = st.builds(altered, st.just(inside), pick(tuple(inside)), CHANGES, st.one_of(st.just([]), EDITS))
    wrong_index = CHANGES.map(lambda change: packed(inside, changed(index, *change)))
    named = st.builds(lambda name, data: packed({**inside, name or "x": data}), pick(NAMES), st.binary(max_size=30))
    less = pick(tuple(inside)).map(lambda name: packed({k: v for k, v in inside.items() if k != name}))
    return st.one_of(
        st.builds(bent, st.just(good), EDITS), st.builds(bent, st.just(good), EDITS), part, part, part, wrong_index,
        named, less, st.just(good), st.binary(max_size=300),
    )  # fmt: skip


def lines() -> st.SearchStrategy[bytes]:
    """Curves with something wrong."""
    whole = parts()["run/metrics.jsonl"]
    rows = [json.loads(line) for line in whole.splitlines()]
    inside = st.lists(CHANGES, max_size=2).map(
        lambda changes: b"".join(
            _json(row) + b"\n" for row in functools.reduce(lambda value, change: changed(value, *change), changes, rows)
        )
    )
    return st.one_of(inside, inside, st.builds(bent, st.just(whole), EDITS), st.binary(max_size=200))


def file_targets() -> dict[str, Target]:
    """Readers of files, by name; made when they are asked for, since their seeds are real files."""
    policy = json.loads(parts()["run/policy/policy.json"])
    made = (
        Target("manifest", facts(manifest("a-1", ("b-2",))), check_manifest),
        Target("policy", facts(policy), check_policy),
        Target("curves", lines(), check_metrics),
        Target("import", bundles(), check_import),
    )
    return {target.name: target for target in made}
