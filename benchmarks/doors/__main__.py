"""E1: adaptation emerges and is Bayes-optimal on D-N. `python -m benchmarks.doors --preset smoke|cpu|gpu`."""

from typing import NamedTuple

import numpy as np

from benchmarks import training
from benchmarks.common import Bar, Study, within
from rekindle.evaluate.adaptation import AGENT, FORGETFUL
from rekindle.train.order import Order

PARTS = ("D3", "D4")


class Preset(NamedTuple):
    """Sizes of a run."""

    steps: dict[int, str]
    """Environment steps of training, by N."""
    seeds: int
    count: int
    repetitions: int


PRESETS = {
    "smoke": Preset({3: "1e5steps"}, 1, 16, 2),
    "cpu": Preset({3: "2e6steps", 4: "3e6steps"}, 3, 256, 16),
    "gpu": Preset({3: "2e6steps", 4: "3e6steps"}, 3, 1000, 16),
}
MARGIN, CONTROL_MARGIN = 0.06, 0.05


def main() -> None:
    """Train each N with each seed, score with every k, compare with min(k / N, 1)."""
    study = Study("doors", about=__doc__ or "", parts=PARTS)
    preset = PRESETS[study.preset]
    library = training.library()
    bars: list[Bar] = []
    values = {}
    for n, steps in preset.steps.items():
        if study.only not in (None, f"D{n}"):
            continue
        trials = list(range(1, n + 1))
        what = training.order(f"xland/doors-{n}-v1", steps, curriculum="doors", trials=(1, n), rollout_length=6 * n)
        cells = []
        for seed in range(preset.seeds):

            def compute(seed: int = seed, n: int = n, what: Order = what, trials: list[int] = trials) -> dict:
                folder = training.trained(f"doors-{n}-{study.preset}", what, seed, library, study.say)
                run = library.runs(name=f"doors-{n}-{study.preset}")
                wall = next(r.manifest.wall_s for r in run if r.manifest.seed == seed and r.path == folder.parent)
                result = training.scores(folder, f"xland/doors-{n}-v1", trials=trials, count=preset.count,
                                         repetitions=preset.repetitions, seed=100 + seed, kind="success",
                                         options={"worlds": 64, "games": 512})  # fmt: skip
                return {**result, "wall_s": wall}

            cells.append(study.cell(f"D{n}-seed{seed}", compute))
        values[f"D{n}"] = training.table(cells, trials)
        values[f"D{n}_training_s"] = float(np.mean([cell["wall_s"] for cell in cells]))
        for k in trials:
            bars.append(within(f"E1.D{n}.k{k}", *training.interval(cells, AGENT, k), min(k / n, 1.0), MARGIN))
            control = training.interval(cells, FORGETFUL, k)
            bars.append(within(f"E1.D{n}.reset.k{k}", *control, 1.0 / n, CONTROL_MARGIN))
    study.finish(seeds=list(range(preset.seeds)), values=values, bars=bars)


if __name__ == "__main__":
    main()
