"""A prior as one file: what comes out is what went in, and what is wrong with a file is said first and precisely."""

import hashlib
import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rekindle.core.errors import CheckpointError, LibraryError
from rekindle.library import bundle, dataset
from rekindle.library.dataset import read_dataset, save_dataset
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.library.test_artefact import SPEC, save


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "home", shipped=tmp_path / "none")


@pytest.fixture
def there(tmp_path):
    return Library(tmp_path / "there", shipped=tmp_path / "none")


@pytest.fixture
def run(library):
    parent = Run.create(library, "train", name="parent", config={}, seed=0)
    parent.finish("done")
    run = Run.create(library, "train", name="child", config={}, seed=0, parents=[(parent.id, "init")])
    save(run.path / "policy", card={"goal": "hold"})
    run.log(10, {"x": float("nan")})
    run.decide(choice="go")
    run.finish("done")
    return run


@pytest.fixture
def path(library, run, tmp_path):
    return bundle.export(library, run.id, tmp_path / "prior.rekindle").path


def parts(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repack(path, inside, **how):
    """The same with other parts and hashes that are right for them."""
    inside = dict(inside)
    index = json.loads(inside.pop("rekindle.json"))
    index["entries"] = [
        {"name": name, "nbytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in inside.items()
    ]
    with zipfile.ZipFile(path, "w") as out:
        for name, data in {"rekindle.json": json.dumps(index).encode(), **inside}.items():
            out.writestr(zipfile.ZipInfo(name), data, **how)
    return path


def refused(there, path, words, error=LibraryError):
    with pytest.raises(error, match=words) as caught:
        bundle.load(there, path)
    assert "\n" not in str(caught.value)
    assert there.runs() == [] and there.store.names("kin") == []
    assert [p.name for p in there.runs_folder.iterdir()] == []


def test_the_same_prior_gives_the_same_bytes_and_a_hash_to_compare(library, run, path, tmp_path, there):
    again = bundle.export(library, "child", tmp_path / "again.rekindle")
    assert again.path.read_bytes() == path.read_bytes()
    assert again.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and again.kin == 1
    with pytest.raises(LibraryError, match="not the file you expect"):
        bundle.load(there, path, sha256="0" * 64)
    assert bundle.load(there, path, sha256=again.sha256.upper()).id == run.id
    assert there.find(run.id).manifest == library.find(run.id).manifest
    assert Run.open(there, run.id).decisions()[0]["choice"] == "go"


def test_no_code_and_no_page_is_exported(path, run):
    (run.path / "report.html").write_text("<script>")
    (run.path / "code.patch").write_text("diff")
    assert set(parts(path)) == {
        "rekindle.json", "run/manifest.json", "run/policy/policy.json", "run/policy/weights.safetensors",
        "run/metrics.jsonl", "run/decisions.jsonl", *[name for name in parts(path) if name.startswith("kin/")],
    }  # fmt: skip


def test_a_run_without_a_policy_or_with_a_damaged_one_is_not_exported(library, run, tmp_path):
    with pytest.raises(LibraryError, match="kept no policy and no replay, so there is nothing to export"):
        bundle.export(library, "parent", tmp_path / "x.rekindle")
    weights = run.path / "policy" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        bundle.export(library, "child", tmp_path / "x.rekindle")
    assert not (tmp_path / "x.rekindle").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", "no exported prior"),
        (lambda data: b"\x89PNG" + data, "no exported prior"),
        (lambda data: data[: len(data) // 2], "cut off, or something was added"),
        (lambda data: data[:-1], "cut off, or something was added"),
        (lambda data: data + b"#!/bin/sh\n", "cut off, or something was added"),
        (lambda data: data.replace(b'"env_steps": 10', b'"env_steps": 99'), "damaged|altered"),
    ],
)
def test_foreign_truncated_and_altered_files(path, there, damage, words):
    path.write_bytes(damage(path.read_bytes()))
    refused(there, path, words)


def test_altered_behind_the_checks_of_the_archive(path, there):
    inside = parts(path)
    index = inside["rekindle.json"]
    with zipfile.ZipFile(path, "w") as out:
        for name, data in inside.items():
            out.writestr(zipfile.ZipInfo(name), data.replace(b'"go"', b'"no"') if "decisions" in name else data)
    refused(there, path, r"altered: the SHA-256 of run/decisions.jsonl")
    with zipfile.ZipFile(path, "w") as out:
        for name, data in inside.items():
            out.writestr(zipfile.ZipInfo(name), data + (b"\n" if "decisions" in name else b""))
    refused(there, path, r"altered: run/decisions.jsonl has \d+ bytes")
    with zipfile.ZipFile(path, "w") as out:
        for name in (name for name in inside if "policy.json" not in name):
            out.writestr(zipfile.ZipInfo(name), inside[name])
    refused(there, path, "policy.json' is missing")
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(zipfile.ZipInfo("rekindle.json"), index.replace(b'"format": 1', b'"format": 2'))
    refused(there, path, "format 2, this version reads 1: upgrade")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil.json", "leads out of its folder"),
        ("/etc/passwd", "leads out of its folder"),
        ("run/../../evil", "leads out of its folder"),
        ("C:/x", "leads out of its folder"),
        ("run\\manifest.json", "leads out of its folder"),
        ("run/policy/weights.pkl", "no part of a prior"),
        ("run/code.py", "no part of a prior"),
        ("run/report.html", "no part of a prior"),
        ("run/code.patch", "no part of a prior"),
        ("kin/..json", "no part of a prior"),
    ],
)
def test_paths_that_lead_out_and_content_that_is_code(path, there, name, words):
    refused(there, repack(path, {**parts(path), name: b"import os"}), words)


