"""From scratch: fresh weights, the goal alone. The yardstick, and the last resort."""

from rekindle.agents.ppo import ppo
from rekindle.agents.registry import make_agent
from rekindle.strategies.base import Attempt, Estimate, Situation
from rekindle.strategies.words.practice import practise
from rekindle.strategies.words.task import Worded

name = "from scratch"
CONFIG = ppo.Config(num_envs=32, rollout_length=64, entropy_weight=0.03, width=64, hidden=64)
"""The best of those tried on two goals outside the benchmark's twelve; see docs/results/compounding.md."""


def estimate(now: Situation[Worded]) -> Estimate | None:
    """Always applies."""
    steps = 1_500_000 if len(now.task.goal.rules) == 0 else 4_000_000
    return Estimate(30.0 + steps / 1.5e4, steps, 0.85, "needs no prior")


def carry_out(now: Situation[Worded]) -> Attempt:
    """Train on the goal's own worlds with all that is left of the budget."""
    agent = make_agent("ppo", CONFIG)
    return practise(now, agent, None, name=name, neighbours=0.0, budget=now.account.left(), parents=(), give_up=False)
