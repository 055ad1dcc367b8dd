import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekindle.core.budget import MAX_SECONDS, MAX_STEPS, Budget, parse_budget, quoted
from rekindle.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget(seconds=90)),
        ("5m", Budget(seconds=300)),
        ("1.5h", Budget(seconds=5400)),
        ("1d", Budget(seconds=86_400)),
        (" 2E6 Steps ", Budget(env_steps=2_000_000)),
        ("1step", Budget(env_steps=1)),
        ("2e3learnt", Budget(learnt_steps=2000)),
    ],
)
def test_the_forms_of_the_help_text(text, budget):
    assert parse_budget(text) == budget


@given(st.integers(1, MAX_STEPS))
def test_steps_print_and_read_back(steps):
    assert parse_budget(str(Budget(env_steps=steps))) == Budget(env_steps=steps)
    assert parse_budget(str(Budget(learnt_steps=steps))) == Budget(learnt_steps=steps)


@given(st.floats(1, MAX_SECONDS))
def test_seconds_print_and_read_back(seconds):
    assert parse_budget(str(Budget(seconds=seconds))) == Budget(seconds=seconds)


@given(st.floats(0.02, 700), st.sampled_from("mhd"))
def test_units_agree_with_seconds(amount, unit):
    factor = {"m": 60, "h": 3600, "d": 86_400}[unit]
    if 1.1 < amount * factor < MAX_SECONDS * 0.99:
        assert parse_budget(f"{amount:.6f}{unit}").seconds == pytest.approx(amount * factor, rel=1e-3)


@pytest.mark.parametrize(
    "text",
    ["", "5", "m", "0s", "0steps", "-5m", "5 minutes", "1e99d", "31d", "1e16steps", "0.5steps", "nan s", "1e999s"],
)
def test_other_forms_are_refused_with_what_came(text):
    with pytest.raises(ConfigError, match="--budget") as refused:
        parse_budget(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short", "'short'"),
        ("x" * 80, repr("x" * 80)),
        ("x" * 81, f"'{'x' * 79}...'"),
        ("\0" * 80, f"'{chr(92)}x00"),
        ("it's\n", '"it\'s\\n"'),
    ],
)
def test_long_text_is_quoted_in_part(text, shown):
    assert quoted(text).startswith(shown)
    assert len(quoted(text)) <= 84 and quoted(text).isprintable()


def test_a_long_budget_is_not_echoed_whole():
    with pytest.raises(ConfigError) as refused:
        parse_budget("1" * 5000 + "s")
    assert len(str(refused.value)) < 200


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text):
    try:
        budget = parse_budget(text)
    except ConfigError:
        return
    assert (budget.seconds is None) != (budget.env_steps is None)
