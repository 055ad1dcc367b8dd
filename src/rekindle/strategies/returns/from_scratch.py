"""From scratch: a fresh student, the environment alone. The yardstick, and the last resort."""

import math
from dataclasses import replace

from rekindle.core.budget import Budget
from rekindle.strategies.base import Attempt, Estimate, Situation
from rekindle.strategies.returns.costs import START_S
from rekindle.strategies.returns.practice import practise
from rekindle.strategies.returns.task import PROOF_EPISODES, Returned

name = "from scratch"
WARMUP_SHARE, LEAST_WARMUP = 0.2, 500
"""Of the steps that a budget allows, before MR.Q learns from them; and how few they are at least."""
RESERVED = 0.1
"""Share of a budget in steps that is kept for evaluations."""


def estimate(now: Situation[Returned]) -> Estimate | None:
    """Always applies."""
    found = now.task.costs
    reason = f"needs no prior; {found.scratch_steps:,} steps, {found.steps_from}, {found.rate}"
    return Estimate(found.seconds(found.scratch_steps), found.scratch_steps, now.target, reason)


def begins_early(now: Situation[Returned], budget: Budget) -> dict[str, int]:
    """A student that needs few steps does not spend most of them before it learns anything."""
    warmup = now.task.student.needs.warmup
    if now.task.student.needs.kind != "sequence":
        return {}
    by_time = budget.seconds * now.task.costs.steps_per_s if budget.seconds is not None else math.inf
    steps = min(by_time, math.inf if budget.env_steps is None else budget.env_steps)
    return {"warmup": int(min(warmup, max(steps * WARMUP_SHARE, LEAST_WARMUP)))}


def carry_out(now: Situation[Returned]) -> Attempt:
    """Train with all that is left of the budget, but for the proof."""
    left = now.account.left()
    proof = PROOF_EPISODES[0] * now.task.at_random.length
    needs = now.task.student.needs
    least = 2 * (LEAST_WARMUP if needs.kind == "sequence" else needs.warmup) + 1
    budget = Budget(
        seconds=None if left.seconds is None else max(round(left.seconds - START_S / 3, 1), 1.0),
        env_steps=None if left.env_steps is None else max(int((left.env_steps - proof) * (1 - RESERVED)), least),
    )
    order = replace(now.task.order, budget=str(budget), settings=now.task.order.settings | begins_early(now, budget))
    return practise(now, name, order, share=1.0, parents=(), give_up=False)
