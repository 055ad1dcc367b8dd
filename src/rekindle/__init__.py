"""Give it a goal, go and make tea, come back to an agent that does it.

The public verbs are imported when they are first used: importing rekindle takes milliseconds and touches no device.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_PUBLIC = {
    "Actor": "rekindle.evaluate.actor:Actor",
    "Library": "rekindle.library.library:Library",
    "load": "rekindle.verbs:load",
    "make": "rekindle.envs.registry:make",
    "master": "rekindle.master:master",
    "play": "rekindle.verbs:play",
    "tasks": "rekindle.verbs:tasks",
}

__all__ = [*_PUBLIC, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rekindle")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rekindle' has no attribute {name!r}; it has {', '.join(__all__)}.")
    from rekindle.core.platform import allow_callbacks

    allow_callbacks()
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Importing `rekindle/master.py` would put that module where the verb `rekindle.master` is; the verb stays."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
