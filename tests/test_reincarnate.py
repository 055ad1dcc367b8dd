"""From a teacher in the library to a student, as a user types it: stopped, killed, resumed, and with wrong words."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rekindle.library import checkpoint
from rekindle.library.dataset import read_dataset
from rekindle.library.library import Library
from rekindle.library.run import Run

CATCH = "gymnax/Catch-bsuite"
SMALL = ["--set", "width=32", "--set", "epsilon_steps=1000", "--set", "epsilon_warmup=0", "--set", "warmup=200",
         "--set", "capacity=8000", "--set", "learning_rate=1e-3"]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def rekindle(home, *words, code=0, **more):
    environment = {**os.environ, "REKINDLE_HOME": str(home), **more}
    done = subprocess.run([sys.executable, "-m", "rekindle", *words, "--json"], env=environment, capture_output=True)
    assert done.returncode == code, done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    return json.loads(done.stdout.decode().splitlines()[-1])


@pytest.fixture(scope="module")
def teacher(home):
    return rekindle(home, "train", "dqn", "--env", CATCH, "--budget", "6000steps", *SMALL)["run"]


def weights(home, run):
    (file,) = (Run.open(Library.open(home), run).path / "policy").glob("*.safetensors")
    return file.read_bytes()


def words(teacher, *more):
    return ["reincarnate", "--teacher", teacher, "--student", "rainbow:dense", "--env", CATCH, "--budget", "3000steps",
            *SMALL, *more]  # fmt: skip


def test_a_trained_agent_keeps_its_replay(home, teacher):
    data = read_dataset(Run.open(Library.open(home), teacher).path)
    assert data.transitions == 6000 and set(np.unique(data.arrays["reward"])) == {-1.0, 0.0, 1.0}


def test_a_training_is_reported_with_an_episode_of_its_agent(home, teacher, tmp_path):
    page = tmp_path / "page.html"
    assert rekindle(home, "report", teacher, "-o", str(page))["path"] == str(page)
    text = page.read_text("utf-8")
    assert 'src="data:video/mp4' in text and re.search(r"dqn reaches -?1 in 9 steps", text)
    assert "Return of an episode, the last, not the best. dqn: " in text and len(text) < 500_000


@pytest.fixture(scope="module")
def student(home, teacher):
    return rekindle(home, *words(teacher))


def test_a_student_comes_of_a_teacher_and_says_how_good_both_are(home, teacher, student):
    told = student
    assert told["status"] == "done" and told["env_steps"] == 3000
    manifest = Run.open(Library.open(home), told["run"]).manifest
    assert [(p.id, p.role) for p in manifest.parents] == [(teacher, "teacher")]
    scores = {score.name: score.value for score in manifest.scores}
    assert scores["return of acting at random"] < -0.3 < scores["return of the teacher"]
    assert scores["normalised return"] > 0.2
    spreads = {score.name: (score.model_extra or {}).get("sd") for score in manifest.scores}
    assert 0.3 < spreads["return of acting at random"] <= 1.0 and manifest.scores[0].model_extra["episodes"] == 256
    curve = [row for row in Run.open(Library.open(home), told["run"]).metrics() if "score/normalised" in row]
    assert [row["tag"] for row in curve] == ["0-offline"] * 10 + ["1-online"] * 10
    assert rekindle(home, "library", "verify")["problems"] == []
    assert curve[-1]["phase/multiplier"] == 0
    assert [row["env_steps"] for row in curve] == [0] * 10 + [300 * turn for turn in range(1, 11)]
    assert [row["offline_updates"] for row in curve] == [120 * turn for turn in range(1, 11)] + [1200] * 10
    assert [row["replay/size"] for row in curve] == [6000] * 10 + [300 * turn for turn in range(1, 11)]
    assert curve[9]["phase/updates"] == 1200 and 600 < curve[-1]["phase/updates"] <= 750
    assert all(0 < row["phase/teacher_entropy"] < 1.1 and 0 < row["phase/agreement"] <= 1 for row in curve)
    logged = {name for row in curve for name in row if name.startswith(("phase/", "score/", "replay/"))}
    table = Path("docs/reincarnation.md").read_text("utf-8")
    assert logged == {name for name in re.findall(r"^\| `([a-z_/]+)` \|", table, re.MULTILINE) if "/" in name}
    page = (Run.open(Library.open(home), told["run"]).path / "report.html").read_text("utf-8")
    assert "the student scores" in page and 'src="data:video/mp4' in page
    shown = re.search(r"the teacher reaches (-?1) in 9 steps; the student reaches (-?1) in 9 steps", page)
    assert shown is not None and len(page) < 500_000


def test_a_function_that_says_vectors_teaches_a_student_of_sequences(home):
    words = ["reincarnate", "--teacher", "tests.teachers:swing", "--student", "mrq:small", "--env",
             "gymnax/Pendulum-v1", "--budget", "600steps", "--set", "batch=16", "--set", "period=50", "--set",
             "encoder_updates=10", "--episodes", "16"]  # fmt: skip
    told = rekindle(home, *words)
    assert told["status"] == "done" and told["env_steps"] == 600
    run = Run.open(Library.open(home), told["run"])
    scores = {score.name: score.value for score in run.manifest.scores}
    assert scores["return of acting at random"] < -900 < -600 < scores["return of the teacher"]
    asked = {score.name: score.model_extra["episodes"] for score in run.manifest.scores}
    assert asked["return of the teacher"] == 64 and asked["normalised return"] == 16
    rows = run.metrics()
    assert {str(row["tag"]) for row in rows} == {"0-offline", "1-online"}
    assert rows[-1]["phase/updates"] > 500 and 0 <= rows[-1]["phase/agreement"] <= 1
    assert read_dataset(run.path).arrays["action"].shape == (600, 1, 1)
    assert "the method dqfd trains action values" in rekindle(home, *words, "--method", "dqfd", code=2)["error"]


def test_an_agent_of_sequences_teaches_another_from_its_replay(home):
    """2.6: by the distance to its actions, on the steps that it kept."""
    world = [
        "--env",
        "gymnasium/tests.slope:Slope-v0",
        "--set",
        "batch=16",
        "--set",
        "period=50",
        "--set",
        "encoder_updates=10",
    ]
    teacher = rekindle(home, "train", "mrq:small", *world, "--budget", "700steps", "--set", "warmup=300",
                       "--evaluate-every", "0")["run"]  # fmt: skip
    kept = read_dataset(Run.open(Library.open(home), teacher).path).arrays
    assert kept["action"].shape == (700, 1, 1) and len(np.unique(kept["action"])) > 300
    told = rekindle(home, "reincarnate", "--teacher", teacher, "--student", "mrq:small", *world, "--budget", "400steps",
                    "--episodes", "8")  # fmt: skip
    run = Run.open(Library.open(home), told["run"])
    assert {(parent.id, parent.role) for parent in run.manifest.parents} == {(teacher, "teacher")}
    offline = [row for row in run.metrics() if row["tag"] == "0-offline"]
    # the mean squared distance to its actions, which lie in [-1, 1], falls
    losses = [row["mrq/guide_loss"] for row in offline]
    assert 0 < losses[-1] < losses[0] < 4 and offline[-1]["phase/agreement"] > 0.5
    assert weights(home, told["run"]) != weights(home, teacher)


def test_a_teacher_that_fails_in_the_middle_is_named_with_its_line(home):
    told = rekindle(home, *words("tests.teachers:tires"), code=2)
    where = Path("tests/teachers.py").resolve()
    assert told["error"].startswith(
        "the teacher tests.teachers:tires fails on a batch of observations: IndexError: no "
    )
    assert re.search(rf"no more answers \({re.escape(str(where))}, line \d+\)\.$", told["error"])


def test_a_teacher_is_given_away_with_its_replay_and_teaches_elsewhere_to_the_same_weights(
    home, teacher, student, tmp_path
):
    file, there = str(tmp_path / "teacher.rekindle"), tmp_path / "there"
    made = rekindle(home, "library", "export", teacher, "--output", file)
    assert made["transitions"] == 6000 and made["replay_nbytes"] > 300_000
    assert rekindle(there, "library", "import", file, "--sha256", made["sha256"])["new"]
    again = rekindle(there, *words(teacher))
    assert weights(home, student["run"]) == weights(there, again["run"])


def test_a_teacher_is_taken_from_where_a_path_leads(home, teacher, student, tmp_path):
    """A run's folder, with its replay, comes to the same as the run in the library."""
    lies, there = Run.open(Library.open(home), teacher).path, tmp_path / "there"
    copy = shutil.copytree(lies, tmp_path / "copy")
    again = rekindle(there, *words(str(copy)))["run"]
    assert weights(home, student["run"]) == weights(there, again)
    assert read_dataset(copy).transitions == 6000
    config = Run.open(Library.open(there), again).manifest.config
    assert config["teacher"] == str(copy) and re.fullmatch("[0-9a-f]{64}", config["teacher_sha256"])
    bundle = str(tmp_path / "teacher.rekindle")
    rekindle(home, "library", "export", teacher, "--output", bundle)
    for path, more, message in (
        (copy, ["--pool", "sticky=0.1"], f"was made with no options of {CATCH}, the student with sticky=0.1"),
        (copy / "policy", ["--method", "fine-tuning"], "the teacher's own network, of dqn; got a student of rainbow"),
        (tmp_path, [], f"{tmp_path} holds no policy: there is neither policy.json in it nor policy/policy.json"),
        (bundle, [], f"{bundle} is a bundle; `rekindle library import {bundle}` verifies it"),
    ):
        assert message in rekindle(there, *words(str(path), *more), code=2)["error"]


