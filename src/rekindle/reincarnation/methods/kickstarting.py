"""Kickstarting: QDagger's online phase alone.

Schmitt et al. 2018 (1803.03835), in the form of Agarwal et al. 2022 (2206.01626), section 4.
"""

from dataclasses import dataclass
from typing import Literal

from rekindle.reincarnation.methods.qdagger import QDagger
from rekindle.reincarnation.phases import OutputKinds, Phase, Scale


@dataclass(frozen=True)
class Kickstarting:
    """QDagger's settings."""

    weight: float = 3.0
    tau: float = 0.1
    weaning: Literal["ratio", "linear", "cut"] = "ratio"

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Online."""
        return QDagger(self.weight, self.tau, self.weaning).phases(scale, kinds)[1:]
