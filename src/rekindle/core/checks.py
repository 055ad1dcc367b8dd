"""What a config may hold, in words that name every field that is out of its range."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from rekindle.core.errors import ConfigError, did_you_mean


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


class Option(NamedTuple):
    """What an option takes, in words and as a test."""

    wanted: str
    fits: Callable[[Any], bool]


def whole(least: int, most: int) -> Option:
    """A whole number in a range."""
    fits = lambda x: isinstance(x, int) and not isinstance(x, bool) and least <= x <= most  # noqa: E731
    return Option(f"a whole number from {least} to {most}", fits)


def one_of(*names: Any) -> Option:
    """One of these."""
    return Option(f"one of {', '.join(map(str, names))}", lambda x: any(x is name or x == name for name in names))


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


POSITIVE = Option("a number above 0", lambda x: _is_number(x) and 0 < x < inf)
NOT_NEGATIVE = Option("a number of at least 0", lambda x: _is_number(x) and 0 <= x < inf)
SHARE = Option("a number from 0 to 1", lambda x: _is_number(x) and 0 <= x <= 1)


def checked(whose: str, options: Mapping[str, Any], known: Mapping[str, Option]) -> None:
    """Refuse options that something does not have, or that do not fit.

    Raises:
        ConfigError: naming the option, what it takes and what came.
    """
    for name, value in options.items():
        if name not in known:
            has = did_you_mean(name, list(known)) if known else "it has none."
            raise ConfigError(f"{whose} has no option {name!r}; {has}")
        if not known[name].fits(value):
            raise ConfigError(f"the option {name} of {whose} takes {known[name].wanted}; got {value!r}.")
