"""What strategies share: a goal, the situation they are in, what they promise and return, how a curve is judged."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Key

from rekindle.agents.registry import Loaded
from rekindle.core.budget import Budget
from rekindle.core.errors import ConfigError
from rekindle.core.stats import Interval
from rekindle.core.types import Agent, EnvSpec, given
from rekindle.library.artefact import read_meta
from rekindle.library.library import Library
from rekindle.library.manifest import Parent
from rekindle.library.records import Prior, prior_in
from rekindle.library.run import Run
from rekindle.train.loop import Progress

Kind = TypeVar("Kind")
"""Of goal."""
Say = Callable[[str, str], None]
"""Told the name of a stage, and a sentence."""


@dataclass
class Account:
    """What the whole job may spend and has spent: every environment step of every strategy and evaluation."""

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
    """A prior that can act here, and how it did in validation (None if it was not asked)."""

    id: str
    policy: Any
    loaded: Loaded | None
    """As it is in the library; None for a teacher from elsewhere, which can be learnt from but not kept."""
    card: dict[str, Any]
    first: Interval | None
    """Score of the first trial: without adapting."""
    last: Interval | None
    """Score of the last trial."""
    answered: bool
    """It was kept as the answer to this very goal."""
    length: float
    """Environment steps of its episodes, on average; 0 if that is not known."""

    @property
    def own(self) -> Loaded:
        """As it is in the library, where it is known to be from there."""
        return given(self.loaded)

    def parent(self, role: str) -> Parent:
        """As a manifest names it."""
        return Parent(id=self.id, role=role, sha256=self.own.artefact.meta.weights.sha256)


class Asked(NamedTuple):
    """What an evaluation came to."""

    trials: list[Interval]
    """The score of every trial; one, where there are no trials."""
    env_steps: int
    episodes: int

    @property
    def length(self) -> float:
        """Environment steps of an episode, on average."""
        return self.env_steps / self.episodes


class Proof(NamedTuple):
    """Fresh episodes that practice did not have."""

    score: Interval
    episodes: int
    env_steps: int
    played: Any
    """What its kind of goal shows of it in the report."""


@runtime_checkable
class Task(Protocol):
    """A goal that was understood: what a kind of goal has to say and to do. The rest of the main job is the same."""

    @property
    def target(self) -> float:
        """What the lower end of the proof's interval has to reach."""
        ...

    @property
    def words(self) -> str:
        """Everything that makes it this goal and no other, on one line."""
        ...

    @property
    def text(self) -> str:
        """As people read it."""
        ...

    @property
    def unit(self) -> str:
        """What a score is, after the number."""
        ...

    @property
    def env_id(self) -> str:
        """The environment's."""
        ...

    @property
    def spec(self) -> EnvSpec:
        """What is seen and done in it."""
        ...

    @property
    def trials(self) -> int:
        """Of an episode."""
        ...

    @property
    def caveat(self) -> str:
        """What the verdict's reason has to add; empty if nothing."""
        ...

    def is_priced(self, now: "Situation[Any]") -> bool:
        """Whether strategies can say what they cost without practising."""
        ...

    def impossible(self) -> str:
        """Why no behaviour reaches it, by proof; else empty."""
        ...

    def nominate(self, library: Library, source: str | None) -> list[Prior]:
        """The policies of the library that can act here; only `source`, if that is given.

        Raises:
            LibraryError, ConfigError, CheckpointError: there is no such prior, or it cannot act here.
        """
        ...

    def likeliest(self, priors: list[Prior]) -> list[Prior]:
        """Those most worth asking, best first."""
        ...

    def is_answer(self, prior: Prior) -> bool:
        """Whether a prior was kept as the proved answer to this very goal."""
        ...

    def prepared(self, now: "Situation[Any]", say: Say) -> "Task":
        """With what practice is measured by."""
        ...

    def guests(self, now: "Situation[Any]", say: Say) -> list[Recalled]:
        """Priors that are in no library."""
        ...

    def ask(self, policy: Any, key: Key[Array, ""], target: float) -> Asked:
        """Validation; longer where the target lies within the interval of a short one."""
        ...

    def prove(self, attempt: "Attempt", number: int, key: Key[Array, ""]) -> Proof:
        """The proof of that number: fresh worlds, starts and random numbers."""
        ...

    def card(self, proof: Proof) -> dict[str, Any]:
        """What is kept with a policy beside its score."""
        ...


@dataclass(frozen=True)
class Situation(Generic[Kind]):
    """Everything a strategy may look at."""

    task: Kind
    target: float
    priors: Sequence[Recalled]
    """Best first."""
    key: Key[Array, ""]
    run: Run
    library: Library
    account: Account
    show: Callable[[str, Progress], None]
    ongoing: "Attempt | None" = None
    """An attempt that passed validation but not the proof: its strategy goes on from there."""

    def ask(self, policy: Any, stream: int, target: float | None = None) -> Asked:
        """Validate; the steps are booked."""
        assert isinstance(self.task, Task)
        asked = self.task.ask(policy, jax.random.fold_in(self.key, stream), self.target if target is None else target)
        self.account.env_steps += asked.env_steps
        return asked


class Estimate(NamedTuple):
    """What a strategy promises before it is carried out, and why it could work."""

    seconds: float
    env_steps: int
    reach: float
    """Expected score."""
    reason: str


Verdict = Literal["mastered", "converged", "improving", "stalled", "diverged", "spent", "interrupted"]
OVER: tuple[Verdict, ...] = ("stalled", "diverged", "converged", "spent")
"""After which a strategy is given up; spent: its share of the budget is used up."""


class Attempt(NamedTuple):
    """What a strategy came back with."""

    strategy: str
    agent: Agent
    state: Any
    """None if the policy was used as it is."""
    policy: Any
    score: Interval
    verdict: Verdict
    parents: tuple[Parent, ...]
    """The runs that it was made from."""
    env_steps: int
    """Of training; evaluations are booked by themselves."""
    curve: list[tuple[int, Interval]]


@runtime_checkable
class Strategy(Protocol):
    """One way to a policy."""

    name: str

    def estimate(self, now: Situation[Any]) -> Estimate | None:
        """What it would cost and reach, or None if it does not apply."""
        ...

    def carry_out(self, now: Situation[Any]) -> Attempt:
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


def named(source: str, library: Library) -> Prior:
    """The prior that `--from` names: an id, the start of one, or a folder with a policy.

    Raises:
        LibraryError, ConfigError, CheckpointError: there is none.
    """
    folder = Path(source)
    if os.path.isfile(folder / "policy.json"):
        return prior_in(folder)
    if folder.is_dir():
        raise ConfigError(
            f"--from takes a run's id or a folder with a policy.json; {source} has none (try {source}/policy)."
        )
    record = library.find(source)
    if record.policy is None and record.fetch("policy").is_dir():
        read_meta(record.fetch("policy"))  # says what is wrong with it
    if record.policy is None:
        raise ConfigError(f"--from takes a run with a policy; {record.id} has none. See `rekindle library ls`.")
    return library.prior(record)


def proved(card: dict[str, Any], target: float) -> bool:
    """Whether a score card has its numbers, and they reach the target; a card without them proves nothing."""
    figures = [card.get(name) for name in ("score", "score_low", "score_high")]
    whole = all(isinstance(figure, int | float) and -1e9 < figure < 1e9 for figure in figures)
    return whole and float(card["score_low"]) >= target
