"""S3: steps per second of training a deep Q-network. `python -m benchmarks.dqn_speed --preset smoke|cpu|gpu`."""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.common import Bar, Study, at_least
from benchmarks.dqn_speed import arms
from benchmarks.dqn_speed.arms import ARMS

US = "ours"
PEERS = ("sb3", "sb3-2-threads")
WHERE = "where"
"""The part of the study that says where the time goes."""
BAR = 6.0
"""How many times as fast as the faster of the peers ours has to be."""


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
    try:
        ready = {name: ARMS[name](preset.steps) for name in (rival, US)}  # a rival that is missing costs nothing
    except ImportError as error:
        return {"missing": str(error)}
    speeds = [[one.run(preset.seconds) for one in ready.values()] for _ in range(preset.repetitions + 1)]
    columns = np.array(speeds)[1:].T
    return {
        "steps_per_s": {name: list(column) for name, column in zip(ready, columns, strict=True)},
        "compile_s": {name: one.compile_s for name, one in ready.items()},
    }


def row(arm: str, cell: dict[str, Any]) -> dict[str, Any]:
    """A line of the table: medians with the range over the repetitions; the ratio is taken pair by pair."""
    if "missing" in cell:
        return {"arm": arm, "note": cell["missing"]}
    line: dict[str, Any] = {"arm": arm}
    speed = {"steps_per_s": np.array(cell["steps_per_s"][arm]), US: np.array(cell["steps_per_s"][US])}
    speed["ratio"] = speed[US] / speed["steps_per_s"]
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
    """The promise is against the peer that comes nearest."""
    peers = [line for line in table if line["arm"] in PEERS and "ratio" in line]
    if len(peers) < len(PEERS):
        return []
    nearest = min(peers, key=lambda line: line["ratio"])
    return [at_least("S3.sb3", nearest["ratio"], nearest["ratio_low"], nearest["ratio_high"], BAR)]


def main() -> None:
    """Pairs: our arm beside every other one, so that both see the same minutes of the machine."""
    rivals = tuple(name for name in ARMS if name != US)
    study = Study("dqn_speed", about="Steps per second of training a deep Q-network.", parts=(*rivals, WHERE))
    preset = PRESETS[study.preset]
    table = []
    for arm in rivals:
        if study.only in (None, arm):
            table.append(row(arm, study.cell(arm, partial(measure, preset, arm))))
            study.say("  " + ", ".join(f"{k} {v:.4g}" for k, v in table[-1].items() if isinstance(v, float)))
    values: dict[str, Any] = {"training": table} if table else {}
    if study.only in (None, WHERE):
        took = study.cell(WHERE, partial(where, preset))["us"]
        values[WHERE] = [{"part": name, "us": float(np.median(us)), "us_low": min(us), "us_high": max(us)}
                         for name, us in took.items()]  # fmt: skip
    study.finish(seeds=[arms.SEED], values=values, bars=bars(table))


if __name__ == "__main__":
    main()
