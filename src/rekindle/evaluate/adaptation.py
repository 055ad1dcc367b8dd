"""Adaptation curves: what k trials are worth on held-out tasks, beside everything a score must stand beside.

AdA's protocol (Adaptive Agents Team 2023, section 4): the last trial of an episode of k trials, for several k; several
repetitions per task, averaged before percentiles are taken over tasks. The normaliser is the planner's optimum.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from rekindle.core.spaces import Discrete
from rekindle.envs.xland.level import NOOP
from rekindle.evaluate.evaluation_set import EvaluationSet
from rekindle.evaluate.policies import ConstantPolicy, ForgetfulPolicy, RandomPolicy
from rekindle.evaluate.rollout import trial_rewards
from rekindle.evaluate.scores import Kind, Normaliser, ScoreRecord, Summary, summarise

AGENT, GREEDY, FORGETFUL = "agent", "agent, greedy", "memory reset per trial"
RANDOM, NO_OP, PLANNER = "random", "no-op", "planner"


class Adaptation(NamedTuple):
    """Records by policy and number of trials, and what they took."""

    records: dict[tuple[str, int], ScoreRecord]
    env_steps: int

    def summaries(self) -> list[Summary]:
        """One row per policy and number of trials."""
        return [summarise(policy, [record]) for (policy, _), record in self.records.items()]


def adapt_curve(
    held_out: EvaluationSet,
    policy: Any,
    key: Key[Array, ""],
    *,
    trials: Sequence[int],
    repetitions: int,
    kind: Kind,
    progress: Callable[[str, int], None] | None = None,
    kept: Mapping[tuple[str, int], np.ndarray] | None = None,
    keep: Callable[[dict[tuple[str, int], np.ndarray]], None] | None = None,
    greedy: bool = True,
) -> Adaptation:
    """Play a set with every number of trials, actions sampled and (unless `greedy` is off) greedy, beside baselines.

    Rewards that are in `kept`, by policy and number of trials, are not played again; `keep` is given all there are
    after each. Random and no-op do not depend on k and are run with one trial; the planner is 1 by definition and is
    run as the values it is.
    """
    assert isinstance(held_out.env.spec.action, Discrete)
    actions = held_out.env.spec.action.n
    runs: list[tuple[str, Any, int]] = [(AGENT, policy, k) for k in trials]
    runs += [(GREEDY, policy, k) for k in trials]
    runs += [(FORGETFUL, ForgetfulPolicy(policy, actions), k) for k in trials]
    runs += [(RANDOM, RandomPolicy(actions), 1), (NO_OP, ConstantPolicy(NOOP), 1)]
    normaliser = Normaliser(np.zeros_like(held_out.optimum), held_out.optimum, "planner")
    played = dict(kept or {})
    steps = 0
    for number, (name, who, k) in enumerate(runs):
        if name == GREEDY and not greedy:
            continue
        if (name, k) not in played:
            if progress:
                progress(name, k)
            stream = jax.random.fold_in(key, number)
            played[name, k] = trial_rewards(held_out.env, who, held_out.tasks, stream, trials=k,
                                            repetitions=repetitions, explore=name != GREEDY,
                                            most_trials=max(trials))  # fmt: skip
            if keep:
                keep(played)
        steps += int(held_out.tasks.trial_length.astype(np.int64).sum()) * k * repetitions
    records = {(name, k): ScoreRecord(played[name, k], kind, normaliser) for name, _, k in runs if (name, k) in played}
    records[PLANNER, 1] = ScoreRecord(held_out.optimum[:, None, None], kind, normaliser)
    return Adaptation(records, steps)
