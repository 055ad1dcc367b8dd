"""What a method of reincarnation is made of: phases, each of which says what is added to an agent, and when.

A phase adds a loss (of what a teacher says, or of the data), mixes data that exists into the batches, or lets a teacher
act at first. The loops of `train/` run it; an agent knows nothing of it but `Guidance`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from rekindle.core.errors import ConfigError
from rekindle.core.types import Extras, Sequences, Transitions
from rekindle.reincarnation.weaning import Number, Weaning, step_size

Loss = Callable[[Float[Array, "B A"], Transitions | Sequences], Float[Array, " B"]]
"""From what a student says of the observations, and a batch with its labels, to a loss of each sample."""


class Progress(NamedTuple):
    """How far a phase has come; part of every checkpoint."""

    multiplier: Float[Array, ""]
    """Of what the phase adds to the loss: m, 1 at first."""
    roll_in: Float[Array, ""]
    """Most first steps of an episode that are the teacher's."""


class Dials(NamedTuple):
    """Where that leaves the numbers that learning and acting go by."""

    weight: Float[Array, ""]
    """Of the added loss."""
    own: Float[Array, ""]
    """Of the agent's own."""
    learning_rate: Float[Array, ""]
    rehearse: Float[Array, ""]
    """Share of the samples that are drawn from the data that existed already."""
    roll_in: Int32[Array, ""]
    """At most so many first steps of an episode are the teacher's."""


TAU = 0.1
"""The published temperature."""


@dataclass(frozen=True)
class Phase:
    """A stretch of learning."""

    name: str
    steps: int
    """Environment steps; updates, where it is offline."""
    learning_rate: float
    iterations: int = 10
    """Evaluations, after each of which the multiplier is computed anew."""
    offline: bool = False
    """Whether it learns from the teacher's data, without acting."""
    adds: Loss | None = None
    weight: float = 0.0
    """Of the added loss, times the multiplier: lambda_0."""
    own: float = 1.0
    """Weight of the agent's own loss."""
    weaning: Weaning | None = None
    """How the multiplier falls; without a rule it stays 1."""
    alone: float | None = None
    """The step size that goes with multiplier 0, if it is another."""
    rehearse: float = 0.0
    roll_in: int = 0
    roll_in_decay: float = 1.0
    """Factor of `roll_in` after every iteration."""
    fresh_optimiser: bool = False
    """Whether the optimiser forgets at the beginning."""
    keeps_replay: bool = False
    """Whether the replay begins with the teacher's data, instead of empty."""
    needs_state: bool = False
    """Whether it goes on from the teacher's own weights."""
    tau: float = TAU
    """Temperature of a teacher's policy that says action values, as it is logged and, by some, learnt from."""

    def begin(self) -> Progress:
        """Nothing has happened yet."""
        return Progress(jnp.ones(()), jnp.float32(self.roll_in))

    def dials(self, progress: Progress) -> Dials:
        """For jit."""
        m = progress.multiplier
        rate = step_size(m, guided=self.learning_rate, alone=self.alone) if self.alone else self.learning_rate
        return Dials(m * self.weight, jnp.float32(self.own), jnp.float32(rate), jnp.float32(self.rehearse),
                     progress.roll_in.astype(jnp.int32))  # fmt: skip

    def after(self, progress: Progress, score: Number, steps: Number) -> Progress:
        """After an iteration with this normalised score, and so many steps of the phase. For jit."""
        m = progress.multiplier
        if self.weaning is not None:
            m = jnp.float32(self.weaning.after(m, score, steps))
        return Progress(m, jnp.floor(progress.roll_in * self.roll_in_decay))


@dataclass(frozen=True)
class Scale:
    """Sizes that all methods of a study share."""

    offline_updates: int
    online_steps: int
    iterations: int
    guided: float
    """Step size beside a teacher."""
    alone: float
    """After a teacher."""
    scratch: float
    """Without one."""
    cut: float = 0.6
    """Share of the online steps after which a teacher is silent, whatever the score: t_0."""

    @property
    def cut_steps(self) -> int:
        """t_0 in online steps."""
        return round(self.cut * self.online_steps)


GUIDED, ALONE = 1.2, 0.2
"""Step sizes beside a teacher and after it, as multiples of that from scratch."""
ON_ATARI = {"guided": 1.6, "alone": 0.16}
"""The same on Atari: 1e-4 and 1e-5, with 6.25e-5 from scratch (Agarwal et al. 2022, released settings)."""


def scaled(
    online_steps: int, *, scratch: float, step: int = 1, iterations: int = 10, guided: float = GUIDED,
    alone: float = ALONE,
) -> Scale:  # fmt: skip
    """Sizes for so many online steps: 0.4 times as many offline updates, whole iterations.

    Args:
        online_steps: at most.
        scratch: the step size from scratch.
        step: environment steps that are taken at once.
        iterations: of each phase.
        guided: the step size beside a teacher, as a multiple of that.
        alone: the same after it.
    """
    every = online_steps // (iterations * step) * step
    offline = round(0.4 * online_steps) // iterations
    return Scale(max(offline, 1) * iterations, max(every, step) * iterations, iterations, guided * scratch,
                 alone * scratch, scratch)  # fmt: skip


OutputKind = Literal["values", "logits", "actions"]
StudentKind = Literal["values", "policy"]


def says(extras: Extras) -> Float[Array, "B A"]:
    """What a teacher says of observations: action values, else logarithms of probabilities, else its actions."""
    kind = kind_of(extras)
    said = {"values": extras.q, "logits": extras.logits, "actions": extras.mean}[kind]
    assert said is not None
    return jax.nn.log_softmax(said) if kind == "logits" else said


def kind_of(extras: Extras) -> OutputKind:
    """What kind of numbers a teacher says; ValueError if it says nothing."""
    if extras.q is not None:
        return "values"
    if extras.logits is not None:
        return "logits"
    if extras.mean is not None:
        return "actions"
    raise ValueError("a teacher has to give action values, logits or, of vectors, its actions")


class OutputKinds(NamedTuple):
    """What kind of numbers a teacher and its student give, as a method has to know."""

    teacher: OutputKind
    """What it says: action values, log-probabilities, or actions that are vectors."""
    student: StudentKind = "values"
    """What the student says: action values, or its policy's logits or actions."""

    def logits(self, labels: Any, tau: float) -> Float[Array, "B A"]:
        """Of the teacher's policy."""
        return labels / tau if self.teacher == "values" else labels

    def student_logits(self, said: Float[Array, "B A"], tau: float) -> Float[Array, "B A"]:
        """Of the student's."""
        return said / tau if self.student == "values" else said

    def needs_values(self, method: str) -> None:
        """ConfigError where a method trains action values that the student acts by, and it has a policy instead."""
        if self.student != "values":
            raise ConfigError(
                f"the method {method} trains action values of a student that acts by them; this one has a policy "
                "beside its critics. Take qdagger, kickstarting, rehearsal, jsrl, dagger, dagger+ql or tabula-rasa."
            )
