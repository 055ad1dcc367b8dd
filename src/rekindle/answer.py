"""What `master` found, told: the report's data from an outcome."""

import shlex
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rekindle.core.spaces import Discrete
from rekindle.core.stats import Interval
from rekindle.envs.xland.level import NOOP
from rekindle.envs.xland.render import frames_of_episode
from rekindle.evaluate.evaluation_set import evaluate
from rekindle.evaluate.policies import ConstantPolicy, ForgetfulPolicy, RandomPolicy
from rekindle.library.library import Library
from rekindle.master import Outcome
from rekindle.report.episode import record_episode
from rekindle.report.html import Ancestor, Decision, Picture, Recalled, ReportData, ancestor, write_report
from rekindle.report.plots import Curve, adaptation_plot, learning_plot
from rekindle.report.video import encode_video
from rekindle.strategies.base import Task
from rekindle.strategies.returns.task import Returned
from rekindle.strategies.words.task import Worded

VIDEO_CELL, VIDEO_FPS = 40, 6.0


def tell(outcome: Outcome, library: Library) -> Path:
    """Write `report.html` into the run's folder; its path."""
    path = outcome.run.path / "report.html"
    proof, attempt = outcome.proof, outcome.attempt
    task = outcome.task
    worded = task if isinstance(task, Worded) else None
    # Before the account is read: the baselines of the plot and the video cost steps, too.
    adapted = adaptation(outcome, worded) if proof and worded is not None and worded.trials > 1 else None
    filmed = video(outcome, worded) if proof and worded is not None else None
    outcome.run.update(env_steps=outcome.account.env_steps, wall_s=round(outcome.account.seconds(), 3))
    data = ReportData(
        goal=task.text,
        verdict=outcome.verdict,
        reason=outcome.reason,
        rules=options(task),
        score=proof.score.value if proof else None,
        score_low=proof.score.low if proof else None,
        score_high=proof.score.high if proof else None,
        unit="planner = 1" if worded is not None else task.unit,
        least=min(task.at_random.score.value, outcome.target) if isinstance(task, Returned) else 0.0,
        target=outcome.target,
        episodes=proof.episodes if proof else None,
        strategy=outcome.strategy,
        env_steps=outcome.account.env_steps,
        wall_s=outcome.account.seconds(),
        video=filmed,
        adaptation=adapted,
        learning=learning(outcome) if attempt and attempt.curve else None,
        recalled=tuple(
            Recalled(
                r.id,
                "foreign" if r.loaded is None else r.own.agent.name,
                *(r.last or (None, None, None)),
                why=why(r.answered, r.card),
            )
            for r in outcome.recalled
        ),
        decisions=decisions(outcome),
        lineage=lineage(outcome, library),
        code=code(outcome),
        provenance={
            "command": shlex.join(outcome.run.manifest.command),
            "seed": str(outcome.run.manifest.seed),
            "run": outcome.run.id,
            "device": outcome.run.manifest.device,
            **outcome.run.manifest.versions,
            "python": sys.version.split()[0],
        },
        created=outcome.run.manifest.created.strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_report(path, data)
    outcome.run.push()
    return path


def why(answered: bool, card: dict[str, Any]) -> str:
    """Why a prior was recalled, in words."""
    if answered:
        return "kept as the answer to this very goal"
    return f"answered “{card['goal']}”" if "goal" in card else str(card.get("title", "can act here"))


def options(task: Task) -> tuple[str, ...]:
    """What a goal asks for beside its text: rules, or options of the environment."""
    if isinstance(task, Worded):
        return tuple(task.goal.rule_texts)
    return tuple(f"{name}={value}" for name, value in task.order.pool.items()) if isinstance(task, Returned) else ()


def video(outcome: Outcome, task: Worded) -> Picture:
    """One episode on the first task of the proof, actions sampled as in the proof."""
    assert outcome.proof is not None and outcome.attempt is not None
    held_out = outcome.proof.played.held_out
    world = jax.tree.map(lambda leaf: leaf[0], held_out.tasks)._replace(trials=np.int16(task.trials))
    moments = record_episode(held_out.env, outcome.attempt.policy, world, jax.random.key(0))
    data = encode_video(frames_of_episode(moments, cell=VIDEO_CELL), ".mp4", VIDEO_FPS)
    outcome.account.env_steps += len(moments)
    return Picture(data, "An episode in a world that practice did not have.")


def adaptation(outcome: Outcome, task: Worded) -> Picture:
    """Score over the trials of the proof's episodes, beside policies that cannot adapt."""
    assert outcome.proof is not None and outcome.attempt is not None
    trials = task.trials
    x = np.arange(1, trials + 1)

    def curve(label: str, scores: list[Interval]) -> Curve:
        return Curve(label, x, *(np.asarray([s[i] for s in scores]) for i in range(3)))

    (held_out, played), actions = outcome.proof.played, task.spec.action
    assert isinstance(actions, Discrete)
    others = {
        "memory emptied every trial": ForgetfulPolicy(outcome.attempt.policy, actions.n),
        "random": RandomPolicy(actions.n),
        "no-op": ConstantPolicy(NOOP),
    }
    baselines = []
    for i, (label, policy) in enumerate(others.items()):
        result = evaluate(held_out, policy, jax.random.key(i), trials=trials, repetitions=4)
        outcome.account.env_steps += result.env_steps
        baselines.append(curve(label, result.by_trial()))
    baselines.append(Curve("planner", [1], [1.0]))
    plot = adaptation_plot(curve("this agent", played.by_trial()), baselines, target=outcome.target,
                           y_label="score of the trial (planner = 1)")  # fmt: skip
    return Picture(plot, f"Score of each of the {trials} trials in fresh episodes; bands are 95 % intervals.")


def learning(outcome: Outcome) -> Picture:
    """Validation over the steps of the training that led here."""
    assert outcome.attempt is not None
    steps, scores = zip(*outcome.attempt.curve, strict=True)
    columns = [np.asarray([s[i] for s in scores]) for i in range(3)]
    worded = isinstance(outcome.task, Worded)
    plot = learning_plot([Curve("validation", np.asarray(steps), *columns)], target=outcome.target,
                         y_label="score (planner = 1)" if worded else outcome.task.unit)  # fmt: skip
    return Picture(plot, f"Evaluations during training; the proof is in other {'worlds' if worded else 'episodes'}.")


def decisions(outcome: Outcome) -> tuple[Decision, ...]:
    """What was chosen and why, as written down before it was done, with what came of it."""
    told: list[Decision] = []
    events = outcome.run.decisions()
    results = {event["outcome"]: event for event in events if "outcome" in event}
    for event in events:
        if "choice" not in event:
            continue
        expected = event.get("expected")
        promise = ""
        if expected:
            promise = (
                f"about {expected['seconds']:.0f} s and {expected['env_steps']:,} steps, score {expected['reach']:.2f}"
            )
        result = results.get(event["choice"])
        told.append(
            Decision(
                choice=event["choice"],
                reason=event.get("reason", ""),
                expected=promise,
                alternatives=tuple(f"{other['choice']}: {other['reason']}" for other in event.get("alternatives", ())),
                outcome="" if result is None else f"{result['verdict']}, practice score {result['score']['value']:.3f}",
                succeeded=None
                if result is None
                else event["choice"] == outcome.strategy and outcome.verdict == "mastered",
                at_s=None if result is None else result.get("at_s"),
            )
        )
    return tuple(told)


def lineage(outcome: Outcome, library: Library) -> Ancestor:
    """This run and what its policy came from, all the way."""
    parents = library.lineage(outcome.run.id).parents
    return Ancestor(outcome.run.id, "this run", outcome.strategy, tuple(map(ancestor, parents)))


def code(outcome: Outcome) -> str:
    """How to use the agent in a few lines."""
    if not outcome.agent:
        return ""
    load = ["import rekindle", f"agent = rekindle.load({outcome.agent!r})"]
    task = outcome.task
    if isinstance(task, Worded):
        asked = task.goal
        words = ", ".join(repr(text) for text in (asked.text, *asked.rule_texts))
        hide = "" if asked.hide == "none" else f", hide={asked.hide!r}"
        world = "" if asked.world == "f0" else f", world={asked.world!r}"
        lines = [
            *load,
            f"tasks = rekindle.tasks({words}{hide}{world})",
            f"rewards = rekindle.play(agent, tasks, trials={asked.trials}, seed=0)",
            "print(rewards.mean())",
        ]
    else:
        assert isinstance(task, Returned)
        chosen = "".join(f", {name}={value!r}" for name, value in task.order.pool.items())
        lines = [
            "import jax",
            *load,
            "from rekindle.envs import registry",
            "from rekindle.evaluate.returns import whole_episodes",
            f"world = registry.world({task.env_id!r}{chosen})",
            "played = whole_episodes(world, agent.policy, jax.random.key(0), number=64)",
            "print(played.returns.mean())",
        ]
    return "\n".join(lines)
