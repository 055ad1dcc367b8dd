"""E8, more tasks: the same steps on few and on many games of F0, scored on the same held-out ones."""

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from benchmarks import training
from benchmarks.adaptive import arms as arm
from benchmarks.adaptive.arms import Evaluation, at_least_apart, costs, mean, not_worse, table, versus
from benchmarks.common import Bar, Study, value_at_most
from rekindle.core.stats import bootstrap, median
from rekindle.train.order import Order

TRIALS = [1, 5]


class Preset(NamedTuple):
    """Sizes of a run."""

    budget: str
    games: tuple[int, ...]
    seeds: int
    count: int
    repetitions: int


PRESETS = {
    "smoke": Preset("2e4steps", (8, 64), 1, 8, 2),
    "cpu": Preset("4e6steps", (8, 64, 512, 8192), 3, 256, 16),
    "gpu": Preset("100e6steps", (8, 64, 512, 8192), 3, 1000, 16),
}
SETTINGS = {"width": 64, "hidden": 64, "epochs": 1, "rollout_length": 40, "entropy_weight": 0.03}


def run(study: Study, preset: str) -> tuple[dict[str, Any], list[Bar]]:
    """One arm per number of games; worlds are as many. Medians decide, as in the paper."""
    size = PRESETS[preset]
    evaluation = Evaluation("xland/f0-v1", TRIALS, "return", size.count, size.repetitions)
    arms = {}
    for games in size.games:
        pool = {"games": games, "worlds": 256, "pairs": min(16 * games, 16_384)}
        what = training.order("xland/f0-v1", size.budget, curriculum="none", trials=(1, 5), pool=pool, **SETTINGS)
        name = f"E8-games{games}"
        arms[str(games)] = arm.all_seeds(study, name, what, size.seeds, partial(compute, study, name, what, evaluation))
    few, *_, many = arms.values()
    gaps = {arm: bootstrap(np.asarray([[cell["trained_on"] - np.mean(cell["scores"]["agent|5"])] for cell in of]))
            for arm, of in arms.items()}  # fmt: skip
    bars = [
        *[not_worse(f"E8.monotone.{b}", versus(arms[b], arms[a], 5, median), 0.03) for a, b in pairwise(arms)],
        at_least_apart("E8.extremes", versus(many, few, 5, median), 0.10),
        *[value_at_most(f"E8.gap-shrinks.{b}", *gaps[b], gaps[a].value + 0.03) for a, b in pairwise(arms)],
    ]  # fmt: skip
    table_of_gaps = [{"games": arm, "trained on": np.mean([c["trained_on"] for c in of]), "held out": mean(of, 5).value,
                      "gap": gaps[arm].value, "gap_low": gaps[arm].low, "gap_high": gaps[arm].high}
                     for arm, of in arms.items()]  # fmt: skip
    return {"scores": table(arms, TRIALS), "costs": costs(arms), "gaps": table_of_gaps}, bars


def compute(study: Study, name: str, what: Order, evaluation: Evaluation, seed: int) -> dict[str, Any]:
    """As any arm, and the mean score of five trials on tasks of the pool that was trained on."""
    cell = arm.compute(study, name, what, evaluation, seed)
    folder = training.trained(f"{name}-{study.preset}", what, seed, training.library(), study.say)
    count = min(evaluation.count, what.pool["pairs"])
    seen = training.scores(folder, evaluation.env, trials=[5], count=count, seed=seed,
                           repetitions=evaluation.repetitions, kind=evaluation.kind, options=what.pool, split="train",
                           greedy=False)  # fmt: skip
    return {**cell, "trained_on": float(np.mean(seen["scores"]["agent|5"]))}
