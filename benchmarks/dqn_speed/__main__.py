"""S3: steps per second of training a deep Q-network. `python -m benchmarks.dqn_speed --preset smoke|cpu|gpu`."""

import os
import time
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.common import Bar, Study, at_least
from benchmarks.dqn_speed import arms
from benchmarks.dqn_speed.turns import working

RIVALS = {"sb3": "ours", "sb3-2-threads": "ours", "ours-8-seeds": "ours", "atari-sb3": "atari",
          "atari-sb3-2-threads": "atari"}  # fmt: skip
"""Each with the arm of ours that runs beside it."""
WHERE = "where"
"""The part of the study that says where the time goes."""
PARTS = (*RIVALS, WHERE)
BARS = {"S3.sb3": (("sb3", "sb3-2-threads"), 6.0), "S3.atari": (("atari-sb3", "atari-sb3-2-threads"), 1.3)}
"""How many times as fast as the faster of these peers ours has to be."""


class Preset(NamedTuple):
    """Sizes of a run."""

    repetitions: int
    seconds: float
    """Of each repetition, at least."""
    steps: int
    """Of one call, which both arms make again and again."""


PRESETS = {"smoke": Preset(2, 0.5, 400), "cpu": Preset(6, 5.0, 4_000), "gpu": Preset(6, 5.0, 4_000)}


def measure(preset: Preset, rival: str) -> dict[str, Any]:
    """Time ours and a rival turn by turn, each after one repetition that does not count."""
    pair = (rival, RIVALS[rival])
    with ExitStack() as stack:
        ready = []
        for name in pair:
            ready.append(stack.enter_context(working(name, preset.steps)))
            if ready[-1].lacks:
                return {"missing": ready[-1].lacks}
        speeds = [[arm.run(preset.seconds) for arm in ready] for _ in range(preset.repetitions + 1)]
    columns = np.array(speeds)[1:].T
    return {
        "steps_per_s": {arm: list(column) for arm, column in zip(pair, columns, strict=True)},
        "compile_s": {arm.name: arm.compile_s for arm in ready},
    }


def row(arm: str, cell: dict[str, Any]) -> dict[str, Any]:
    """A line of the table: medians with the range over the repetitions; the ratio is taken pair by pair."""
    if "missing" in cell:
        return {"arm": arm, "note": cell["missing"]}
    line: dict[str, Any] = {"arm": arm}
    speed = {"steps_per_s": np.array(cell["steps_per_s"][arm]), "ours": np.array(cell["steps_per_s"][RIVALS[arm]])}
    speed["ratio"] = speed["ours"] / speed["steps_per_s"]
    for name, values in speed.items():
        line |= {
            name: float(np.median(values)),
            f"{name}_low": float(values.min()),
            f"{name}_high": float(values.max()),
        }
    return {**line, "compile_s": cell["compile_s"][arm], "note": ""}


def where(preset: Preset) -> dict[str, Any]:
    """Microseconds of the parts of a tick of ours, turn by turn, after one repetition that does not count."""
    times = preset.steps // arms.CONFIG.num_envs
    found: dict[str, list[float]] = {}
    ready = arms.parts(times)
    for _ in range(preset.repetitions + 1):
        for name, run in ready.items():
            begun, calls = time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - begun < preset.seconds:
                jax.block_until_ready(run())
                calls += 1
            found.setdefault(name, []).append(1e6 * (time.perf_counter() - begun) / (calls * times))
    return {"us": {name: values[1:] for name, values in found.items()}}


def bars(table: list[dict[str, Any]]) -> list[Bar]:
    """Each promise is against the peer that comes nearest, in the slowest pair of all; none where one was not timed."""
    lines, found = {line["arm"]: line for line in table if "ratio" in line}, []
    for name, (peers, times) in BARS.items():
        if all(peer in lines for peer in peers):
            nearest = min((lines[peer] for peer in peers), key=lambda line: line["ratio"])
            slowest = min(lines[peer]["ratio_low"] for peer in peers)
            found.append(at_least(name, nearest["ratio"], slowest, nearest["ratio_high"], times))
    return found


def main() -> None:
    """Pairs: an arm of ours beside every other one, so that both see the same minutes of the machine."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share an accelerator
    study = Study("dqn_speed", about="Steps per second of training a deep Q-network.", parts=PARTS)
    preset = PRESETS[study.preset]
    table = []
    for arm in RIVALS:
        if study.only in (None, arm):
            table.append(row(arm, study.cell(arm, partial(measure, preset, arm))))
            figures = (f"{k} {v:.4g}" for k, v in table[-1].items() if isinstance(v, float))
            study.say("  " + (table[-1]["note"] or ", ".join(figures)))
    values: dict[str, Any] = {"training": table} if table else {}
    if study.only in (None, WHERE):
        took = study.cell(WHERE, partial(where, preset))["us"]
        values[WHERE] = [{"part": name, "us": float(np.median(us)), "us_low": min(us), "us_high": max(us)}
                         for name, us in took.items()]  # fmt: skip
    study.finish(seeds=[arms.SEED], values=values, bars=bars(table))


if __name__ == "__main__":
    main()
