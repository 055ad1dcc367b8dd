"""Q-learning from demonstrations: the teacher's action is to be better than others by a margin.

Hester et al. 2018 (1704.03732), without its replay and weight decay, as in Agarwal et al. 2022 (2206.01626). Differs
from the code released with that: the weight is lambda_0 m, not lambda_0 m^2.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rekindle.core.types import Sequences, Transitions
from rekindle.reincarnation.losses import hard_margin, soft_margin
from rekindle.reincarnation.phases import OutputKinds, Phase, Scale
from rekindle.reincarnation.weaning import Ratio


@dataclass(frozen=True)
class DQfD:
    """The released settings."""

    weight: float = 1.0
    margin: float = 1.0
    form: Literal["soft", "hard"] = "soft"
    """A mean over actions of what falls short of the margin, or the largest."""

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Offline, then online until the teacher is silent; the step stays as it is."""
        kinds.needs_values("dqfd")
        one = partial(soft_margin if self.form == "soft" else hard_margin, margin=self.margin)

        def loss(q: Float[Array, "B A"], batch: Transitions | Sequences) -> Float[Array, " B"]:
            return jax.vmap(one)(q, jnp.argmax(batch.labels, axis=-1).astype(jnp.int32))

        return (
            Phase("offline", scale.offline_updates, scale.guided, scale.iterations, offline=True, adds=loss,
                  weight=self.weight),
            Phase("online", scale.online_steps, scale.guided, scale.iterations, adds=loss, weight=self.weight,
                  weaning=Ratio(scale.cut_steps)),
        )  # fmt: skip
