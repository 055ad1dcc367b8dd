"""What a config may hold, in words that name every field that is out of its range."""

from collections.abc import Sequence
from math import inf
from typing import Any


def out_of_range(
    config: Any,
    *,
    sizes: Sequence[str] = (),
    positive: Sequence[str] = (),
    least_0: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> list[str]:
    """One phrase per field of a config that is out of its range.

    Args:
        config: whose attributes are looked at.
        sizes: whole numbers of at least 1.
        positive: finite numbers above 0.
        least_0: finite numbers of at least 0.
        shares: numbers in [0, 1].
    """
    rules = [
        (sizes, "be at least 1", lambda value: value >= 1),
        (positive, "be above 0 and finite", lambda value: 0 < value < inf),
        (least_0, "be at least 0 and finite", lambda value: 0 <= value < inf),
        (shares, "lie in [0, 1]", lambda value: 0 <= value <= 1),
    ]
    return [
        f"{name} must {wanted}; got {getattr(config, name)}"
        for names, wanted, holds in rules
        for name in names
        if not holds(getattr(config, name))
    ]
