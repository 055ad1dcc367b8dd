"""One library, wherever its folders and its index are: a folder, memory, S3; SQLite, PostgreSQL. All of it is real."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from datetime import timedelta

import fsspec
import numpy as np
import pytest
import sqlalchemy as sa

from rekindle.core.errors import CheckpointError, ConfigError, LibraryError
from rekindle.library import bundle, files, gc
from rekindle.library.artefact import read_policy, save_policy
from rekindle.library.dataset import read_dataset, save_dataset
from rekindle.library.index import VERSION
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.library.test_artefact import SPEC
from rekindle.library.test_bundle import steps

NEVER = timedelta(0)


@pytest.fixture(params=["folder", "memory", "s3"])
def home(request, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        return str(tmp_path / "home")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex[:8]}/home"
    return request.getfixturevalue("s3_url") + "/home"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def library(home, database, tmp_path):
    return Library(home, shipped=tmp_path / "none", database=database)


@pytest.fixture
def elsewhere(library, home, database, tmp_path, monkeypatch):
    """The same library as another process (or, where it is remote, another machine) sees it."""

    def open_it():
        if library.store.is_remote:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{uuid.uuid4().hex[:8]}"))
        return Library(home, shipped=tmp_path / "none", database=database)

    return open_it


def save(run, value=1.0, **card):
    arrays = {"w": np.full(5, value, np.float32)}
    save_policy(run.path / "policy", agent="ppo", agent_version=1, config={}, spec=SPEC, arrays=arrays, card=card)


def make(library, name, *, value=1.0, parents=(), kind="train", status="done", policy=True, **card):
    run = Run.create(library, kind, name=name, config={}, seed=0, parents=parents, env_id="xland/f0")
    if policy:
        save(run, value, **card)
    run.finish(status)
    return run


def test_what_one_writes_another_finds_reads_and_goes_on_with(library, elsewhere):
    run = Run.create(library, "train", name="a goal", config={"x": 1}, seed=0, env_id="xland/f0")
    run.log(10, {"reward": 0.5})
    run.decide(choice="train", reason="first")
    run.save_checkpoint(10, {"w": np.arange(3)}, {"n": 1})
    save(run, goal="g")
    run.update(env_steps=10)
    other = elsewhere()
    found = other.find(run.id[:20])
    assert found.manifest == run.manifest and [r.id for r in other.runs(env_id="xland/f0", name="a goal")] == [run.id]
    (prior,) = other.priors()
    assert prior.card == {"goal": "g"} and read_policy(prior.path).arrays["w"].tolist() == [1.0] * 5
    again = Run.open(other, run.id)
    step, arrays, meta = again.latest_checkpoint()
    assert (step, arrays["w"].tolist(), meta, again.metrics()[0]["reward"]) == (10, [0, 1, 2], {"n": 1}, 0.5)
    again.log(20, {"reward": 0.7})
    again.save_checkpoint(20, {"w": np.zeros(2)}, {})
    again.save_checkpoint(30, {"w": np.zeros(2)}, {})
    save(again, 2.0, goal="better")
    again.finish("done")
    third = elsewhere()
    assert third.find("a goal").manifest.status == "done" and third.verify() == []
    assert [row["env_steps"] for row in Run.open(third, run.id).metrics()] == [10, 20]
    assert read_policy(third.priors()[0].path).arrays["w"].tolist() == [2.0] * 5
    assert sorted(library.store.contents(run.id)) == sorted(third.store.contents(run.id))
    assert {name.split("/")[1] for name in third.store.contents(run.id) if name.startswith("checkpoints")} == {
        "20",
        "30",
    }


def test_a_reader_follows_a_policy_that_is_replaced(library, elsewhere):
    run = make(library, "a")
    reader = elsewhere()
    before = read_policy(reader.find("a").fetch("policy"))
    save(run, 7.0)
    run.push()
    after = read_policy(reader.find("a").fetch("policy"))
    assert (before.arrays["w"][0], after.arrays["w"][0]) == (1.0, 7.0)
    assert len(list(reader.find("a").fetch("policy").glob("weights*"))) == 1


def test_a_replay_is_sent_before_its_facts_and_goes_with_an_exported_prior(library, elsewhere, tmp_path):
    run = Run.create(library, "train", name="a", config={}, seed=0)
    save(run)
    for reward in (0.0, 1.0):
        save_dataset(run.path / "replay", spec=SPEC, arrays=steps(reward=np.full((5, 2), reward, np.float32)))
        run.push()
        folder = elsewhere().find("a").fetch("replay")
        assert read_dataset(folder).arrays["reward"].max() == reward
    reader = elsewhere()
    if library.store.is_remote:
        facts = f"{library.store._root}/runs/{run.id}/replay/dataset.json"
        data = library.store._fs.cat_file(facts)
        library.store._fs.rm_file(facts)  # as if it were still being sent
        assert not (reader.find("a").path / "replay").exists() and reader.verify() == []
        library.store._fs.pipe_file(facts, data)
    made = bundle.export(elsewhere(), run.id, tmp_path / "a.rekindle")
    there = Library(tmp_path / "there", shipped=tmp_path / "none")
    assert made.transitions == 10 and bundle.load(there, made.path).new
    assert read_dataset(there.find("a").path).transitions == 10 and there.verify() == []


def test_runs_go_and_their_names_stay_in_the_family(library, elsewhere):
    a = make(library, "a")
    b = make(library, "b", parents=[(a.id, "teacher")])
    c = make(library, "c", parents=[(b.id, "init")])
    with pytest.raises(LibraryError, match=f"parent of {c.id}"):
        library.rm("b")
    assert library.rm("b", force=True) == b.id
    other = elsewhere()
    assert {record.id for record in other.runs()} == {a.id, c.id} and b.id not in other.store.stamps()
    (kin,) = other.lineage(c.id).parents
    assert (kin.id, kin.kept, kin.manifest.name, kin.beyond[0].id) == (b.id, False, "b", a.id)
    assert other.lineage(a.id).children[0].id == b.id


def test_pins_hold_against_gc(library, elsewhere):
    waste = [make(library, f"w{i}", policy=False) for i in range(2)]
    assert library.pin(waste[0].id) == waste[0].id
    other = elsewhere()
    assert [one.id for one in gc.collect(other, older_than=NEVER)] == [waste[1].id]
    assert other.unpin("w0") == waste[0].id and other.pins() == set()
    assert [one.id for one in gc.collect(elsewhere(), older_than=NEVER)] == [waste[0].id]
    with pytest.raises(LibraryError, match="no run"):
        other.pin("w0")


def test_an_exported_prior_is_the_same_elsewhere(library, elsewhere, tmp_path):
    a = make(library, "a")
    b = make(library, "b", parents=[(a.id, "init")], value=3.0, goal="hold it")
    b.log(5, {"reward": 1.0})
    b.push()
    made = bundle.export(library, "b", tmp_path / "b.rekindle")
    there = Library(tmp_path / "other", shipped=tmp_path / "none")
    kept = bundle.load(there, made.path, sha256=made.sha256)
    assert (kept.id, kept.new, kept.kin) == (b.id, True, 1) and there.verify() == []
    assert read_policy(there.priors()[0].path).arrays["w"].tolist() == [3.0] * 5
    assert there.lineage(b.id).parents[0].manifest == a.manifest
    assert bundle.load(library, made.path) == (b.id, False, 0)
    back = bundle.export(there, b.id, tmp_path / "again.rekindle")
    assert back.sha256 == made.sha256


def test_reindex_makes_the_same_from_the_folders_alone(library, elsewhere):
    for name in "abc":
        make(library, name)
    before = [record.row for record in library.runs()], library.priors()
    assert library.reindex() == 3
    assert ([record.row for record in library.runs()], library.priors()) == before
    assert [record.row.id for record in elsewhere().runs()] == [row.id for row in before[0]]


def test_two_libraries_share_a_database_and_nothing_else(postgres_url, tmp_path):
    one, two = (Library(tmp_path / name, shipped=tmp_path / "none", database=postgres_url) for name in ("one", "two"))
    a, b = make(one, "a"), make(two, "b")
    for _ in range(2):
        assert [r.id for r in one.runs()] == [a.id] and [r.id for r in two.runs()] == [b.id]
    one.reindex()
    assert [r.id for r in two.runs()] == [b.id]
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert [r.id for r in Library(tmp_path / "moved", shipped=tmp_path / "none", database=postgres_url).runs()] == [
        a.id
    ]


def test_postgresql_is_led_from_the_first_version_to_this_one(postgres_url, tmp_path):
    engine = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection:
        for table in ("rekindle_runs", "rekindle_kin", "rekindle_version"):
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
        connection.execute(sa.text("DROP TABLE IF EXISTS runs"))
        connection.execute(sa.text("CREATE TABLE runs (precious TEXT)"))
        connection.execute(sa.text("CREATE TABLE rekindle_version (version_num VARCHAR(32) PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO rekindle_version VALUES ('0001')"))
    library = Library(tmp_path, shipped=tmp_path / "none", database=postgres_url)
    run = make(library, "a")
    assert [record.id for record in library.runs()] == [run.id]
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM rekindle_version")).scalar() == VERSION
        assert sa.inspect(connection).has_table("runs"), "the table of a stranger was dropped"
        connection.execute(sa.text("UPDATE rekindle_version SET version_num = '9999'"))
    with pytest.raises(LibraryError, match=r"newer rekindle.*upgrade"):
        Library(tmp_path, shipped=tmp_path / "none", database=postgres_url).runs()
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE rekindle_version SET version_num = :v"), {"v": VERSION})
    engine.dispose()
    assert len(library.runs()) == 1


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("nonsense", ConfigError, r"REKINDLE_DB takes the URL of a database, such as"),
        ("mysql://host/db", ConfigError, r"REKINDLE_DB takes PostgreSQL .*or SQLite; got 'mysql'"),
        ("postgresql://me:secret@127.0.0.1:1/db", LibraryError, r"cannot use the index .*me:\*\*\*@.*start the server"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence_without_the_password(url, error, words, tmp_path):
    with pytest.raises(error, match=words) as caught:
        Library(tmp_path, database=url).runs()
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nosuch://bucket/x", r"REKINDLE_HOME=nosuch://bucket/x .*nosuch"),
        ("s3://rekindle-no-such-bucket/x", r"in s3://rekindle-no-such-bucket/x: .*check the address"),
    ],
)
def test_a_home_that_cannot_be_reached_is_one_sentence(url, words, s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(LibraryError, match=words) as caught:
        Run.create(Library(url), "train", name="x", config={}, seed=0)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_is_half_sent_is_not_there(s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library = Library(s3_url)
    run = Run.create(library, "train", name="a", config={}, seed=0)
    run.save_checkpoint(10, {"w": np.zeros(2)}, {})
    run.save_checkpoint(20, {"w": np.ones(2)}, {})
    filesystem, root = fsspec.core.url_to_fs(s3_url)
    filesystem.rm_file(f"{root}/runs/{run.id}/checkpoints/20/meta.json")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert Run.open(Library(s3_url), run.id).latest_checkpoint()[0] == 10


def test_a_damaged_object_is_named(s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library = Library(s3_url, shipped=tmp_path / "none")
    run = make(library, "a")
    filesystem, root = fsspec.core.url_to_fs(s3_url)
    filesystem.pipe_file(f"{root}/runs/{run.id}/policy/weights.safetensors", b"\0" * 300)
    assert "weights.safetensors is damaged" in library.verify()[0].text
    with pytest.raises(CheckpointError, match="SHA-256"):
        read_policy(library.priors()[0].path)


def test_the_command_line_works_on_a_bucket(s3_url, tmp_path):
    """Whole processes, as a person runs them: train into a bucket, list it from a machine that has nothing."""

    def rekindle(machine, *words):
        environment = {**os.environ, "REKINDLE_HOME": s3_url, "XDG_CACHE_HOME": str(tmp_path / machine)}
        done = subprocess.run(
            [sys.executable, "-m", "rekindle", *words, "--json"], env=environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout.decode().splitlines()[-1])

    sizes = ["--set", "num_envs=8", "--set", "rollout_length=16", "--set", "hidden=8", "--set", "width=8"]
    trained = rekindle("one", "train", "ppo", "--env", "probe/bandit-trials", "--budget", "1000steps", *sizes)
    assert trained["status"] == "done" and trained["path"] == f"{s3_url}/runs/{trained['run']}"
    listed = rekindle("two", "library", "ls", "--kind", "train")
    assert [run["id"] for run in listed["runs"]] == [trained["run"], "shipped/foundation"]
    assert rekindle("two", "library", "verify", trained["run"])["ok"]
    assert rekindle("two", "library", "curve", trained["run"])["curves"][0]["points"]


def test_a_second_look_at_a_live_run_disturbs_nothing_that_is_not_sent_yet(s3_url, tmp_path, monkeypatch):
    """Two processes of one machine share its copies: a refused resume must not fetch over what the first one wrote."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = Run.create(Library(s3_url), "train", name="a", config={}, seed=0)
    with first.held():
        for step in range(5):
            first.log(step, {"x": 1.0})
        save(first, 5.0)
        second = Run.open(Library(s3_url), first.id)
        with pytest.raises(LibraryError, match="worked on by another process"), second.held():
            pass
        assert len(first.metrics()) == 5 and read_policy(first.path / "policy").arrays["w"][0] == 5.0
    first.finish("done")
    assert len(Run.open(Library(s3_url), first.id).metrics()) == 5


