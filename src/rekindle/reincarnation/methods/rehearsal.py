"""Rehearsal: some samples of every batch are the teacher's. Paine et al. 2019 (1909.01387)."""

from dataclasses import dataclass

from rekindle.reincarnation.phases import OutputKinds, Phase, Scale


@dataclass(frozen=True)
class Rehearsal:
    """From a fresh network."""

    share: float = 1 / 16
    """Of the samples, drawn one by one: rho."""

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Online."""
        del kinds
        return (Phase("online", scale.online_steps, scale.scratch, scale.iterations, rehearse=self.share),)
