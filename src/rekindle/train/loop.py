"""The plain Python loop around a jitted chunk: progress, metrics, evaluation, checkpoints, clean stop, exact resume."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from types import FrameType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from rekindle.core.budget import Budget
from rekindle.core.errors import ConfigError, DivergedError, WorldError
from rekindle.core.tree import own
from rekindle.core.types import Agent, Policy
from rekindle.library.run import Run

Source = Callable[[float], PyTree]
"""From the share of the budget that is spent, in [0, 1], to the environment's params: pools, mixtures, ramps."""
Evaluation = Callable[[Policy, int, Key[Array, ""]], Mapping[str, float]]
"""From a policy, the steps it was trained for, and a key, to what is logged."""
Stop = Callable[[Mapping[str, float]], bool]
"""From the metrics of a chunk to whether training has done enough."""


class Progress(NamedTuple):
    """What a person wants to see while it runs."""

    env_steps: int
    share: float
    """Of the budget, in [0, 1]."""
    steps_per_s: float
    """Over the last chunks, with what was compiled in them; updates, where nothing is acted. 0 before the first."""
    eta_s: float
    metrics: Mapping[str, float]
    updates: int | None = None
    """So far, where nothing is acted."""


class Before(NamedTuple):
    """What earlier trainings of the same run took."""

    env_steps: int = 0
    offline_updates: int = 0
    """Updates that were made without acting."""


FIRST = Before()
"""Nothing."""
FIRST_EVALUATION = 2**32 - 1
"""Number of the evaluation before the others, by which its key is made."""


