"""Methods by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol, runtime_checkable

from rekindle.core.checks import NOT_NEGATIVE, POSITIVE, SHARE, checked, one_of, whole
from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.reincarnation.methods.dagger import DAgger, DAggerQL
from rekindle.reincarnation.methods.dqfd import DQfD
from rekindle.reincarnation.methods.fine_tuning import FineTuning
from rekindle.reincarnation.methods.jsrl import JSRL
from rekindle.reincarnation.methods.kickstarting import Kickstarting
from rekindle.reincarnation.methods.pretraining import Pretraining
from rekindle.reincarnation.methods.qdagger import QDagger
from rekindle.reincarnation.methods.rehearsal import Rehearsal
from rekindle.reincarnation.methods.tabula_rasa import TabulaRasa
from rekindle.reincarnation.phases import OutputKinds, Phase, Scale

METHODS: dict[str, type] = {
    "qdagger": QDagger,
    "kickstarting": Kickstarting,
    "pretraining": Pretraining,
    "dqfd": DQfD,
    "rehearsal": Rehearsal,
    "jsrl": JSRL,
    "dagger": DAgger,
    "dagger+ql": DAggerQL,
    "fine-tuning": FineTuning,
    "tabula-rasa": TabulaRasa,
}


@runtime_checkable
class Method(Protocol):
    """Phases at a scale."""

    def phases(self, scale: Scale, kinds: OutputKinds) -> tuple[Phase, ...]:
        """What is done, one after the other."""
        ...


OPTIONS = {
    "weight": NOT_NEGATIVE, "tau": POSITIVE, "margin": NOT_NEGATIVE, "rate": POSITIVE, "share": SHARE, "decay": SHARE,
    "most": whole(0, 10**6), "weaning": one_of("ratio", "linear", "cut"), "form": one_of("soft", "hard"),
    "keeps_replay": one_of(True, False),
}  # fmt: skip
"""What the settings of methods take."""
BEGIN_TAUGHT = ("qdagger", "pretraining", "dqfd", "dagger", "dagger+ql")
"""With weights that have learnt from data."""
DISTILS = ("qdagger", "kickstarting", "dagger", "dagger+ql")
WEIGHTS = {"rainbow": 1.0, "mrq": 0.4}
"""Of the distillation into other students than DQN. Rainbow's own loss is larger (Agarwal et al. 2022, released code);
a policy's is in units of what its critics say, where TD3+BC (Fujimoto and Gu 2021, 2106.06860) has 1 / 2.5."""


def make_method(name: str, settings: Mapping[str, Any] | None = None, *, student: str = "dqn") -> Method:
    """A method with some of its settings, for a student of some algorithm.

    Raises:
        ConfigError: there is none of that name, or it has no such setting, or it takes another value.
    """
    if name not in METHODS:
        raise ConfigError(f"no method {name!r}; {did_you_mean(name, list(METHODS))}")
    chosen = {setting: {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
              for setting, value in (settings or {}).items()}  # fmt: skip
    checked(f"the method {name}", chosen, {field.name: OPTIONS[field.name] for field in fields(METHODS[name])})
    if name in DISTILS and student in WEIGHTS:
        chosen = {"weight": WEIGHTS[student], **chosen}
    return METHODS[name](**chosen)
