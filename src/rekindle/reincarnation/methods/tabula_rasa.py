"""From nothing: what every other method is compared with."""

from dataclasses import dataclass

from rekindle.reincarnation.phases import Outputs, Phase, Scale


@dataclass(frozen=True)
class TabulaRasa:
    """A fresh network and its own experience."""

    def phases(self, scale: Scale, outputs: Outputs) -> tuple[Phase, ...]:
        """Online."""
        del outputs
        return (Phase("online", scale.online_steps, scale.scratch, scale.iterations),)
