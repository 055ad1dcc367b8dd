"""An arm of an experiment: an order that is trained and scored once per seed, each a cell of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks import training
from benchmarks.common import Bar, Study, value_at_least, within
from rekindle.core.stats import Interval, Statistic, bootstrap, median
from rekindle.evaluate.adaptation import AGENT, FORGETFUL
from rekindle.library.run import Run
from rekindle.train.order import Order

EVALUATION_SEED = 100
"""One evaluation for all arms and seeds, so that tasks can be compared by their place."""
CURVE_POINTS = 60
"""Most points of a learning curve that are kept with a cell."""


@dataclass(frozen=True)
class Evaluation:
    """What an arm is scored on: held-out tasks of an environment, the last trial of k."""

    env: str
    trials: Sequence[int]
    kind: str
    count: int
    repetitions: int
    pool: dict[str, Any] = field(default_factory=dict)


def cells(study: Study, part: str, arm: str, what: Order, evaluation: Evaluation, seeds: int) -> list[dict[str, Any]]:
    """The arm's cell of every seed: scores, steps, seconds and the learning curve."""
    name = f"{part}-{arm}"
    return all_seeds(study, name, what, seeds, lambda seed: compute(study, name, what, evaluation, seed))


def all_seeds(study: Study, name: str, what: Order, seeds: int, computed: Callable[[int], Mapping[str, Any]]
              ) -> list[dict[str, Any]]:  # fmt: skip
    """A cell for every seed; on an accelerator all seeds that are missing are trained in one program first."""
    if study.preset == "gpu":
        missing = [seed for seed in range(seeds) if not study.has(f"{name}-seed{seed}")]
        training.train_together(f"{name}-{study.preset}", what, missing, training.library(), study.say)
    return [study.cell(f"{name}-seed{seed}", partial(computed, seed)) for seed in range(seeds)]


def compute(study: Study, name: str, what: Order, evaluation: Evaluation, seed: int) -> dict[str, Any]:
    """Train and score one seed."""
    kept = training.library()
    folder = training.trained(f"{name}-{study.preset}", what, seed, kept, study.say)
    run = Run.open(kept, folder.parent.name)
    rows = run.metrics()
    result = training.scores(folder, evaluation.env, trials=list(evaluation.trials), count=evaluation.count,
                             seed=EVALUATION_SEED, repetitions=evaluation.repetitions, kind=evaluation.kind,
                             options=evaluation.pool, greedy=False)  # fmt: skip
    return {
        **result,
        "wall_s": run.manifest.wall_s,
        "trained_steps": run.manifest.env_steps,
        "learner_steps": rows[-1]["time/learner_steps"],
        "steps_per_s": float(np.median([row["time/env_steps_per_s"] for row in rows])),
        "curve": curve(rows),
        "curriculum": {k: v for k, v in rows[-1].items() if k.startswith("curriculum/")},
    }


def curve(rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Success and reward by trial during training, averaged over neighbouring chunks."""
    points = []
    for part in np.array_split(np.arange(len(rows)), min(CURVE_POINTS, len(rows))):
        seen = [rows[i] for i in part]
        names = sorted({name for row in seen for name in row if name.startswith("trial/")})
        means = {name: float(np.mean([row[name] for row in seen if name in row])) for name in names}
        points.append({"env_steps": seen[-1]["env_steps"], **means})
    return points


def scores(cells: list[dict[str, Any]], k: int, who: str = AGENT) -> np.ndarray:
    """Last-trial scores, seeds by tasks."""
    return np.asarray([cell["scores"][f"{who}|{k}"] for cell in cells])


def mean(cells: list[dict[str, Any]], k: int, who: str = AGENT) -> Interval:
    """Over seeds and tasks, with its 95 % interval."""
    return bootstrap(scores(cells, k, who))


def gain(cells: list[dict[str, Any]], k: int, other: int, who: str = AGENT, of: Statistic | None = None) -> Interval:
    """Difference of k and `other` trials of the same arm, task by task: of means, or of a statistic."""
    return apart(scores(cells, k, who), scores(cells, other, who), of)


def versus(a: list[dict[str, Any]], b: list[dict[str, Any]], k: int, of: Statistic | None = None) -> Interval:
    """Difference of two arms at k trials, seeds paired by number and tasks by place: of means, or of a statistic."""
    return apart(scores(a, k), scores(b, k), of)


def apart(x: np.ndarray, y: np.ndarray, of: Statistic | None) -> Interval:
    """Difference of scores that are paired place by place, with its interval."""
    return bootstrap(x - y) if of is None else bootstrap_pair(np.stack([x, y], axis=-1), of)


def bootstrap_pair(both: np.ndarray, of: Statistic, *, draws: int = 2000, seed: int = 0) -> Interval:
    """of(first) - of(second), mean over seeds, with its interval; seeds and tasks drawn anew, the same for both."""
    rng = np.random.default_rng(seed)

    def difference(both: np.ndarray) -> float:
        return float(np.mean(of(both[..., 0])) - np.mean(of(both[..., 1])))

    found = []
    for _ in range(draws):
        rows = both[rng.integers(len(both), size=len(both))]
        found.append(difference(rows[:, rng.integers(rows.shape[1], size=rows.shape[1])]))
    return Interval(difference(both), *np.percentile(found, [2.5, 97.5]).tolist())


def at_least_apart(name: str, difference: Interval, margin: float) -> Bar:
    """A difference: the mean keeps the margin and the interval excludes 0."""
    return value_at_least(name, *difference, margin, above=0)


def not_worse(name: str, difference: Interval, margin: float) -> Bar:
    """Not worse by more than `margin`: the lower end of the interval lies above -margin."""
    return Bar(name, *difference, -margin, difference.low > -margin, f"interval > {-margin or 0.0:g}")


def equal(name: str, difference: Interval, margin: float) -> Bar:
    """An equality: the whole interval lies within the margin."""
    return within(name, *difference, 0.0, margin)


def table(arms: dict[str, list[dict[str, Any]]], trials: Sequence[int]) -> list[dict[str, Any]]:
    """A row per arm and number of trials: mean, median and the memory-reset control."""
    rows = []
    for arm, of in arms.items():
        for k in trials:
            if f"{AGENT}|{k}" not in of[0]["scores"]:
                continue
            value, control, middle = mean(of, k), mean(of, k, FORGETFUL), bootstrap(scores(of, k), median)
            rows.append({"arm": arm, "k": k, "mean": value.value, "mean_low": value.low, "mean_high": value.high,
                         "median": middle.value, "median_low": middle.low, "median_high": middle.high,
                         "memory reset": control.value})  # fmt: skip
    return rows


def costs(arms: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row per arm: what its training took, as means over seeds."""
    names = ("trained_steps", "learner_steps", "wall_s", "steps_per_s")
    return [{"arm": arm, **{n: float(np.mean([cell[n] for cell in of])) for n in names}} for arm, of in arms.items()]
