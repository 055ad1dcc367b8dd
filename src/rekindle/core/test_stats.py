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


@pytest.mark.parametrize("shape", [(1, 6), (3, 7)])
def test_redrawn_samples_at_once_are_those_one_by_one(shape, monkeypatch):
    values, rng, one_by_one = np.random.default_rng(0).normal(size=shape), np.random.default_rng(5), []
    for _ in range(25):
        rows, columns = (rng.integers(size, size=size) for size in shape)
        one_by_one.append(np.median(values[rows][:, columns], axis=1).mean())
    monkeypatch.setattr(stats, "DRAWN_AT_ONCE", 8 * values.size)  # which does not divide the 25
    got = stats.bootstrap(values, stats.median, draws=25, seed=5)
    assert (got.low, got.high) == tuple(np.percentile(one_by_one, [2.5, 97.5]))


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


X = np.round(np.random.RandomState(0).gamma(2.0, 0.5, size=(5, 10)), 3)
Y = np.round(np.random.RandomState(1).gamma(2.0, 0.4, size=(5, 10)), 3)


@pytest.mark.parametrize(
    ("values", "expected"), [(X, (0.84888462, 0.67380673, 1.05884615)), (Y, (0.68353846, 0.56411442, 0.83603942))]
)
def test_the_interquartile_mean_of_runs_and_games_is_rliables(values, expected):
    """Numbers of rliable 1.2.0 (50,000 draws), stored here: U9."""
    got = stats.stratified(values, draws=20_000)
    assert got.value == pytest.approx(expected[0], abs=1e-6)
    assert (got.low, got.high) == pytest.approx(expected[1:], abs=0.01)


def test_other_aggregates_are_rliables():
    got = stats.stratified(X, lambda x: float(x.mean()), draws=20_000)
    assert got == pytest.approx((0.99796, 0.8120195, 1.197761), abs=0.01)
    assert stats.improvement(X, Y, draws=20_000) == pytest.approx((0.558, 0.444, 0.672), abs=0.01)
    for above, expected in ((0.5, (0.68, 0.56, 0.8)), (1.0, (0.44, 0.32, 0.56)), (1.5, (0.2, 0.1, 0.3))):
        assert stats.profile(X, above) == pytest.approx(expected, abs=0.021)


def test_nothing_is_better_than_itself():
    assert stats.improvement(X, X).value == pytest.approx(0.5)
    assert stats.improvement(X + 100, Y) == (1.0, 1.0, 1.0)
