"""Means, percentiles and bootstrap intervals. NumPy only."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Interval(NamedTuple):
    """A statistic with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


Statistic = Callable[[Float[np.ndarray, "n m"]], Float[np.ndarray, " n"]]


def mean(x: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Mean of each row."""
    return x.mean(axis=1)


def median(x: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Median of each row."""
    return np.median(x, axis=1)


def percentile_20(x: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """The score that at least 80 % of each row reach (AdA's "20th percentile")."""
    return np.percentile(x, 20, axis=1)


def interquartile_mean(x: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Mean of the middle half of each row. Source: Agarwal et al. 2021 (2108.13264)."""
    cut = x.shape[1] // 4
    return np.sort(x, axis=1)[:, cut : x.shape[1] - cut].mean(axis=1)


def bootstrap(
    values: Float[np.ndarray, "seeds m"], statistic: Statistic = mean, *, draws: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval over seeds (rows) and tasks (columns), both drawn with replacement, the same tasks per draw.

    One row resamples tasks only. Source: Efron 1979; the two levels as in Agarwal et al. 2021 (2108.13264).
    """
    values = np.atleast_2d(np.asarray(values, float))
    rng = np.random.default_rng(seed)
    seeds, tasks = values.shape
    centre = float(np.mean(statistic(values)))
    drawn = np.empty(draws)
    for i in range(draws):
        sample = values[rng.integers(seeds, size=seeds)][:, rng.integers(tasks, size=tasks)]
        drawn[i] = np.mean(statistic(sample))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(centre, float(low), float(high))
