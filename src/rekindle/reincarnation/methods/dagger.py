"""DAgger: nothing but the teacher's policy, which is never silent. With Q-learning beside it: DAgger+QL.

Ross et al. 2011 (1011.0686), as the ablations of Agarwal et al. 2022 (2206.01626), section 5.
"""

from dataclasses import dataclass

from rekindle.reincarnation.methods.qdagger import distils
from rekindle.reincarnation.phases import OutputKinds, Phase, Scale


@dataclass(frozen=True)
class DAgger:
    """QDagger's weight and temperature."""

    weight: float = 3.0
    tau: float = 0.1

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Offline, then online, with the same loss."""
        return imitation(self.weight, self.tau, 0.0, scale, kinds)


@dataclass(frozen=True)
class DAggerQL:
    """Constant distillation beside temporal differences."""

    weight: float = 3.0
    tau: float = 0.1

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Offline, then online, with the same loss."""
        return imitation(self.weight, self.tau, 1.0, scale, kinds)


def imitation(weight: float, tau: float, own: float, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
    """Both phases; `own` is the weight of the agent's loss."""
    loss = distils(kinds, tau)
    return (
        Phase("offline", scale.offline_updates, scale.guided, scale.iterations, offline=True, adds=loss,
              weight=weight, own=own, tau=tau),
        Phase("online", scale.online_steps, scale.guided, scale.iterations, adds=loss, weight=weight, own=own,
              tau=tau),
    )  # fmt: skip
