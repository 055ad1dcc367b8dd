"""From cells to scores `[seeds, games]`, and how two arms differ."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rekindle.core.stats import Interval
from rekindle.core.stats import pooled_interquartile_mean as middle

Cells = dict[str, list[list[dict[str, Any]]]]
"""By arm: `[game][seed]`."""
Compared = Callable[[float, float], float]
"""From two interquartile means to how they differ."""


def points(cell: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    """The evaluations of a phase."""
    return [point for point in cell["curve"] if point["phase"] == phase]


def matrix(cells: list[list[dict[str, Any]]], phase: str = "online", at: int = -1, what: str = "score") -> np.ndarray:
    """Normalised scores `[seeds, games]` of one evaluation of a phase."""
    return np.array([[points(cell, phase)[at][what] for cell in game] for game in cells]).T


def area(cells: list[list[dict[str, Any]]], *, last: int = 0) -> np.ndarray:
    """Mean of all online scores `[seeds, games]`, the area under the curve; or of the last so many."""
    scores = [[[point["score"] for point in points(cell, "online")[-last:]] for cell in game] for game in cells]
    return np.array(scores).mean(axis=-1).T


def compared(ours: np.ndarray, theirs: np.ndarray, how: Compared, *, paired: bool = False, draws: int = 2000
             ) -> Interval:  # fmt: skip
    """Two interquartile means, with a stratified interval; `paired` draws the same runs for both."""
    rng, games = np.random.default_rng(0), np.arange(ours.shape[1])
    drawn = []
    for _ in range(draws):
        rows = rng.integers(len(ours), size=ours.shape)
        others = rows if paired else rng.integers(len(theirs), size=theirs.shape)
        drawn.append(how(middle(ours[rows, games].ravel()), middle(theirs[others, games].ravel())))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(how(middle(ours.ravel()), middle(theirs.ravel())), float(low), float(high))


def difference(ours: np.ndarray, theirs: np.ndarray, *, paired: bool = False) -> Interval:
    """Of two interquartile means."""
    return compared(ours, theirs, lambda a, b: a - b, paired=paired)


def ratio(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Of two interquartile means, of which the second is above 0."""
    return compared(ours, theirs, lambda a, b: a / b)


def spread(name: str, interval: Interval) -> dict[str, float]:
    """The columns of an interval in a table."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
