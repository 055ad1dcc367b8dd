import pytest

from rekindle.core.errors import ConfigError
from rekindle.reincarnation.weaning import HardCut, Linear, Ratio, normalised, step_size


def trace(rule, scores, steps):
    """The multiplier after every iteration."""
    m, seen = 1.0, []
    for score, at in zip(scores, steps, strict=True):
        m = rule.after(m, score, at)
        seen.append(pytest.approx(float(m)))
    return seen


def test_the_ratio_latches_at_zero_and_is_cut_off():
    """U2."""
    assert trace(Ratio(10), [0.2, 0.5, 1.1, 0.3], [1, 2, 3, 4]) == [0.8, 0.5, 0.0, 0.0]
    assert trace(Ratio(2), [0.2, 0.2, 0.2], [1, 2, 3]) == [0.8, 0.0, 0.0]
    assert trace(Ratio(9), [-0.5], [1]) == [1.5]


def test_other_schedules_do_not_look_at_the_score():
    assert trace(Linear(4), [9, 9, 9, 9, 0], [1, 2, 3, 4, 5]) == [0.75, 0.5, 0.25, 0.0, 0.0]
    assert trace(HardCut(2), [9, 9, 9], [1, 2, 3]) == [1.0, 0.0, 0.0]


def test_the_step_size_follows_the_multiplier():
    assert step_size(0.5, guided=1e-4, alone=1e-5) == pytest.approx(1e-5 + 9e-5 * 0.5)


def test_a_teacher_no_better_than_random_is_refused():
    assert normalised(5.0, random=1.0, teacher=9.0) == pytest.approx(0.5)
    for teacher in (1.0, 0.5, float("nan")):
        with pytest.raises(ConfigError, match="no better than that of acting at random, 1; take another"):
            normalised(5.0, random=1.0, teacher=teacher)
