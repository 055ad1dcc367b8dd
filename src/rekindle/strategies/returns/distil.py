"""Distil: a fresh student learns from the best prior, whatever that is, and is weaned (QDagger).

Agarwal et al. 2022 (2206.01626), section 4.1.
"""

from rekindle.strategies.base import Attempt, Estimate, Recalled, Situation
from rekindle.strategies.returns.practice import (
    LEAST_STEPS,
    affordable,
    bought,
    experience,
    is_begun,
    is_teacher,
    missing_steps,
    practise,
    reached,
    share_with_teacher,
)
from rekindle.strategies.returns.task import Returned
from rekindle.train.order import as_student

name = "distil"
OF_TEACHER = 0.1
"""A student's steps, as a share of those that its teacher was trained for (published: a fortieth)."""
WORK = 3.0
"""Wall time of an online step with its share of the updates offline and of the steps that the teacher plays."""


def teacher(now: Situation[Returned]) -> Recalled | None:
    """Who teaches."""
    return next((one for one in now.priors if is_teacher(one, now)), None)


def steps(now: Situation[Returned], best: Recalled) -> int:
    """As many as it may have, at most those that it should take."""
    wanted = max(int(OF_TEACHER * experience(best, now)) + missing_steps(best, now), LEAST_STEPS)
    return min(wanted, affordable(now, work=WORK, plays=2, length=best.length))


def estimate(now: Situation[Returned]) -> Estimate | None:
    """Applies to any teacher that is better than random, if the budget is not too small."""
    best = teacher(now)
    if best is None or ((planned := steps(now, best)) < LEAST_STEPS and not is_begun(now, name)):
        return None
    costs = now.task.costs
    return Estimate(costs.seconds(WORK * planned), planned, reached(best),
                    f"{best.id} teaches {reached(best):.2f}; {planned:,} steps {costs.rate}")  # fmt: skip


def carry_out(now: Situation[Returned]) -> Attempt:
    """Reincarnate it in a fresh student."""
    best = teacher(now)
    assert best is not None
    planned = max(steps(now, best), LEAST_STEPS)
    settings = now.task.order.settings | as_student(planned, kind=now.task.student.needs.kind)
    order = bought(now.task.order, planned, settings=settings, teacher=best.id, method="qdagger")
    parents = () if best.loaded is None else (best.parent("teacher"),)
    return practise(now, name, order, share=share_with_teacher(now), parents=parents, give_up=False)
