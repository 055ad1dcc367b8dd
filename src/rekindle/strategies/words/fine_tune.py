"""Fine-tune: go on from the best prior, on the goal and its neighbours, so that what it knows stays general."""

import jax

from rekindle.agents.registry import config_from_json, config_to_json, make_agent
from rekindle.strategies.base import Attempt, Estimate, Situation
from rekindle.strategies.words.practice import practise
from rekindle.strategies.words.task import Worded

name = "fine-tune"
NEIGHBOURS = 0.5
"""Share of practice tasks that are neighbours of the goal."""
SETTINGS = {"learning_rate": 5e-4, "entropy_weight": 0.01, "num_envs": 64, "rollout_length": 64, "epochs": 2}
"""What differs from how the prior was trained: smaller steps, less noise, smaller and more frequent updates."""


def estimate(now: Situation[Worded]) -> Estimate | None:
    """Applies to any prior that can go on learning; the better it is already, the less it takes."""
    if not now.priors:
        return None
    best = now.priors[0]
    score = best.last.value if best.last is not None else float(best.card["score"])
    missing = max(now.target - score, 0.02)
    steps = int(2e5 + 2e6 * missing)
    return Estimate(30.0 + steps / 1e4, steps, min(score + 0.3, 0.95), f"{best.id} starts at {score:.2f}")


def carry_out(now: Situation[Worded]) -> Attempt:
    """Train from its weights with a fresh optimiser."""
    best = now.priors[0]
    config = config_from_json(best.own.agent.name, {**config_to_json(best.own.agent.config), **SETTINGS})
    agent = make_agent(best.own.agent.name, config)
    state = best.own.state_for(agent, jax.random.fold_in(now.key, 7))
    return practise(now, agent, state, name=name, neighbours=NEIGHBOURS, budget=now.account.left(),
                    parents=(best.parent("init"),), give_up=True)  # fmt: skip
