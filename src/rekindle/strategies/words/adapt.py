"""Adapt in context: a prior explores in the first trials and has it by the last one; no gradient (AdA, RL^2)."""

from rekindle.strategies.base import Attempt, Estimate, Situation
from rekindle.strategies.words.task import Worded

name = "adapt"


def estimate(now: Situation[Worded]) -> Estimate | None:
    """Applies if there are trials to adapt in and the best prior's last trial may reach the target."""
    if now.task.trials == 1 or not now.priors:
        return None
    best = now.priors[0]
    if best.last is None or best.last.high < now.target:
        return None
    gain = "" if best.first is None else f", from {best.first.value:.2f} in the first"
    return Estimate(
        3.0, 0, best.last.value, f"{best.id} reaches {best.last.value:.2f} in trial {now.task.trials}{gain}"
    )


def carry_out(now: Situation[Worded]) -> Attempt:
    """Nothing to train: the memory does it within the episode."""
    best = now.priors[0]
    score = best.last or now.ask(best.policy, stream=1).trials[-1]
    verdict = "mastered" if score.low >= now.target else "converged"
    return Attempt(name, best.own.agent, None, best.policy, score, verdict, (best.parent("policy"),), 0, [])