def test_a_link_a_packed_and_a_double_entry(path, there):
    inside = parts(path)
    link = zipfile.ZipInfo("run/metrics.jsonl")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("rekindle.json", inside["rekindle.json"])
        out.writestr(link, "/etc/passwd")
    refused(there, path, "as a link")
    refused(there, repack(path, inside, compress_type=zipfile.ZIP_DEFLATED), "packed")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as out:
        for _ in range(2):
            out.writestr("rekindle.json", inside["rekindle.json"])
    refused(there, path, "'rekindle.json' twice")


@pytest.mark.parametrize(
    ("name", "change", "words", "error"),
    [
        ("run/manifest.json", lambda d: d.replace(b'"child"', b'"\\u001b[2J"'), "control character", LibraryError),
        ("run/manifest.json", lambda d: d.replace(b'version": 1', b'version": 7'), "newer rekindle", LibraryError),
        ("run/policy/policy.json", lambda d: d.replace(b'"ppo"', b'"\\u202e"'), "control character", LibraryError),
        ("run/policy/policy.json", lambda d: d.replace(b'"int32"', b'"object"'), "impossible leaf", CheckpointError),
        ("run/policy/weights.safetensors", lambda d: d[:-4] + b"\0\0\x80\x7f", "SHA-256", CheckpointError),
        ("run/metrics.jsonl", lambda d: b'{"x": 1}\n', "line 1 has no env_steps", LibraryError),
        ("run/decisions.jsonl", lambda d: b"[1]\n", "line 1 is not a JSON object", LibraryError),
        ("run/decisions.jsonl", lambda d: b'{"a": "' + b"x" * 2**20 + b'"}\n', "longer than", LibraryError),
    ],
)  # fmt: skip
def test_what_lies_behind_right_hashes_is_checked_too(path, there, name, change, words, error):
    inside = parts(path)
    refused(there, repack(path, {**inside, name: change(inside[name])}), words, error)


def test_a_stranger_among_the_kin_and_a_manifest_under_another_name(path, there):
    inside = parts(path)
    (kin,) = [name for name in inside if name.startswith("kin/")]
    manifest = json.loads(inside[kin]) | {"id": "stranger"}
    refused(there, repack(path, {**inside, "kin/stranger.json": json.dumps(manifest).encode()}), "stranger, of which")
    refused(there, repack(path, {**inside, kin: json.dumps(manifest).encode()}), "is the manifest of stranger")


