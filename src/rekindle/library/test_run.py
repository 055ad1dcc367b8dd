import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.core.errors import CheckpointError, ConfigError, LibraryError
from rekindle.library import checkpoint, files
from rekindle.library.library import Library
from rekindle.library.manifest import Score
from rekindle.library.run import Run, new_id


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "home", shipped=tmp_path / "none")


@pytest.fixture
def run(library):
    return Run.create(library, "train", name="A goal!", config={"lr": 1e-3}, seed=0, env_id="xland/f0")


def test_a_run_is_there_as_soon_as_it_is_created_and_opens_by_id_prefix_name_and_path(library, run):
    assert re.fullmatch(r"\d{8}-\d{6}-a-goal-[0-9a-f]{4}", run.id)
    for which in (run.id, run.id[:20], "A goal!", run.path, str(run.path)):
        opened = Run.open(library, which)
        assert opened.path == run.path and opened.manifest == run.manifest
    assert run.manifest.status == "running" and run.manifest.config == {"lr": 1e-3}
    assert run.manifest.versions.keys() >= {"python", "numpy"} and run.manifest.device


def test_ids_never_collide_and_sort_by_time(library, monkeypatch):
    taken = iter(["x-0000", "x-0000", "x-0001"])
    monkeypatch.setattr("rekindle.library.run.new_id", lambda name: next(taken))
    runs = [Run.create(library, "train", name="x", config={}, seed=0) for _ in range(2)]
    assert [r.id for r in runs] == ["x-0000", "x-0001"]
    assert new_id("ü/ " * 100)[:8].isdecimal() and len(new_id("long name " * 20)) <= 80


def test_metrics_come_back_with_steps_and_rising_time(run):
    run.log(10, {"episode/return": np.float64(0.5), "loss/value": math.nan, "note": "warm", "none": None})
    run.log(20, {"loss/value": -math.inf})
    first, second = run.metrics()
    assert (first["env_steps"], first["episode/return"], first["note"], first["none"]) == (10, 0.5, "warm", None)
    assert math.isnan(first["loss/value"]) and second["loss/value"] == -math.inf
    assert 0 <= first["wall_s"] <= second["wall_s"]
    with pytest.raises(ConfigError, match="'wall_s'"):
        run.log(30, {"wall_s": 1.0})


def test_a_torn_last_line_is_ignored_and_then_cut(library, run):
    run.log(10, {"x": 1})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"env_steps": 20, "x"')
    assert [row["env_steps"] for row in run.metrics()] == [10]
    Run.open(library, run.id).log(30, {"x": 3})
    assert [row["env_steps"] for row in run.metrics()] == [10, 30]


def test_a_damaged_line_is_named(run):
    (run.path / "metrics.jsonl").write_text('{"env_steps": 1}\nnonsense\n{"env_steps": 2}\n')
    with pytest.raises(LibraryError, match="line 2"):
        run.metrics()


def test_what_a_resumed_run_repeats_counts_once_and_its_seconds_go_on(library, run):
    for steps in (10, 20, 30):
        run.log(steps, {"x": steps})
        if steps == 10:
            run.save_checkpoint(10, {"w": np.zeros(2)}, {})
    run.finish("interrupted", wall_s=100.0)
    again = Run.open(library, run.id)
    assert again.latest_checkpoint()[0] == 10
    again.log(20, {"x": 21})
    again.log(30, {"x": 31})
    assert [row["x"] for row in again.metrics()] == [10, 21, 31]
    assert again.metrics()[-1]["wall_s"] >= 100.0 and again.wall_s() >= 100.0


def test_a_run_that_died_before_its_first_checkpoint_starts_its_curves_again(library, run):
    assert run.latest_checkpoint() is None
    run.log(10, {"x": 1})
    again = Run.open(library, run.id)
    assert again.latest_checkpoint() is None
    again.log(10, {"x": 2})
    assert [row["x"] for row in again.metrics()] == [2]