def test_what_a_crash_left_unsent_is_sent_by_whoever_goes_on_here(s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library = Library(s3_url, shipped=tmp_path / "none")
    run = make(library, "a", status="interrupted")
    with monkeypatch.context() as broken:
        broken.setattr(type(library.store), "_send", lambda *_, **__: (_ for _ in ()).throw(LibraryError("no network")))
        save(run, 9.0)
        run.log(7, {"x": 1.0})
        with pytest.raises(LibraryError, match="no network"):
            run.decide(choice="go on")
    again = Run.open(Library(s3_url, shipped=tmp_path / "none"), run.id)
    with again.held():
        assert read_policy(again.path / "policy").arrays["w"][0] == 9.0 and again.decisions()[0]["choice"] == "go on"
        again.finish("done")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    there = Library(s3_url, shipped=tmp_path / "none")
    assert read_policy(there.find("a").fetch("policy")).arrays["w"][0] == 9.0 and there.verify() == []


def test_a_policy_that_is_replaced_while_it_is_fetched_is_fetched_again(s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = make(Library(s3_url), "a")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    reader = Library(s3_url)
    record, get_file, times = reader.find("a"), reader.store._fs.get_file, []

    def overtaken(source, target, **options):
        times.append(source)
        if len(times) == 2:
            save(run, 3.0)
            run.push()
        return get_file(source, target, **options)

    monkeypatch.setattr(reader.store._fs, "get_file", overtaken)
    assert read_policy(record.fetch("policy")).arrays["w"].tolist() == [3.0] * 5


def test_strange_objects_behind_a_url_are_no_runs(s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = make(Library(s3_url), "a")
    filesystem, root = fsspec.core.url_to_fs(s3_url)
    for id in ("..", "x" * 300, "a\x1b[31m", "run*"):
        filesystem.pipe_file(f"{root}/runs/{id}/manifest.json", b"{}")
    library = Library(s3_url, shipped=tmp_path / "none")
    assert [record.id for record in library.runs()] == [run.id] and library.damaged() == []


def test_what_a_removal_that_was_cut_off_left_is_collected_once_it_is_old(s3_url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library = Library(s3_url, shipped=tmp_path / "none")
    run = make(library, "a")
    filesystem, root = fsspec.core.url_to_fs(s3_url)
    filesystem.rm_file(f"{root}/runs/{run.id}/manifest.json")
    assert gc.plan(library, older_than=NEVER) == []
    monkeypatch.setattr(files, "FOREIGN_SECONDS", -60.0)
    assert [(one.what, one.id) for one in gc.collect(library, older_than=NEVER)] == [("orphan", run.id)]
    assert library.store.contents(run.id) == {}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://127.0.0.1:port/db", "REKINDLE_DB takes the URL"),
        ("sqlite+aiosqlite:///x", "got 'sqlite.aiosqlite'"),
        ("postgresql://127.0.0.1:1/db?password=hidden1", "cannot use the index"),
        ("postgresql://127.0.0.1:1/db?nonsense=1", "cannot use the index"),
    ],
)
def test_more_databases_that_cannot_be_used(url, words, tmp_path):
    with pytest.raises((ConfigError, LibraryError), match=words) as caught:
        Library(tmp_path, database=url).runs()
    assert "hidden1" not in str(caught.value)


@pytest.mark.parametrize(
    "home", ["~nobody-of-this-name/x", "file://", "  ", "zip://x.zip", "reference://x", "github://x"]
)
def test_more_homes_that_cannot_be(home, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises((ConfigError, LibraryError), match="REKINDLE_HOME") as caught:
        Library(home)
    assert "\n" not in str(caught.value)


def test_secrets_in_an_address_are_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for url in ("memory://me:pa/ss@host/home", "memory://me@host/home"):
        assert Library(url).address == "memory://host/home"
    assert Library("memory://bucket/a@b").address == "memory://bucket/a@b"
