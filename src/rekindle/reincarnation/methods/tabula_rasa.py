"""From nothing: what every other method is compared with."""

from dataclasses import dataclass

from rekindle.reincarnation.phases import Phase, Scale, Told


@dataclass(frozen=True)
class TabulaRasa:
    """A fresh network and its own experience."""

    def phases(self, scale: Scale, told: Told) -> tuple[Phase, ...]:
        """Online."""
        del told
        return (Phase("online", scale.online_steps, scale.scratch, scale.iterations),)
