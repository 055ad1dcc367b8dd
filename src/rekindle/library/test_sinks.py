import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.library.sinks import NAMES, Sink, Sinks

ID = "20261121-143055-f0-a1b2"
CONFIG = {"agent": {"lr": 0.001, "layers": [8, 8]}, "none": None}
OFFLINE = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_BASE_URL": "http://127.0.0.1:9",
    "WANDB_DISABLE_GIT": "true",
    "WANDB__DISABLE_STATS": "true",
    "WANDB__DISABLE_MACHINE_INFO": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@pytest.fixture(autouse=True)
def hermetic(monkeypatch, tmp_path):
    """No network, no account, and the environment afterwards as it was."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    forget_wandb()
    yield
    forget_wandb()
    os.environ.clear()
    os.environ.update(before)


def forget_wandb():
    """End wandb's service, which outlives a run, and with it what it has read of the environment."""
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a run").mkdir()
    return tmp_path / "a run"


@pytest.fixture
def begin(folder):
    """Opens sinks, which are closed at the end of the test whatever happens."""
    opened = []

    def begin(*names, id=ID, folder=folder, config=CONFIG):
        opened.append(Sinks.open(names, id=id, name="A goal!", folder=folder, config=config))
        return opened[-1]

    yield begin
    for sinks in opened:
        sinks.close()


class Double:
    """A sink that keeps what it is given, and breaks where it is told to."""

    def __init__(self, *broken):
        self.rows, self.closed, self.broken = [], 0, broken

    def log(self, env_steps, values):
        if "log" in self.broken:
            raise OSError("no answer from https://me:hunter2@example.org/x?token=hunter3. Try again.\nMore lines.")
        self.rows.append((env_steps, dict(values)))

    def close(self):
        self.closed += 1
        if "close" in self.broken:
            raise RuntimeError


# What each package itself reads back: (metric, env_steps, value), in order.


def tensorboard_rows(folder):
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={TENSORS: 0}).Reload()
    tags = events.Tags()["tensors"]
    return [(tag, e.step, float(make_ndarray(e.tensor_proto))) for tag in tags for e in events.Tensors(tag)]


def wandb_records(folder):
    """Every record of the offline files, which are logs in LevelDB's format: blocks of 32 KiB, no reader in Python."""
    from wandb.proto.wandb_internal_pb2 import Record

    forget_wandb()  # its service may still be writing
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, at, record = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if (left := 32768 - at % 32768) < 7:
                at += left
                continue
            length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            record += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # whole, or the last part
                yield Record.FromString(record)
                record = b""


def wandb_rows(folder):
    rows = []
    for record in wandb_records(folder):
        if record.WhichOneof("record_type") == "history":
            row = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item}
            rows += [(k, row["env_steps"], float(v)) for k, v in row.items() if k[0] != "_" and k != "env_steps"]
    return rows


def mlflow_run(folder):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("rekindle").experiment_id])
    return client, run


def mlflow_rows(folder):
    client, run = mlflow_run(folder)
    histories = [client.get_metric_history(run.info.run_id, key) for key in run.data.metrics]
    return [(m.key, m.step, m.value) for history in histories for m in history]


READERS = {"tensorboard": tensorboard_rows, "wandb": wandb_rows, "mlflow": mlflow_rows}


