import shutil
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from rekindle.core.errors import LibraryError
from rekindle.library import files
from rekindle.library.artefact import read_policy
from rekindle.library.index import VERSION
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.library.test_artefact import SPEC, save


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def shipped(tmp_path):
    source = Library(tmp_path / "source", shipped=tmp_path / "none")
    run = Run.create(source, "train", name="f0", config={}, seed=0, env_id="xland/f0")
    save(run.path / "policy", card={"score": 0.9})
    run.finish("done")
    shutil.copytree(run.path, tmp_path / "shipped" / "f0")
    return tmp_path / "shipped"


@pytest.fixture
def library(home, shipped):
    return Library(home, shipped=shipped)


def make(library, name, *, parents=(), policy=True, env_id="xland/f0", kind="train"):
    run = Run.create(library, kind, name=name, config={}, seed=0, parents=parents, env_id=env_id)
    if policy:
        save(run.path / "policy", card={"name": name})
    run.finish("done")
    return run


def test_an_empty_library_is_made_and_empty(home, tmp_path):
    library = Library(home, shipped=tmp_path / "none")
    assert library.runs() == [] and library.priors() == [] and library.verify() == []
    with pytest.raises(LibraryError, match=r"no run 'x'; it is empty"):
        library.find("x")


def test_runs_are_found_by_kind_environment_and_name(library):
    a, b = make(library, "a"), make(library, "b", env_id="maze", kind="evaluate", policy=False)
    assert {r.id for r in library.runs()} == {a.id, b.id}
    assert [r.id for r in library.runs(kind="evaluate")] == [b.id] == [r.id for r in library.runs(env_id="maze")]
    assert [r.id for r in library.runs(name="a")] == [a.id] and library.runs(name="a")[0].manifest == a.manifest
    assert len(library.runs(limit=1)) == 1 and len(library.runs(shipped=True)) == 3


def test_priors_are_the_users_policies_over_those_that_are_shipped(library, shipped):
    a = make(library, "a", parents=[("shipped/f0", "init")])
    make(library, "b", policy=False)
    first, second = library.priors()
    assert (first.id, first.path, first.agent, first.card) == (a.id, a.path / "policy", "ppo", {"name": "a"})
    assert (first.env_id, first.created) == ("xland/f0", a.manifest.created)
    assert first.sha256 == read_policy(first.path).meta.weights.sha256
    assert len(library.priors(lambda spec: spec == SPEC)) == 2 and library.priors(lambda spec: False) == []
    assert (second.id, second.path, second.card) == ("shipped/f0", shipped / "f0" / "policy", {"score": 0.9})


def test_find_names_the_nearest_and_refuses_two(library):
    a, b = make(library, "same"), make(library, "same")
    assert library.find(a.id).id == a.id and library.find("shipped/f").id == "shipped/f0" == library.find("f0").id
    with pytest.raises(LibraryError, match=r"begins or names 2 runs"):
        library.find("same")
    with pytest.raises(LibraryError, match=f"the nearest: .*{b.id}"):
        library.find(b.id + "x")


def test_the_index_follows_the_folders_whoever_changes_them(library, home, shipped):
    other = Library(home, shipped=shipped)
    a = make(library, "a", policy=False)
    assert other.find("a").policy is None
    save(a.path / "policy")
    a.update(notes="n")
    assert other.find("a").policy is not None and other.find("a").manifest.notes == "n"
    shutil.rmtree(a.path)
    assert other.runs() == []


