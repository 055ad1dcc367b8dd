"""From nothing: what every other method is compared with."""

from dataclasses import dataclass

from rekindle.reincarnation.phases import OutputKinds, Phase, Scale


@dataclass(frozen=True)
class TabulaRasa:
    """A fresh network and its own experience."""

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Online."""
        del kinds
        return (Phase("online", scale.online_steps, scale.scratch, scale.iterations),)
