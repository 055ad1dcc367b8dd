"""Libraries that are not always installed."""

from importlib import import_module
from typing import Any

from rekindle.core.errors import ConfigError


def optional(module: str, *, what: str, extra: str) -> Any:
    """The module.

    Raises:
        ConfigError: it is not installed; says what for, and which extra has it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"{what} takes {module}, which is not installed; pip install rekindle[{extra}].") from error