def test_decisions_keep_their_order_and_time(run):
    run.decide(choose="adapt", reason="cheapest", cost=np.float64(2.0))
    run.decide(choose="fine-tune", reason="0.6 < 0.8")
    first, second = run.decisions()
    assert (first["choose"], first["cost"], second["choose"]) == ("adapt", 2.0, "fine-tune")
    assert first["time"] <= second["time"]
    with pytest.raises(ConfigError, match="'time'"):
        run.decide(time=3)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.dictionaries(st.text(max_size=20).filter(lambda s: s != "__metadata__"), st.sampled_from([
    np.zeros((), np.int32), np.ones((2, 0), np.float16), np.array([True, False]), np.array([np.nan, 1e-300]),
    np.arange(6, dtype=np.uint8).reshape(2, 3).T, np.arange(4, dtype=">f4"),
]), max_size=5), st.integers(0, 10**12))  # fmt: skip
def test_checkpoints_come_back_bit_for_bit(tmp_path_factory, arrays, step):
    folder = tmp_path_factory.mktemp("run")
    checkpoint.save(folder, step, arrays, {"wall_s": 0.1, "nested": [1, {"a": None}]})
    facts, found = checkpoint.latest(folder)
    assert (facts.step, facts.meta) == (step, {"wall_s": 0.1, "nested": [1, {"a": None}]})
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype.newbyteorder("=") and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_two_checkpoints_are_kept_and_what_a_crash_left_is_ignored(run):
    for step in (5, 10, 100):
        run.save_checkpoint(step, {"w": np.full(2, step)}, {"n": step})
    crashed = run.path / "checkpoints" / f"{files.TEMPORARY}200-abc"
    crashed.mkdir()
    (crashed / "state.safetensors").write_bytes(b"half")
    assert checkpoint.steps(run.path) == [10, 100]
    step, arrays, meta = run.latest_checkpoint()
    assert step == 100 and arrays["w"].tolist() == [100, 100] and meta == {"n": 100}
    run.save_checkpoint(100, {"w": np.zeros(1)}, {"n": 0})
    assert run.latest_checkpoint()[2] == {"n": 0}


def test_a_write_that_fails_leaves_what_was_there(run, monkeypatch):
    run.save_checkpoint(10, {"w": np.ones(2)}, {})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "rename", full)
    with pytest.raises(LibraryError, match="free some space"):
        run.save_checkpoint(20, {"w": np.ones(2)}, {})
    monkeypatch.undo()
    assert checkpoint.steps(run.path) == [10] and files.leftovers(run.path / "checkpoints") == []


@pytest.mark.parametrize("damage", ["cut", "flip", "meta", "gone"])
def test_a_damaged_checkpoint_is_named_with_the_one_to_fall_back_on(run, damage):
    run.save_checkpoint(10, {"w": np.ones(100)}, {})
    run.save_checkpoint(20, {"w": np.ones(100)}, {})
    folder = run.path / "checkpoints" / "20"
    state = (folder / "state.safetensors").read_bytes()
    if damage == "cut":
        (folder / "state.safetensors").write_bytes(state[:-30])
    elif damage == "flip":
        (folder / "state.safetensors").write_bytes(state[:-1] + bytes([state[-1] ^ 1]))
    elif damage == "meta":
        (folder / "meta.json").write_text("{")
    else:
        (folder / "state.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"Remove the folder .*20 to go on from step 10\."):
        run.latest_checkpoint()
    files.remove(folder)
    assert run.latest_checkpoint()[0] == 10


def test_a_checkpoint_of_a_newer_version_says_upgrade(run):
    run.save_checkpoint(10, {"w": np.ones(1)}, {})
    meta = run.path / "checkpoints" / "10" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"schema_version": 2}))
    with pytest.raises(CheckpointError, match="newer rekindle: upgrade"):
        run.latest_checkpoint()


def test_the_manifest_changes_whole_and_only_where_it_may(library, run):
    run.log(70, {})
    run.update(notes="n", scores=[Score(name="s", value=math.inf)])
    run.finish("done", scores=[Score(name="s", value=0.5, low=0.4, high=0.6)])
    facts = Run.open(library, run.id).manifest
    assert (facts.status, facts.env_steps, facts.notes, facts.scores[0].low) == ("done", 70, "n", 0.4)
    with pytest.raises(ConfigError, match="'id'"):
        run.update(id="x")
    with pytest.raises(ConfigError, match="status"):
        run.update(status="sleeping")
    with pytest.raises(ConfigError, match="colour"):
        run.update(colour="red")


def test_what_is_no_json_is_refused_and_nothing_is_left(library):
    with pytest.raises(LibraryError, match="is no JSON"):
        Run.create(library, "train", name="x", config={"f": object()}, seed=0)
    with pytest.raises(ConfigError, match="parents"):
        Run.create(library, "train", name="x", config={}, seed=0, parents=[("../x", "init")])
    assert list(library.runs_folder.iterdir()) == []
