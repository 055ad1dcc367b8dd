"""How long does one wait? Wall time of whole processes, from the import to an answer that is asked for again.

`python -m benchmarks.startup --preset smoke|cpu|gpu [--only PART]`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import Bar, Study, at_most

GOAL = "hold yellow sphere"
IMPORT_BAR = HELP_BAR = 0.5
FIRST_BAR, CACHED_BAR, UNCACHED_BAR = 120.0, 10.0, 30.0
"""Seconds; the first answer is what `make run` does after the installation."""
PARTS = ("short", "answers")


class Preset(NamedTuple):
    """How often each command runs."""

    short: int
    answers: int


PRESETS = {"smoke": Preset(2, 1), "cpu": Preset(10, 3), "gpu": Preset(10, 3)}


def seconds(command: list[str], home: Path) -> float:
    """Wall time of a command that must succeed, with its library in `home`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("REKINDLE_", "JAX_", "XLA_"))}
    started = time.monotonic()
    subprocess.run(command, env={**environment, "REKINDLE_HOME": str(home)}, check=True, capture_output=True)
    return time.monotonic() - started


def times(home: Path, command: list[str], count: int, before: Callable[[], Any] = lambda: None) -> list[float]:
    """`count` runs, each after `before()`."""
    taken = []
    for _ in range(count):
        before()
        taken.append(seconds(command, home))
    return taken


def short(preset: Preset) -> dict[str, list[float]]:
    """The import and the help page."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            "import": times(Path(folder), [sys.executable, "-c", "import rekindle"], preset.short),
            "help": times(Path(folder), [sys.executable, "-m", "rekindle", "--help"], preset.short),
        }


def answers(preset: Preset) -> dict[str, list[float]]:
    """The first answer, the same asked again, and again without compiled programs."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        ask = [sys.executable, "-m", "rekindle", "master", GOAL, "--budget", "2m", "--json"]
        first = times(home, ask, preset.answers, lambda: shutil.rmtree(home, ignore_errors=True))
        cached = times(home, ask, preset.answers)
        uncached = times(home, ask, preset.answers, lambda: shutil.rmtree(home / "compiled"))
    return {"first answer": first, "asked again": cached, "asked again, nothing compiled": uncached}


def row(what: str, taken: list[float]) -> dict[str, Any]:
    """A line of the table."""
    ends = {"seconds": float(np.median(taken)), "seconds_low": min(taken), "seconds_high": max(taken)}
    return {"what": what, **ends, "runs": len(taken)}


def main() -> None:
    """Both parts, and the bars."""
    study = Study("startup", about=__doc__ or "", parts=PARTS)
    preset = PRESETS[study.preset]
    done: dict[str, list[float]] = {}
    if study.only in (None, "short"):
        done |= study.cell("short", lambda: short(preset))
    if study.only in (None, "answers"):
        done |= study.cell("answers", lambda: answers(preset))
    names = {"import": "W1.import", "help": "W1.help", "first answer": "W2.first", "asked again": "W3.cached",
             "asked again, nothing compiled": "W3.uncached"}  # fmt: skip
    limits = dict(zip(names, (IMPORT_BAR, HELP_BAR, FIRST_BAR, CACHED_BAR, UNCACHED_BAR), strict=True))
    bars: list[Bar] = [
        at_most(names[what], float(np.median(taken)), min(taken), max(taken), limits[what])
        for what, taken in done.items()
    ]
    study.finish(seeds=[0], values={"seconds": [row(what, taken) for what, taken in done.items()]}, bars=bars)


if __name__ == "__main__":
    main()