def test_reindex_and_rebuild_equal_what_was_there(library, home, shipped):
    for name in "abc":
        make(library, name)
    before = library.runs(), library.priors()
    assert library.reindex() == 3 and (library.runs(), library.priors()) == before
    (home / "index.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(LibraryError, match="rekindle library reindex"):
        Library(home).runs()
    assert Library.rebuilt(home).runs() == before[0]


def test_the_first_index_there_was_is_led_to_this_version(library, home, shipped):
    """It had one table and a number in the file; a library of that time answers as one that was made today."""
    make(library, "a")
    with sqlite3.connect(home / "index.sqlite") as database:
        database.execute(
            "CREATE TABLE runs (id TEXT NOT NULL, stamp TEXT NOT NULL, kind TEXT, env_id TEXT, name TEXT, "
            "manifest TEXT, policy TEXT, problem TEXT, PRIMARY KEY (id))"
        )
        database.execute("INSERT INTO runs (id, stamp) VALUES ('gone', 'x')")
        database.execute("PRAGMA user_version=1")
    database.close()
    assert [record.manifest.name for record in library.runs()] == ["a"] and len(library.priors()) == 2
    with sqlite3.connect(home / "index.sqlite") as database:
        assert database.execute("SELECT version_num FROM rekindle_version").fetchall() == [(VERSION,)]
        assert database.execute("SELECT name FROM sqlite_master WHERE name = 'runs'").fetchall() == []
    database.close()


def test_an_index_of_a_newer_rekindle_is_left_alone(library, home, shipped):
    make(library, "a")
    assert len(library.runs()) == 1
    with sqlite3.connect(home / "index.sqlite") as database:
        database.execute("UPDATE rekindle_version SET version_num = '9999'")
    database.close()
    before = (home / "index.sqlite").read_bytes()
    with pytest.raises(LibraryError, match=r"newer rekindle.*9999.*upgrade.*REKINDLE_DB"):
        Library(home, shipped=shipped).runs()
    assert (home / "index.sqlite").read_bytes() == before
    other = Library(home, shipped=shipped, database=f"sqlite:///{home}/other.sqlite")
    assert len(other.runs()) == 1


def test_leftovers_of_a_crash_are_no_runs(library):
    make(library, "a")
    left = library.runs_folder / f"{files.TEMPORARY}b-123"
    left.mkdir()
    (left / "manifest.json").write_text("{")
    assert len(library.runs()) == 1 and library.verify() == []


def test_a_damaged_run_is_left_out_named_and_can_be_removed(library):
    a, b = make(library, "a"), make(library, "b")
    (a.path / "manifest.json").write_text("{")
    assert [r.id for r in library.runs()] == [b.id]
    with pytest.raises(LibraryError, match=f"not JSON.*rm {a.id}"):
        library.find(a.id)
    assert [p.id for p in library.verify()] == [a.id]
    assert library.rm(a.id) == a.id and library.verify() == []


def test_verify_reads_every_byte(library):
    a = make(library, "a")
    a.save_checkpoint(5, {"w": np.ones(9)}, {})
    a.log(1, {"x": 1})
    assert library.verify() == [] == library.verify("a")
    for path in ("policy/weights.safetensors", "checkpoints/5/state.safetensors"):
        data = (a.path / path).read_bytes()
        (a.path / path).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (a.path / "metrics.jsonl").write_text("no\n")
    texts = [p.text for p in library.verify(a.id)]
    assert [any(w in t for t in texts) for w in ("metrics.jsonl", "state.safetensors", "weights.safetensors")] == [
        True
    ] * 3
    assert [p.id for p in library.verify()] == [a.id] * 3
    shutil.move(a.path, a.path.parent / "renamed")
    assert any("rename the folder" in p.text for p in library.verify("renamed"))


def test_lineage_goes_both_ways_and_survives_a_circle(library):
    a = make(library, "a", parents=[("shipped/f0", "init")])
    b = make(library, "b", parents=[(a.id, "teacher"), ("gone", "replay")])
    c = make(library, "c", parents=[(b.id, "init")])
    family = library.lineage("b")
    assert [(k.id, k.role, not k.kept) for k in family.parents] == [
        (a.id, "teacher", False), ("gone", "replay", True),
    ]  # fmt: skip
    assert [k.id for k in family.parents[0].beyond] == ["shipped/f0"]
    assert [(k.id, k.role) for k in family.children] == [(c.id, "init")]
    assert library.lineage("f0").children[0].beyond[0].beyond[0].id == c.id
    a.update(parents=[{"id": c.id, "role": "init"}])
    assert library.lineage("a").parents[0].beyond[0].id == b.id


def test_rm_refuses_a_parent_and_what_is_shipped(library):
    a = make(library, "a")
    b = make(library, "b", parents=[(a.id, "init")])
    with pytest.raises(LibraryError, match=f"parent of {b.id}.*--force"):
        library.rm("a")
    with pytest.raises(LibraryError, match="came with the package"):
        library.rm("shipped/f0", force=True)
    for outside in ("..", ".", "", "../runs"):
        with pytest.raises(LibraryError, match="no run"):
            library.rm(outside)
    assert library.rm("a", force=True) == a.id and not a.path.exists()
    assert library.rm("b") == b.id and library.runs() == []


def test_rm_refuses_a_run_that_may_still_be_running(library):
    run = Run.create(library, "train", name="a", config={}, seed=0)
    with pytest.raises(LibraryError, match=r"running, or was killed.*--force"):
        library.rm("a")
    run.finish("interrupted")
    assert library.rm("a") == run.id


def test_a_home_that_cannot_be_one_is_refused_with_the_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match=r"file is where a folder should be.*REKINDLE_HOME"):
        Library.open(tmp_path / "file")
    (tmp_path / "home" / "index.sqlite").mkdir(parents=True)
    with pytest.raises(LibraryError, match=r"index.*REKINDLE_HOME"):
        Library.open(tmp_path / "home").runs()


WRITER = """
import sys
from pathlib import Path
from rekindle.library.library import Library
from rekindle.library.run import Run
library = Library.open(Path(sys.argv[1]))
for i in range(5):
    Run.create(library, "train", name="x", config={"i": i}, seed=i).finish("done")
    assert len(library.runs()) > i
assert "jax" not in sys.modules
"""


def test_two_processes_write_at_once_and_load_no_jax(home, tmp_path):
    other = subprocess.Popen([sys.executable, "-c", WRITER, str(home)], stderr=subprocess.PIPE)
    library, mine = Library(home, shipped=tmp_path / "none"), 0
    while mine < 5 or other.poll() is None:
        Run.create(library, "train", name="y", config={}, seed=mine).finish("done")
        mine += 1
        assert len(library.runs(name="y")) == mine
        time.sleep(0.05)
    assert other.communicate()[1].decode() == "" and other.returncode == 0
    records = library.runs()
    assert len({r.id for r in records}) == 5 + mine and library.verify() == []
    assert library.reindex() == 5 + mine and library.runs() == records


def test_a_run_is_found_as_it_is_though_another_process_wrote_what_it_had_read_before(library, monkeypatch):
    run = Run.create(library, "train", name="late", config={}, seed=0)
    (old,) = library._index.some([library.find(run.id).id])
    save(run.path / "policy", card={"name": "late"})
    run.finish("done")
    refresh, races = library.refresh, iter([True])

    def raced(which=None):
        refresh(which)
        if next(races, False):
            library._index.change([old], [], [])

    monkeypatch.setattr(library, "refresh", raced)
    found = library.find(run.id)
    assert found.policy is not None and found.manifest.status == "done"
