"""The main job for a return in an environment: from nothing, by reuse, by distilling, stopped and gone on with."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import jax
import pytest

from rekindle.agents.registry import config_from_json
from rekindle.answer import tell
from rekindle.cli import master as command
from rekindle.cli.main import main
from rekindle.cli.reproduce import recipe
from rekindle.cli.test_train_mrq import Walk
from rekindle.core.budget import Budget, parse_budget
from rekindle.core.spaces import Box, Discrete, Image
from rekindle.core.stats import Interval
from rekindle.core.types import EnvSpec
from rekindle.library.library import Library
from rekindle.library.records import Prior
from rekindle.library.run import Run
from rekindle.master import Request, Silent, begin, master, under_way, understand
from rekindle.reincarnation.teachers import load as teachers
from rekindle.strategies.base import Account, Situation
from rekindle.strategies.returns import costs, distil, practice, task

CATCH, PENDULUM = "gymnax/Catch-bsuite", "gymnax/Pendulum-v1"
BUDGET = Budget(env_steps=100_000)


class Killed(BaseException):
    """What nothing catches, as nothing catches a kill."""


class Stopper(Silent):
    """Does something at a chunk of practice."""

    def __init__(self, at, act):
        self.left, self.act = at, act

    def progress(self, strategy, now):
        self.left -= 1
        if self.left == 0:
            self.act()


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        valued = {"width": 32, "epsilon_steps": 1000, "epsilon_warmup": 0, "warmup": 200, "capacity": 8000,
                  "learning_rate": 1e-3}  # fmt: skip
        tiny = {"batch": 32, "state_width": 32, "pair_width": 32, "action_width": 16, "hidden": 32, "period": 50,
                "encoder_updates": 10}  # fmt: skip
        read = task.config_from_json
        patch.setattr(task, "config_from_json",
                      lambda name, data: read(name, data | tiny if name == "mrq" else valued | data))  # fmt: skip
        patch.setattr(task, "CHECKPOINT_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library.open(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def first(library):
    return master(Request(env=CATCH, reach=0.3, budget=BUDGET), library)


def taken(run, library):
    """Environment steps that a job and its practices wrote down, each by itself."""
    events = run.decisions()
    children = {event["child"] for event in events if "child" in event}
    return sum(practice.cost(Run.open(library, child)) for child in children)


def test_a_return_is_reached_from_scratch_and_proved(first, library):
    assert (first.verdict, first.tried) == ("mastered", ["from scratch"])
    assert first.proof.score.low >= 0.3 and first.proof.episodes >= 256
    kept = library.find(first.agent)
    assert kept.policy["card"]["goal"] == f"return 0.3 in {CATCH}"
    (child,) = kept.manifest.parents
    assert library.find(child.id).row.weights == kept.row.weights
    assert first.account.env_steps > taken(first.run, library) + first.proof.env_steps
    choice = next(event for event in first.run.decisions() if event.get("choice") == "from scratch")
    assert "measured over" in choice["reason"] and choice["alternatives"] == []
    page = tell(first, library)
    facts = first.to_json(page)
    assert facts["goal"] == f"return 0.3 in {CATCH}" and facts["parents"] == [child.id]
    assert "mean return" in page.read_text() and "whole_episodes(world, agent.policy" in page.read_text()


def test_what_is_not_compiled_is_learnt_from_scratch_by_the_learner_of_reduced_size(tmp_path, monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "Walk-v0", gymnasium.envs.registration.EnvSpec("Walk-v0", Walk))
    tiny = {"batch": 32, "state_width": 32, "pair_width": 32, "action_width": 16, "hidden": 32, "period": 50,
            "encoder_updates": 10}  # fmt: skip
    monkeypatch.setattr(task, "config_from_json", lambda name, data: config_from_json(name, data and data | tiny))

    class Listener(Silent):
        heard = ()

        def stage(self, stage, text):
            self.heard += ((stage, text),)

    listener, library = Listener(), Library.open(tmp_path)
    answer = master(Request(env="gymnasium/Walk-v0", reach=7.0, budget=Budget(env_steps=20_000)), library, listener)
    assert (answer.verdict, answer.tried) == ("mastered", ["from scratch"]) and answer.proof.score.low >= 7.0
    said = "practice from scratch would be by mrq:small, of reduced size; --student mrq takes the full one"
    assert ("plan", said) in listener.heard
    (practised,) = [record for record in library.runs(kind="train") if record.manifest.config["agent"] == "mrq"]
    assert 500 <= practised.manifest.config["settings"]["warmup"] < 10_000  # of few steps it spends few at random


def test_the_same_or_a_lower_return_is_answered_by_reuse(first, library):
    again = master(Request(env=CATCH, reach=0.2, budget=BUDGET), library)
    assert (again.verdict, again.strategy, again.agent) == ("mastered", "reuse", first.agent)
    assert again.account.env_steps < first.account.env_steps / 2
    choice = next(event for event in again.run.decisions() if event.get("choice") == "reuse")
    others = {other["choice"]: other["reason"] for other in choice["alternatives"]}
    assert set(others) == {"fine-tune", "distil", "from scratch"}
    assert f"as {first.run.id} measured" in others["from scratch"]


def test_other_options_are_another_world(first, library):
    def nominated(**options):
        return task.Returned.of(CATCH, options, 0.2, seed=0, source=None).nominate(library, None)

    assert nominated() and nominated(sticky=0.1) == []


def test_those_with_the_highest_return_on_record_are_asked_first_then_the_newest(tmp_path, monkeypatch):
    """Ten runs, the tenth the newest; the seventh and the eighth have the same weights."""
    returns = {2: 5.0, 3: 9.0, 5: 7.0, 7: 8.0, 8: 8.0}
    made = task.Returned.of(CATCH, {}, 0.2, seed=0, source=None)
    priors = [Prior(str(n), "", CATCH, "dqn", f"2026-01-{n:02}", "same" if n in (7, 8) else str(n), "", "", False, "{}",
                    Path()) for n in range(1, 11)]  # fmt: skip
    rows = {str(n): SimpleNamespace(manifest=json.dumps({"config": {}, "scores": [
        {"name": "return", "value": returns[n]}] if n in returns else []})) for n in range(1, 11)}  # fmt: skip
    monkeypatch.setattr(Library, "priors", lambda self, fits: priors)
    monkeypatch.setattr(Library, "row", lambda self, id: rows[id])
    nominated = made.nominate(Library.open(tmp_path), None)
    assert len(nominated) == 10
    assert [prior.id for prior in made.likeliest(nominated)] == ["3", "8", "5", "10", "9", "6"]


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    """Catches two balls of three, by looking."""
    (tmp_path / "catcher.py").write_text(
        "import numpy as np\n\ndef catch(obs):\n"
        "    board = np.asarray(obs['obs'])\n"
        "    ball, paddle = board[:, :-1].max(axis=1).argmax(axis=1), board[:, -1].argmax(axis=1)\n"
        "    return (np.sign(ball - paddle) + 1) * (ball % 3 > 0) + (ball % 3 == 0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "catcher:catch"


def test_a_teacher_is_distilled_by_a_job_that_is_killed_and_stopped_on_the_way(teacher, tmp_path, monkeypatch):
    """Killed in its first practice chunks, then stopped by Ctrl-C, then left alone: every step counts once."""
    monkeypatch.setattr(distil, "LEAST_STEPS", 3000)
    library, request = Library.open(tmp_path / "home"), Request(env=CATCH, reach=0.0, source=teacher,
                                                                budget=Budget(env_steps=60_000))  # fmt: skip

    def killed():
        raise Killed

    with pytest.raises(Killed):
        master(request, library, Stopper(2, killed))
    run = library.runs(kind="master")[0]
    assert run.manifest.status == "running"
    with pytest.raises(KeyboardInterrupt, match="resume"):
        master(request, library, Stopper(2, lambda: signal.raise_signal(signal.SIGINT)), run=Run.open(library, run.id))
    outcome = master(request, library, run=Run.open(library, run.id))
    assert outcome.verdict == "mastered" and outcome.tried[0] == "distil"
    events = outcome.run.decisions()
    begun = [event for event in events if "practice" in event]
    children = [Run.open(library, id) for id in dict.fromkeys(event["child"] for event in begun)]
    child = children[0]
    assert child.manifest.config["teacher"] == teacher
    assert outcome.attempt.parents[-1].id in {one.id for one in children}
    ends = [event["env_steps"] for event in events if event.get("verdict") not in (None, "interrupted")]
    proofs = sum(event["env_steps"] for event in events if "proved" in event) - sum(ends)
    practised = sum(practice.cost(one) for one in children)
    assert outcome.account.env_steps == begun[0]["env_steps"] + practised + proofs
    phases = [(row["tag"], row["phase/steps"]) for row in child.metrics()]
    assert len(phases) == len(set(phases)) and outcome.account.env_steps < 60_000


def test_a_teacher_of_vectors_begins_to_be_distilled_into_the_learner_of_vectors(tmp_path, monkeypatch):
    """Chosen, begun and taught: that is all; `train/test_taught_sequences.py` shows what a student takes over."""
    monkeypatch.setattr(distil, "LEAST_STEPS", 1500)
    monkeypatch.setattr(distil, "OF_TEACHER", 0.0)
    library, request = Library.open(tmp_path), Request(env=PENDULUM, reach=-900, source="tests.teachers:swing",
                                                       budget=Budget(env_steps=5_000_000))  # fmt: skip

    def killed():
        raise Killed

    with pytest.raises(Killed):
        master(request, library, Stopper(1, killed))
    (job,), (child,) = library.runs(kind="master"), library.runs(kind="train")
    assert any(event.get("choice") == "distil" for event in Run.open(library, job.id).decisions())
    assert (child.manifest.config["agent"], child.manifest.config["teacher"]) == ("mrq", "tests.teachers:swing")
    seen = Run.open(library, child.id).metrics()
    assert seen and seen[-1]["offline_updates"] > 0 and seen[-1]["mrq/guide_loss"] > 0


def test_how_a_teacher_is_read_is_said_as_for_a_reincarnation(tmp_path, monkeypatch):
    """`--trust` and `--valued` reach the loader and the student's run, and are repeated by what repeats the job."""
    (tmp_path / "guesser.py").write_text(
        "import numpy as np\n\ndef q(obs):\n    return np.ones((len(obs['obs']), 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))
    seen, library = [], Library.open(tmp_path)
    monkeypatch.setattr(command, "carry_out", lambda request, library, json: seen.append(request) or 0)
    for more in ([], ["--trust"], ["--valued"]):
        assert command.run(["--env", CATCH, "--reach", "1", "--from", "guesser:q", *more]) == 0
    load, read = teachers.load, []
    monkeypatch.setattr(teachers, "load", lambda which, spec, **how: read.append(how) or load(which, spec, **how))
    goals = [understand(request, library) for request in seen]
    assert [goal.teacher[1].says for goal in goals] == ["logits", "logits", "values"]
    orders = [practice.bought(goal.order, 100, teacher="guesser:q") for goal in goals]
    runs = [begin(request, goal, library) for request, goal in zip(seen, goals, strict=True)]
    told = [recipe(library.find(run.id))[-1] for run in runs]
    wanted = [(False, False), (True, False), (False, True)]
    assert [(how["trust"], how["valued"]) for how in read] == wanted
    assert [(order.trust, order.valued) for order in orders] == wanted
    assert [("--trust" in line, "--valued" in line) for line in told] == wanted


def test_what_was_begun_goes_first_and_what_failed_is_not_begun(tmp_path):
    run = Run.create(Library.open(tmp_path), "master", name="g", config={}, seed=0)
    assert under_way(run) == ""
    run.decide(choice="distil", expected={})
    assert under_way(run) == "distil"
    run.decide(proved="distil", given_up=False)
    assert under_way(run) == "distil"
    run.decide(proved="distil", given_up=True)
    assert under_way(run) == ""


def test_the_proof_is_as_long_as_validation_asks_for():
    assert task.enough(Interval(0.9, 0.8, 1.0), 0.2) == 256
    assert task.enough(Interval(0.5, 0.4, 0.6), 0.45) == 1024
    assert task.enough(Interval(0.5, 0.3, 0.7), 0.49) == 4096
    assert task.enough(Interval(0.1, 0.0, 0.2), 0.2) == 256


def test_what_a_curve_took_is_read_from_its_evaluations_before_its_own_episodes():
    rows = [{"env_steps": 10, "episode/return": 0.9}, {"env_steps": 20, "score/low": 0.1, "episode/return": 0.9},
            {"env_steps": 30, "score/low": 0.6}]  # fmt: skip
    assert costs.steps_to(0.5, rows) == 30 and costs.steps_to(0.7, rows) is None
    assert costs.steps_to(0.5, rows[:1]) == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a goal in words"),
        (["--env", CATCH], "--env takes the return to reach beside it"),
        (["--reach", "1"], "--reach is for a return in an environment"),
        (["hold yellow sphere", "--env", CATCH, "--reach", "1"], "either words or a return"),
        (["--env", CATCH, "--reach", "much"], "--reach"),
        (["--env", CATCH, "--reach", "nan"], "a number"),
        (["--env", "minatar/brakeout", "--reach", "1"], "did you mean 'minatar/breakout-v1'"),
        (["--env", CATCH, "--reach", "1", "--student", "ppo"], "--student takes what learns from a replay"),
        (["--env", CATCH, "--reach", "1", "--student", "mrq:tall"], "mrq has no variant 'tall'; did you mean 'small'"),
        (["hold yellow sphere", "--student", "mrq"], "--student is for a return in an environment"),
        (["--env", CATCH, "--reach", "1", "--rule", "hold black cube -> nothing"], "--rule belongs to a goal in words"),
        (["--env", CATCH, "--reach", "1", "--from", "nowhere"], "nowhere"),
        (["--env", CATCH, "--reach", "1", "--from", "nowhere.zip"], "nowhere.zip"),
        (["--env", CATCH, "--reach", "1", "--from", "a", "--no-reuse"], "--no-reuse"),
        (["--env", CATCH, "--reach", "1", "--trust"], "--trust is for a teacher from elsewhere"),
        (["hold yellow sphere", "--from", "x.zip", "--valued"], "--valued is for a teacher from elsewhere"),
        (["--env", CATCH, "--reach", "1", "--pool", "stick=1"], "no option 'stick'; did you mean 'sticky'"),
    ],
)
def test_wrong_words_are_one_sentence(words, said, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    code = main(["master", *words, "--json"])
    jax.config.update("jax_compilation_cache_dir", before)
    out, err = capfd.readouterr()
    assert (code, json.loads(out.splitlines()[-1])["exit_code"]) == (2, 2)
    assert said in err.splitlines()[-1] and "Traceback" not in err
    assert Library.open(tmp_path).runs() == []


def test_who_learns_from_scratch_depends_on_what_a_world_takes_and_costs():
    picture, numbers = {"obs": Box((10, 10, 4), 0, 255, "uint8")}, {"obs": Box((3,), -9, 9)}
    vector = Box((2,), -1.0, 1.0)

    def chosen(obs, action, kind, backend="cpu"):
        return task.student_for(EnvSpec("test/any", 1, obs, action, kind=kind), backend)

    assert chosen(picture, Discrete(3), "jax") == chosen(picture, Discrete(3), "host") == "dqn"
    assert chosen({"obs": Image(96, 96)}, Discrete(3), "host") == "dqn"
    assert chosen(numbers, Discrete(3), "jax") == "dqn"
    assert chosen(numbers, Discrete(3), "host") == chosen(numbers, vector, "jax") == "mrq:small"
    assert chosen(numbers, vector, "host", "gpu") == chosen({"obs": Image(96, 96)}, Discrete(3), "host", "gpu") == "mrq"
    assert chosen(picture, Discrete(3), "host", "gpu") == "dqn"  # too small for MR.Q's convolutions


@pytest.mark.parametrize(("budget", "share"), [("60s", 1.0), ("1h", 0.5), ("9000steps", 1.0), ("2e6steps", 0.5)])
def test_a_teacher_has_the_whole_budget_where_learning_from_scratch_would_not_fit_into_it(budget, share, tmp_path):
    returned = task.Returned.of(CATCH, {}, 0.5, seed=0, source=None)
    library = Library.open(tmp_path)
    measured = costs.Costs(1_000.0, "as measured", 1_000_000, "as is usual")
    run = Run.create(library, "master", name="any", config={}, seed=0, env_id=CATCH)
    now = Situation(replace(returned, measured=lambda: measured), 0.5, (), jax.random.key(0), run, library,
                    Account(parse_budget(budget)), lambda *now: None)  # fmt: skip
    assert practice.share_with_teacher(now) == share
