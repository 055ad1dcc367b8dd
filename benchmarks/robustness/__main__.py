"""Can one trust the library? Killed, crowded, out of disk, fed with rubbish, and full of runs.

`python -m benchmarks.robustness --preset smoke|cpu|gpu [--only kill|crowd|faults|fuzz|scale]`.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import Bar, Study, at_least, at_most
from benchmarks.robustness import crowd, faults, kill, scale
from benchmarks.servers import postgres

SECONDS_BAR = 0.5
MEGABYTES_BAR = 1000.0
HANG_BAR = 2.0
PARTS = ("kill", "crowd", "faults", "fuzz", "scale")


class Preset(NamedTuple):
    """How much of each."""

    kills: Mapping[str, int]
    """Points, by job."""
    killed: int
    """Jobs that must have been killed; a few end before their point comes."""
    crowd: tuple[int, float]
    """Processes, and seconds."""
    inputs: int
    """Of each target of the fuzzer."""
    runs: int
    points: int
    repetitions: int


CPU = Preset(
    {"train": 30, "evaluate": 15, "master": 10, "export": 75, "gc": 90}, 200, (8, 60.0), 8000, 10_000, 1_000_000, 5
)
PRESETS = {
    "smoke": Preset({"export": 2, "gc": 2}, 2, (4, 1.0), 50, 200, 110_000, 1),
    "cpu": CPU,
    "gpu": CPU,
}
FAULTS = {
    "full disk, library": lambda folder: faults.inside_small_disk("full_library", folder, 3),
    "full disk, training": lambda folder: faults.inside_small_disk("full_disk", folder, 6),
    "read-only home": lambda folder: faults.inside_small_disk("read_only", folder, 64),
    "clock that jumps": lambda folder: faults.jumping_clock(str(folder)),
    "newer version": lambda folder: faults.newer_version(str(folder)),
    "earlier version": lambda folder: faults.earlier_version(str(folder)),
}
QUICK = ("full disk, library", "clock that jumps", "newer version")
"""Faults that take a second."""


def kills(study: Study, preset: Preset) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Kill -9 at random points of each job."""
    cells: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rekindle-kill-") as folder:
        killer = kill.Killer(Path(folder))
        for seed, (job, count) in enumerate(preset.kills.items()):

            def compute(job: str = job, count: int = count, seed: int = seed) -> dict[str, Any]:
                outcomes = []
                for point in kill.points(count, seed):
                    outcomes.append(killer.kill(job, point))
                    study.say(f"  {job}: {len(outcomes)} of {count}, {sum(bool(o.problems) for o in outcomes)} bad")
                return {
                    "job": job,
                    "points": count,
                    "killed": sum(outcome.killed for outcome in outcomes),
                    "by file operation": sum(outcome.by == "file" for outcome in outcomes),
                    "file operations": killer.prepare(job)["operations"],
                    "bad": sum(bool(outcome.problems) for outcome in outcomes),
                    "problems": [problem for outcome in outcomes for problem in outcome.problems][:20],
                }

            cells.append(study.cell(f"kill-{job}", compute))
    bad, killed = (sum(cell[name] for cell in cells) for name in ("bad", "killed"))
    bars = [_none("R4.kill", bad), at_least("R4.killed", killed, killed, killed, preset.killed)]
    return [{name: value for name, value in cell.items() if name != "problems"} for cell in cells], bars


def crowds(study: Study, preset: Preset) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Processes at one library, with either database."""
    processes, seconds = preset.crowd
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for name in ("sqlite", "postgresql"):

        def compute(name: str = name) -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as folder, _database(name) as url:
                return crowd.crowd(Path(folder) / "home", processes=processes, seconds=seconds, database=url or "")

        cell = study.cell(f"crowd-{name}", compute)
        bad = len(cell.pop("problems"))
        rows.append({"index": name, "processes": processes, "seconds": seconds, **cell, "problems": bad})
        bars.append(_none(f"R4.crowd.{name}", bad))
    return rows, bars


def wrong(study: Study, quick: bool) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Faults of disk, clock and version."""
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for name, fault in FAULTS.items():
        if quick and name not in QUICK:
            continue

        def compute(fault: Any = fault) -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as folder:
                return {"problems": fault(Path(folder))}

        cell = study.cell(f"fault-{name.replace(',', '').replace(' ', '-')}", compute)
        rows.append({"fault": name, "problems": len(cell["problems"])})
        bars.append(_none(f"R4.{name.replace(',', '').replace(' ', '-')}", len(cell["problems"])))
    return rows, bars


