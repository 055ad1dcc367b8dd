"""Goals in words: what they are measured by, and the strategies that reach them."""

from rekindle.strategies import reuse
from rekindle.strategies.base import Strategy
from rekindle.strategies.words import adapt, fine_tune, from_scratch

STRATEGIES: tuple[Strategy, ...] = (reuse, adapt, fine_tune, from_scratch)
"""Cheapest first."""
