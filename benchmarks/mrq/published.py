"""What was published of MR.Q: means of ten seeds at some environment steps, and gates that follow from them.

Milestones and their spread are computed from the per-seed curves that its authors published with their code. A gate is
the mean less two standard deviations of a mean of n seeds beside one of ten: sqrt(1/n + 1/10).
"""

from typing import NamedTuple


class Milestone(NamedTuple):
    """At so many steps of the agent."""

    steps: int
    mean: float
    sd: float
    """Over seeds."""

    def gate(self, seeds: int) -> float:
        """What the mean of so many seeds has to reach."""
        return self.mean - 2 * self.sd * (1 / seeds + 0.1) ** 0.5


MILESTONES = {
    "HalfCheetah-v4": (Milestone(20_000, 2237, 636), Milestone(25_000, 2988, 841)),
    "dmc/cartpole-balance": (Milestone(20_000, 944, 78), Milestone(25_000, 980, 19)),
    "dmc/walker-stand": (Milestone(25_000, 745, 212), Milestone(30_000, 914, 77)),
}
SMALL = {
    "dmc/cartpole-balance": 850,
    "dmc/walker-stand": 750,
    "dmc/ball_in_cup-catch": 700,
    "dmc/cartpole-swingup": 600,
}
"""Gates of the reduced agent at 50,000 steps, for two of three seeds; they are estimates, and were never published."""
ABLATIONS = {"linear_value": -1.17, "no_model": -0.56}
"""Change of the score normalised by TD3's, mean of five of Gymnasium's bodies after a million steps."""
