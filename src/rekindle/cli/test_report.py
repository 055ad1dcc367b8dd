"""Tables and pages of reincarnations, from folders that no training wrote."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rekindle.cli.main import main
from rekindle.core.errors import ConfigError
from rekindle.library.library import Library
from rekindle.library.manifest import Parent
from rekindle.library.run import Run
from rekindle.report import comparison, reincarnation, runs, training
from rekindle.report.video import encode_video
from rekindle.train.session import OF_RANDOM, OF_TEACHER

ORDER = {"agent": "dqn", "settings": {"network": "auto", "n_step": 3}, "budget": "1000steps", "method_settings": {}}
TEACHERS = {"minatar/breakout-v1": "a" * 64, "minatar/freeway-v1": "b" * 64}


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "home", shipped=tmp_path / "none")


def a_student(library, method, *, env="minatar/breakout-v1", seed=0, end=0.8, status="done", sha256="", **order):
    """A run whose score rises to `end`; chance earns 2, the teacher 12, as other runs measured a little wrongly."""
    config = {**ORDER, "env": env, "method": method, "teacher": "kept", **order}
    teacher = Parent(id="kept", role="teacher", sha256=sha256 or TEACHERS[env])
    run = Run.create(library, "train", name=method, config=config, seed=seed, env_id=env)
    run.update(parents=[teacher.model_dump()])
    offline = 400 if method == "qdagger" else 0
    for at in range(1, 3 if offline else 1):
        row(run, 0, 200 * at, end * at / 4, "0-offline")
    for at in range(1, 3):
        row(run, 500 * at, offline, end * at / 2, "1-online")
    scores = [{"name": OF_RANDOM, "value": 2.0 + 0.1 * seed}, {"name": OF_TEACHER, "value": 12.0 - 0.1 * seed}]
    run.finish(status, scores=scores)
    return run


def row(run, env_steps, offline, score, tag):
    steps = env_steps or offline
    values = {"tag": tag, "score/normalised": score, "score/return": 2.0 + 10.0 * score, "phase/steps": steps,
              "phase/updates": steps if tag == "0-offline" else steps // 4, "phase/weight": 3.0 * (1 - score),
              "phase/learning_rate": 1e-4, "phase/agreement": 0.5, "dqn/value_loss": 0.1, "dqn/q_max": 2.0}  # fmt: skip
    run.log(env_steps, values, offline_updates=offline)


def compared(*runs):
    return comparison.compare([reincarnation.read(run) for run in runs])


def everywhere(library, method, ends, **order):
    return [a_student(library, method, env=env, seed=seed, end=end, **order)
            for env in TEACHERS for seed, end in enumerate(ends)]  # fmt: skip


def test_a_comparison_has_the_tables_numbers(library):
    runs = [*everywhere(library, "tabula-rasa", [0.2, 0.3]), *everywhere(library, "qdagger", [1.1, 1.3])]
    found = compared(*runs)
    best, other = found.rows
    assert (best.label, best.seeds, other.label) == ("qdagger dqn", 2, "tabula-rasa dqn")
    marks = found.marks["minatar/breakout-v1"]
    assert (marks.random, marks.teacher) == pytest.approx((2.05, 11.95))
    scores = (2.0 + 10.0 * np.array([1.1, 1.3]) - 2.05) / 9.9
    assert best.end.value == pytest.approx(scores.mean()) and best.end.low < best.end.value < best.end.high
    assert [share.value for share in best.above] == [1.0, 1.0, 1.0, 0.5]
    assert best.best_is_better is None and other.best_is_better.value == 1.0
    told = comparison.to_json(found)
    assert [(p["offline_updates"], p["env_steps"]) for p in told["methods"][0]["curve"]] == [
        (200, 0), (400, 0), (400, 500), (400, 1000)]  # fmt: skip
    assert comparison.curve(found.arms[0], found.marks).x == [-200, 0, 500, 1000]
    assert found.notes == ()


def test_what_is_no_part_of_a_fair_table_is_left_out_and_said(library):
    one = everywhere(library, "qdagger", [0.8, 0.9])
    again = a_student(library, "qdagger", seed=1, end=0.7)
    more = a_student(library, "qdagger", seed=2, env="minatar/freeway-v1")
    stopped = a_student(library, "jsrl", status="interrupted")
    lonely = a_student(library, "qdagger", env="minatar/freeway-v1", method_settings={"tau": 1.0})
    found = compared(*one, again, more, stopped, lonely, a_student(library, "tabula-rasa", env="minatar/freeway-v1"))
    told = " ".join(found.notes)
    assert f"{stopped.id} is left out: it is interrupted." in told
    assert f"{one[1].id} is left out: {again.id} is of the same seed." in told
    assert "minatar/breakout-v1 is left out: it has no run of qdagger dqn, tau=1.0 and tabula-rasa dqn." in told
    assert "one seed, so there is no interval" in told and "The numbers of seeds differ: " in told
    assert {row.label: row.seeds for row in found.rows} == {
        "qdagger dqn": 3, "qdagger dqn, tau=1.0": 1, "tabula-rasa dqn": 1}  # fmt: skip
    assert comparison.to_json(found)["methods"][-1]["interquartile_mean"]["low"] is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"sha256": "c" * 64}, "the same teacher: .* has kept a{64}, .* has kept c{64}"),
        ({"budget": "1100steps"}, "the same budget in environment steps: .* has 1000, .* has 1100"),
        ({"pool": {"sticky": 0.25}}, "the same options of the environment: .* has {}, .* has {'sticky': 0.25}"),
        ({"env": "minatar/freeway-v1"}, "no environment in which all have runs: qdagger dqn has minatar/breakout-v1"),
        ({"settings": 5}, "is damaged: settings"),
        ({"teacher": None}, "is no reincarnation; to compare learning from scratch"),
    ],
)
def test_unequal_runs_are_refused_in_one_sentence(library, other, message):
    with pytest.raises(ConfigError, match=message):
        compared(a_student(library, "qdagger"), a_student(library, "jsrl", **other))


@pytest.mark.parametrize(
    ("order", "message"),
    [({"teacher": "no_such_module:act"}, "no_such_module:act is code, which is executed only where a student is made"),
     ({"teacher": "a.zip", "trust": True}, "a.zip is code"),
     ({"teacher": "no.onnx"}, "no teacher &#39;no.onnx&#39;"),
     ({"env": "gymnax/CartPole-v1", "sha256": "c" * 64, "status": "interrupted"}, "the student is interrupted")],
)  # fmt: skip
def test_a_page_says_in_a_sentence_why_it_has_no_video(library, tmp_path, order, message):
    reincarnation.tell(a_student(library, "qdagger", **order), library, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert message in text and "<video" not in text


def test_the_command_line_writes_pages_and_json(library, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REKINDLE_HOME", str(library.folder))
    one, _ = a_student(library, "qdagger", end=1.2), a_student(library, "qdagger", seed=1)
    a_student(library, "jsrl")
    page = tmp_path / "page.html"
    assert main(["report", "qdagger", "jsrl", "-o", str(page), "--json"]) == 0
    assert '"label": "qdagger dqn", "seeds": 2' in capsys.readouterr().out
    text = page.read_text("utf-8")
    assert all(word in text for word in ("Final scores", "Performance profile", "How they learnt", "no interval"))
    assert main(["report", one.id]) == 0
    text = Path(one.path / "report.html").read_text("utf-8")
    assert all(word in text for word in ("student scores 1.20", "How it was weaned", "Beside its teacher", "a" * 64))
    assert "650" in text and "400 of them offline" in text and "There is no video: the library in" in text
    (one.path / "film.mp4").write_bytes(encode_video([np.zeros((16, 16, 3), np.uint8)]))
    (one.path / "film.txt").write_text("One & episode.")
    assert main(["report", one.id, "-o", str(page)]) == 0
    text = page.read_text("utf-8")
    assert 'src="data:video/mp4;base64,' in text and "One &amp; episode." in text and "no video" not in text
    assert main(["report"]) == 2 and main(["report", "no-such-run"]) == 2


def a_training(library, agent="dqn", *, seed=0, ends=(1.0, 3.0), status="done", env="minatar/breakout-v1", **order):
    """A run with an evaluation before all and one at each end."""
    config = {"agent": agent, "settings": {"width": 32}, "env": env, "budget": "200steps", **order}
    run = Run.create(library, "train", name="scratch", config=config, seed=seed, env_id=env)
    for at, score in enumerate((0.0, *ends)):
        bounds = {"score/low": score - 1.0, "score/high": score + 1.0}
        inside = {f"{agent}/value_loss": 1.0 / at, "time/env_steps_per_s": 50.0} if at else {}
        run.log(100 * at, {"score/return": score, **bounds, **inside})
    run.finish(status)
    return run


def test_trainings_are_grouped_by_agent_and_averaged_over_seeds(library):
    one = a_training(library, seed=0)
    other = a_training(library, seed=1, ends=(2.0, 5.0))
    again, wide = a_training(library, seed=1, ends=(3.0, 6.0)), a_training(library, settings={"width": 64})
    going = a_training(library, seed=2, status="interrupted")
    longer = a_training(library, budget="300steps", ends=(9.0,))
    empty = Run.create(library, "train", name="e", config=one.manifest.config, seed=3)
    arms, notes = training.grouped([runs.read(run) for run in (one, other, again, wide, going, longer, empty)])
    assert [(arm.label, [run.manifest.seed for run in arm.trainings]) for arm in arms] == [
        ("dqn, width=32, budget=200steps", [0, 1]), ("dqn, width=64, budget=200steps", [0]),
        ("dqn, width=32, budget=300steps", [0])]  # fmt: skip
    assert notes == [f"{empty.id} is left out: it has no curve yet.", f"{going.id} is left out: it is interrupted.",
                     f"{other.id} is left out: {again.id} is of the same seed."]  # fmt: skip
    several, single = (arm.curve("score/return") for arm in arms[:2])
    assert list(several.x) == [0, 100, 200] and list(several.y) == [0.0, 2.0, 4.5]
    assert several.low[2] == 3.0 and several.high[2] == 6.0
    assert list(single.y) == [0.0, 1.0, 3.0] and list(single.low) == [-1.0, 0.0, 2.0]
    assert arms[0].last("score/return") == (4.5, 3.0, 6.0) and arms[1].last("score/return") == (3.0, 2.0, 4.0)
    assert training.metric_of(arms) == "score/return"
    later = replace(runs.read(one), rows=one.metrics()[1:])
    apart = training.Arm("x", [runs.read(a_training(library, ends=())), later])
    assert list(apart.curve("score/return").x) == [0] and apart.last("score/return").value == 0.5
    far = a_training(library, env="minatar/freeway-v1")
    with pytest.raises(ConfigError, match=r"one environment .* is of minatar/breakout-v1 with no options, .* of m"):
        training.grouped([runs.read(run) for run in (one, far)])
    with pytest.raises(ConfigError, match=r"nothing to tell of. .* it has no curve yet"):
        training.grouped([runs.read(empty)])


def test_a_training_is_told_by_the_command_line(library, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REKINDLE_HOME", str(library.folder))
    one, page = a_training(library, env="gymnasium/Pendulum-v1"), tmp_path / "page.html"
    a_training(library, seed=1, env="gymnasium/Pendulum-v1")
    assert main(["report", one.id]) == 0
    text = (one.path / "report.html").read_text("utf-8")
    assert "There is no video: opening gymnasium/Pendulum-v1 executes code of another library; --trust does." in text
    assert all(word in text for word in ("dqn: 3 [2, 4] after 200", "Inside dqn", "How it learnt", "one seed;"))
    assert main(["report", "scratch", "-o", str(page), "--json"]) == 0
    assert '"path"' in capsys.readouterr().out
    text = page.read_text("utf-8")
    assert all(word in text for word in ("Where they ended", "· seed 1", "95 % interval over seeds"))
    job = Run.create(library, "master", name="job", config={}, seed=0)
    assert main(["report", job.id]) == 2
    assert "is a run of kind 'master'; reports are of what was trained" in capsys.readouterr().err
