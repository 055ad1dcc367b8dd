"""Reuse: a prior that already masters the goal, as it is. Costs seconds; the proof is all there is to do."""

from rekindle.strategies.base import Attempt, Estimate, Situation

name = "reuse"


def estimate(now: Situation) -> Estimate | None:
    """Applies if a prior was kept for this very goal, or does it at the first trial without adapting."""
    for prior in now.priors[:1]:
        if prior.answered:
            return Estimate(3.0, 0, float(prior.card["score"]), f"{prior.id} was kept as the answer to this very goal")
        if prior.first is not None and prior.first.low >= now.target:
            return Estimate(3.0, 0, prior.first.value, f"{prior.id} reaches {prior.first.value:.2f} as it is")
    return None


def carry_out(now: Situation) -> Attempt:
    """Nothing to train; its practice score is what recall measured."""
    prior = now.priors[0]
    score = prior.last or now.ask(prior.loaded.policy, stream=1)
    return Attempt(name, prior.loaded.agent, None, prior.loaded.policy, score, "mastered", (prior.id,), 0, [])
