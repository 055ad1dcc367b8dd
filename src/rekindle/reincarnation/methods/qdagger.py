"""QDagger: temporal differences and the teacher's policy, on its data first, then on one's own until it is weaned.

Agarwal et al. 2022 (2206.01626), section 4.1, eq. 3.
"""

from dataclasses import dataclass
from typing import Literal

import jax
from jaxtyping import Array, Float

from rekindle.core.types import Sequences, Transitions
from rekindle.reincarnation.losses import distance, distillation
from rekindle.reincarnation.phases import Loss, OutputKinds, Phase, Scale
from rekindle.reincarnation.weaning import HardCut, Linear, Ratio


@dataclass(frozen=True)
class QDagger:
    """The published settings of a DQN student; other students have other weights, registry.py."""

    weight: float = 3.0
    """Of the distillation loss at first: lambda_0."""
    tau: float = 0.1
    """Temperature of both policies."""
    weaning: Literal["ratio", "linear", "cut"] = "ratio"
    """How the weight falls: by what the student lacks, on a line, or all at once."""

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Offline, then online."""
        loss = distils(kinds, self.tau)
        rule = {"ratio": Ratio, "linear": Linear, "cut": HardCut}[self.weaning](scale.cut_steps)
        return (
            Phase("offline", scale.offline_updates, scale.guided, scale.iterations, offline=True, adds=loss,
                  weight=self.weight, tau=self.tau),
            Phase("online", scale.online_steps, scale.guided, scale.iterations, adds=loss, weight=self.weight,
                  weaning=rule, alone=scale.alone, tau=self.tau),
        )  # fmt: skip


def distils(kinds: OutputKinds, tau: float) -> Loss:
    """KL from the student's policy to the teacher's, as it was stored with each observation; of vectors a distance."""

    def loss(said: Float[Array, "B A"], batch: Transitions | Sequences) -> Float[Array, " B"]:
        if kinds.teacher == "actions":
            return jax.vmap(distance)(said, batch.labels)
        return jax.vmap(distillation)(kinds.student_logits(said, tau), kinds.logits(batch.labels, tau))

    return loss
