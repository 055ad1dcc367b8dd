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


DRAWN_AT_ONCE = 1_000_000
"""Numbers of redrawn samples that a statistic is given at once."""
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
    at_once = max(DRAWN_AT_ONCE // max(values.size, 1), 1)
    drawn = []
    for i in range(0, draws, at_once):
        samples = [values[rng.integers(seeds, size=seeds)][:, rng.integers(tasks, size=tasks)]
                   for _ in range(min(at_once, draws - i))]  # fmt: skip
        drawn.append(statistic(np.concatenate(samples)).reshape(-1, seeds).mean(axis=1))
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return Interval(centre, float(low), float(high))


def stratified(
    values: Float[np.ndarray, "runs games"],
    statistic: Callable[[Float[np.ndarray, " m"]], float] | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """A statistic of all scores together (by default their interquartile mean), with a percentile interval.

    Runs are drawn with replacement within each game, games never. Source: Agarwal et al. 2021 (2108.13264), section 4.
    """
    values = np.atleast_2d(np.asarray(values, float))
    of = pooled_interquartile_mean if statistic is None else statistic
    rng = np.random.default_rng(seed)
    runs, games = values.shape
    drawn = [of(values[rng.integers(runs, size=(runs, games)), np.arange(games)].ravel()) for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(of(values.ravel())), float(low), float(high))


def pooled_interquartile_mean(x: Float[np.ndarray, " m"]) -> float:
    """Mean of the middle half."""
    return float(interquartile_mean(x[None])[0])


def improvement(
    ours: Float[np.ndarray, "runs games"],
    theirs: Float[np.ndarray, "others games"],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """How probable it is that a run of ours scores higher than one of theirs on the same game, averaged over games.

    A draw counts one half. Source: Agarwal et al. 2021 (2108.13264), section 4.3 (Mann-Whitney).
    """

    def probability(a: np.ndarray, b: np.ndarray) -> float:
        higher = (a[:, None] > b[None]).mean(axis=(0, 1)) + 0.5 * (a[:, None] == b[None]).mean(axis=(0, 1))
        return float(higher.mean())

    rng, games = np.random.default_rng(seed), np.arange(ours.shape[1])
    drawn = []
    for _ in range(draws):
        a, b = (x[rng.integers(len(x), size=x.shape), games] for x in (ours, theirs))
        drawn.append(probability(a, b))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(probability(ours, theirs), float(low), float(high))


def profile(values: Float[np.ndarray, "runs games"], above: float, *, seed: int = 0) -> Interval:
    """Share of the scores above a threshold, with a stratified interval: a point of a performance profile."""
    return stratified(values, lambda x: float((x > above).mean()), seed=seed)
