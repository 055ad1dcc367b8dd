"""Returns in environments: what they are measured by, and the strategies that reach them."""

from rekindle.strategies import reuse
from rekindle.strategies.base import Strategy
from rekindle.strategies.returns import distil, fine_tune, from_scratch

STRATEGIES: tuple[Strategy, ...] = (reuse, fine_tune, distil, from_scratch)
"""Cheapest first."""
