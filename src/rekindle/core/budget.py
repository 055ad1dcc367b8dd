"""Budgets: how much wall time or how many environment steps a job may spend, or learn from."""

import math
import re
from dataclasses import dataclass

from rekindle.core.errors import ConfigError

MAX_SECONDS = 30 * 86_400.0
MAX_STEPS = 10**15
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e\+?[0-9]+)?"


@dataclass(frozen=True)
class Budget:
    """Seconds of wall time, or environment steps; whichever is given. Both: whichever is spent first."""

    seconds: float | None = None
    env_steps: int | None = None
    learnt_steps: int | None = None
    """Environment steps that are learnt from; curricula that try tasks take others beside them."""

    def __str__(self) -> str:
        """In the form that `parse_budget` reads."""
        if self.learnt_steps is not None:
            return f"{self.learnt_steps}learnt"
        return f"{self.env_steps}steps" if self.env_steps is not None else f"{self.seconds}".removesuffix(".0") + "s"


def quoted(text: str, most: int = 80) -> str:
    """What a user wrote, for an error message: in quotes, on one line, and of a long text the beginning only."""
    shown = repr(text[: most + 1])
    return shown if len(text) <= most and len(shown) <= most + 4 else f"{shown[:most]}...{shown[0]}"


def parse_budget(text: str) -> Budget:
    """Read "90s", "5m", "1.5h", "1d", "2e6steps" or "2e6learnt".

    Raises:
        ConfigError: another form, nothing at all, or more than 30 days or 1e15 steps.
    """
    match = re.fullmatch(rf"({_NUMBER})\s*(s|m|h|d|steps?|learnt)", text.strip().lower())
    if match is None:
        raise ConfigError(f"--budget takes a time like 90s, 5m or 1h, or steps like 2e6steps; got {quoted(text)}.")
    amount, unit = float(match[1]), match[2]
    if amount <= 0:
        raise ConfigError(f"--budget must be more than nothing; got {quoted(text)}. Try 5m.")
    if unit in ("step", "steps", "learnt"):
        if not math.isfinite(amount) or amount > MAX_STEPS or amount < 1:
            raise ConfigError(f"--budget takes from 1 to 1e15 steps; got {quoted(text)}.")
        return Budget(learnt_steps=int(amount)) if unit == "learnt" else Budget(env_steps=int(amount))
    seconds = amount * _UNITS[unit]
    if seconds > MAX_SECONDS or seconds < 1:
        raise ConfigError(f"--budget takes from 1 second to 30 days; got {quoted(text)}.")
    return Budget(seconds=seconds)
