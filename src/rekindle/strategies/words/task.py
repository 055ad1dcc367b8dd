"""A goal in words, measured by the planner: worlds for practice and, apart, for proof, and evaluations in them."""

import heapq
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from rekindle.agents.registry import incompatible, load
from rekindle.core.types import EnvSpec, given
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import goals, planner, pools
from rekindle.envs.xland.goals import Goal
from rekindle.evaluate.evaluation_set import EvaluationSet, Result, evaluate, make_evaluation_set
from rekindle.library.library import Library
from rekindle.library.records import Prior
from rekindle.strategies.base import Asked, Attempt, Proof, Recalled, Say, Situation, named, proved

PRACTICE_TASKS, PROOF_TASKS = 128, 128
"""Tasks of the evaluation sets, less what the planner leaves out. Scores differ more by task than by episode."""
MIN_PROOF_EPISODES = 256
PRACTICE_REPETITIONS = 2
"""Episodes per task of validation."""
SHORT_TASKS = 32
"""Tasks of a short evaluation, with one episode each."""
MOST_RECALLED = 6
"""Priors that are asked to show what they can do."""


class Played(NamedTuple):
    """The proof: what was played, and what came of it."""

    held_out: EvaluationSet
    result: Result


@dataclass(frozen=True, eq=False)
class Worded:
    """A goal in XLand's words. A score is the last trial's reward over the planner's best."""

    goal: Goal
    target: float
    seed: int
    planned: Path
    """Where the planner keeps what it found."""
    validation: EvaluationSet | None = None
    """What practice is validated on, once it is made."""

    @property
    def words(self) -> str:
        """The key under which answers are kept."""
        return self.goal.words

    @property
    def text(self) -> str:
        """The goal without its rules."""
        return self.goal.text

    @property
    def unit(self) -> str:
        """The planner's best is 1."""
        return "of the planner's best"

    @property
    def env_id(self) -> str:
        """Of every goal in words."""
        return "xland/goal-v1"

    @cached_property
    def env(self) -> Trials:
        """Its worlds, in trials."""
        return goals.env_of(self.goal)

    @property
    def spec(self) -> EnvSpec:
        """What is seen and done in them."""
        return self.env.spec

    @property
    def trials(self) -> int:
        """Of an episode, k."""
        return self.goal.trials

    @property
    def practice(self) -> EvaluationSet:
        """What practice is validated on."""
        return given(self.validation)

    def is_priced(self, now: Situation[Any]) -> bool:
        """It is known how fast the world is."""
        del now
        return True

    @property
    def caveat(self) -> str:
        """Small maps share starts."""
        small = "the map is too small to keep the worlds of practice and proof apart"
        return "" if goals.can_hold_out(self.goal) else small

    def pool(self, *, neighbours: float, worlds: int) -> pools.TaskPool:
        """Practice tasks; never those of the proof."""
        return goals.pool(self.goal, split="train", seed=self.seed, worlds=worlds, neighbours=neighbours)

    def impossible(self) -> str:
        """Whether the planner finds no way in any of a few worlds without distractors, and why."""
        reason = ""
        pool = goals.pool(self.goal, split="train", seed=self.seed, worlds=4, distractors=False)
        for plan in planner.plan_many(goals.world_of(self.goal), pool, cache=self.planned):
            if plan.solvable or not plan.exact:
                return ""
            reason = plan.reason
        return reason

    def nominate(self, library: Library, source: str | None) -> list[Prior]:
        """Everything that sees and does the same, whatever it was trained for."""
        if source is not None:
            prior = named(source, library)
            load(prior.path, env_spec=self.spec)
            return [prior]
        return library.priors(lambda made_for: not incompatible(EnvSpec.from_json(made_for), self.spec))

    def likeliest(self, priors: list[Prior]) -> list[Prior]:
        """Foundation agents, then the nearest goals, then the newest."""
        words = set(self.words.replace(";", " ").split())

        @cache
        def shared(asked: str) -> int:
            return len(set(asked.replace(";", " ").split()) & words)

        return heapq.nlargest(MOST_RECALLED, priors, key=lambda p: (p.is_foundation, shared(p.goal), p.begun))

    def is_answer(self, prior: Prior) -> bool:
        """Whether it was kept for the same words, and proved."""
        return prior.goal == self.words and proved(prior.card, self.target)

    def prepared(self, now: Situation[Any], say: Say) -> "Worded":
        """With its validation set."""
        del now
        say("plan", "the best possible reward in the practice worlds")
        pool = self.pool(neighbours=0.0, worlds=PRACTICE_TASKS + 16)
        return replace(self, validation=make_evaluation_set(self.env, pool, tasks=PRACTICE_TASKS, cache=self.planned))

    def guests(self, now: Situation[Any], say: Say) -> list[Recalled]:
        """None."""
        del now, say
        return []

    def ask(self, policy: Any, key: Key[Array, ""], target: float) -> Asked:
        """A few tasks are enough for what passes or fails them clearly; else all of them are played."""
        held_out = self.practice.first(SHORT_TASKS)
        result = evaluate(held_out, policy, jax.random.fold_in(key, 0), trials=self.trials, repetitions=1)
        trials, env_steps, episodes = result.by_trial(), result.env_steps, len(held_out.optimum)
        if trials[-1].low < target <= trials[-1].high:
            result = evaluate(self.practice, policy, jax.random.fold_in(key, 1), trials=self.trials,
                         repetitions=PRACTICE_REPETITIONS)  # fmt: skip
            trials, env_steps = result.by_trial(), env_steps + result.env_steps
            episodes += len(self.practice.optimum) * PRACTICE_REPETITIONS
        return Asked(trials, env_steps, episodes)

    def prove(self, attempt: Attempt, number: int, key: Key[Array, ""]) -> Proof:
        """Worlds of the other side."""
        pool = goals.pool(self.goal, split="test", seed=self.seed + 1000 * number, worlds=PROOF_TASKS + 16)
        held_out = make_evaluation_set(self.env, pool, tasks=PROOF_TASKS, cache=self.planned)
        repetitions = -(-MIN_PROOF_EPISODES // len(held_out.optimum))
        result = evaluate(held_out, attempt.policy, key, trials=self.trials, repetitions=repetitions)
        episodes = int(np.prod(result.scores.shape[:2]))
        return Proof(result.last, episodes, result.env_steps, Played(held_out, result))

    def card(self, proof: Proof) -> dict[str, Any]:
        """What the score is normalised by."""
        del proof
        return {"normaliser": "planner"}
