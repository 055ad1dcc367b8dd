"""Draw the chains of the study: `python -m benchmarks.compounding.draw` prints the six that goals.py lists.

Candidates come from the project's own sampler, seed 0: F0's relations and room, two rules between the objects and the
goal (F0 has at most one), nothing else. In order of drawing, those are kept that the planner can reach, of which a
no-op or random player stays below 0.2 of its reward, and of which the shipped agent stays below half the target as it
is: a goal that is all but mastered before anything is kept says nothing about keeping.
"""

import sys
from dataclasses import replace

import jax
import numpy as np

from benchmarks import training
from benchmarks.compounding.goals import IDLE_BAR, Asked
from rekindle.core.errors import GoalError
from rekindle.envs.xland import goals as tasks
from rekindle.envs.xland.games import F0, sample_game
from rekindle.envs.xland.level import NOOP
from rekindle.envs.xland.text import print_goal, print_rule
from rekindle.evaluate.evaluation_set import evaluate, make_evaluation_set
from rekindle.evaluate.policies import ConstantPolicy, RandomPolicy
from rekindle.verbs import load

CHAINS = replace(F0, chain=(2, 2), dead_ends=(0, 0), distractors=(0, 0), hidden="none")
COUNT, AGENT_BAR = 6, 0.4


def main() -> None:
    """Draw, check and print."""
    training.library()
    rng, agent, kept = np.random.default_rng(0), load("shipped/foundation"), []
    while len(kept) < COUNT:
        game = sample_game(rng, CHAINS).game
        rules = [print_rule(np.asarray(rule)) for rule in np.asarray(game.rules) if rule[1]]
        asked = Asked(print_goal(np.asarray(game.goal)), tuple(rules))
        verdict = judge(asked, agent)
        print(f"{asked}: {verdict or 'kept'}", file=sys.stderr, flush=True)
        if not verdict:
            kept.append(asked)
    print("\n".join(map(repr, kept)))


def judge(asked: Asked, agent: object) -> str:
    """Why a candidate is left out; empty if it is kept."""
    goal = tasks.parse(asked.goal, asked.rules)
    try:
        held_out = make_evaluation_set(tasks.env_of(goal), tasks.pool(goal, split="test", seed=0, worlds=64), tasks=64)
    except GoalError:
        return "the planner reaches it in no world"
    players = {"a no-op": ConstantPolicy(NOOP), "a random player": RandomPolicy(7)}
    for name, player in players.items():
        score = evaluate(held_out, player, jax.random.key(0), trials=1, repetitions=4).last
        if score.value >= IDLE_BAR:
            return f"{name} reaches {score.value:.2f}"
    score = evaluate(held_out, agent.policy, jax.random.key(0), trials=1, repetitions=4).last
    return f"the shipped agent reaches {score.value:.2f} as it is" if score.value >= AGENT_BAR else ""


if __name__ == "__main__":
    main()