def fuzzing(study: Study, preset: Preset) -> tuple[list[dict[str, Any]], list[Bar]]:
    """Rubbish for every reader."""
    from benchmarks.robustness import fuzz, fuzz_files, fuzz_words

    targets = fuzz_words.TARGETS | fuzz_files.file_targets()
    cells = [
        study.cell(f"fuzz-{name}", lambda name=name: fuzz.run(name, preset.inputs, seed=0, targets=targets))
        for name in targets
    ]
    total = Counter[str]()
    for cell in cells:
        total.update(inputs=cell["inputs"], findings=len(cell["findings"]))
    slowest, peak = (max(cell[name] for cell in cells) for name in ("slowest_s", "peak_rss_mb"))
    bars = [
        _none("R5.findings", total["findings"]),
        at_least("R5.inputs", *[total["inputs"]] * 3, preset.inputs * len(targets) if preset is not CPU else 100_000),
        at_most("R5.slowest-s", slowest, slowest, slowest, HANG_BAR),
        at_most("R5.peak-MB", peak, peak, peak, MEGABYTES_BAR),
    ]
    rows = [{**cell, "findings": len(cell["findings"])} for cell in cells]
    return rows, bars


def scaling(study: Study, preset: Preset) -> tuple[list[dict[str, Any]], list[Bar]]:
    """How long a large library takes to answer."""
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(prefix="rekindle-scale-") as folder:
        home = Path(folder) / "home"
        for name in ("sqlite", "postgresql"):

            def compute(name: str = name) -> dict[str, Any]:
                if not home.exists():
                    made = scale.make_library(home, runs=preset.runs, points=preset.points)
                    study.say(f"  made {made.runs:,} runs with {made.points:,} points in {made.seconds:.0f} s")
                with _database(name) as url:
                    return _asked(home, url, preset.repetitions)

            cell = study.cell(f"scale-{name}", compute)
            for what, taken in cell["seconds"].items():
                row = {"index": name, "what": what, "seconds": float(np.median(taken))}
                rows.append(row | {"seconds_low": min(taken), "seconds_high": max(taken)})
                if what in cell["promised"]:
                    bar = f"R8.{name}.{what}".replace(" ", "-").replace(",", "")
                    bars.append(at_most(bar, float(np.median(taken)), min(taken), max(taken), SECONDS_BAR))
    return rows, bars


def _asked(home: Path, url: str | None, repetitions: int) -> dict[str, Any]:
    from rekindle.library.library import Library

    seconds = {"reindex": scale.timed(Library(home, database=url).reindex, 1)}
    questions = scale.questions(home, url)
    seconds |= {what: scale.timed(ask, repetitions) for what, ask in questions.items()}
    for what, words in scale.commands(home).items():
        seconds[what] = scale.timed(lambda words=words: scale.run_command(home, url, words), repetitions)
    return {"seconds": seconds, "promised": list(questions)}


@contextlib.contextmanager
def _database(name: str) -> Any:
    if name == "sqlite":
        yield None
        return
    with postgres() as url:
        yield url


def _none(name: str, count: int) -> Bar:
    """A bar that nothing bad happened, of all that was tried."""
    return at_most(name, count, count, count, 0)


def main() -> None:
    """All parts, and the bars."""
    study = Study("robustness", about=__doc__ or "", parts=PARTS)
    preset = PRESETS[study.preset]
    parts = {
        "scale": lambda: scaling(study, preset),
        "kill": lambda: kills(study, preset),
        "crowd": lambda: crowds(study, preset),
        "faults": lambda: wrong(study, quick=study.preset == "smoke"),
        "fuzz": lambda: fuzzing(study, preset),
    }
    values: dict[str, Any] = {}
    bars: list[Bar] = []
    for name, part in parts.items():
        if study.only in (None, name):
            values[name], kept = part()
            bars += kept
    study.finish(seeds=range(len(preset.kills)), values=values, bars=bars)


if __name__ == "__main__":
    main()
