"""What strategies share: the situation they are in, what they promise, what they return, and how a curve is judged."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Key

from rekindle.agents.registry import Loaded
from rekindle.core.budget import Budget
from rekindle.core.stats import Interval
from rekindle.core.types import Agent
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.goals import Goal
from rekindle.envs.xland.pools import TaskPool
from rekindle.evaluate.exam import Exam, sit
from rekindle.library.run import Run
from rekindle.train.loop import Progress

PRACTICE_REPETITIONS = 2
"""Episodes per task of the practice exam."""
SHORT_TASKS = 32
"""Tasks of a short exam, with one episode each."""


@dataclass
class Account:
    """What the whole job may spend and has spent: every environment step of every strategy and exam."""

    budget: Budget
    env_steps: int = 0
    started: float = field(default_factory=time.monotonic)
    before_s: float = 0.0
    """Seconds of earlier sittings of a resumed job."""

    def seconds(self) -> float:
        """Wall time so far."""
        return self.before_s + time.monotonic() - self.started

    def left(self, share: float = 1.0) -> Budget:
        """`share` of what is left; at least one second and one step, so that it is a budget."""
        seconds, steps = self.budget.seconds, self.budget.env_steps
        return Budget(
            seconds=None if seconds is None else max(share * (seconds - self.seconds()), 1.0),
            env_steps=None if steps is None else max(int(share * (steps - self.env_steps)), 1),
        )

    def is_spent(self) -> bool:
        """Whether nothing worth starting anything with is left."""
        seconds, steps = self.budget.seconds, self.budget.env_steps
        return (seconds is not None and self.seconds() >= seconds) or (steps is not None and self.env_steps >= steps)


@dataclass(frozen=True)
class Recalled:
    """A prior that can act here, and how it did in the practice exam (None if it was not asked)."""

    id: str
    loaded: Loaded
    card: dict[str, Any]
    first: Interval | None
    """Score of the first trial: without adapting."""
    last: Interval | None
    """Score of the last trial."""
    answered: bool
    """It was kept as the answer to this very goal."""


@dataclass(frozen=True)
class Situation:
    """Everything a strategy may look at."""

    goal: Goal
    env: Trials
    pool: Callable[..., TaskPool]
    """`pool(neighbours=..., worlds=...)`: practice tasks; never those of the proof."""
    practice: Exam
    priors: Sequence[Recalled]
    """Best first."""
    target: float
    key: Key[Array, ""]
    run: Run
    account: Account
    show: Callable[[str, Progress], None]
    ongoing: "Attempt | None" = None
    """An attempt that passed the practice exam but not the proof: its strategy goes on from there."""

    def ask(self, policy: Any, stream: int, target: float | None = None) -> list[Interval]:
        """Sit the practice exam: the score of every trial. The steps are booked.

        A few tasks are enough for what passes or fails them clearly; where the target (by default the job's own) lies
        within their interval, the whole exam is sat.
        """
        wanted = self.target if target is None else target
        trials = self._sit(policy, self.practice.first(SHORT_TASKS), 1, stream, 0)
        if trials[-1].low < wanted <= trials[-1].high:
            trials = self._sit(policy, self.practice, PRACTICE_REPETITIONS, stream, 1)
        return trials

    def _sit(self, policy: Any, exam: Exam, repetitions: int, *streams: int) -> list[Interval]:
        key = self.key
        for stream in streams:
            key = jax.random.fold_in(key, stream)
        result = sit(exam, policy, key, trials=self.goal.trials, repetitions=repetitions)
        self.account.env_steps += result.env_steps
        return result.by_trial()


class Estimate(NamedTuple):
    """What a strategy promises before it is carried out, and why it could work."""

    seconds: float
    env_steps: int
    reach: float
    """Expected score."""
    reason: str


Verdict = Literal["mastered", "converged", "improving", "stalled", "diverged", "interrupted"]


class Attempt(NamedTuple):
    """What a strategy came back with."""

    strategy: str
    agent: Agent
    state: Any
    """None if the policy was used as it is."""
    policy: Any
    score: Interval
    verdict: Verdict
    parents: tuple[str, ...]
    env_steps: int
    """Of training; exams are booked by themselves."""
    curve: list[tuple[int, Interval]]


@runtime_checkable
class Strategy(Protocol):
    """One way to a policy."""

    name: str

    def estimate(self, now: Situation) -> Estimate | None:
        """What it would cost and reach, or None if it does not apply."""
        ...

    def carry_out(self, now: Situation) -> Attempt:
        """Do it, within what is left of the account."""
        ...


def judge(curve: Sequence[tuple[int, Interval]], target: float) -> Verdict:
    """A verdict on a learning curve from its points (env_steps, score).

    mastered: the interval of the last point lies above the target. diverged: the last third is worse than the best
    third by more than both intervals' half widths. converged or stalled: the last third gained less than 0.02 over the
    middle one, above or below three quarters of the target. improving: anything else, also fewer than six points.
    """
    if not curve:
        return "improving"
    scores = np.asarray([interval.value for _, interval in curve])
    last = curve[-1][1]
    if last.low >= target:
        return "mastered"
    if len(scores) < 6:
        return "improving"
    thirds = [part.mean() for part in np.array_split(scores, 3)]
    if thirds[2] < max(thirds[:2]) - (last.high - last.low):
        return "diverged"
    if thirds[2] - thirds[1] < 0.02:
        return "converged" if thirds[2] >= 0.75 * target else "stalled"
    return "improving"
