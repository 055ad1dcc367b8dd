"""S2: steps per second of whole training. `python -m benchmarks.training_speed --preset smoke|cpu|gpu`."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import Bar, Study, at_least
from benchmarks.training_speed import arms
from benchmarks.training_speed.arms import ARMS, Arm, Ours
from rekindle.core.errors import ConfigError

US = "ppo-gru-on-xland"
BARS = {"a": ("ppo-gru-on-xminigrid", 2.0), "b": ("sb3-lstm-on-gymnasium", 20.0)}
"""S2.x: the arm to be beaten, and how many times as fast ours has to be."""
PARTS = tuple(arm.name for arm in ARMS[1:])


class Preset(NamedTuple):
    """Sizes of a run."""

    num_envs: int
    repetitions: int
    seconds: float
    """Of each repetition, at least."""
    arms: tuple[Arm, ...] = ARMS


PRESETS = {
    "smoke": Preset(64, 2, 0.2, ARMS[:2]),
    "cpu": Preset(256, 5, 3.0),
    "gpu": Preset(256, 5, 3.0),
}


def measure(preset: Preset, rivals: tuple[Arm, ...]) -> dict[str, Any]:
    """Time some arms turn by turn, each after one repetition that does not count."""
    ready: dict[str, arms.Timed] = {}
    missing: dict[str, str] = {}
    for arm in sorted(rivals, key=lambda arm: arm.name == US):  # a rival that is missing costs nothing
        try:
            if missing:
                break
            ready[arm.name] = arms.timed(arm, preset.num_envs)
        except (ConfigError, ImportError) as error:
            missing[arm.name] = str(error)
    speeds = {name: [] for name in ready}
    for repetition in range(preset.repetitions + 1):
        for name, one in ready.items():
            rate = one.run(preset.seconds)
            if repetition:
                speeds[name].append(rate)
    profiles = {name: one.profile(preset.seconds) for name, one in ready.items() if isinstance(one, Ours)}
    compiled = {name: one.compile_s for name, one in ready.items()}
    return {"steps_per_s": speeds, "compile_s": compiled, "profile": profiles, "missing": missing}


def main() -> None:
    """Pairs: our arm beside every other one, so that both see the same minutes of the machine."""
    study = Study("training_speed", about="Steps per second of whole training.", parts=PARTS)
    preset = PRESETS[study.preset]
    ours = next(arm for arm in ARMS if arm.name == US)
    rivals = [arm for arm in preset.arms if arm.name != US and study.only in (None, arm.name)]
    table, profile, bars = list[dict[str, Any]](), dict[str, dict[str, Any]](), list[Bar]()
    for arm in rivals:
        cell = study.cell(arm.name, partial(measure, preset, (ours, arm)))
        table.append(row(arm, cell))
        profile |= {name: {"arm": name, **costs} for name, costs in cell["profile"].items()}
        study.say("  " + ", ".join(f"{k} {v:.4g}" for k, v in table[-1].items() if isinstance(v, float)))
        for bar, (name, times) in BARS.items():
            if name == arm.name and arm.name not in cell["missing"]:
                line = table[-1]
                bars.append(at_least(f"S2.{bar}", line["ratio"], line["ratio_low"], line["ratio_high"], times))
    values = {"training": table, "microseconds_per_step": list(profile.values())}
    study.finish(seeds=[arms.SEED], values=values, bars=bars)


def row(arm: Arm, cell: dict[str, Any]) -> dict[str, Any]:
    """A line of the table: medians with the range over the repetitions; the ratio is taken pair by pair."""
    if arm.name in cell["missing"]:
        return {"arm": arm.name, "note": cell["missing"][arm.name]}
    line: dict[str, Any] = {"arm": arm.name}
    speed = {"steps_per_s": np.array(cell["steps_per_s"][arm.name]), "ours": np.array(cell["steps_per_s"][US])}
    speed["ratio"] = speed["ours"] / speed["steps_per_s"]
    for name, values in speed.items():
        line |= {
            name: float(np.median(values)),
            f"{name}_low": float(values.min()),
            f"{name}_high": float(values.max()),
        }
    return {**line, "compile_s": cell["compile_s"][arm.name], "note": ""}


if __name__ == "__main__":
    main()