@pytest.mark.parametrize("name", NAMES)
def test_each_package_reads_back_names_steps_and_values_and_a_resumed_run_goes_on(begin, folder, name):
    first = begin(name, name)
    first.log(10, {"episode/return": 0.5, "loss/value": 2, "tag": "warm", "none": None, "ok": True})
    first.log(20, {"episode/return": np.float64(0.25), "huge": 10**400})
    first.close()
    second = begin(name, config=CONFIG | {"agent": {"lr": 1.0}})
    second.log(15, {"episode/return": 0.75})  # from the checkpoint on, below what was logged
    second.log(30, {"episode/return": 1.0})
    second.close()
    second.close()
    second.log(40, {"episode/return": 9.0})
    assert first.problems == second.problems == []
    rows = READERS[name](folder)
    assert sorted(row for row in rows if row[0] == "episode/return") == [
        ("episode/return", 10, 0.5),
        ("episode/return", 15, 0.75),
        ("episode/return", 20, 0.25),
        ("episode/return", 30, 1.0),
    ]
    assert [row for row in rows if row[0] != "episode/return"] == [("loss/value", 10, 2.0)]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_or_oddly_named_breaks_nothing(begin, folder, name):
    sinks = begin(name)
    sinks.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1e300, "../e, (%)//f/": 1.0, "": 2.0})
    sinks.log(2, {"only text": "x"})
    sinks.log(3, {"a": 1.0})
    sinks.close()
    assert sinks.problems == []
    rows = READERS[name](folder)
    assert [(step, value) for key, step, value in rows if key == "a"][1] == (3, 1.0)
    values = {key: value for key, step, value in rows if step == 1}
    assert math.isnan(values["a"]) and values["b"] > 1e300 and values["c"] < -1e300 and values["d"] > 1e299
    assert 1.0 in values.values() and len(values) >= 5


def test_wandb_knows_the_run_by_id_name_and_settings_and_draws_over_env_steps(begin, folder):
    begin("wandb").close()
    records = {r.WhichOneof("record_type"): r for r in wandb_records(folder)}
    run = records["run"].run
    assert (run.run_id, run.display_name, run.project) == (ID, "A goal!", "rekindle")
    assert {item.key: json.loads(item.value_json) for item in run.config.update}["agent"] == CONFIG["agent"]
    metrics = [r.metric for r in wandb_records(folder) if r.WhichOneof("record_type") == "metric"]
    assert ("*", "env_steps") in [(m.glob_name, m.step_metric) for m in metrics]


def test_two_runs_of_one_process_stay_apart_in_wandb(begin, folder, tmp_path):
    (other := tmp_path / "other").mkdir()
    both = begin("wandb"), begin("wandb", id="other", folder=other)
    for value, sinks in enumerate(both):
        sinks.log(1, {"x": value})
    for sinks in both:
        sinks.close()
    assert wandb_rows(folder) == [("x", 1, 0.0)] and wandb_rows(other) == [("x", 1, 1.0)]


def test_mlflow_keeps_settings_name_tag_and_status_in_one_run(begin, folder):
    config = CONFIG | {"note": "x" * 7000} | {f"p{i}": i for i in range(120)}
    sinks = begin("mlflow", config=config)
    assert mlflow_run(folder)[1].info.status == "RUNNING"
    sinks.close()
    again = begin("mlflow", config={"agent": {"lr": 0.5, "new": True}})
    assert mlflow_run(folder)[1].info.status == "RUNNING"
    again.close()
    _, run = mlflow_run(folder)
    assert (run.info.run_name, run.info.status, run.data.tags["rekindle.run"]) == ("A goal!", "FINISHED", ID)
    params = run.data.params
    assert (params["agent.lr"], params["agent.layers"], params["none"]) == ("0.001", "[8, 8]", "null")
    assert params["note"] == "x" * 6000 and params["p119"] == "119" and params["agent.new"] == "true"


