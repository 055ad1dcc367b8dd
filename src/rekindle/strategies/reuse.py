"""Reuse: a prior that already masters the goal, as it is. Costs seconds; the proof is all there is to do."""

from typing import Any

from rekindle.core.stats import Interval
from rekindle.strategies.base import Attempt, Estimate, Situation

name = "reuse"


def estimate(now: Situation[Any]) -> Estimate | None:
    """Applies if a prior was kept for this very goal, or does it at the first trial without adapting."""
    when = "as it is" if now.task.trials == 1 else "in the first trial, before it knows anything"
    for prior in now.priors[:1]:
        if prior.loaded is None:
            return None
        if prior.answered:
            return Estimate(3.0, 0, float(prior.card["score"]), f"{prior.id} was kept as the answer to this very goal")
        if prior.first is not None and prior.first.low >= now.target:
            return Estimate(3.0, 0, prior.first.value, f"{prior.id} reaches {prior.first.value:.2f} {when}")
    return None


def carry_out(now: Situation[Any]) -> Attempt:
    """Nothing to train; its score is what recall measured, or what its first proof did."""
    prior = now.priors[0]
    score = prior.last
    if score is None:
        score = Interval(*(float(prior.card[name]) for name in ("score", "score_low", "score_high")))
    verdict = "mastered" if score.low >= now.target else "converged"
    return Attempt(name, prior.own.agent, None, prior.policy, score, verdict, (prior.parent("policy"),), 0, [])
