"""The sizes and the arms of the study."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from rekindle.reincarnation.methods.registry import WEIGHTS
from rekindle.reincarnation.phases import Scale

GAMES = ("asterix", "breakout", "freeway", "space-invaders")
SWEPT = ("breakout",)
"""Games on which the temperature is swept."""


class Preset(NamedTuple):
    """Sizes of a run."""

    teacher_steps: int
    """T."""
    scale: Scale
    """Online steps are T / 40."""
    seeds: int
    seeds_of_sweeps: int
    games: tuple[str, ...]
    arms: tuple[str, ...] | None = None
    """All, by default."""


STEP_SIZES = {"guided": 3e-4, "alone": 5e-5, "scratch": 2.5e-4}
PRESETS = {
    "smoke": Preset(
        8_000, Scale(200, 1_200, 1, **STEP_SIZES), 1, 1, ("breakout",),
        ("qdagger", "fine-tuned", "rainbow-qdagger"),
    ),
    "cpu": Preset(4_000_000, Scale(40_000, 100_000, 10, **STEP_SIZES), 5, 3, GAMES),
    "gpu": Preset(4_000_000, Scale(40_000, 100_000, 10, **STEP_SIZES), 10, 10, GAMES),
}  # fmt: skip
TEACHER = {"epsilon_steps": 10_000, "epsilon_warmup": 1_000, "learning_rate": 2.5e-4, "n_step": 1}
RMSPROP = {**TEACHER, "optimiser": "rmsprop", "optimiser_eps": 1e-5, "learning_rate": 1e-3}
"""The published step size of RMSProp is four times that of Adam, 6.25e-5; so is this."""
STUDENT = {"epsilon_steps": 2_000, "epsilon_warmup": 0, "n_step": 3}
TAU, WEIGHT = 0.1, 3.0
"""Of every distillation, unless an arm says otherwise."""


@dataclass(frozen=True)
class Arm:
    """One method with its settings."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    agent: str = "dqn"
    student: dict[str, Any] = field(default_factory=dict)
    """What differs from STUDENT."""
    main: bool = False
    """One of the five that have all seeds."""
    times: int = 1
    """Online steps and iterations are so many times those of the scale."""
    teacher: Literal["adam", "rmsprop"] = "adam"
    """Stopped early enough to be outdone; or trained by RMSProp for T / 2, to be fine-tuned."""
    explores: bool = False
    """Whether exploration begins anew where the teacher's weights go on."""
    games: tuple[str, ...] = GAMES
    replay: int | None = None
    """The latest so many of the teacher's steps; None: all."""


DISTILS = {"tau": TAU, "weight": WEIGHT}
METHODS: dict[str, Arm] = {
    "qdagger": Arm("qdagger", DISTILS, main=True),
    "kickstarting": Arm("kickstarting", DISTILS, main=True),
    "pretraining": Arm("pretraining", main=True),
    "tabula-rasa": Arm("tabula-rasa", main=True),
    "rehearsal": Arm("rehearsal", {"share": 1 / 16}, main=True),
    "dqfd": Arm("dqfd"),
    "jsrl-100": Arm("jsrl", {"most": 100}),
    "jsrl-1000": Arm("jsrl", {"most": 1000}),
    "dagger": Arm("dagger", DISTILS),
    "dagger+ql": Arm("dagger+ql", DISTILS),
    "rehearsal-1-256": Arm("rehearsal", {"share": 1 / 256}),
    "rehearsal-1-64": Arm("rehearsal", {"share": 1 / 64}),
    "rehearsal-1-4": Arm("rehearsal", {"share": 1 / 4}),
    "kickstarting-n1": Arm("kickstarting", DISTILS, student={"n_step": 1}),
    "qdagger-n1": Arm("qdagger", DISTILS, student={"n_step": 1}),
}
"""P1 to P4 and P7: from the same teacher, into a student like it."""
MAIN = {name: arm for name, arm in METHODS.items() if arm.main}
"""P1 and most of P2."""
TAUS = {tau: f"qdagger-tau-{tau}" for tau in (0.3, 1.0)}
SWEEP: dict[str, Arm] = {
    name: Arm("qdagger", {"tau": tau, "weight": WEIGHT}, games=SWEPT) for tau, name in TAUS.items()
}
"""The temperature; TAU is the arm `qdagger`."""
GOES_ON = Arm("fine-tuning", student=TEACHER, times=2, teacher="rmsprop")
TUNING: dict[str, Arm] = {
    "fine-tuned": GOES_ON,
    "fine-tuned-full-step": replace(GOES_ON, settings={"rate": 1.0}),
    "fine-tuned-no-replay": replace(GOES_ON, settings={"keeps_replay": False}, explores=True),
}
"""P5: the weights of a teacher that RMSProp trained go on with Adam, over T / 20."""
RESIDUAL = {"network": "residual"}
BUILDING: dict[str, Arm] = {
    "rainbow-qdagger": Arm("qdagger", {"tau": TAU, "weight": WEIGHTS["rainbow"]}, "rainbow", RESIDUAL, times=2),
    "rainbow-tabula-rasa": Arm("tabula-rasa", {}, "rainbow", RESIDUAL, times=2),
    "dqn-fine-tuned": Arm("fine-tuning", {}, times=2),
}
"""P6: another algorithm with another network, over T / 20."""
REHEARSED = ("asterix", "space-invaders")
REHEARSING: dict[str, Arm] = {
    "tabula-rasa": replace(METHODS["tabula-rasa"], games=REHEARSED),
    "rehearsal-1-4": replace(METHODS["rehearsal-1-4"], games=REHEARSED),
    "rehearsal-1-4-of-40k": replace(METHODS["rehearsal-1-4"], games=REHEARSED, replay=40_000),
}
"""Why P4 is missed: whether rehearsal gains as much where the replay is as small as the published one, 0.4 steps for
each of the student's."""
ARMS = METHODS | SWEEP | TUNING | BUILDING
