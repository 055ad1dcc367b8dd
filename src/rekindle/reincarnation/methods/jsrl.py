"""Jump-start: the teacher plays the first steps of every episode, fewer and fewer.

Uchendu et al. 2023 (2204.02372), with a number of steps drawn for each episode as in Agarwal et al. 2022 (2206.01626).
"""

from dataclasses import dataclass

from rekindle.reincarnation.phases import OutputKinds, Phase, Scale


@dataclass(frozen=True)
class JSRL:
    """The transitions of the teacher's steps are learnt from, too."""

    most: int = 100
    """First steps at most: alpha. 0: none."""
    decay: float = 1.0
    """Factor of that after every iteration: beta."""

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """Online."""
        del kinds
        return (Phase("online", scale.online_steps, scale.scratch, scale.iterations, roll_in=self.most,
                      roll_in_decay=self.decay),)  # fmt: skip
