"""Kickstarting: QDagger's online phase alone.

Schmitt et al. 2018 (1803.03835), in the form of Agarwal et al. 2022 (2206.01626), section 4.
"""

from dataclasses import dataclass

from rekindle.reincarnation.methods.qdagger import QDagger
from rekindle.reincarnation.phases import Phase, Scale, Told


@dataclass(frozen=True)
class Kickstarting(QDagger):
    """The same settings."""

    def phases(self, scale: Scale, told: Told) -> tuple[Phase, ...]:
        """Online."""
        return super().phases(scale, told)[1:]