def test_a_reincarnation_that_is_killed_goes_on_to_the_same_weights(home, teacher):
    whole = rekindle(home, *words(teacher, "--seed", "3"))["run"]
    environment = {**os.environ, "REKINDLE_HOME": str(home)}
    line = [sys.executable, "-m", "rekindle", *words(teacher, "--seed", "3", "--checkpoint-every", "0")]
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    library, run = Library.open(home), None
    deadline = time.monotonic() + 240
    while run is None and time.monotonic() < deadline:
        time.sleep(0.2)
        started = [record for record in library.runs() if record.manifest.status == "running"]
        if started and len(checkpoint.steps(started[0].path)) > 1:
            run = started[0].id
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run is not None
    assert rekindle(home, "resume", run)["status"] == "done"
    rows = [Run.open(library, which).metrics() for which in (whole, run)]
    a, b = ([(row["env_steps"], row["offline_updates"], row["score/return"]) for row in found if "score/return" in row]
            for found in rows)  # fmt: skip
    assert a == b and len(a) == 20
    assert weights(home, whole) == weights(home, run)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "qdager"], "no method 'qdager'"),
        (["--choose", "tua=1.0"], "the method qdagger has no option 'tua'"),
        (["--student", "raibow"], "no agent 'raibow'; did you mean 'rainbow'?"),
        (["--student", "rainbow:impalla"], "rainbow has no variant 'impalla'; did you mean 'impala' or "),
        (["--budget", "5m"], "--budget is in environment steps here"),
        (["--env", "gymnax/CartPole-v1"], "cannot act in gymnax/CartPole-v1"),
        (["--pool", "sticky=0.1"], f"the teacher was made with no options of {CATCH}, the student with sticky=0.1"),
        (["--student", "ppo"], "--student takes dqn, mrq, rainbow; ppo keeps no replay and cannot be taught"),
        (["--choose", "tau=0"], "the option tau of the method qdagger takes a number above 0; got 0"),
        (["--budget", "100steps"], "ends with the 200 that fill the replay"),
        (["--data", "shipped/foundation"], "holds no dataset"),
        (["--episodes", "0"], "--episodes must be at least 1; got 0"),
        (["--checkpoint-every", "nan"], "--checkpoint-every takes seconds, 0 or more; got nan"),
        (["--method", "fine-tuning"], "the teacher's own network, of dqn; got a student of rainbow"),
        (
            ["--method", "fine-tuning", "--student", "dqn", "--set", "width=24"],
            "leave out what --set says of the network",
        ),
    ],
)
def test_wrong_words_are_one_sentence(home, teacher, more, message):
    told = rekindle(home, *words(teacher, *more), code=2)
    assert message in told["error"]


