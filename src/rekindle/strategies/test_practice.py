"""Practice goes on where it was, and its budget with it."""

from rekindle.core.budget import Budget
from rekindle.strategies.practice import extended


def test_what_is_left_is_counted_from_the_beginning_of_the_training():
    assert extended(Budget(seconds=20.0), 100.0, 5) == Budget(seconds=120.0)
    assert extended(Budget(env_steps=20), 100.0, 5) == Budget(env_steps=25)
