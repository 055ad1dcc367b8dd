"""How a student is weaned: the weight of what the teacher says, after every iteration.

Agarwal et al. 2022 (2206.01626), section 4.1 and the released code: the weight is lambda_0 times a multiplier m that
begins at 1, is recomputed after every online evaluation, and stays at 0 once it is there.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rekindle.core.errors import ConfigError

Number = Float[Array, ""] | Int[Array, ""] | float | int


def normalised(score: Number, *, random: float, teacher: float) -> Number:
    """(G - G_random) / (G_T - G_random): 0 plays at random, 1 is as good as the teacher.

    Raises:
        ConfigError: the teacher is no better than random, so that there is nothing to be learnt from it.
    """
    if not teacher > random:
        raise ConfigError(
            f"the teacher's return of {teacher:g} is no better than that of acting at random, {random:g}; take another "
            "teacher, or train without one."
        )
    return (score - random) / (teacher - random + 1e-8)


@runtime_checkable
class Weaning(Protocol):
    """A rule for the multiplier."""

    def after(self, multiplier: Number, score: Number, online_steps: Number) -> Number:
        """The multiplier after an iteration with this normalised score, and so many online steps in all. For jit."""
        ...


@dataclass(frozen=True)
class Ratio:
    """1 - z, never below 0: what the student still lacks; 0 for good from `cut` online steps (t_0) on.

    The released code compares strictly, with steps that always overshoot.
    """

    cut: int

    def after(self, multiplier: Number, score: Number, online_steps: Number) -> Number:
        """See Weaning."""
        silent = (multiplier <= 0) | (online_steps >= self.cut)
        return jnp.where(silent, 0.0, jnp.maximum(1.0 - score, 0.0))


@dataclass(frozen=True)
class Linear:
    """From 1 to 0 over `cut` online steps, whatever the score."""

    cut: int

    def after(self, multiplier: Number, score: Number, online_steps: Number) -> Number:
        """See Weaning."""
        return jnp.where(multiplier <= 0, 0.0, jnp.maximum(1.0 - online_steps / self.cut, 0.0))


@dataclass(frozen=True)
class HardCut:
    """1, and 0 after `cut` online steps."""

    cut: int

    def after(self, multiplier: Number, score: Number, online_steps: Number) -> Number:
        """See Weaning."""
        return jnp.where((multiplier <= 0) | (online_steps >= self.cut), 0.0, 1.0)


def step_size(multiplier: Number, *, guided: float, alone: float) -> Number:
    """M times the step size with a teacher and 1 - m times that without."""
    return multiplier * guided + (1.0 - multiplier) * alone
