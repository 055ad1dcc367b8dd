"""Scores of all tasks of a part as one number, beside what the published curves come to on the same tasks."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.mrq import published
from rekindle.core.stats import pooled_interquartile_mean, stratified

STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda x: float(x.mean()),
    "interquartile mean": pooled_interquartile_mean,
}


def rows(part: str, cells: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of the last evaluations, normalised; intervals are over seeds, so that one seed has none.

    Args:
        part: whose ends scores are normalised by.
        cells: by task, those of all seeds.
    """
    ours = np.array([[published.normalised(part, task, cell["curve"][-1]["return"]) for cell in of]
                     for task, of in cells.items()]).T  # fmt: skip
    theirs = known(part, {task: of[0]["curve"][-1]["steps"] for task, of in cells.items()})
    found = []
    for name, statistic in STATISTICS.items():
        at, several = stratified(ours, statistic), len(ours) > 1
        found.append({"statistic": name, "score": at.value, "score_low": at.low if several else None,
                      "score_high": at.high if several else None,
                      "published, same tasks and steps": None if theirs is None else statistic(theirs),
                      "tasks": len(cells), "seeds": len(ours)})  # fmt: skip
    return found


def known(part: str, last: Mapping[str, int]) -> np.ndarray | None:
    """The published means of these tasks after these steps, normalised; None where one is not known."""
    found = [published.normalised(part, task, milestone.mean) for task, steps in last.items()
             for milestone in published.MILESTONES.get(task, ()) if milestone.steps == steps]  # fmt: skip
    return np.array(found) if len(found) == len(last) else None