def test_an_agent_is_scored_by_its_return_beside_chance(home, teacher, tmp_path):
    told = rekindle(home, "evaluate", teacher, "--env", CATCH, "--episodes", "200")
    assert told["env"] == "gymnax/Catch-bsuite" and told["agent"]["episodes"] == told["random"]["episodes"] == 200
    assert told["agent"]["low"] > 0 > told["random"]["high"] and told["agent"]["mean_length"] == 9
    assert told["env_steps"] == 2 * 200 * 9
    run = Run.open(Library.open(home), told["run"])
    assert run.manifest.status == "done" and [p.id for p in run.manifest.parents] == [teacher]
    scores = {score.name: (score.value, score.low) for score in run.manifest.scores}
    assert scores["return"] == (told["agent"]["value"], told["agent"]["low"])
    again = rekindle(home, "evaluate", str(Run.open(Library.open(home), teacher).path / "policy"), "--env", CATCH,
                     "--episodes", "200")  # fmt: skip
    assert again["agent"] == told["agent"]
    for words, message in (
        (["--env", "gymnax/CartPole-v1"], "cannot act in gymnax/CartPole-v1"),
        ([], "give one of them"),
        (["--env", CATCH, "--tasks", "xland/f0"], "give one of them"),
        (["--tasks", CATCH], "--env gives returns anywhere"),
        (["--env", CATCH, "--episodes", "0"], "--episodes must be at least 1; got 0"),
        (["--env", CATCH, "--pool", "grip=1"], "has no option 'grip'"),
    ):
        assert message in rekindle(home, "evaluate", teacher, *words, code=2)["error"]


def test_damaged_data_of_a_teacher_are_refused(home, teacher, tmp_path):
    copy = rekindle(home, "train", "dqn", "--env", CATCH, "--budget", "2000steps", *SMALL)["run"]
    file = Run.open(Library.open(home), copy).path / "replay" / "steps.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    told = rekindle(home, *words(copy), code=2)
    assert "is cut off" in told["error"] and "collect it anew" in told["error"]
    assert any("replay" in problem["text"] for problem in rekindle(home, "library", "verify", code=2)["problems"])


def test_a_function_beside_the_user_teaches_by_the_installed_command(home, tmp_path):
    """A script has its own folder on the path, not the one that it is called in."""
    (tmp_path / "beside_me.py").write_text("import numpy as np\n\n\ndef act(obs):\n    return np.zeros(3)\n")
    script = Path(sys.executable).parent / "rekindle"
    done = subprocess.run([str(script), "reincarnate", "--teacher", "beside_me:act", "--env", CATCH, "--json"],
                          env={**os.environ, "REKINDLE_HOME": str(home)}, cwd=tmp_path, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 2
    assert "the teacher beside_me:act has to answer 2 observations" in done.stdout + done.stderr
