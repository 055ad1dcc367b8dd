"""E3, curricula: a pool of which one task in ten can be learnt from, at equal learner steps."""

from typing import Any, NamedTuple

from benchmarks import training
from benchmarks.adaptive.arms import Exam, at_least_apart, cells, costs, not_worse, table, versus
from benchmarks.common import Bar, Study

TRIALS = [1, 2, 4]
FEW = 4
"""Trials of the few-shot score."""


class Preset(NamedTuple):
    """Sizes of a run."""

    learner: float
    seeds: int
    count: int
    repetitions: int
    pairs: int
    plr: dict[str, Any]
    noop: dict[str, Any]


PRESETS = {
    "smoke": Preset(2e4, 1, 8, 2, 256, {"capacity": 16, "train_trials": 4}, {"episodes": 4}),
    "cpu": Preset(4e6, 3, 256, 16, 8192, {"capacity": 500, "train_trials": 10}, {"episodes": 10}),
    "gpu": Preset(100e6, 3, 1000, 16, 65536, {}, {}),
}
SETTINGS = {"width": 64, "hidden": 64, "epochs": 1, "rollout_length": 40, "entropy_weight": 0.03}
ROWS = 2
"""The curricula try as many tasks side by side as they train on: all steps are twice the learner's."""


def run(study: Study, preset: str) -> tuple[dict[str, Any], list[Bar]]:
    """Uniform, no-op filter, PLR and the planner's regret; uniform again with as many environment steps in all."""
    size = PRESETS[preset]
    exam = Exam("xland/f0-v1", TRIALS, "return", size.count, size.repetitions)
    env, pool = "xland/f0-diluted-v1", {"pairs": size.pairs}
    once, twice = (f"{round(size.learner * n)}steps" for n in (1, ROWS))
    plans = {
        "uniform": ("none", once, {}),
        "uniform-all-steps": ("none", twice, {}),
        "no-op": ("no-op", twice, size.noop),
        "plr": ("plr", twice, size.plr),
    }
    arms = {
        name: cells(study, "E3", name, training.order(env, budget, curriculum=curriculum, trials=(1, 4), pool=pool,
                    choice=choice, **SETTINGS), exam, size.seeds)
        for name, (curriculum, budget, choice) in plans.items()
    }  # fmt: skip
    bars = [
        at_least_apart("E3.plr-uniform", versus(arms["plr"], arms["uniform"], FEW), 0.10),
        at_least_apart("E3.noop-uniform", versus(arms["no-op"], arms["uniform"], FEW), 0.05),
        not_worse("E3.plr-noop", versus(arms["plr"], arms["no-op"], FEW), 0.03),
        not_worse("E3.plr-uniform.equal-env-steps", versus(arms["plr"], arms["uniform-all-steps"], FEW), 0.0),
    ]
    return {"scores": table(arms, TRIALS), "costs": costs(arms)}, bars
