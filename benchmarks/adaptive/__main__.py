"""The adaptive agent, part by part: `python -m benchmarks.adaptive --preset smoke|cpu|gpu [--only E3]`.

Each experiment is a file with `run(study, preset) -> (values, bars)`; each (arm, seed) is a cell, so that a study that
was interrupted goes on where it stopped.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.adaptive import e2, e3, e4, e6, e7, e8, e13, learners
from benchmarks.common import Bar, Study

PARTS: dict[str, Callable[[Study, str], tuple[dict[str, Any], list[Bar]]]] = {
    "M": learners.run,
    "E2": e2.run,
    "E3": e3.run,
    "E4": e4.run,
    "E6": e6.run,
    "E7": e7.run,
    "E8": e8.run,
    "E13": e13.run,
}
SEEDS = {"E13": 15}
"""Of the CPU preset, where they are not three."""


def main() -> None:
    """Run one experiment, or all."""
    study = Study("adaptive", about=__doc__ or "", parts=tuple(PARTS))
    values: dict[str, Any] = {}
    bars: list[Bar] = []
    for name, run in PARTS.items():
        if study.only in (None, name):
            found, judged = run(study, study.preset)
            values |= {f"{name}_{key}": value for key, value in found.items()}
            bars += judged
    most = max(SEEDS.get(name, 3) for name in PARTS if study.only in (None, name))
    study.finish(seeds=list(range(most if study.preset != "smoke" else 1)), values=values, bars=bars)


if __name__ == "__main__":
    main()
