"""Score records and adaptation curves: AdA's protocol (Adaptive Agents Team 2023, sec. 4).

The score of an episode of k trials is the reward of its LAST trial over the task's normaliser. Records with different
normalisers never share a table.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from rekindle.core import stats
from rekindle.core.errors import ConfigError
from rekindle.core.stats import Interval

Kind = Literal["return", "success", "stages"]
SHARE_MASTERED = 0.8
STATISTICS = ("mean", "median", "percentile_20", "share_mastered", "share_above_0")
"""Fields of a summary that are intervals."""


@dataclass(frozen=True)
class Normaliser:
    """Per task the values that count as 0 and as 1, and where they come from ("planner", "random and best known")."""

    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    source: str


@dataclass(frozen=True)
class ScoreRecord:
    """Values by `[task, repetition, trial]`. `success` counts a trial as 1 if anything was earned in it."""

    values: Float[np.ndarray, "n repetitions K"]
    kind: Kind
    normaliser: Normaliser

    def scores(self) -> Float[np.ndarray, " n"]:
        """Normalised score of the last trial of each task, averaged over repetitions."""
        last = self.values[:, :, -1]
        if self.kind == "success":
            return (last > 0).mean(axis=1)
        low, high = self.normaliser.low, self.normaliser.high
        return (last.mean(axis=1) - low) / (high - low)


@dataclass(frozen=True)
class Summary:
    """One row of a table: what a policy reaches with k trials."""

    policy: str
    trials: int
    mean: Interval
    median: Interval
    percentile_20: Interval
    share_mastered: Interval
    """Share of tasks with a score of at least 0.8."""
    share_above_0: Interval

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "policy": self.policy,
            "trials": self.trials,
            **{n: getattr(self, n)._asdict() for n in STATISTICS},
        }


def summarise(policy: str, records: list[ScoreRecord]) -> Summary:
    """Mean, median, 20th percentile with bootstrap intervals over tasks and seeds (one record per seed).

    Raises:
        ConfigError: records of different kinds or normalisers.
    """
    kinds = {(r.kind, r.normaliser.source) for r in records}
    if len(kinds) != 1:
        raise ConfigError(f"scores can only be summarised together if they are normalised alike; got {sorted(kinds)}.")
    scores = np.stack([record.scores() for record in records])
    return Summary(
        policy=policy,
        trials=records[0].values.shape[2],
        mean=stats.bootstrap(scores),
        median=stats.bootstrap(scores, stats.median),
        percentile_20=stats.bootstrap(scores, stats.percentile_20),
        share_mastered=stats.bootstrap((scores >= SHARE_MASTERED).astype(float)),
        share_above_0=stats.bootstrap((scores > 0).astype(float)),
    )