@dataclass(frozen=True)
class Plan:
    """How a training is cut into pieces. Seconds are wall time, compilation included."""

    budget: Budget
    chunk_updates: int = 8
    """Updates in one jitted call; a stop waits for one, a crash loses those since the last checkpoint."""
    checkpoint_seconds: float = 60.0
    evaluate_every: float = 0.1
    """Share of the budget between evaluations."""
    evaluate_steps: int | None = None
    """Environment steps between evaluations, instead of a share of the budget."""
    evaluate_first: bool = False
    """Whether there is an evaluation before anything is learnt, too."""

    def is_due(self, evaluations: int, env_steps: int, share: float) -> bool:
        """Whether the next evaluation is due after this many, these steps and this share of the budget."""
        if self.evaluate_steps is not None:
            return share >= 1.0 or env_steps >= self.evaluate_steps * (evaluations + 1)
        return share >= 1.0 or share >= self.evaluate_every * (evaluations + 1)

    def updates_from(self, env_steps: int, evaluations: int | None, engine: "Engine") -> int:
        """Of the next chunk, after so many steps and evaluations (None: there are none).

        Where it costs nothing, the last one before an evaluation and the last of all are shorter.
        """
        if not engine.any_size:
            return self.chunk_updates
        ends = [self.budget.env_steps]
        if evaluations is not None and self.evaluate_steps is not None:
            ends.append(self.evaluate_steps * (evaluations + 1))
        left = [-(-(end - env_steps) // engine.steps_per_update) for end in ends if end is not None]
        return max(min([self.chunk_updates, *left]), 1)


class Trained(NamedTuple):
    """Where training stopped, and why."""

    state: Any
    env_steps: int
    wall_s: float
    status: Literal["done", "interrupted", "stopped"]
    loop: Any
    """Everything as it was then, such as a replay."""


@runtime_checkable
class Engine(Protocol):
    """What is looped: acting and learning in chunks, on policy or off.

    Pure but for what it compiles, and for worlds and files that are brought to where a loop's state says they stood.
    """

    @property
    def agent(self) -> Agent:
        """What learns."""
        ...

    @property
    def steps_per_update(self) -> int:
        """By which the steps grow with every update of a chunk (or tick, where a replay is learnt from)."""
        ...

    @property
    def any_size(self) -> bool:
        """Whether a chunk of another size costs no compilation, so that the last one may be shorter."""
        ...

    def begin(self, key: Key[Array, ""], state: Any) -> Any:
        """The loop's state at first; `state` is the agent's, or None for fresh weights."""
        ...

    def chunk(self, loop: Any, updates: int, share: float) -> tuple[Any, Any]:
        """So many updates, at this share of the budget, and the metrics' means; `loop`'s memory is taken over."""
        ...

    def steps(self, loop: Any) -> int:
        """Environment steps so far; where no environment is acted in, updates."""
        ...

    def learnt(self, loop: Any) -> int:
        """Those that were learnt from."""
        ...

    def drain(self, loop: Any) -> tuple[Any, dict[str, float]]:
        """Read what was counted since the last time, and count anew."""
        ...

    def room(self, loop: Any) -> int | None:
        """Updates until a checkpoint has to be written, since more would change what the last one needs; or None."""
        ...

    def saved(self, loop: Any) -> dict[str, np.ndarray]:
        """What a checkpoint holds; what it needs beside that is durable by then."""
        ...

    def restored(self, fresh: Any, saved: Mapping[str, np.ndarray]) -> Any:
        """The state that was saved, from one that has just begun; CheckpointError if they do not fit."""
        ...

    def trouble(self, loop: Any) -> str:
        """Why nothing will ever be learnt, in a sentence; empty while all is well."""
        ...

    def hear(self, loop: Any, values: Mapping[str, float]) -> Any:
        """The state after an evaluation."""
        ...


def train(
    engine: Engine,
    key: Key[Array, ""],
    plan: Plan,
    *,
    run: Run | None = None,
    state: Any = None,
    evaluate: Evaluation | None = None,
    show: Callable[[Progress], None] | None = None,
    stop: Stop | None = None,
    note: Callable[[], Mapping[str, int]] = dict,
    tag: str = "",
    before: Before = FIRST,
    acts: bool = True,
    asked: Callable[[], bool] | None = None,
) -> Trained:
    """Train until the budget is spent, `stop(metrics)` says so after a chunk, or Ctrl-C.

    A budget in steps counts all of them, learnt from or not. With a run, metrics go to its folder and it resumes from
    its last checkpoint: exactly, where the budget is in steps. A run that holds several trainings tells their
    checkpoints and metrics apart by `tag`, and counts on from `before`. Without `acts` the engine's steps are updates
    on data that exists. `note()` is kept with every checkpoint. `state` is a trained agent's. After Ctrl-C the chunk is
    finished and saved; `asked` says so where somebody else listens to signals.

    Raises:
        ConfigError, DivergedError: nothing can be learnt, or nothing was.
        WorldError: a world failed; it holds the state of the agent from then, or from before the chunk.
    """
    start_key, evaluate_key = jax.random.split(key)
    loop, clock, evaluations = resumed(engine, engine.begin(start_key, state), run, tag)
    steps = engine.steps(loop)
    if evaluate is not None and plan.evaluate_first and steps == 0 and not (run is not None and run.metrics()):
        before_all(engine, loop, evaluate, evaluate_key, run, show)
        clock.begin()
    status: Literal["done", "interrupted", "stopped"] = "done"
    with nullcontext(asked) if asked else stop_requests() as stops:
        while (share := spent(plan.budget, steps, clock.seconds(), engine.learnt(loop))) < 1.0:
            began = time.monotonic()
            updates = plan.updates_from(steps, evaluations if evaluate else None, engine)
            updates = updates if (room := engine.room(loop)) is None else min(updates, room)
            with handing_over(loop.agent, steps if acts else 0):
                loop, metrics = engine.chunk(loop, updates, share)
            loop, values = engine.drain(loop)
            took, done = time.monotonic() - began, updates * engine.steps_per_update
            steps, learnt = engine.steps(loop), engine.learnt(loop)
            share = spent(plan.budget, steps, clock.seconds(), learnt)
            values |= gauges(engine.agent.name, metrics, done / took, share, learnt, acts=acts)
            refuse_hopeless(engine.agent, values, engine.trouble(loop), steps)
            if evaluate is not None and plan.is_due(evaluations, steps, share):
                with handing_over(loop.agent, steps if acts else 0):
                    evaluation_key = jax.random.fold_in(evaluate_key, evaluations)
                    found = dict(evaluate(engine.agent.policy(loop.agent), steps, evaluation_key))
                loop, values, evaluations = engine.hear(loop, found), values | found, evaluations + 1
            acted = steps if acts else 0
            now = Before(before.env_steps + acted, before.offline_updates + steps - acted)
            if run is not None:
                run.log(now.env_steps, values | ({"tag": tag} if tag else {}), offline_updates=now.offline_updates)
            if show is not None:
                show(Progress(acted, share, clock.rate(done, took), clock.eta(share), values, None if acts else steps))
            status = "interrupted" if stops() else "stopped" if stop is not None and stop(values) else "done"
            over = status != "done" or share >= 1.0
            due = clock.checkpoint_due(plan.checkpoint_seconds) or is_short(engine, loop, plan)
            if run is not None and (over or due):
                meta = {"wall_s": clock.seconds(), "evaluations": evaluations, "env_steps": acted, "tag": tag, **note()}
                with clock.saving():
                    save(run, engine, loop, now, meta)
            if over:
                break
    if status == "done":
        refuse_idle(engine, loop)
    return Trained(loop.agent, steps if acts else 0, clock.seconds(), status, loop)


def before_all(
    engine: Engine, loop: Any, evaluate: Evaluation, key: Key[Array, ""], run: Run | None,
    show: Callable[[Progress], None] | None,
) -> None:  # fmt: skip
    """The evaluation of what knows nothing yet, as a row of the curves; the others draw as they would without it.

    No budget is spent on it.
    """
    with handing_over(loop.agent, 0):
        found = dict(evaluate(engine.agent.policy(loop.agent), 0, jax.random.fold_in(key, FIRST_EVALUATION)))
    if run is not None:
        run.log(0, found)
    if show is not None:
        show(Progress(0, 0.0, 0.0, 0.0, found))


@contextmanager
def handing_over(state: Any, env_steps: int) -> Iterator[None]:
    """Where a world fails, its error takes along what was learnt in so many steps before.

    An engine that has taken over the memory of that state by then says itself what it has.
    """
    try:
        yield
    except WorldError as error:
        if error.state is not None:  # an engine may know more
            raise
        mine = WorldError(str(error), error.spec)  # of this training alone: others may have been told the same
        mine.state, mine.env_steps = state, env_steps
        raise mine from error


def is_short(engine: Engine, loop: Any, plan: Plan) -> bool:
    """Whether the next chunk would overwrite what the last checkpoint needs."""
    room = engine.room(loop)
    return room is not None and room < plan.chunk_updates


def save(run: Run, engine: Engine, loop: Any, now: Before, meta: dict[str, Any]) -> None:
    """A checkpoint, and before it what it needs but does not hold."""
    run.save_checkpoint(sum(now), engine.saved(loop), meta, offline_updates=now.offline_updates)


def gauges(group: str, metrics: Any, rate: float, share: float, learnt: int, *, acts: bool) -> dict[str, float]:
    """The agent's metrics under its name, and how far training is and how fast it goes."""
    speed = f"time/{'env_steps' if acts else 'updates'}_per_s"
    return named(group, metrics._asdict()) | {speed: rate, "time/budget_share": share, "time/learner_steps": learnt}


def named(group: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Values as they are logged, under the name of what they belong to."""
    return {f"{group}/{name}": float(value) for name, value in values.items()}


def refuse_hopeless(agent: Agent, values: Mapping[str, float], trouble: str, env_steps: int) -> None:
    """Stop a training that cannot come to anything.

    Raises:
        ConfigError: the curriculum has nothing to learn from.
        DivergedError: the loss is no number any more.
    """
    if trouble:
        raise ConfigError(trouble)
    if not np.isfinite(values.get(f"{agent.name}/value_loss", 0.0)):
        rates = [field.name for field in fields(agent.config) if field.name.endswith("_rate")]
        raise DivergedError(
            f"the value loss is not finite after {env_steps:,} steps; lower the step size ({', '.join(rates)})."
        )


def refuse_idle(engine: Engine, loop: Any) -> None:
    """Say so where the whole budget went into trying tasks.

    Raises:
        ConfigError: no step was learnt from.
    """
    if engine.learnt(loop) == 0:
        if engine.agent.needs.kind != "rollout":
            raise ConfigError(
                "the budget was spent on filling the replay, and nothing was learnt from. Give a larger budget, or a "
                "shorter --set warmup=..."
            )
        tried = ", ".join(f"{name.partition('/')[2]} {value:g}" for name, value in engine.drain(loop)[1].items()
                          if name.startswith("curriculum/"))  # fmt: skip
        raise ConfigError(
            f"the budget was spent on trying{f' ({tried})' if tried else ''}, and nothing was learnt from. Give a "
            "larger budget, easier tasks, or another curriculum."
        )


def resumed(engine: Engine, fresh: Any, run: Run | None, tag: str) -> tuple[Any, "Clock", int]:
    """State, clock and number of evaluations of the run's last checkpoint; of a beginning, where this tag has none."""
    clock = Clock()
    saved = None if run is None else run.latest_checkpoint()
    if saved is None or saved[2]["tag"] != tag:
        return fresh, clock, 0
    _, arrays, meta = saved
    clock.before = float(meta["wall_s"])
    return own(engine.restored(fresh, arrays)), clock, int(meta["evaluations"])


WRITING = 0.1
"""Share of the time that checkpoints may take, at most."""
PACES = 20
"""Chunks by which the rest is reckoned."""


class Clock:
    """Wall time over all sittings of a run."""

    def __init__(self) -> None:
        """Start now."""
        self.before = self.took = 0.0
        self.paces: deque[tuple[float, float]] = deque(maxlen=PACES)
        self.chunks: deque[tuple[int, float]] = deque(maxlen=PACES)
        self.begin()

    def begin(self) -> None:
        """Start now, whatever was before in this sitting."""
        self.started = self.saved = time.monotonic()

    def seconds(self) -> float:
        """Since the run began, sittings added up."""
        return self.before + time.monotonic() - self.started

    def rate(self, steps: int, seconds: float) -> float:
        """Steps per second of the last chunks, the newest of which took so long: not all of them do the same."""
        self.chunks.append((steps, seconds))
        return sum(steps for steps, _ in self.chunks) / max(sum(seconds for _, seconds in self.chunks), 1e-9)

    def eta(self, share: float) -> float:
        """Seconds until the budget is spent at the pace of the last chunks; the first, without learning, are faster."""
        now = self.seconds()
        done, since = self.paces[0] if self.paces else (0.0, 0.0)
        self.paces.append((share, now))
        return (now - since) * (1.0 - share) / max(share - done, 1e-9)

    def checkpoint_due(self, every: float) -> bool:
        """Whether `every` seconds went by since the last was written, and so many that writing stays a small part.

        With 0 it is always due.
        """
        return time.monotonic() - self.saved >= (max(every, self.took / WRITING) if every else 0.0)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While a checkpoint is written."""
        began = time.monotonic()
        yield
        self.saved = time.monotonic()
        self.took = self.saved - began


def spent(budget: Budget, env_steps: int, seconds: float, learnt_steps: int) -> float:
    """Share of the budget that is gone: of its steps or of its seconds, whichever is more; at most 1."""
    shares = [0.0]
    if budget.learnt_steps is not None:
        shares.append(learnt_steps / budget.learnt_steps)
    if budget.env_steps is not None:
        shares.append(env_steps / budget.env_steps)
    if budget.seconds is not None:
        shares.append(seconds / budget.seconds)
    return min(max(shares), 1.0)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C (or SIGTERM) into a request that the loop obeys; the second one interrupts at once."""
    asked = False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever started the thread handles signals
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
