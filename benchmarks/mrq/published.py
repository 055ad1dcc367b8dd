"""What was published of MR.Q and its peers: final scores, means of ten seeds on the way there, and gates.

The tables lie in `published/`. Final scores (`gym.csv`, `dmc.csv`, `dmc-visual.csv`, `atari.csv`: after 1,000,000,
500,000, 500,000 and 2,500,000 steps of the agent) are the paper's, integers that its authors cut; `_low` and `_high`
are the ends of 95 % bootstrap intervals over ten seeds. `curves.csv` is computed from the per-seed curves that they
published with their code: mean, least and largest of ten, and standard deviations where a gate follows from them.
`peers.csv` holds what others publish of their TD3 and SAC. An empty cell is not known.

A gate is the mean less two standard deviations of a mean of n seeds beside one of ten, sqrt(1/n + 1/10); those of later
milestones, and where all ten were alike, are stated in `gates.csv`.
"""

import csv
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "published"
STEPS = {"gym": 1_000_000, "dmc": 500_000, "dmc-visual": 500_000, "atari": 2_500_000}
"""Of the agent, after which final scores were taken."""
ENDS = {"gym": ("random", "TD3"), "atari": ("random", "human")}
"""Between which scores are normalised, by part; in DeepMind Control 0 and the most that there is."""
MOST_IN_DMC = 1_000.0


class Milestone(NamedTuple):
    """Of ten seeds, at so many steps of the agent."""

    steps: int
    mean: float
    low: float | None
    """The worst seed."""
    high: float | None
    sd: float | None
    """Over seeds."""
    stated: dict[int, float]
    """Gates for means of so many seeds."""

    def gate(self, seeds: int) -> float | None:
        """What the mean of so many seeds has to reach, as stated for as many or the next fewer; or as it follows."""
        if fewer := [number for number in self.stated if number <= seeds]:
            return self.stated[max(fewer)]
        return None if self.sd is None else self.mean - 2 * self.sd * (1 / seeds + 0.1) ** 0.5


def table(name: str) -> list[dict[str, Any]]:
    """The rows of a file, numbers as such; None where nothing is known."""
    with open(FOLDER / f"{name}.csv", newline="") as file:
        return [{column: _value(text) for column, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> str | float | int | None:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text or None


@cache
def finals(part: str) -> dict[str, dict[str, Any]]:
    """The row of final scores of every task of a part."""
    return {row["task"]: row for row in table(part)}


def normalised(part: str, task: str, score: float) -> float:
    """A score by the ends of its part: TD3's in Gymnasium, people's in Atari, each 0 at random; else by the most."""
    if part not in ENDS:
        return score / MOST_IN_DMC
    low, high = (finals(part)[task][name] for name in ENDS[part])
    return (score - low) / (high - low)


def _milestones() -> dict[str, tuple[Milestone, ...]]:
    found: dict[str, tuple[Milestone, ...]] = {}
    for row in table("curves"):
        task, values = row["task"], [row[name] for name in ("steps", "mean", "low", "high", "sd")]
        found[task] = (*found.get(task, ()), Milestone(*values, stated={}))
    for row in table("gates"):
        at = {milestone.steps: milestone for milestone in found.get(row["task"], ())}
        at[row["steps"]].stated[row["seeds"]] = row["least"]
    return found


MILESTONES = _milestones()
"""By task, in the order of their steps."""
SMALL = {
    "dmc/cartpole-balance": 850,
    "dmc/walker-stand": 750,
    "dmc/ball_in_cup-catch": 700,
    "dmc/cartpole-swingup": 600,
}
"""Gates of the reduced agent at 50,000 steps, for two of three seeds; they are estimates, and were never published."""
ABLATIONS = {"linear_value": -1.17, "no_model": -0.56, "one_step": -0.33}
"""Change of the score normalised by TD3's, mean of five of Gymnasium's bodies after a million steps."""
