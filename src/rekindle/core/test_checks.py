import re
from types import SimpleNamespace

import pytest

from rekindle.core.checks import out_of_range

KINDS = {
    "sizes": ([1, 7], [0, -1], "be at least 1"),
    "positive": ([1e-9, 3.0], [0.0, -1.0, float("inf"), float("nan")], "be above 0 and finite"),
    "least_0": ([0.0, 5], [-1e-9, float("inf"), float("nan")], "be at least 0 and finite"),
    "shares": ([0.0, 1.0], [-0.1, 1.1, float("nan")], r"lie in \[0, 1\]"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_out_of_range_is_named_with_its_value(kind):
    good, bad, words = KINDS[kind]
    for value in good:
        assert out_of_range(SimpleNamespace(x=value), **{kind: ("x",)}) == []
    for value in bad:
        (phrase,) = out_of_range(SimpleNamespace(x=value), **{kind: ("x",)})
        assert re.match(f"x must {words}; got ", phrase) and phrase.endswith(str(value))


def test_all_problems_are_told_in_the_order_of_the_rules():
    config = SimpleNamespace(a=0, b=-1.0, c=2.0)
    assert [p[0] for p in out_of_range(config, sizes=("a",), least_0=("b",), shares=("c",))] == ["a", "b", "c"]
