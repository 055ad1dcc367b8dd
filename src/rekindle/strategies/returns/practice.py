"""What the strategies that train share: a run of its own for every practice, followed until it is enough.

That run resumes exactly, is in the library, and knows its teacher; the job's journal says which it is, and what had
been spent before it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
from jaxtyping import Array, Key

from rekindle.agents.registry import load
from rekindle.core.budget import Budget
from rekindle.core.stats import Interval, bootstrap
from rekindle.core.types import Policy
from rekindle.library.manifest import Parent
from rekindle.library.run import Run
from rekindle.library.run import reached as reached_at
from rekindle.strategies.base import Attempt, Recalled, Situation, Verdict, judge
from rekindle.strategies.returns.costs import START_S, usual_steps
from rekindle.strategies.returns.task import PRACTICE_EPISODES, PROOF_EPISODES, Returned
from rekindle.train import session
from rekindle.train.order import Order, episodes_of

EVALUATION_SHARE = 0.08
"""Evaluations take at most this share of the steps of practice from scratch."""
SECOND_MARGIN = 0.02
"""After a failed proof validation has to lie above the target by this share of the way from random to it."""
SHARE = 0.5
"""Of what is left of the budget, for a practice with a teacher before the next strategy has its turn."""
LEAST_STEPS = 10_000
"""Of a practice with a teacher."""
EVALUATIONS = 20
"""Of a practice with a teacher, at most; the marks of the two take eight times as many episodes as one of them."""
EVALUATION_STEPS = 2_000
"""Environment steps after which it is looked whether an evaluation is due."""
Curve = list[tuple[int, Interval]]


def practise(
    now: Situation[Returned], name: str, order: Order, *, share: float, parents: tuple[Parent, ...], give_up: bool
) -> Attempt:
    """Carry out an order in a run of its own, or go on with it.

    Stops when validation's interval lies above the target (by a margin, if a proof failed before), when its share of
    what is left of the seconds is used up, or, with `give_up`, when the curve has stalled or diverged.
    """
    task, again = now.task, now.ongoing is not None and now.ongoing.strategy == name
    wanted = task.target + (SECOND_MARGIN * (task.target - task.at_random.score.value) if again else 0.0)
    run, before, until_s = child(now, name, order, share)
    curve = curve_of(run)
    known = len(curve)

    def enough(values: Mapping[str, Any]) -> bool:
        if "score/low" in values:
            curve.append((0, evaluation_in(values)))
        if "score/low" in values and curve[-1][1].low >= wanted:
            return True
        out_of_time = now.account.budget.seconds is not None and now.account.seconds() >= until_s
        return out_of_time or (give_up and "score/low" in values and is_hopeless(curve, task))

    if run.manifest.status != "done" or again:
        trained = session.carry_out(run, now.library, show=lambda progress: now.show(name, progress),
                                    evaluate=validation(task, run), evaluate_steps=EVALUATION_STEPS,
                                    stop=enough)  # fmt: skip
        interrupted = trained.status == "interrupted"
    else:
        interrupted = False
    now.account.env_steps = before + cost(run)
    curve, further = curve_of(run), len(curve) > known or not again
    loaded = load(run.path / "policy", env_spec=task.spec)
    steps = run.manifest.env_steps
    if not interrupted and (not curve or curve[-1][0] < steps):  # it went on after its last evaluation
        curve = [*curve, (steps, now.ask(loaded.policy, stream=99).trials[-1])]
    score = curve[-1][1] if curve else task.at_random.score
    verdict: Verdict = "spent"
    if interrupted:
        verdict = "interrupted"
    elif score.low >= wanted and further:
        verdict = "mastered"
    elif give_up and is_hopeless(curve, task):
        verdict = judge(scaled(curve, task), 1.0)
    made_of = Parent(id=run.id, role="policy", sha256=loaded.artefact.meta.weights.sha256)
    state = loaded.state_for(loaded.agent, jax.random.fold_in(now.key, 8))
    return Attempt(name, loaded.agent, state, loaded.policy, score, verdict, (*parents, made_of),
                   steps, curve)  # fmt: skip


def child(now: Situation[Returned], name: str, order: Order, share: float) -> tuple[Run, int, float]:
    """The run of this practice, the account without it, and the second of the job at which it ends.

    A practice that was cut off, or whose proof failed, is gone on with.
    """
    events = now.run.decisions()
    mine = [(i, event) for i, event in enumerate(events) if event.get("practice") == name]
    last = max((i for i, event in enumerate(events) if "proved" in event), default=-1)
    if mine and mine[-1][0] > last:
        event = mine[-1][1]
        run = Run.open(now.library, event["child"])
        sitting = run.manifest.wall_s - float(event["child_s"])
        now.account.before_s = max(now.account.before_s, float(event["at_s"]) + sitting)
        return run, int(event["env_steps"]), float(event["until_s"])
    left = now.account.left(share).seconds or 0.0
    at_s = now.account.seconds()
    if mine:
        run = Run.open(now.library, mine[-1][1]["child"])
        before = now.account.env_steps - cost(run)
    else:
        run = session.begin(order, now.library, name=f"{name}-{order.env.split('/')[1]}", seed=now.task.seed)
        before = now.account.env_steps
    now.run.decide(practice=name, child=run.id, at_s=at_s, until_s=at_s + left, child_s=run.manifest.wall_s,
                   env_steps=before)  # fmt: skip
    return run, before, at_s + left


def is_begun(now: Situation[Returned], name: str) -> bool:
    """Whether there is a practice to go on with, whatever a new one would need."""
    return any(event.get("practice") == name for event in now.run.decisions())


def validation(task: Returned, run: Run) -> session.Evaluation:
    """Whole episodes now and then: the next ones when practice has earned them."""
    due = 0.0
    for row in kept_rows(run):
        if "score/env_steps" in row:
            due = float(row["env_steps"]) + float(row["score/env_steps"]) / EVALUATION_SHARE

    def evaluate(policy: Policy, env_steps: int, key: Key[Array, ""]) -> dict[str, float]:
        nonlocal due
        if env_steps < due:
            return {}
        played = task.play(policy, key, PRACTICE_EPISODES)
        score, steps = bootstrap(played.returns[None]), played.env_steps
        due = env_steps + steps / EVALUATION_SHARE
        return {"score/return": score.value, "score/low": score.low, "score/high": score.high, "score/env_steps": steps}

    return evaluate


def evaluation_in(values: Mapping[str, Any]) -> Interval:
    """The evaluation in a row of metrics."""
    return Interval(*(float(values[f"score/{name}"]) for name in ("return", "low", "high")))


def curve_of(run: Run) -> Curve:
    """The evaluations of a practice."""
    return [(int(row["env_steps"]), evaluation_in(row)) for row in kept_rows(run) if "score/low" in row]


def kept_rows(run: Run) -> list[dict[str, Any]]:
    """Its curves up to the checkpoint that it would go on from: what a crash cut off comes again."""
    saved = run.latest_checkpoint()
    if saved is None:
        return run.metrics() if run.manifest.status == "done" else []
    return [row for row in run.metrics() if reached_at(row) <= saved[0]]


def scaled(curve: Curve, task: Returned) -> Curve:
    """On the scale where 0 is acting at random and 1 the target."""
    return [(steps, Interval(*map(task.normalised, score))) for steps, score in curve]


def is_hopeless(curve: Curve, task: Returned) -> bool:
    """Whether it has stalled or diverged."""
    return judge(scaled(curve, task), 1.0) in ("stalled", "diverged")


def cost(run: Run) -> int:
    """Environment steps of a practice: those learnt from, its evaluations, and what a teacher played for it."""
    return run.manifest.env_steps + sum(int(row.get("score/env_steps", 0)) for row in kept_rows(run))


def is_teacher(prior: Recalled, now: Situation[Returned]) -> bool:
    """Whether there is anything to be learnt from it: it is better than acting at random, beyond doubt."""
    low = float(prior.card["score_low"]) if prior.last is None else prior.last.low
    return low > now.task.at_random.score.high


def reached(prior: Recalled) -> float:
    """Its score."""
    return float(prior.card["score"]) if prior.last is None else prior.last.value


def experience(prior: Recalled, now: Situation[Returned]) -> int:
    """Environment steps that went into it; the usual, if that is not known."""
    if prior.loaded is None:
        return usual_steps(now.task.order.agent)
    return now.library.find(prior.id).manifest.env_steps or usual_steps(now.task.order.agent)


def missing_steps(prior: Recalled, now: Situation[Returned]) -> int:
    """What it would take to go on to the target at the pace at which a prior came so far."""
    share = min(max(now.task.normalised(reached(prior)), 0.02), 1.0)
    return int(experience(prior, now) * (1.0 - share) / share)


def share_with_teacher(now: Situation[Returned]) -> float:
    """Of the rest of the budget, for a practice with a teacher: half, or all where none from scratch would fit in."""
    left, found = now.account.left(), now.task.costs
    fits = left.seconds is None or found.seconds(found.scratch_steps) <= left.seconds
    return SHARE if fits and (left.env_steps is None or found.scratch_steps <= left.env_steps) else 1.0


def affordable(now: Situation[Returned], *, work: float, plays: int, length: float) -> int:
    """Online steps of a practice with a teacher for which its share of the budget is enough; at most.

    Args:
        now: the situation.
        work: wall time of an online step with all that comes with it, in those of a step from scratch.
        plays: environment steps that come with an online step, itself included.
        length: environment steps of an episode.
    """
    left, most = now.account.left(share_with_teacher(now)), [10**9]
    if left.seconds is not None:
        most.append(int((left.seconds - START_S) * now.task.costs.steps_per_s / work))
    if left.env_steps is not None:
        played = (EVALUATIONS + 8) * episodes_of(now.task.made) + PROOF_EPISODES[0]
        most.append(int((left.env_steps - played * length) / plays))
    return min(most)


def bought(order: Order, steps: int, **changes: Any) -> Order:
    """The same order with a budget of so many steps."""
    return replace(order, budget=str(Budget(env_steps=steps)), **changes)
