"""The shipped agent on tasks it has never seen. `python -m benchmarks.foundation --preset smoke|cpu|gpu`.

The command that made it is in the policy's own provenance (`rekindle library show shipped/foundation`).
"""

from typing import NamedTuple

from benchmarks import training
from benchmarks.common import Bar, Study, at_least, value_at_least, within
from rekindle.evaluate.adaptation import AGENT, FORGETFUL, NO_OP, RANDOM
from rekindle.library.home import shipped


class Preset(NamedTuple):
    """Sizes of a run."""

    count: int
    repetitions: int


PRESETS = {"smoke": Preset(8, 2), "cpu": Preset(256, 16), "gpu": Preset(1000, 16)}
TRIALS = [1, 2, 3, 5, 8]
PARTS = {"f0-visible": "return", "f0t": "return", "doors-4": "success", "f0": "return"}


def main() -> None:
    """Score the agent and its baselines on every family."""
    study = Study("foundation", about=__doc__ or "", parts=tuple(PARTS))
    preset = PRESETS[study.preset]
    training.library()
    folder = shipped() / "foundation" / "policy"
    values, bars = {}, []
    for name, kind in PARTS.items():
        if study.only not in (None, name):
            continue
        trials = [1, 2, 3, 4] if name == "doors-4" else TRIALS
        cell = study.cell(name, lambda name=name, kind=kind, trials=trials: training.scores(
            folder, f"xland/{name}-v1", trials=trials, count=preset.count, repetitions=preset.repetitions, seed=0,
            kind=kind))  # fmt: skip
        values[name] = training.table([cell], trials)
        values[f"{name}_left_out"] = cell["left_out"]
        bars += judge(name, [cell], trials)
    study.finish(seeds=[0], values=values, bars=bars)


def judge(name: str, cells: list[dict], trials: list[int]) -> list[Bar]:
    """The promises about a family."""
    bars = []
    if name == "f0-visible":
        bars.append(at_least("F.a.visible.k1", *training.interval(cells, AGENT, 1), 0.7))
    if name == "f0t":
        gain = training.difference(cells, AGENT, 3, 1)
        bars.append(value_at_least("F.b.gain.k3", *gain, 0.05, above=0))
        excess = training.excess(cells, AGENT, FORGETFUL, 3, 1, 3.0)
        bars.append(at_least("F.b.gain_minus_3x_control", *excess, 0.0))
    if name == "doors-4":
        bars += [within(f"F.c.doors-4.k{k}", *training.interval(cells, AGENT, k), min(k / 4, 1.0), 0.1) for k in trials]
    idle = max(training.interval(cells, who, 1).high for who in (RANDOM, NO_OP))
    worst = min((training.interval(cells, AGENT, k) for k in trials), key=lambda i: i.low)
    bars.append(at_least(f"F.{name}.above_idle", *worst, idle))
    return bars


if __name__ == "__main__":
    main()
