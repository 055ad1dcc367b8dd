"""What all studies share: the command line, cells that are computed once, bars, and the result file.

A study is a list of cells (arm, task, seed). Each cell is a file of its own, so an interrupted study goes on where it
stopped; a cell that was computed with other code or on another machine is computed again, unless one says otherwise.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from rekindle.core.platform import keep_memory
from rekindle.library import provenance
from rekindle.library.files import plain, read_json, write_json

ROOT = Path(__file__).parent
PRESETS = ("smoke", "cpu", "gpu")


class Bar(NamedTuple):
    """A promise and what was measured: `value` with its interval [`low`, `high`], and what is asked, in words, too."""

    name: str
    value: float
    low: float
    high: float
    bar: float
    ok: bool
    asks: str


def at_least(name: str, value: float, low: float, high: float, bar: float) -> Bar:
    """A bar that the lower end of the interval has to reach."""
    return Bar(name, value, low, high, bar, low >= bar, f"interval ≥ {bar:g}")


def at_most(name: str, value: float, low: float, high: float, bar: float) -> Bar:
    """A bar that the upper end of the interval has to stay under."""
    return Bar(name, value, low, high, bar, high <= bar, f"interval ≤ {bar:g}")


def within(name: str, value: float, low: float, high: float, centre: float, margin: float) -> Bar:
    """An equality: the whole interval has to lie within `margin` of `centre`."""
    kept = centre - margin <= low and high <= centre + margin
    return Bar(name, value, low, high, centre, kept, f"interval in {centre:g} ± {margin:g}")


def value_at_least(name: str, value: float, low: float, high: float, bar: float, *, above: float | None = None) -> Bar:
    """A bar that the value has to reach; its interval may have to lie above something else."""
    asks = f"value ≥ {bar:.3g}" + ("" if above is None else f", interval > {above:g}")
    return Bar(name, value, low, high, bar, value >= bar and (above is None or low > above), asks)


def value_at_most(name: str, value: float, low: float, high: float, bar: float) -> Bar:
    """A bar that the value has to stay under, whatever its interval."""
    return Bar(name, value, low, high, bar, value <= bar, f"value ≤ {bar:.3g}")


class Study:
    """One run of a study: its arguments, its cells and its result."""

    def __init__(self, name: str, *, about: str, parts: Sequence[str] = (), argv: Sequence[str] | None = None):
        """Read the command line `--preset smoke|cpu|gpu [--only PART] [--json] [--again] [--resume] [--anywhere]`."""
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
        parser.add_argument("--preset", choices=PRESETS, default="smoke", help="smoke ends within a minute")
        parser.add_argument("--only", choices=parts, metavar="PART", help=f"one part of the study: {', '.join(parts)}")
        parser.add_argument("--json", action="store_true", help="print the result alone, as one line")
        parser.add_argument("--again", action="store_true", help="compute cells that are there already")
        parser.add_argument("--resume", action="store_true", help="keep cells that an earlier revision computed")
        parser.add_argument("--anywhere", action="store_true", help="with --resume: on whatever machine")
        arguments = parser.parse_args(argv)
        keep_memory()  # as `rekindle` does
        self.name, self.preset, self.only = name, arguments.preset, arguments.only
        self.quiet, self.again = arguments.json, arguments.again
        self.resume, self.anywhere = arguments.resume, arguments.anywhere
        self.revisions: set[str] = set()
        self.machines: set[str] = set()
        self.stamp = {"revision": revision(), "machine": machine()}

    def cell(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The values of a cell: from its file if this code (with --resume, any code) made it, else computed."""
        if (stored := self._stored(name)) is not None:
            self.say(f"{name}: kept")
            self.revisions.add(stored["stamp"]["revision"])
            self.machines.add(stored["stamp"]["machine"])
            return stored["values"]
        self.say(f"{name} ...")
        self.machines.add(self.stamp["machine"])
        values = plain(compute())
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"stamp": self._code(), "values": values})
        return values

    def has(self, name: str) -> bool:
        """Whether a cell need not be computed."""
        return self._stored(name) is not None

    def _stored(self, name: str) -> dict[str, Any] | None:
        if self.again or not self._path(name).exists():
            return None
        stored, code = read_json(self._path(name)), self._code()
        here = self.anywhere or stored["stamp"]["machine"] == code["machine"]
        kept = stored["stamp"] == code or (self.resume and here)
        return stored if kept else None

    def _path(self, name: str) -> Path:
        return ROOT / self.name / "cells" / self.preset / f"{name}.json"

    def _code(self) -> dict[str, Any]:
        return {**self.stamp, "tree": provenance.code().difference_sha256}

    def finish(self, *, seeds: Sequence[int], values: Mapping[str, Any], bars: Sequence[Bar]) -> dict[str, Any]:
        """Store the result as `results/<preset>[-<part>].json` and print it as the last line of standard output.

        Args:
            seeds: every seed that was used.
            values: by name, a number or a table (a list of rows with the same keys).
            bars: promises, by the experiments' ids.
        """
        result = {
            "study": self.name,
            "preset": self.preset,
            "revision": self.stamp["revision"],
            "machine": "; ".join(sorted(self.machines or {self.stamp["machine"]})),
            "cells_from": sorted(self.revisions | {self.stamp["revision"]}),
            "seeds": list(seeds),
            "values": plain(values),
            "bars": [plain(bar._asdict()) for bar in bars],
        }
        part = f"-{self.only}" if self.only else ""
        folder = ROOT / self.name / "results"
        folder.mkdir(exist_ok=True)
        write_json(folder / f"{self.preset}{part}.json", result)
        for bar in bars:
            verdict = "kept" if bar.ok else "MISSED"
            self.say(f"{bar.name}: {bar.value:.3g} [{bar.low:.3g}, {bar.high:.3g}], asked {bar.asks}: {verdict}")
        print(json.dumps(result, ensure_ascii=False))
        return result

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


def revision() -> str:
    """The commit of this checkout, with `+` if the tree differs from it."""
    code = provenance.code()
    return (code.revision or "unknown")[:12] + ("+" if code.dirty else "")


def machine() -> str:
    """Processor, accelerator and the versions that decide speed."""
    device = jax.devices()[0]
    accelerator = "" if device.platform == "cpu" else f", {len(jax.devices())} x {device.device_kind}"
    return (
        f"{_processor()}{accelerator}, {platform.system()}, Python {platform.python_version()}, JAX {jax.__version__}"
    )


def _processor() -> str:
    info, cores = Path("/proc/cpuinfo"), os.cpu_count()
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()} ({cores} cores)"
