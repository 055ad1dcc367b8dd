"""Run the study: `python -m benchmarks.xland_speed --preset smoke|cpu|gpu`."""

import itertools
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.common import Bar, Study, at_least
from benchmarks.xland_speed import arms
from benchmarks.xland_speed.work import draw_work
from rekindle.envs.xland.level import HOLD, NEAR, SEE, TOUCHING

SEED = 0
BARS = {1: 2.0, 9: 10.0, 18: 20.0}
"""How many times XLand-MiniGrid's speed is promised, by number of rules."""
PARTS = ("plain", "reset", "see")
"""Without and with auto-reset; `see` is ours alone, without auto-reset, with the relation that they lack."""


class Preset(NamedTuple):
    """Sizes of a run."""

    rules: tuple[int, ...]
    worlds: tuple[int, ...]
    work: int
    """Environment steps per chunk, at least 8 and at most 256 per world; a repetition is at least one chunk."""
    repetitions: int
    """Six: the range of six repetitions holds their median with probability 1 - 2 / 2^6 = 97 %."""


PRESETS = {
    "smoke": Preset((9,), (64,), 2**10, 2),
    "cpu": Preset((1, 9, 18), (256, 1024, 8192), 2**15, 6),
    "gpu": Preset((1, 9, 18), (256, 1024, 8192, 65536), 2**22, 6),
}


def measure(preset: Preset, rules: int, worlds: int, mode: str) -> dict[str, Any]:
    """Time the arms of a cell turn by turn, after one chunk that does not count."""
    steps = min(max(preset.work // worlds, 8), 256)
    rule_sets, tasks = draw_work(SEED, rules, worlds, sight=mode == "see")
    relations = (TOUCHING, NEAR, HOLD, SEE) if mode == "see" else (TOUCHING, NEAR, HOLD)
    arm = {"ours": arms.ours(tasks, rules=rules, relations=relations, auto_reset=mode == "reset")}
    if mode != "see":
        arm["theirs"] = arms.theirs(rule_sets, auto_reset=mode == "reset")
    timed = {name: arms.Timed(a, worlds, steps, SEED) for name, a in arm.items()}
    speeds = np.array([[t.run() for t in timed.values()] for _ in range(preset.repetitions + 1)])[1:]
    return {
        "steps_per_s": {name: list(column) for name, column in zip(timed, speeds.T, strict=True)},
        "compile_s": {name: t.compile_s for name, t in timed.items()},
        "steps": steps,
    }


def row(rules: int, worlds: int, mode: str, cell: dict[str, Any]) -> dict[str, Any]:
    """A line of the table: medians, with the range over the repetitions; the ratio is taken pair by pair."""
    speed = {name: np.array(values) for name, values in cell["steps_per_s"].items()}
    line: dict[str, Any] = {"rules": rules, "worlds": worlds, "mode": mode, "steps": cell["steps"]}
    for name in ("ours", "theirs"):
        if name in speed:
            line |= {name: np.median(speed[name]), f"{name}_low": speed[name].min(), f"{name}_high": speed[name].max()}
            line[f"{name}_compile_s"] = cell["compile_s"][name]
    if "theirs" in speed:
        ratio = speed["ours"] / speed["theirs"]
        line |= {"ratio": np.median(ratio), "ratio_low": ratio.min(), "ratio_high": ratio.max()}
    return line


def bar(rules: int, table: list[dict[str, Any]]) -> Bar:
    """The promise holds for the number of worlds where it is hardest to keep; without auto-reset."""
    plain = [line for line in table if line["rules"] == rules and line["mode"] == "plain"]
    worst = min(plain, key=lambda line: line["ratio_low"])
    return at_least(f"S1.rules{rules}", worst["ratio"], worst["ratio_low"], worst["ratio_high"], BARS[rules])


def main() -> None:
    """All cells of the preset."""
    jax.config.update("jax_enable_compilation_cache", False)
    study = Study("xland_speed", about="Environment steps per second, beside XLand-MiniGrid.", parts=PARTS)
    preset = PRESETS[study.preset]
    modes = (study.only,) if study.only else PARTS
    table = []
    for rules, worlds, mode in itertools.product(preset.rules, preset.worlds, modes):
        cell = study.cell(f"rules{rules}-worlds{worlds}-{mode}", partial(measure, preset, rules, worlds, mode))
        line = row(rules, worlds, mode, cell)
        table.append(line)
        study.say("  " + ", ".join(f"{k} {v:.4g}" for k, v in line.items() if isinstance(v, float)))
    bars = [bar(rules, table) for rules in preset.rules] if "plain" in modes else []
    study.finish(seeds=[SEED], values={"speed": table}, bars=bars)


if __name__ == "__main__":
    main()
