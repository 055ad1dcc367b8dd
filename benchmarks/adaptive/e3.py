"""E3, curricula: a pool of which one task in ten can be learnt from, at equal learnt steps."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import training
from benchmarks.adaptive import arms as arm
from benchmarks.adaptive.arms import Evaluation, at_least_apart, costs, not_worse, table, versus
from benchmarks.common import Bar, Study, at_least
from rekindle.agents.ppo.ppo import Config
from rekindle.core.stats import bootstrap, median
from rekindle.envs.xland.diluted import LEARNABLE, kinds_of
from rekindle.library.run import Run
from rekindle.train.order import Order

TRIALS = [1, 2, 4]
FEW = 4
"""Trials of the few-shot score."""


class Preset(NamedTuple):
    """Sizes of a run."""

    learnt: float
    seeds: int
    count: int
    repetitions: int
    pairs: int
    plr: dict[str, Any]
    noop: dict[str, Any]


SHARE = 0.2
"""Of the rows that train under PLR: AdA's p. With one half, PLR finds half as many tasks worth training on."""
PRESETS = {
    "smoke": Preset(2e4, 1, 8, 2, 256, {"share": SHARE, "capacity": 16, "train_trials": 4}, {"episodes": 4}),
    "cpu": Preset(4e6, 3, 256, 16, 8192, {"share": SHARE, "capacity": 500, "train_trials": 10}, {"episodes": 10}),
    "gpu": Preset(100e6, 3, 1000, 16, 65536, {"share": SHARE}, {}),
}
SETTINGS = {"width": 64, "hidden": 64, "epochs": 1, "rollout_length": 40, "entropy_weight": 0.03}
LEARNABLE_SHARE, IMPOSSIBLE_SHARE = 0.1, 0.45
"""Of the pool's tasks; the environment's own."""
ROWS = round(1 / SHARE)
"""All steps of PLR for each of the learner's."""


def run(study: Study, preset: str) -> tuple[dict[str, Any], list[Bar]]:
    """Uniform, no-op filter and PLR at equal learnt steps; uniform again with all the steps that PLR takes.

    Few-shot medians decide, as in the paper.
    """
    size = PRESETS[preset]
    evaluation = Evaluation("xland/f0-v1", TRIALS, "return", size.count, size.repetitions)
    env, pool = "xland/f0-diluted-v1", {"pairs": size.pairs}
    once, equal, all_steps = (f"{round(size.learnt * n)}{unit}" for n, unit in
                              ((1, "steps"), (1, "learnt"), (ROWS, "steps")))  # fmt: skip
    plans = {
        "uniform": ("none", once, {}),
        "uniform-all-steps": ("none", all_steps, {}),
        "no-op": ("no-op", equal, size.noop),
        "plr": ("plr", equal, size.plr),
    }
    arms = {}
    for name, (curriculum, budget, choice) in plans.items():
        what = training.order(env, budget, curriculum=curriculum, trials=(1, 4), pool=pool, choice=choice, **SETTINGS)
        cell = partial(compute, study, f"E3-{name}", what, evaluation)
        arms[name] = arm.all_seeds(study, f"E3-{name}", what, size.seeds, cell)
    few = {f"{a}-{b}": versus(arms[a], arms[b], FEW, median) for a, b in
           (("plr", "uniform"), ("no-op", "uniform"), ("plr", "no-op"), ("plr", "uniform-all-steps"))}  # fmt: skip
    worth = {name: bootstrap(np.asarray([[cell["learnable"] for cell in arms[name]]])) for name in ("no-op", "plr")}
    bars = [
        at_least_apart("E3.plr-uniform", few["plr-uniform"], 0.10),
        at_least_apart("E3.noop-uniform", few["no-op-uniform"], 0.05),
        not_worse("E3.plr-noop", few["plr-no-op"], 0.03),
        not_worse("E3.plr-uniform.equal-env-steps", few["plr-uniform-all-steps"], 0.0),
        *[at_least(f"E3.learnable.{name}", *share, LEARNABLE_SHARE) for name, share in worth.items()],
    ]
    shares = [{"arm": name, "learnable tasks among those trained on": share.value, "share_low": share.low,
               "share_high": share.high, "in the pool": LEARNABLE_SHARE} for name, share in worth.items()]  # fmt: skip
    return {"scores": table(arms, TRIALS), "costs": costs(arms), "chosen": shares}, bars


def compute(study: Study, name: str, what: Order, evaluation: Evaluation, seed: int) -> dict[str, Any]:
    """As any arm, and which share of the tasks that it trained on at the end could be learnt from."""
    cell = arm.compute(study, name, what, evaluation, seed)
    kept = training.library()
    run = Run.open(kept, training.trained(f"{name}-{study.preset}", what, seed, kept, study.say).parent.name)
    saved = run.latest_checkpoint()
    assert saved is not None
    arrays = saved[1]
    chosen = arrays.get("curriculum.archive.number", arrays.get("curriculum.number"))
    if chosen is None:
        return cell
    if what.curriculum == "no-op":
        chosen = chosen[: Config(**what.settings).num_envs]
    kinds = kinds_of(what.pool["pairs"], np.random.default_rng(seed), LEARNABLE_SHARE, IMPOSSIBLE_SHARE)
    return {**cell, "learnable": float(np.mean(kinds[chosen[chosen >= 0]] == LEARNABLE))}
