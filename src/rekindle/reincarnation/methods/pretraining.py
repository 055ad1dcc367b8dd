"""Offline reinforcement learning on the teacher's data, conservatively, then online learning without it.

Kumar et al. 2020 (2006.04779), as in Agarwal et al. 2022 (2206.01626), section 4.
"""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array, Float

from rekindle.core.types import Sequences, Transitions
from rekindle.reincarnation.losses import conservative
from rekindle.reincarnation.phases import OutputKinds, Phase, Scale


@dataclass(frozen=True)
class Pretraining:
    """The published settings."""

    weight: float = 1.0
    """Of the conservative loss."""
    tau: float = 0.1

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Offline, then online with a small step and an optimiser that has forgotten."""
        kinds.needs_values("pretraining")

        def loss(q: Float[Array, "B A"], batch: Transitions | Sequences) -> Float[Array, " B"]:
            return jax.vmap(partial(conservative, tau=self.tau))(q, batch.action)

        return (
            Phase("offline", scale.offline_updates, scale.guided, scale.iterations, offline=True, adds=loss,
                  weight=self.weight),
            Phase("online", scale.online_steps, scale.alone, scale.iterations, fresh_optimiser=True),
        )  # fmt: skip