def test_mlflow_goes_where_the_user_says(begin, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/mine.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    begin("mlflow").close()
    from mlflow import MlflowClient  # not before: it reads its settings as it is loaded

    client = MlflowClient(tracking_uri=uri)
    assert len(client.search_runs([client.get_experiment_by_name("mine").experiment_id])) == 1
    assert list(folder.iterdir()) == []


def test_mlflow_keeps_its_database_below_a_folder_of_any_name_that_an_address_can_hold(begin, tmp_path):
    (odd := tmp_path / "ü #1").mkdir()
    begin("mlflow", folder=odd).close()
    assert mlflow_run(odd)[1].info.status == "FINISHED"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a run", "ü #1"]
    (bad := tmp_path / "100%20").mkdir()
    with pytest.raises(ConfigError, match="needs a folder without % and"):
        begin("mlflow", folder=bad)


def test_what_the_user_has_set_holds(begin, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    begin("tensorboard")
    assert "MLFLOW_DISABLE_TELEMETRY" not in os.environ
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    begin("mlflow")
    assert (os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) == ("true", "7")


def test_a_sink_that_breaks_is_closed_and_named_and_the_others_go_on(folder, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "hunter4")
    good, bad = Double(), Double("log", "close")
    assert isinstance(good, Sink)
    sinks = Sinks({"bad": bad, "good": good})
    sinks.log(1, {"x": 1.0})
    sinks.log(2, {"x": 2.0})
    assert good.rows == [(1, {"x": 1.0}), (2, {"x": 2.0})] and (good.closed, bad.closed) == (0, 1)
    (problem,) = sinks.problems
    assert problem == (
        "bad failed (OSError: no answer from https://***@example.org/x?***) and may lack some of this run's metrics; "
        "the run's own metrics.jsonl is whole."
    )
    sinks.close()
    assert (good.closed, bad.closed) == (1, 1)


def test_a_sink_that_breaks_at_its_end_is_named_and_the_others_are_closed():
    bad, good = Double("close"), Double()
    sinks = Sinks({"bad": bad, "good": good})
    sinks.close()
    assert good.closed == 1 and "bad failed (RuntimeError) and" in sinks.problems[0]


def test_tensorboards_folder_vanishes_in_the_middle_and_the_rest_is_kept(begin, folder, capfd):
    sinks = begin("tensorboard", "mlflow")
    sinks.log(1, {"x": 1.0})
    assert tensorboard_rows(folder) == [("x", 1, 1.0)]  # before it is closed: a killed process loses little
    shutil.rmtree(folder / "tensorboard")
    (folder / "tensorboard").write_text("a file")
    for step in (2, 3):
        sinks.log(step, {"x": float(step)})
    sinks.close()
    (problem,) = sinks.problems
    assert problem.startswith("tensorboard failed (FileNotFoundError: ") and "metrics.jsonl is whole." in problem
    assert mlflow_rows(folder) == [("x", 1, 1.0), ("x", 2, 2.0), ("x", 3, 3.0)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named_with_the_way_to_install_it(begin, folder, monkeypatch, name):
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as caught:
        begin(name)
    expected = f"--log {name} needs the package {name}; install it with `pip install -e '.[track]'`."
    assert str(caught.value) == expected


def test_an_unknown_name_opens_nothing(begin, folder):
    with pytest.raises(ConfigError, match=r"'tensorbord'; did you mean 'tensorboard'\?"):
        begin("tensorboard", "tensorbord")
    with pytest.raises(ConfigError, match=r"'csv'; known are mlflow, tensorboard, wandb\."):
        begin("csv")
    assert list(folder.iterdir()) == []


def test_wandb_without_a_login_says_how_and_what_was_open_is_closed(begin, folder, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(folder / "none"))
    with pytest.raises(ConfigError) as caught:
        begin("mlflow", "wandb")
    assert str(caught.value) == (
        "--log wandb cannot begin (UsageError: No API key configured); run `wandb login`, or set WANDB_MODE=offline."
    )
    assert mlflow_run(folder)[1].info.status == "FINISHED"
    assert capfd.readouterr() == ("", "")


def test_a_store_that_cannot_be_opened_is_an_error_without_its_password(begin, folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://me:hunter2@example.org")
    with pytest.raises(ConfigError, match="look at MLFLOW_TRACKING_URI") as caught:
        begin("mlflow")
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_gone_costs_seconds(begin, folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match="--log mlflow cannot begin"):
        begin("mlflow")


def test_a_user_hears_nothing_and_nothing_heavy_is_loaded_before_it_is_asked_for(folder):
    program = f"""
import sys
from pathlib import Path
from rekindle.library import sinks
assert not {{"jax", "tensorboard", "wandb", "mlflow"}} & sys.modules.keys()
begun = sinks.Sinks.open(sinks.NAMES, id={ID!r}, name="x", folder=Path({str(folder)!r}), config={CONFIG!r})
begun.log(1, {{"x": 1.0}})
begun.close()
assert not begun.problems, begun.problems
assert not {{"jax", "tensorflow", "torch"}} & sys.modules.keys()
"""  # mlflow itself loads pandas, where it is installed
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(p.name for p in folder.iterdir()) == ["mlruns", "tensorboard", "wandb"]
