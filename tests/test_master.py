"""The main job, end to end, on the shipped agent and a small proof."""

import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import pytest

from rekindle.answer import tell
from rekindle.cli.main import main
from rekindle.core.budget import Budget
from rekindle.core.errors import GoalError, RekindleError
from rekindle.core.stats import Interval
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.master import Outcome, Request, Silent, master
from rekindle.strategies.base import Account, Attempt, Estimate, judge
from rekindle.strategies.words import task as worded
from rekindle.strategies.words.practice import granted

master_module = sys.modules["rekindle.master"]  # `rekindle.master` is the function
GOAL = "hold yellow sphere"
IMPOSSIBLE = ("hold yellow sphere", ("hold yellow sphere -> nothing",))


class Listener(Silent):
    def __init__(self):
        self.stages = []

    def stage(self, name, text):
        self.stages.append(name)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(worded, "PRACTICE_TASKS", 12)
    monkeypatch.setattr(worded, "PROOF_TASKS", 16)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library.open(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def answered(library):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worded, "PRACTICE_TASKS", 12)
        patch.setattr(worded, "PROOF_TASKS", 16)
        return master(Request(GOAL, budget=Budget(seconds=120.0)), library, Listener())


def test_a_goal_is_answered_by_the_shipped_agent(answered, library):
    assert (answered.verdict, answered.strategy) == ("mastered", "reuse")
    assert answered.proof.score.low >= 0.8
    assert answered.proof.episodes == answered.proof.played.result.scores.size >= 256
    assert [parent.id for parent in answered.attempt.parents] == ["shipped/foundation"]
    kept = library.find(answered.agent)
    assert kept.policy["card"]["goal"].startswith(GOAL)
    assert [parent.id for parent in kept.manifest.parents] == ["shipped/foundation"]


def test_every_decision_was_written_with_its_reason_and_promise(answered):
    choice = next(event for event in answered.run.decisions() if event.get("choice") == "reuse")
    assert choice["reason"]
    assert choice["expected"]["seconds"] > 0
    assert {other["choice"] for other in choice["alternatives"]} == {"fine-tune", "from scratch"}


def test_asked_again_the_answer_is_recalled_and_proved_again(answered, library):
    again = master(Request(GOAL, budget=Budget(seconds=120.0)), library, Listener())
    assert (again.verdict, again.strategy, again.agent) == ("mastered", "reuse", answered.agent)
    assert again.account.env_steps < answered.account.env_steps


def test_the_report_is_one_self_contained_file(answered, library):
    path = tell(answered, library)
    page = path.read_text()
    assert path.parent == answered.run.path
    assert "shipped/foundation" in page
    assert "rekindle.load(" in page
    assert "data:video/mp4;base64" in page
    facts = answered.to_json(path)
    assert list(facts) == ["goal", "verdict", "score", "score_low", "score_high", "target", "strategy",
                           "strategies_tried", "env_steps", "wall_s", "agent", "parents", "report"]  # fmt: skip
    json.dumps(facts, allow_nan=False)


def test_an_impossible_goal_is_proved_so_at_once(tmp_path):
    goal, rules = IMPOSSIBLE
    outcome = master(Request(goal, rules), Library.open(tmp_path), Listener())
    assert outcome.verdict == "impossible"
    assert outcome.reason
    assert outcome.account.env_steps == 0
    assert "impossible" in tell(outcome, Library.open(tmp_path)).read_text().lower()


