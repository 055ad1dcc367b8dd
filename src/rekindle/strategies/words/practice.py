"""What fine-tuning and learning from scratch share: practise until validation is passed or it no longer pays."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from rekindle.core.budget import Budget
from rekindle.core.stats import Interval
from rekindle.core.types import Agent, Policy
from rekindle.curriculum.base import Uniform
from rekindle.envs.xland import pools
from rekindle.library.manifest import Parent
from rekindle.library.run import Run
from rekindle.strategies.base import Account, Attempt, Situation, Verdict, judge
from rekindle.strategies.words.task import PRACTICE_REPETITIONS, SHORT_TASKS, Worded
from rekindle.train.loop import Plan, Progress, train
from rekindle.train.on_policy import OnPolicy
from rekindle.train.worlds import Solo

EVALUATION_SHARE = 0.08
"""Short evaluations take at most this share of practice, so that it ends soon after the goal is mastered."""
RESERVED = 0.25
"""Share of a budget in steps that is kept for evaluations, most of which come near the target and are whole."""
PATIENCE = 0.3
"""Share of the budget before a curve may be called stalled or diverged."""
WORLDS = 1024
"""Tasks in a practice pool."""
SECOND_MARGIN = 0.02
"""After a failed proof validation has to lie above the target by this much before the next one."""


def practise(now: Situation[Worded], agent: Agent, state: Any, *, name: str, neighbours: float, budget: Budget,
             parents: tuple[Parent, ...], give_up: bool) -> Attempt:  # fmt: skip
    """Train on the goal and a share of its neighbours, with an evaluation now and then; `budget` pays for both.

    Stops when validation's interval lies above the target (by a margin, if a proof failed before), or, with `give_up`,
    when the curve has stalled or diverged. After a failed proof or an interruption it goes on from the checkpoint.
    """
    wanted = now.target
    if now.ongoing is not None and now.ongoing.strategy == name:
        wanted = now.target + SECOND_MARGIN
    draw = partial(pools.draw, min_trials=now.task.trials, max_trials=now.task.trials)
    pool = jax.tree.map(jnp.asarray, now.task.pool(neighbours=neighbours, worlds=WORLDS))

    def enough(values: Mapping[str, Any]) -> bool:
        if "validation/score" not in values:
            return False
        verdict = judge(curve, wanted)
        hopeless = verdict in ("stalled", "diverged") and values["time/budget_share"] >= PATIENCE
        return verdict == "mastered" or (give_up and hopeless)

    budget, booked, rows = picked_up(now, name, reserved(budget, now))
    curve = kept_curve(rows, name, booked)
    is_over = bool(rows) and rows[-1]["env_steps"] == booked and enough(rows[-1])
    budget = granted(budget, now.run, now.account, name, booked, is_over=is_over)

    def book(env_steps: int) -> None:
        nonlocal booked
        now.account.env_steps += env_steps - booked
        booked = env_steps
        now.run.update(env_steps=now.account.env_steps, wall_s=now.account.seconds())

    def validation(policy: Policy, env_steps: int, key: Key[Array, ""]) -> Mapping[str, float]:
        del key
        score = now.ask(policy, stream=100 + len(curve), target=wanted).trials[-1]
        curve.append((env_steps, score))
        return {"validation/score": score.value, "validation/low": score.low, "validation/high": score.high}

    def watch(progress: Progress) -> None:
        book(progress.env_steps)
        now.show(name, progress)

    tasks = Uniform(draw, agent.needs.batch)
    engine = OnPolicy(agent, Solo(now.task.env), tasks, lambda share: pool)
    trained = train(engine, now.key, plan(budget, now), run=now.run, state=state, evaluate=validation, show=watch,
                    stop=enough, note=lambda: {"account": now.account.env_steps}, tag=name)  # fmt: skip
    book(trained.env_steps)
    verdict: Verdict = "interrupted" if trained.status == "interrupted" else judge(curve, wanted)
    policy = agent.policy(trained.state)
    score = curve[-1][1] if curve else Interval(0.0, 0.0, 1.0)
    if not curve and verdict != "interrupted":  # whoever interrupts does not wait for an evaluation
        score = now.ask(policy, stream=99).trials[-1]
    return Attempt(name, agent, trained.state, policy, score, verdict, parents, trained.env_steps, curve)


def picked_up(now: Situation[Worded], name: str, budget: Budget) -> tuple[Budget, int, list[dict[str, Any]]]:
    """Where an earlier sitting of this practice stood: the budget counted from its beginning, its steps, its curves.

    Another strategy's checkpoints are dropped. The account is set back to what it was then: steps that a crash cut off
    are done again, and count once.
    """
    saved = now.run.latest_checkpoint()
    if saved is None:
        return budget, 0, []
    step, _, meta = saved
    if meta["tag"] != name:
        now.run.drop_checkpoints()
        return budget, 0, []
    now.account.env_steps = int(meta.get("account", now.account.env_steps))
    rows = [row for row in now.run.metrics() if row.get("tag") == name and row["env_steps"] <= step]
    return extended(budget, float(meta["wall_s"]), step), step, rows


def granted(budget: Budget, run: Run, account: Account, name: str, booked: int, *, is_over: bool) -> Budget:
    """The budget of this practice, or of the one that a crash cut off, as it was written down when it began.

    A practice that had ended when the crash came is not gone on with: its budget is what it has taken.
    """
    events = run.decisions()
    cut_off = [event for event in events[last_proof(events) :] if event.get("granted") == name]
    ended = [event for event in events[last_proof(events) :] if event.get("outcome") == name]
    if cut_off and (is_over or (ended and ended[-1]["verdict"] != "interrupted")):
        return replace(budget, env_steps=max(booked, 1))
    if cut_off and cut_off[-1]["until"] is not None:
        return replace(budget, env_steps=int(cut_off[-1]["until"]))
    run.decide(granted=name, until=budget.env_steps, env_steps=account.env_steps)
    return budget


def last_proof(events: Sequence[Mapping[str, Any]]) -> int:
    """The place after the last proof in a journal."""
    return max((i + 1 for i, event in enumerate(events) if "proved" in event), default=0)


def reserved(budget: Budget, now: Situation[Worded]) -> Budget:
    """What is left of a budget in steps for practice itself, once evaluations and a proof are paid."""
    if budget.env_steps is None:
        return budget
    proof = now.task.practice.steps(now.task.trials, PRACTICE_REPETITIONS)
    return replace(budget, env_steps=max(int((budget.env_steps - proof) * (1 - RESERVED)), 1))


def plan(budget: Budget, now: Situation[Worded]) -> Plan:
    """Short pieces with an evaluation after some of them."""
    short = now.task.practice.first(SHORT_TASKS).steps(now.task.trials, 1)
    return Plan(
        budget, chunk_updates=4, checkpoint_seconds=30.0, evaluate_steps=int(short * (1 / EVALUATION_SHARE - 1))
    )


def kept_curve(metrics: Sequence[Mapping[str, Any]], name: str, until: int) -> list[tuple[int, Interval]]:
    """The evaluations of an earlier sitting of this practice, up to the checkpoint it goes on from."""
    return [
        (row["env_steps"], Interval(row["validation/score"], row["validation/low"], row["validation/high"]))
        for row in metrics
        if row.get("tag") == name and "validation/score" in row and row["env_steps"] <= until
    ]


def extended(budget: Budget, seconds: float, env_steps: int) -> Budget:
    """What is left, counted from the beginning of a training that has spent this much."""
    return Budget(
        seconds=None if budget.seconds is None else budget.seconds + seconds,
        env_steps=None if budget.env_steps is None else budget.env_steps + env_steps,
    )
