"""Fine-tune: the best prior that learns from a replay goes on, with its own network and a smaller step.

Agarwal et al. 2022 (2206.01626), section 3.
"""

from rekindle.agents.registry import config_to_json
from rekindle.library.dataset import FOLDER
from rekindle.strategies.base import Attempt, Estimate, Recalled, Situation
from rekindle.strategies.returns.practice import (
    LEAST_STEPS,
    affordable,
    bought,
    is_begun,
    is_teacher,
    missing_steps,
    practise,
    reached,
    share_with_teacher,
)
from rekindle.strategies.returns.task import Returned

name = "fine-tune"


def prior(now: Situation[Returned]) -> Recalled | None:
    """Which goes on."""
    able = (one for one in now.priors if one.loaded is not None and one.own.agent.needs.kind == "transition")
    return next((one for one in able if is_teacher(one, now)), None)


def steps(now: Situation[Returned], best: Recalled) -> int:
    """As many as it may have, at most those that it should take."""
    wanted = max(missing_steps(best, now), LEAST_STEPS)
    return min(wanted, affordable(now, work=1.0, plays=2, length=best.length))


def estimate(now: Situation[Returned]) -> Estimate | None:
    """Applies to a prior that learns from a replay and is better than random, if the budget is not too small."""
    best = prior(now)
    if best is None or ((planned := steps(now, best)) < LEAST_STEPS and not is_begun(now, name)):
        return None
    costs = now.task.costs
    return Estimate(costs.seconds(planned), planned, max(reached(best), now.target),
                    f"{best.id} starts at {reached(best):.2f}; {planned:,} steps {costs.rate}")  # fmt: skip


def carry_out(now: Situation[Returned]) -> Attempt:
    """Reincarnate it in itself."""
    best = prior(now)
    assert best is not None
    agent = best.own.agent
    keeps = (now.library.find(best.id).path / FOLDER).is_dir()
    order = bought(now.task.order, max(steps(now, best), LEAST_STEPS), agent=agent.name,
                   settings=config_to_json(agent.config), teacher=best.id, method="fine-tuning",
                   method_settings={"keeps_replay": keeps})  # fmt: skip
    return practise(now, name, order, share=share_with_teacher(now), parents=(best.parent("teacher"),), give_up=True)
