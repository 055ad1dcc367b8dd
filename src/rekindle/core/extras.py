"""Libraries that are not always installed, and what lies beside the user."""

import os
import sys
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
        raise ConfigError(f"{what} takes {module}, which is not installed; pip install -e '.[{extra}]'.") from error


def from_here() -> None:
    """Modules of the working directory can be imported by whichever command this is, after those that are installed."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
