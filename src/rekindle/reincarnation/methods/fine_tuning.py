"""Fine-tuning: the teacher's own weights and replay go on, with a smaller step and perhaps another optimiser.

Agarwal et al. 2022 (2206.01626), section 3.
"""

from dataclasses import dataclass

from rekindle.reincarnation.phases import OutputKinds, Phase, Scale


@dataclass(frozen=True)
class FineTuning:
    """The student has the teacher's network; its exploration is done."""

    rate: float = 1 / 6
    """Of the step size from scratch."""
    keeps_replay: bool = True

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Online."""
        kinds.needs_values("fine-tuning")  # a policy is kept without the critics beside it
        return (Phase("online", scale.online_steps, self.rate * scale.scratch, scale.iterations,
                      keeps_replay=self.keeps_replay, needs_state=True),)  # fmt: skip
