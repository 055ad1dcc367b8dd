"""Methods by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

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
from rekindle.reincarnation.phases import Phase, Scale, Told

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

    def phases(self, scale: Scale, told: Told) -> tuple[Phase, ...]:
        """What is done, one after the other."""
        ...


def make_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method with some of its settings.

    Raises:
        ConfigError: there is none of that name, or it has no such setting, or it takes another type.
    """
    if name not in METHODS:
        raise ConfigError(f"no method {name!r}; {did_you_mean(name, list(METHODS))}")
    defaults = {field.name: field.default for field in dataclasses.fields(METHODS[name])}
    for setting, value in (settings or {}).items():
        if setting not in defaults:
            has = did_you_mean(setting, list(defaults)) if defaults else "it has none."
            raise ConfigError(f"{name} has no setting {setting!r}; {has}")
        kind = type(defaults[setting])
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) != (kind is bool):
            raise ConfigError(f"{name}'s setting {setting} takes a {kind.__name__}; got {value!r}.")
    return METHODS[name](**(settings or {}))