def test_from_scratch_stops_at_its_budget_and_can_be_resumed(tmp_path, monkeypatch):
    library = Library.open(tmp_path)
    request = Request(GOAL, budget=Budget(env_steps=40_000), reuse=False)

    def ctrl_c(*_):
        raise KeyboardInterrupt

    original = master_module.prove
    monkeypatch.setattr(master_module, "prove", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        master(request, library, Listener())
    run = library.runs(kind="master")[0]
    monkeypatch.setattr(master_module, "prove", original)
    assert run.manifest.status == "interrupted"
    outcome = master(request, library, Listener(), run=Run.open(library, run.id))
    assert outcome.run.id == run.id
    assert outcome.tried == ["from scratch"]
    assert outcome.verdict == "not_mastered" and "misses the target" in outcome.reason
    chunk, proof = 4 * 32 * 64, 320 * 40
    assert 30_000 <= outcome.account.env_steps <= 40_000 + chunk + proof


def test_a_job_that_goes_on_knows_what_it_tried_and_proves_its_best_again(answered, library, monkeypatch):
    request = Request(GOAL)
    outcome = Outcome(answered.task, "not_mastered", "", 0.8, answered.account, answered.run, [])
    now = master_module.prepare(request, answered.task, library, answered.run, answered.account, Listener())
    numbers = []
    monkeypatch.setattr(
        master_module, "prove", lambda now, attempt, number, *_: numbers.append(number) or answered.proof
    )
    assert master_module.pick_up(outcome, now, Listener())[1] == {"reuse"}
    assert (outcome.tried, outcome.strategy, numbers) == (["reuse"], "reuse", [0])
    assert outcome.attempt.score == answered.attempt.score and outcome.is_mastered


def test_the_verdict_is_that_of_the_proof_that_passed(answered, library, monkeypatch):
    """Not of the one with the highest score, which may be luck."""
    proofs = {"first": Interval(0.86, 0.795, 0.92), "second": Interval(0.85, 0.805, 0.89)}
    prior = answered.recalled[0]

    def strategy(name, score):
        attempt = Attempt(
            name, prior.own.agent, None, prior.policy, score, "converged", (prior.parent("policy"),), 0, []
        )
        return SimpleNamespace(
            name=name, estimate=lambda now: Estimate(1.0, 0, 0.9, "why"), carry_out=lambda now: attempt
        )

    fakes = (strategy("first", Interval(0.85, 0.8, 0.9)), strategy("second", Interval(0.8, 0.8, 0.9)))
    monkeypatch.setitem(master_module.STRATEGIES, worded.Worded, fakes)
    monkeypatch.setattr(
        master_module, "prove", lambda now, attempt, *_: answered.proof._replace(score=proofs[attempt.strategy])
    )
    outcome = master(Request("hold yellow wall", budget=Budget(seconds=60.0)), library, Listener())
    assert (outcome.verdict, outcome.strategy, outcome.tried) == ("mastered", "second", ["first", "second"])
    assert outcome.proof.score == proofs["second"]
    proved = [d for d in outcome.run.decisions() if "proved" in d]
    assert [d["given_up"] for d in proved] == [True, True]


def test_a_damaged_answer_stops_nothing(library, answered, tmp_path):
    """It is left out, and the goal is answered by another."""
    copy = tmp_path / "library"
    shutil.copytree(library.folder, copy)
    (copy / "runs" / answered.agent / "policy" / "weights.safetensors").write_bytes(b"damaged")
    heard = Listener()
    outcome = master(Request(GOAL, budget=Budget(seconds=60.0)), Library.open(copy), heard)
    assert outcome.verdict == "mastered" and outcome.attempt.parents[0].id == "shipped/foundation"


def test_a_card_with_other_than_numbers_is_no_answer(library, answered):
    prior = next(p for p in library.priors() if p.id == answered.agent)
    assert answered.task.is_answer(prior)
    for card in ({}, {"score_low": "high"}, {"score_low": 0.9}, {"score": 1, "score_low": 0.9, "score_high": None}):
        assert not answered.task.is_answer(replace(prior, facts=json.dumps(card)))


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ([0.2, 0.9], "mastered"),
        ([0.1, 0.2, 0.3], "improving"),
        ([0.1, 0.1, 0.2, 0.2, 0.5, 0.6], "improving"),
        ([0.2, 0.3, 0.3, 0.3, 0.3, 0.3], "stalled"),
        ([0.2, 0.3, 0.7, 0.7, 0.7, 0.7], "converged"),
        ([0.2, 0.3, 0.7, 0.7, 0.2, 0.2], "diverged"),
    ],
)
def test_curves_are_judged(scores, verdict):
    curve = [(i, Interval(s, s - 0.05, s + 0.05)) for i, s in enumerate(scores)]
    assert judge(curve, target=0.8) == verdict


