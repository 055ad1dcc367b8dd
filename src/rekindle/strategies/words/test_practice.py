"""Practice goes on where it was, and its budget with it."""

from rekindle.core.budget import Budget
from rekindle.core.stats import Interval
from rekindle.strategies.words.practice import extended, kept_curve


def test_what_is_left_is_counted_from_the_beginning_of_the_training():
    assert extended(Budget(seconds=20.0), 100.0, 5) == Budget(seconds=120.0)
    assert extended(Budget(env_steps=20), 100.0, 5) == Budget(env_steps=25)


def test_the_curve_of_an_earlier_sitting_is_kept_up_to_its_checkpoint():
    evaluation = {"validation/score": 0.5, "validation/low": 0.4, "validation/high": 0.6}
    rows = [
        {"env_steps": 10, "tag": "fine-tune", **evaluation},
        {"env_steps": 20, "tag": "fine-tune"},
        {"env_steps": 30, "tag": "from scratch", **evaluation},
        {"env_steps": 40, "tag": "fine-tune", **evaluation},
        {"env_steps": 50, "tag": "fine-tune", **evaluation},
    ]
    point = Interval(0.5, 0.4, 0.6)
    assert kept_curve(rows, "fine-tune", until=40) == [(10, point), (40, point)]
