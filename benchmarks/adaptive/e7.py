"""E7, memory length: what a Transformer-XL of one layer reaches back over, on four doors with fixed headings.

With random headings such a Transformer learnt nothing from earlier trials, whatever its length: not in 3M steps of the
mixture of doors or of the ramp (three seeds of each length, one of each ramp), nor in 8M of the mixture (one seed).

A memory shorter than a trial is no wall here: at the beginning of a trial it still sees how the last one ended, and
which way one turns says it again, step by step. So "flat in k" asks for more than the horizon can promise.
"""

from typing import Any, NamedTuple

from benchmarks import training
from benchmarks.adaptive.arms import (
    Evaluation,
    at_least_apart,
    cells,
    costs,
    equal,
    gain,
    not_worse,
    scores,
    table,
    versus,
)
from benchmarks.common import Bar, Study, at_least
from rekindle.core.stats import bootstrap

TRIAL = 6
"""Steps of a trial of doors-4."""
SLOTS = {"0.5 T": 3, "1.2 T": 7, "4 T": 24}
"""Slots M by trials' lengths; the horizon of one layer is M steps exactly."""
FIXED = {"random_heading": 0.0}


class Preset(NamedTuple):
    """Sizes of a run."""

    budget: str
    seeds: int
    count: int
    repetitions: int


PRESETS = {
    "smoke": Preset("2e4steps", 1, 8, 2),
    "cpu": Preset("2e6steps", 3, 256, 16),
    "gpu": Preset("10e6steps", 3, 1000, 16),
}


def run(study: Study, preset: str) -> tuple[dict[str, Any], list[Bar]]:
    """Train with each M; M < T must not adapt, M >= 2 T must."""
    size, trials = PRESETS[preset], [1, 2, 3, 4]
    pool = {"worlds": 64, "games": 512, **FIXED}
    evaluation = Evaluation("xland/doors-4-v1", trials, "success", size.count, size.repetitions, pool)
    arms = {}
    for name, slots in SLOTS.items():
        what = training.order(evaluation.env, size.budget, curriculum="none", trials=(1, 4), pool=FIXED,
                              memory="transformer-xl", layers=1, slots=slots, epochs=1, rollout_length=24)  # fmt: skip
        arms[name] = cells(study, "E7", f"M{slots}", what, evaluation, size.seeds)
    short, middle, long = arms.values()
    excess = bootstrap(scores(long, 2) - scores(long, 1) - 3.0 * (scores(short, 2) - scores(short, 1)))
    bars = [
        *[equal(f"E7.flat.k{k}", gain(short, k, 1), 0.05) for k in trials[1:]],
        not_worse("E7.zero-shot", versus(long, short, 1), 0.03),
        at_least("E7.gain-over-3-times", *excess, 0.0),
        *[not_worse(f"E7.monotone.{a}", versus(x, y, 4), 0.03) for a, x, y in
          (("1.2T", middle, short), ("4T", long, middle))],
        at_least_apart("E7.long-over-short.k4", versus(long, short, 4), 0.05),
    ]  # fmt: skip
    return {"scores": table(arms, trials), "costs": costs(arms)}, bars
