"""What a training from sequences says beforehand of how long it will take."""

import math

import pytest

from rekindle.agents.registry import config_from_json, config_to_json, variant_of
from rekindle.envs import registry
from rekindle.envs.registry import Hosted
from rekindle.library.library import Library
from rekindle.train import forecast as told
from rekindle.train.order import Order
from rekindle.train.test_sequences import TINY, on_host


def order(agent: str, budget: str, **settings) -> Order:
    name, chosen = variant_of(agent)
    config = config_from_json(name, chosen | settings)
    return Order(name, config_to_json(config), "test/any", budget)


def hosted(**world) -> tuple[Hosted, list]:
    """A world on the host, and how often it was closed."""
    closed = []

    def opened(rows, *, seen=False):
        worlds = on_host(rows, **world)
        worlds.close = lambda: closed.append(rows)
        return worlds

    return Hosted(on_host().spec, opened), closed


def test_the_first_updates_say_what_a_step_takes_and_a_budget_what_is_learnt(tmp_path):
    made, closed = hosted()
    asked = order("mrq", "4040steps", **TINY | {"num_envs": 2})
    expected = told.forecast(asked, made, Library.open(tmp_path))
    assert expected is not None and expected.steps_per_s > 0 and expected.source == "by its first updates here"
    assert expected.seconds == pytest.approx(4_000 / expected.steps_per_s) and closed == [2]


def test_preparations_count_by_their_batches_and_how_often_they_come(tmp_path, monkeypatch):
    """A tick takes a second and each batch of a preparation ten; 30 batches come every 20 updates, two in a tick."""
    seconds = {1: 1.0 + told.BATCHES * 10.0, told.APART - 1: told.APART - 1.0}
    monkeypatch.setattr(told, "clocked", lambda engine, loop, ticks: (loop, seconds[ticks]))
    asked = order("mrq", "10m", **TINY | {"num_envs": 2, "encoder_updates": 30, "period": 20})
    expected = told.forecast(asked, hosted()[0], Library.open(tmp_path))
    assert expected is not None and expected.seconds is None
    assert expected.steps_per_s == pytest.approx(2 / (1.0 + 10.0 * 30 / 20 * 2))


def test_nothing_is_said_of_what_is_over_at_once_or_cannot_be_learnt_from(tmp_path):
    library, (made, closed) = Library.open(tmp_path), hosted(steps=1, terminates=False)
    assert told.forecast(order("mrq", "2000steps", **TINY), made, library) is None
    assert told.forecast(order("dqn", "20000steps"), registry.make("probe/delay-v1"), library) is None
    assert closed == []
    assert told.forecast(order("mrq", "20000steps", **TINY), made, library) is None
    assert closed == [1]  # no episode is long enough


def test_worlds_that_fail_are_left_to_the_training(tmp_path):
    made, closed = hosted(reward=math.nan)
    assert told.forecast(order("mrq", "20000steps", **TINY), made, Library.open(tmp_path)) is None and closed == [1]


def test_a_rate_is_steps_by_seconds_of_what_was_learnt():
    """Random steps and the first chunk that learns, which compiles, do not count; slow ones do by their time."""
    rows = [{"env_steps": n * 100, told.RATE: rate, told.LEARNT: learnt}
            for n, rate, learnt in ((1, 900.0, 0), (2, 1.0, 200), (3, 100.0, 300), (4, 25.0, 400))]  # fmt: skip
    assert told.typical_rate(rows) == pytest.approx(200 / (1.0 + 4.0))
    assert told.typical_rate(rows[:2]) is None
