"""E8, more tasks: the same steps on few and on many games of F0, scored on the same held-out ones."""

from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks import training
from benchmarks.adaptive.arms import Exam, at_least_apart, cells, costs, mean, not_worse, table, versus
from benchmarks.common import Bar, Study

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
    """One arm per number of games; worlds are as many."""
    size = PRESETS[preset]
    exam = Exam("xland/f0-v1", TRIALS, "return", size.count, size.repetitions)
    arms = {}
    for games in size.games:
        pool = {"games": games, "worlds": 256, "pairs": min(16 * games, 16_384)}
        what = training.order("xland/f0-v1", size.budget, curriculum="none", trials=(1, 4), pool=pool, **SETTINGS)
        arms[str(games)] = cells(study, "E8", f"games{games}", what, exam, size.seeds)
    few, *_, many = arms.values()
    order = list(arms)
    bars = [
        *[not_worse(f"E8.monotone.{b}", versus(arms[b], arms[a], 5), 0.03) for a, b in
          pairwise(order)],
        at_least_apart("E8.extremes", versus(many, few, 5), 0.10),
    ]  # fmt: skip
    gaps = [{"games": arm, "train": train_reward(of), "held out": mean(of, 5).value} for arm, of in arms.items()]
    return {"scores": table(arms, TRIALS), "costs": costs(arms), "gaps": gaps}, bars


def train_reward(cells: list[dict[str, Any]]) -> float:
    """Reward of a training trial at the end, mean over seeds; its scale is not that of the scores."""
    return sum(cell["curve"][-1]["trial/reward"] for cell in cells) / len(cells)
