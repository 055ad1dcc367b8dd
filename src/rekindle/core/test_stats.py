import numpy as np
import pytest

from rekindle.core import stats


def test_statistics_by_hand():
    x = np.array([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0], [8.0] * 8])
    assert stats.mean(x).tolist() == [121 / 8, 8]
    assert stats.median(x).tolist() == [3.5, 8]
    assert stats.interquartile_mean(x).tolist() == [3.5, 8]
    assert stats.percentile_20(x) == pytest.approx([1.4, 8])


def test_bootstrap_is_reproducible_and_encloses_its_centre():
    values = np.random.default_rng(0).normal(3, 1, (4, 50))
    first, again = stats.bootstrap(values, seed=1), stats.bootstrap(values, seed=1)
    assert first == again != stats.bootstrap(values, seed=2)
    assert first.low < first.value < first.high
    assert first.value == pytest.approx(values.mean())


def test_bootstrap_of_one_row_has_the_textbook_width():
    values = np.random.default_rng(0).normal(0, 1, 400)
    interval = stats.bootstrap(values[None], draws=4000)
    expected = 2 * 1.96 * values.std() / 20
    assert interval.high - interval.low == pytest.approx(expected, rel=0.1)


def test_bootstrap_draws_seeds_too():
    """Seeds that disagree widen the interval, however many tasks there are."""
    values = np.repeat([[0.0], [1.0]], 1000, axis=1)
    interval = stats.bootstrap(values)
    assert (interval.low, interval.value, interval.high) == (0, 0.5, 1)


def test_coverage():
    """An interval of 95 % holds the true mean about 57 times in 60."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(60):
        interval = stats.bootstrap(rng.exponential(1, (1, 100)), draws=120, seed=seed)
        hits += interval.low <= 1 <= interval.high
    assert 52 <= hits <= 60
