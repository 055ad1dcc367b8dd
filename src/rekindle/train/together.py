"""Several seeds of a training in one program: on an accelerator hardly slower than one of them.

Every seed is a run like any other, in a thread of its own that logs, evaluates and writes checkpoints. Only its chunks
are computed together with those of the others: whoever asks for one waits until all have asked, and what they hold is
stacked, vmapped over, and handed back.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import jax

from rekindle.agents.registry import config_from_json, make_agent, of_kind
from rekindle.core.errors import ConfigError
from rekindle.core.tree import apart, stacked
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.train import on_policy, session
from rekindle.train.loop import Progress, Trained, stop_requests
from rekindle.train.on_policy import OnPolicy
from rekindle.train.order import Order, order_of
from rekindle.train.sequence_engine import OnSequences
from rekindle.train.sequences import Turns


class Asked(NamedTuple):
    """A chunk that somebody waits for."""

    loop: Any
    given: Any
    """What exists already: on policy the source of tasks."""
    updates: int


class Together:
    """Where so many trainings meet."""

    def __init__(self, members: int):
        """For trainings of the same order with different seeds, each of which has to `join` or `leave`."""
        self._present, self._changed = members, threading.Condition()
        self._engines: list[Any] = []
        self._asked: dict[int, Asked] = {}
        self._found: dict[int, tuple[Any, Any]] = {}
        self._trouble: Exception | None = None
        self._compiled = cache(self._compile)

    def join(self, engine: Any) -> "Member | SequenceMember":
        """An engine whose chunks are computed with those of the others."""
        assert isinstance(engine, OnPolicy | OnSequences)
        with self._changed:
            number = len(self._engines)
            self._engines.append(engine)
        if isinstance(engine, OnSequences):
            return SequenceMember(
                engine.agent, engine.worlds, engine.given, engine.most_steps, together=self, number=number
            )
        return Member(engine.agent, engine.worlds, engine.curriculum, engine.source, together=self, number=number)

    def leave(self) -> None:
        """One less to wait for."""
        with self._changed:
            self._present -= 1
            self._compute_if_all_asked()

    def chunk(self, number: int, loop: Any, given: Any, updates: int) -> tuple[Any, Any]:
        """That of one member, when all who are still there have asked for theirs."""
        with self._changed:
            self._asked[number] = Asked(loop, given, updates)
            self._compute_if_all_asked()
            self._changed.wait_for(lambda: number in self._found or self._trouble is not None)
            if self._trouble is not None:
                raise self._trouble
            return self._found.pop(number)

    def _compute_if_all_asked(self) -> None:
        if not self._asked or len(self._asked) < self._present:
            return
        try:
            for updates in {one.updates for one in self._asked.values()}:
                alike = {number: one for number, one in self._asked.items() if one.updates == updates}
                loops, givens, _ = zip(*alike.values(), strict=True)
                found = self._chunk(
                    [self._engines[number] for number in alike], stacked(loops), stacked(givens), updates
                )
                self._found |= dict(zip(alike, apart(found, len(alike)), strict=True))
        except Exception as error:
            self._trouble = error
        self._asked = {}
        self._changed.notify_all()

    def _chunk(self, engines: list[Any], loops: Any, givens: Any, updates: int) -> Any:
        if isinstance(engines[0], OnSequences):
            return self._turns.chunk([engine.worlds for engine in engines], loops, givens, updates)
        return self._compiled(updates)(loops, givens)

    @cached_property
    def _turns(self) -> Turns:
        one = self._engines[0]
        return Turns(one.agent, one.worlds.spec.stack, many=True)

    def _compile(self, updates: int) -> Callable[[Any, Any], tuple[Any, Any]]:
        one = self._engines[0]

        def chunk(loop: Any, source: Any) -> tuple[Any, Any]:
            return on_policy.chunk(one.agent, one.worlds, one.curriculum, updates, loop, source)

        return jax.jit(jax.vmap(chunk), donate_argnums=0)


@dataclass(frozen=True, kw_only=True)
class Member(OnPolicy):
    """The engine of one seed."""

    together: Together
    number: int

    def chunk(self, loop: Any, updates: int, share: float) -> tuple[Any, Any]:
        """With the others."""
        return self.together.chunk(self.number, loop, self.source(share), updates)


@dataclass(frozen=True, kw_only=True)
class SequenceMember(OnSequences):
    """The same of one that learns from sequences."""

    together: Together
    number: int

    def chunk(self, loop: Any, updates: int, share: float) -> tuple[Any, Any]:
        """With the others."""
        del share
        return self.together.chunk(self.number, loop, self.given, updates)


def refuse(order: Order) -> None:
    """ConfigError for an order whose seeds have to be trained one after the other.

    Of agents that learn from single steps, and of curricula that plan each seed's own tasks.
    """
    agent = make_agent(order.agent, config_from_json(order.agent, order.settings))
    if agent.needs.kind == "transition" or order.curriculum == "regret" or order.teacher is not None:
        raise ConfigError(
            f"what {order.agent} is to do here is not done together (students of a teacher, the planner's regret and "
            f"whatever learns from single steps, as {of_kind('transition')}, are not); train one seed after the other."
        )


def carry_out(runs: Sequence[Run], library: Library, *, show: Callable[[Run, Progress], None] | None = None
              ) -> list[Trained]:  # fmt: skip
    """Train runs of one order, or go on training them, together; see `session.carry_out` for one of them.

    Numbers differ from those of a seed that is trained alone by rounding, and so do runs that are resumed alone.

    Raises:
        ConfigError: an order whose seeds have to be trained one after the other.
    """
    for run in runs:
        refuse(order_of(run.manifest.config))
    meeting = Together(len(runs))

    def one(run: Run, asked: Callable[[], bool]) -> Trained:
        try:
            told = None if show is None else partial(show, run)
            return session.carry_out(run, library, show=told, join=meeting.join, asked=asked)
        finally:
            meeting.leave()

    with stop_requests() as asked, ThreadPoolExecutor(len(runs)) as threads:
        ended = [threads.submit(one, run, asked) for run in runs]
    return [each.result() for each in ended]