@pytest.mark.parametrize("source", ["nowhere", "20", "/"])
def test_an_agent_that_cannot_be_used_is_refused_before_a_run_is_opened(source, tmp_path):
    empty = Library.open(tmp_path)
    with pytest.raises(RekindleError, match=f"{source}"):
        master(Request(GOAL, source=source), empty, Listener())
    assert empty.runs() == []


def test_a_refusal_after_the_run_was_opened_marks_it_as_failed(tmp_path, monkeypatch):
    def refuse(*_):
        raise GoalError("no room.")

    monkeypatch.setattr(worded.Worded, "impossible", refuse)
    library = Library.open(tmp_path)
    with pytest.raises(GoalError, match="no room"):
        master(Request(GOAL), library, Listener())
    (record,) = library.runs()
    assert (record.manifest.status, record.manifest.notes) == ("failed", "no room.")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["hold yelow sphere"], 2, "yelow"),
        ([GOAL, "--budget", "0s"], 2, "--budget"),
        ([GOAL, "--budget", "1e30steps"], 2, "--budget"),
        ([GOAL, "--target", "1.5"], 2, "--target"),
        ([GOAL, "--seed", "-1"], 2, "--seed"),
        ([GOAL, "--world", "nowhere.txt"], 2, "--world"),
        ([GOAL, "--trials", "0"], 2, "--trials"),
        ([GOAL, "--from", "shipped/foundation", "--no-reuse"], 2, "--from"),
        ([GOAL, "--from", "missing"], 2, "missing"),
        ([IMPOSSIBLE[0], "--rule", IMPOSSIBLE[1][0]], 4, "impossible"),
    ],
)
def test_wrong_input_is_one_line_and_an_exit_code(words, code, said, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    assert main(["master", *words]) == code
    jax.config.update("jax_compilation_cache_dir", before)
    err = capfd.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_what_recall_measured_before_a_crash_is_not_measured_again(answered, library):
    """It is in the journal, with its steps: asking again costs none and says the same."""
    request = Request(GOAL)
    now = master_module.prepare(request, answered.task, library, answered.run, Account(request.budget), Listener())
    candidates = [prior for prior in library.priors() if prior.id == "shipped/foundation"]
    (again,) = master_module.recall(candidates, now, Listener())
    (before,) = [one for one in answered.recalled if one.id == again.id]
    assert (again.first, again.last, now.account.env_steps) == (before.first, before.last, 0)


def test_a_practice_that_was_cut_off_is_granted_what_it_was_and_one_that_ended_nothing(tmp_path):
    run = Run.create(Library.open(tmp_path), "master", name="g", config={}, seed=0)
    account = Account(Budget(env_steps=1000), env_steps=500)

    def grant(steps, booked=0, is_over=False):
        return granted(Budget(env_steps=steps), run, account, "from scratch", booked, is_over=is_over).env_steps

    assert grant(100) == 100 and master_module.booked(run) == 500
    assert grant(60) == 100, "cut off: as it was"
    assert grant(60, booked=80, is_over=True) == 80, "it had passed: nothing more"
    run.decide(outcome="from scratch", verdict="interrupted")
    assert grant(60, booked=40) == 100, "interrupted: as it was"
    run.decide(outcome="from scratch", verdict="stalled")
    assert grant(60, booked=90) == 90, "it had ended: only the proof is missing"
    run.decide(proved="from scratch", env_steps=900)
    assert grant(60) == 60 and master_module.booked(run) == 500, "a failed proof: a new grant"
