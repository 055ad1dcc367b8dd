"""What a training by MR.Q says beforehand of how long it will take."""

from dataclasses import replace

import jax
import pytest

from rekindle.agents.registry import config_from_json, config_to_json, variant_of
from rekindle.core.spaces import Box, Image
from rekindle.core.types import EnvSpec
from rekindle.library.library import Library
from rekindle.train import forecast as told
from rekindle.train.order import Order

NUMBERS = EnvSpec("test/any", 1, {"obs": Box((3,), -1, 1)}, Box((2,), -1.0, 1.0), kind="host")
PICTURE = EnvSpec("test/any", 1, {"obs": Box((84, 84, 9), 0, 255, "uint8")}, Box((2,), -1.0, 1.0), kind="host")


def order(variant: str, budget: str) -> Order:
    agent, settings = variant_of(variant)
    return Order(agent, config_to_json(config_from_json(agent, settings)), "test/any", budget)


def test_operations_are_those_that_were_counted():
    """Full size: 11.5 and 8.4 GFLOP, the reduced agent 0.70, of layers with 17 numbers to see."""
    full, small = (told.operations(order(name, "1steps").settings) for name in ("mrq", "mrq:small"))
    assert full == pytest.approx(19.9e9, rel=0.02) and small == pytest.approx(0.70e9, rel=0.1)


def test_a_budget_in_steps_takes_what_is_learnt_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(told, "best_rate", lambda: 180e9)
    library = Library.open(tmp_path)
    expected = told.forecast(order("mrq", "20000steps"), NUMBERS, library)
    assert expected is not None and 5 < expected.steps_per_s < 9
    assert expected.seconds == pytest.approx(10_000 / expected.steps_per_s)
    timed = told.forecast(order("mrq:small", "5m"), NUMBERS, library)
    assert timed is not None and timed.seconds is None and timed.steps_per_s > 60


def test_nothing_is_said_of_what_was_never_measured(tmp_path, monkeypatch):
    library = Library.open(tmp_path)
    for shown in (PICTURE, replace(PICTURE, obs={"obs": Image(96, 96)})):
        assert told.forecast(order("mrq", "20000steps"), shown, library) is None
    assert told.forecast(order("dqn", "20000steps"), NUMBERS, library) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert told.forecast(order("mrq", "20000steps"), NUMBERS, library) is None


def test_a_rate_is_steps_by_seconds_of_what_was_learnt():
    """Random steps and the first chunk that learns, which compiles, do not count; slow ones do by their time."""
    rows = [{"env_steps": n * 100, told.RATE: rate, told.LEARNT: learnt}
            for n, rate, learnt in ((1, 900.0, 0), (2, 1.0, 200), (3, 100.0, 300), (4, 25.0, 400))]  # fmt: skip
    assert told.typical_rate(rows) == pytest.approx(200 / (1.0 + 4.0))
    assert told.typical_rate(rows[:2]) is None
