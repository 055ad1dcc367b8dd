"""E2 and E11: held-out adaptation over trials, and whether knowing k changes the first trial."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from benchmarks import training
from benchmarks.adaptive import arms as arm
from benchmarks.adaptive.arms import (
    Evaluation,
    at_least_apart,
    cells,
    costs,
    equal,
    gain,
    mean,
    not_worse,
    scores,
    table,
    versus,
)
from benchmarks.common import Bar, Study, at_least
from rekindle.core.stats import bootstrap, median

TRIALS = [1, 2, 3, 5, 8]


class Preset(NamedTuple):
    """Sizes of a run."""

    budget: str
    seeds: int
    count: int
    repetitions: int


PRESETS = {
    "smoke": Preset("2e4steps", 1, 8, 2),
    "cpu": Preset("24e6steps", 3, 256, 16),
    "gpu": Preset("300e6steps", 3, 512, 16),
}
RECIPE = {"width": 96, "hidden": 96, "epochs": 1, "rollout_length": 64, "entropy_weight": 0.03}
"""That of the shipped foundation agent; the mixture leads from doors to F0t."""


def run(study: Study, preset: str) -> tuple[dict[str, Any], list[Bar]]:
    """The agent that is trained with 1 to 4 trials, and one that only ever sees one."""
    size = PRESETS[preset]
    evaluation = Evaluation("xland/f0t-v1", TRIALS, "return", size.count, size.repetitions)
    trains, one = (training.order("xland/f0-v1", size.budget, curriculum="foundation", trials=trials, **RECIPE)
                   for trials in ((1, 4), (1, 1)))  # fmt: skip
    agent = cells(study, "E2", "agent", trains, evaluation, size.seeds)
    brief = Evaluation(evaluation.env, [1], "return", size.count, size.repetitions)
    alone = cells(study, "E2", "one-trial", one, brief,
                  size.seeds)  # fmt: skip
    f0 = Evaluation("xland/f0-v1", TRIALS, "return", size.count, size.repetitions)
    reported = [study.cell(f"E2-agent-on-f0-seed{seed}", lambda seed=seed: arm.compute(
        study, "E2-agent", trains, f0, seed)) for seed in range(size.seeds)]  # fmt: skip
    of = median if preset == "gpu" else None

    steps = list(pairwise(TRIALS))
    gains = {f"{a}-{b}": gain(agent, b, a, of=of) for a, b in steps}
    largest = max(gains, key=lambda name: gains[name].value)
    bars = [
        at_least_apart("E2.gain", gains["1-2"], 0.10),
        Bar("E2.largest-gain-is-the-first", gains["1-2"].value, gains["1-2"].low, gains["1-2"].high,
            max(g.value for g in gains.values()), largest == "1-2", "the largest gain"),
        *[not_worse(f"E2.non-decreasing.{a}-{b}", gains[f"{a}-{b}"], 0.03) for a, b in steps[:3]],
        not_worse("E2.untrained-k8", gains["5-8"], 0.03),
        equal("E2.zero-shot", versus(agent, alone, 1), 0.05),
        at_least_apart("E2.k3-k1", gain(agent, 3, 1), 0.10),
        at_least("E2.k5-of-planner", *mean(agent, 5), 0.6),
    ]  # fmt: skip
    first = [np.subtract(cell["first_trial"]["8"], cell["first_trial"]["1"]) for cell in agent]
    bars.append(equal("E11.first-trial", bootstrap(np.asarray(first)), 0.03))
    middle = {k: bootstrap(scores(agent, k), median) for k in TRIALS}
    return {
        "f0t": table({"agent": agent, "one trial": alone}, TRIALS),
        "f0": table({"agent": reported}, TRIALS),
        "medians": [{"k": k, "median": m.value, "median_low": m.low, "median_high": m.high} for k, m in middle.items()],
        "costs": costs({"agent": agent, "one trial": alone}),
    }, bars
