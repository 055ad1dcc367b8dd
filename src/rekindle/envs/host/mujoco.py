"""MuJoCo made ready: it draws without a display where there is none, and is quiet.

Needs an extra: `mujoco`, or `dmc`.
"""

import logging
import os
import sys
from ctypes.util import find_library

from rekindle.core.errors import ConfigError
from rekindle.core.extras import optional

RENDERER = "MUJOCO_GL"
"""The variable by which MuJoCo, Gymnasium and the control suite are told what draws; read when they are loaded."""
HEADLESS = {"egl": "EGL", "osmesa": "OSMesa"}
"""What draws without a display, each with its library."""
NO_RENDERER = "disabled"
MEND = (
    "install what draws without a display (of Debian and Ubuntu libegl1 and libgl1-mesa-dri, or libosmesa6), and "
    f"leave {RENDERER} unset or set it to egl or osmesa"
)


def ready(id: str, extra: str) -> None:
    """Load MuJoCo; what it has to say of a model goes to Python's logs, not to a file in the working folder.

    Raises:
        ConfigError: it is not installed; `id` is what takes it, `extra` has it.
    """
    choose_renderer()
    mujoco = optional("mujoco", what=id, extra=extra)
    mujoco.set_mju_user_warning(logging.getLogger("mujoco").info)


def refuse_unseen(id: str) -> None:
    """ConfigError where nothing is installed that draws."""
    if os.environ.get(RENDERER) == NO_RENDERER:
        raise ConfigError(f"{id} cannot be drawn here; {MEND}.")


def choose_renderer() -> None:
    """Without a display, the first that is installed of those that need none; a choice that was made stays."""
    shown = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if RENDERER not in os.environ and not shown:
        found = (name for name, library in HEADLESS.items() if find_library(library))
        os.environ[RENDERER] = next(found, NO_RENDERER)