def test_too_large_is_refused_before_it_is_read(path, there, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_LINES_BYTES", 10)
    refused(there, path, "decisions.jsonl is too large|metrics.jsonl is too large")
    monkeypatch.setattr(bundle, "MAX_ENTRIES", 3)
    refused(there, path, "at most 3")


def test_another_run_of_the_same_id_is_left_alone(path, there, run):
    bundle.load(there, path)
    here = there.find(run.id).path / "policy"
    save(here, arrays={"w": np.ones(3, np.float32)})
    before = sorted((p.name, p.read_bytes()) for p in here.iterdir())
    with pytest.raises(LibraryError, match="another run of that id"):
        bundle.load(there, path)
    assert sorted((p.name, p.read_bytes()) for p in here.iterdir()) == before


def test_a_huge_count_of_entries_costs_nothing(path, there):
    data = bytearray(path.read_bytes())
    data[-12:-10] = b"\xff\xff"
    path.write_bytes(bytes(data))
    refused(there, path, "at most|damaged")
    assert io.BytesIO(path.read_bytes()).getbuffer().nbytes < 100_000


def steps(**changes):
    shape = (5, 2)
    plain = {"obs.view": np.arange(30, dtype=np.float32).reshape(5, 2, 3) / 30, "action": np.ones(shape, np.int32),
             "reward": np.arange(10, dtype=np.float32).reshape(shape), "terminated": np.zeros(shape, bool),
             "truncated": np.zeros(shape, bool)}  # fmt: skip
    return plain | changes


@pytest.fixture
def taught(run):
    save_dataset(run.path / "replay", spec=SPEC, arrays=steps(), recipe={"options": {"sticky": 0.1}})
    return run


def test_a_replay_goes_along_unless_it_is_left_out(library, taught, tmp_path, there):
    made = bundle.export(library, taught.id, tmp_path / "with.rekindle")
    assert (made.transitions, made.replay_nbytes) == (10, 220)
    slim = bundle.export(library, taught.id, tmp_path / "without.rekindle", replay=False)
    assert slim.replay_nbytes == 0 and not [name for name in parts(slim.path) if "replay" in name]
    bundle.load(there, slim.path)
    assert not (there.find(taught.id).path / "replay").exists()
    with pytest.raises(LibraryError, match=r"with its replay, and in .* that run is without; remove it with `rekindle"):
        bundle.load(there, made.path)
    there.rm(taught.id)
    assert bundle.load(there, made.path).new and not bundle.load(there, made.path).new
    assert not bundle.load(there, slim.path).new
    kept = read_dataset(there.find(taught.id).path)
    assert kept.meta.recipe == {"options": {"sticky": 0.1}} and there.verify() == []
    for name, array in steps().items():
        np.testing.assert_array_equal(kept.arrays[name], array)
    save_dataset(there.find(taught.id).path / "replay", spec=SPEC, arrays=steps(reward=np.ones((5, 2), np.float32)))
    with pytest.raises(LibraryError, match="another run of that id"):
        bundle.load(there, made.path)


def test_data_without_a_policy_are_given_away_too(library, tmp_path, there):
    run = Run.create(library, "dataset", name="data", config={}, seed=None)
    save_dataset(run.path / "replay", spec=SPEC, arrays=steps())
    run.finish("done")
    with pytest.raises(LibraryError, match="kept no policy, and its replay is to be left out"):
        bundle.export(library, run.id, tmp_path / "x.rekindle", replay=False)
    path = bundle.export(library, run.id, tmp_path / "data.rekindle").path
    assert bundle.load(there, path).new and not bundle.load(there, path).new
    assert read_dataset(there.find(run.id).path).transitions == 10 and there.verify() == []
    empty, inside = Library(tmp_path / "empty", shipped=tmp_path / "none"), parts(path)
    facts = inside.pop("run/replay/dataset.json")
    refused(empty, repack(path, inside), "run/replay/dataset.json' is missing")
    refused(
        empty, repack(path, {"rekindle.json": inside["rekindle.json"], "run/replay/dataset.json": facts}), "missing"
    )


def replaced(inside, **how):
    """The parts of a file whose replay is another, with facts that are right for it."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "check_steps", lambda *_: None)
        save_dataset(Path(folder) / "replay", **{"spec": SPEC, "arrays": steps(), **how})
        names = ("dataset.json", "steps.safetensors")
        return {**inside, **{f"run/replay/{name}": (Path(folder) / "replay" / name).read_bytes() for name in names}}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda i: replaced(i, arrays=steps(reward=np.full((5, 2), np.nan, np.float32))),
         "'reward' holds numbers that are not finite"),
        (lambda i: replaced(i, arrays=steps(**{"obs.view": np.zeros((5, 2, 4), np.float32)})),
         r"'obs.view' is float32\[4\] in each step, in the environment's spec it is float32\[3\]"),
        (lambda i: replaced(i, arrays=steps(action=np.full((5, 2), 7, np.int32))), "'action' holds numbers that"),
        (lambda i: replaced(i, spec=SPEC | {"version": 2}),
         "the replay is of another environment than the policy: its version is 2, the policy's 1"),
        (lambda i: replaced(i, recipe={"by": "\x1b[2J"}), "control character"),
        (lambda i: {**i, "run/replay/steps.safetensors": i["run/replay/steps.safetensors"][:-40]}, "SHA-256|cut off"),
        (lambda i: {**i, "run/replay/steps.safetensors": i["run/replay/steps.safetensors"][:50]}, "cut off"),
        (lambda i: {**i, "run/replay/dataset.json": i["run/replay/dataset.json"].replace(b"obs.view", b"obs.x")},
         "leaf 'obs.x' of its table is missing"),
    ],
)  # fmt: skip
def test_a_replay_is_checked_behind_right_hashes(library, taught, tmp_path, there, damage, words):
    path = bundle.export(library, taught.id, tmp_path / "with.rekindle").path
    refused(there, repack(path, damage(parts(path))), words, (LibraryError, CheckpointError))


def test_swapped_bytes_and_a_cut_of_a_file_with_a_replay(library, taught, tmp_path, there):
    path = bundle.export(library, taught.id, tmp_path / "with.rekindle").path
    whole = path.read_bytes()
    at = whole.index(steps()["reward"].tobytes()) + 7
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refused(there, path, "damaged|altered: the SHA-256 of run/replay/steps.safetensors")
    path.write_bytes(whole[:at])
    refused(there, path, "cut off, or something was added")


def test_what_cannot_be_imported_again_is_not_exported(library, taught, tmp_path):
    save_dataset(taught.path / "replay", spec=SPEC | {"id": "xland/f1"}, arrays=steps())
    with pytest.raises(CheckpointError, match='its id is "xland/f1", the policy\'s "xland/f0"'):
        bundle.export(library, taught.id, tmp_path / "x.rekindle")
    (problem,) = library.verify(taught.id)
    assert "of another environment than the policy" in problem.text
    assert bundle.export(library, taught.id, tmp_path / "x.rekindle", replay=False).transitions == 0
