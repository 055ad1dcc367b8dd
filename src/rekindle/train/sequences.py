"""The loop of agents that learn from sequences, as MR.Q does: act, store, learn, in worlds of either kind.

From the first step before which the replay holds `needs.warmup` slots, every step of every world is followed by
updates, and before every `needs.prepare_period` updates the agent prepares. Where worlds are not compiled, one program
stands between two of their steps: it stores the last, learns, and decides on the next. What a chunk does is decided by
`LoopState` alone, so that a run resumes exactly from a checkpoint of it.

What somebody else adds (a teacher, data that exists already) comes as a `Phase`. One that learns from data alone begins
with them in the replay, and only learns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, Key, PyTree

from rekindle.core.errors import ConfigError, WorldError
from rekindle.core.tree import apart, own, stacked
from rekindle.core.types import Agent, Data, Guidance, Obs, Sequences
from rekindle.envs.host.worlds import HostObs, HostWorlds
from rekindle.reincarnation.phases import Dials, Phase
from rekindle.replay import ring, windows
from rekindle.replay.ring import Step
from rekindle.replay.windows import Windows
from rekindle.train import off_policy
from rekindle.train.off_policy import (
    Decision,
    EpisodeCounts,
    Given,
    Nothing,
    Shown,
    Worlds,
    again,
    ask,
    count,
    nothing_added,
)


class LoopState(NamedTuple):
    """Everything between two chunks. `ticks` numbers the random streams."""

    agent: Any
    worlds: Any
    obs: Obs
    start: Bool[Array, " B"]
    carry: PyTree
    counts: EpisodeCounts
    roll_in: Int32[Array, " B"]
    """First steps of this episode that are the teacher's."""
    beside: PyTree
    """The teacher's memory."""
    progress: Any
    """How far the phase has come; () without one."""
    replay: Windows
    prepared: Any
    """What the agent last said of its preparation; zeros at first."""
    updates: Int32[Array, ""]
    ticks: Int32[Array, ""]
    key: Key[Array, ""]


AXES: Any = LoopState._make(None if name in ("updates", "ticks") else 0 for name in LoopState._fields)
"""Along which the states of several trainings are stacked: they share their numbers of updates and ticks."""


class TickKeys(NamedTuple):
    """Of the random choices in a tick."""

    act: Key[Array, ""]
    """Split for the agent, its teacher, and how long that plays."""
    step: Key[Array, ""]
    learn: Key[Array, ""]


def tick_keys(loop: LoopState) -> TickKeys:
    """Of the tick that the loop is in."""
    return TickKeys(*jax.random.split(jax.random.fold_in(loop.key, loop.ticks), 3))


def begin_at(
    agent: Agent, worlds: Worlds | HostWorlds, slots: int, phase: Phase | None, given: Given, inside: Any, obs: Obs,
    key: Key[Array, ""], state: Any,
) -> LoopState:  # fmt: skip
    """The state before the first step, where the worlds have begun: what is inside them, and what they show."""
    init_key, act_key, run_key = jax.random.split(key, 3)
    fresh = agent.init(init_key, worlds.spec) if state is None else state
    rows, stack = worlds.rows, worlds.spec.stack
    ones, zeros = jnp.ones(rows, bool), jnp.zeros(rows)
    carry = agent.init_carry(fresh, rows)
    beside = () if given.teacher == () else given.teacher.init_carry(rows)

    def like() -> Step:
        action = agent.act(act_key, fresh, carry, obs, ones, explore=True).action
        labels = ask(given.teacher, run_key, beside, obs, ones)[1]
        return Step(ring.newest(obs, stack), action, zeros, ones, ones, labels)

    if phase is not None and phase.offline:
        replay = held(agent.needs, stack, given.data.steps, slots)
    else:
        replay = windows.empty(jax.eval_shape(like), slots)
    prepared = jax.eval_shape(lambda: Learner(agent, stack).prepare(run_key, fresh, replay, (), None)[1])
    prepared = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), prepared)
    counts = EpisodeCounts(zeros, jnp.zeros(rows, jnp.int32), *(jnp.zeros(()) for _ in range(3)))
    depth, progress = jnp.zeros(rows, jnp.int32), () if phase is None else phase.begin()
    return LoopState(fresh, inside, obs, ones, carry, counts, depth, beside, progress, replay, prepared, jnp.int32(0),
                     jnp.int32(0), run_key)  # fmt: skip


def held(needs: Data, stack: int, steps: Step, slots: int) -> Windows:
    """A replay of so many slots for each row that begins with steps which exist already."""
    return windows.holding(steps, slots, horizon=needs.length, stack=stack)


def is_ready(needs: Data, replay: Windows) -> Bool[Array, ""]:
    """Whether the next step is learnt after."""
    return (replay.filled >= needs.warmup) & (replay.tree.total > 0)


def decide(agent: Agent, phase: Phase | None, given: Given, loop: LoopState) -> Decision:
    """The agent's actions, or a teacher's where it rolls in."""
    dials = None if phase is None else phase.dials(loop.progress)
    return off_policy.decide(agent, given, dials, tuple(jax.random.split(tick_keys(loop).act, 3)), loop)


def record(agent: Agent, stack: int, loop: LoopState, decision: Decision, shown: Shown) -> LoopState:
    """The state after a step of all worlds, which is stored."""
    assert shown.final_obs is not None
    over = shown.terminated | shown.truncated
    step = Step(ring.newest(loop.obs, stack), decision.action, shown.reward, shown.terminated, shown.truncated,
                decision.labels)  # fmt: skip
    final = ring.newest(shown.final_obs, stack)
    return loop._replace(
        agent=agent.lived(loop.agent, over.shape[0]), obs=shown.obs, start=over, carry=decision.carry,
        roll_in=decision.roll_in, beside=decision.beside, counts=count(loop.counts, shown.reward, over),
        replay=windows.add(loop.replay, step, final, horizon=agent.needs.length, stack=stack),
    )  # fmt: skip


def updates_after(needs: Data) -> int:
    """Of a step of all worlds."""
    return max(round(needs.rows * needs.updates_per_step), 1)


class Mixed(NamedTuple):
    """Places of a batch, some of which are replaced by places in data that exists already."""

    place: Int32[Array, "*n B"]
    other: Int32[Array, "*n B"]
    swap: Bool[Array, "*n B"]


@dataclass(frozen=True)
class Learner:
    """How an agent learns from a replay, and from what a phase adds to it."""

    agent: Agent
    stack: int
    phase: Phase | None = None

    def improve(self, loop: LoopState, data: Windows | tuple[()], key: Key[Array, ""]) -> tuple[LoopState, Any]:
        """One update, after the preparation that is due; `data` is what is rehearsed."""
        agent, dials = self.agent, None if self.phase is None else self.phase.dials(loop.progress)
        prepare_key, draw_key, update_key = jax.random.split(key, 3)
        state, prepared = loop.agent, loop.prepared
        if agent.prepare is not None:
            state, prepared = jax.lax.cond(
                loop.updates % agent.needs.prepare_period == 0,
                lambda: self.prepare(prepare_key, state, loop.replay, data, dials),
                lambda: (state, prepared),
            )
        places = self.draw(draw_key, loop.replay, data, dials, agent.needs.batch)
        batch = self.sequences(loop.replay, data, places)
        if self.phase is None or dials is None:
            result = agent.update(update_key, state, batch)
        else:
            guide = Guidance(self.phase.adds or nothing_added, dials.weight, dials.own, dials.learning_rate)
            result = agent.update(update_key, state, batch, guide=guide)
        assert result.priorities is not None
        kept = places.swap if isinstance(places, Mixed) else None
        replay = windows.revise(loop.replay, batch.place, result.priorities, kept=kept)
        loop = loop._replace(agent=result.state, replay=replay, prepared=prepared, updates=loop.updates + 1)
        return loop, result.metrics

    def prepare(
        self, key: Key[Array, ""], state: Any, replay: Windows, data: Windows | tuple[()], dials: Dials | None
    ) -> tuple[Any, Any]:
        """The agent's preparation, on batches that are drawn at once and made when they are looked at."""
        agent = self.agent
        if agent.prepare is None:
            return state, Nothing()
        draw_key, prepare_key = jax.random.split(key)
        places = self.draw(draw_key, replay, data, dials, agent.needs.prepare_batches, agent.needs.batch)
        result = agent.prepare(prepare_key, state, places, windows.past(replay),
                               fetch=partial(self.sequences, replay, data))  # fmt: skip
        return result.state, result.metrics

    def draw(
        self, key: Key[Array, ""], replay: Windows, data: Windows | tuple[()], dials: Dials | None, *shape: int
    ) -> Int32[Array, "*shape"] | Mixed:
        """Places for batches."""
        if dials is None or not isinstance(data, Windows):
            return windows.draw(key, replay, *shape)
        own_key, other_key, coin_key = jax.random.split(key, 3)
        return Mixed(windows.draw(own_key, replay, *shape), windows.draw(other_key, data, *shape),
                     jax.random.bernoulli(coin_key, dials.rehearse, shape))  # fmt: skip

    def sequences(self, replay: Windows, data: Windows | tuple[()], places: Int32[Array, " B"] | Mixed) -> Sequences:
        """What begins at these places."""
        needs = self.agent.needs
        gather = partial(windows.gather, length=needs.length, stack=self.stack, true_ends=needs.true_ends)
        if not isinstance(places, Mixed):
            return gather(replay, places)
        assert isinstance(data, Windows)
        mine, theirs = gather(replay, places.place), gather(data, places.other)
        pick = lambda a, b: jnp.where(places.swap.reshape(1, -1, *(1,) * (a.ndim - 2)), b, a)  # noqa: E731
        mixed = jax.tree.map(pick, *(one._replace(place=(), labels=()) for one in (mine, theirs)))
        labels = jax.tree.map(lambda a, b: jnp.where(places.swap[:, None], b, a), mine.labels, theirs.labels)
        return mixed._replace(place=mine.place, labels=labels)


def learn(learner: Learner, loop: LoopState, data: Windows | tuple[()], number: int) -> tuple[LoopState, Any]:
    """So many updates after a step of all worlds; means of their metrics."""
    once = lambda loop, key: learner.improve(loop, data, key)  # noqa: E731
    loop, metrics = jax.lax.scan(once, loop, jax.random.split(tick_keys(loop).learn, number))
    return loop, jax.tree.map(jnp.mean, metrics)


@dataclass(frozen=True)
class Turns:
    """Carries out ticks; of `many` trainings at once where their states are stacked along a first axis.

    Those have taken equally many steps and updates; learning begins when all of them are ready.
    """

    agent: Agent
    stack: int
    phase: Phase | None = None
    many: bool = False

    def chunk(self, worlds: Sequence[Worlds | HostWorlds], loop: LoopState, given: Given, ticks: int
              ) -> tuple[LoopState, Any]:  # fmt: skip
        """So many ticks, and means over their updates, if there were any.

        Args:
            worlds: of every training.
            loop: their states.
            given: what exists already; its data are a replay, of what is rehearsed.
            ticks: how many.

        Raises:
            ConfigError: trainings that have not come equally far.
        """
        if self.phase is not None and self.phase.offline:
            return self._read(loop, ticks)
        number = len(worlds)
        loop = self._in_step(loop) if self.many else loop
        hosted = [one for one in worlds if isinstance(one, HostWorlds)]
        act = partial(self._on_host, hosted) if hosted else partial(self._act, worlds[0])
        loop, metrics = act(loop, given, ticks)
        if not self.many:
            return loop, metrics
        spread = lambda x: jnp.broadcast_to(x, (number, *x.shape))  # noqa: E731
        return loop._replace(updates=spread(loop.updates), ticks=spread(loop.ticks)), metrics

    def _in_step(self, loop: LoopState) -> LoopState:
        """With one number of ticks and of updates, so that all prepare in the same one."""
        for numbers in (loop.ticks, loop.updates):
            if np.ptp(np.asarray(numbers)):
                raise ConfigError("these runs have not come equally far; go on with each by itself.")
        return loop._replace(updates=loop.updates[0], ticks=loop.ticks[0])

    def _on_host(self, worlds: Sequence[HostWorlds], loop: LoopState, given: Given, ticks: int
                 ) -> tuple[LoopState, Any]:  # fmt: skip
        states = apart(loop.worlds, len(worlds)) if self.many else [loop.worlds]
        shown = apart(loop.obs, len(worlds)) if self.many else [loop.obs]
        for one, state, obs in zip(worlds, states, shown, strict=True):
            refuse_elsewhere(one, one.restore(state), obs)
        loop = loop._replace(worlds=())
        decision, total, learnt = self._decide(loop, given), None, 0
        learning = bool(self._is_ready(loop.replay))
        for _ in range(ticks):
            actions = np.asarray(decision.action)
            try:
                steps = [one.step(a) for one, a in zip(worlds, actions if self.many else [actions], strict=True)]
            except WorldError as error:
                if not self.many:
                    error.state, error.env_steps = loop.agent, int(loop.ticks) * worlds[0].rows
                raise
            shown = jax.tree.map(lambda *x: np.stack(x), *steps) if self.many else steps[0]
            loop, decision, metrics = self._turn[learning](loop, decision, shown, given)
            if learning:
                total, learnt = metrics if total is None else _added(total, metrics), learnt + 1
            learning = learning or bool(self._is_ready(loop.replay))
        states = [one.save() for one in worlds]
        loop = loop._replace(worlds=own(stacked(states) if self.many else states[0]))
        return loop, Nothing() if total is None else jax.tree.map(lambda x: np.asarray(x) / learnt, total)

    def _act(self, worlds: Any, loop: LoopState, given: Given, ticks: int) -> tuple[LoopState, Any]:
        until = int(loop.ticks) + ticks
        if not self._is_ready(loop.replay):
            loop = self._programs(worlds)[0](loop, given, until)
        left = until - int(loop.ticks)
        return self._programs(worlds)[1](loop, given, left) if left else (loop, Nothing())

    def _each(self, function: Callable[..., Any], takes: Any, gives: Any) -> Callable[..., Any]:
        """A function of one training for all of them."""
        return jax.vmap(function, in_axes=takes, out_axes=gives) if self.many else function

    @cached_property
    def _is_ready(self) -> Callable[[Windows], Bool[Array, ""]]:
        ready = self._each(partial(is_ready, self.agent.needs), 0, 0)
        return jax.jit(lambda replay: jnp.all(ready(replay)))

    @cached_property
    def _learner(self) -> Learner:
        return Learner(self.agent, self.stack, self.phase)

    @cached_property
    def _read(self) -> Callable[[LoopState, int], tuple[LoopState, Any]]:
        """So many updates on what the replay began with; the agent's clock goes on with them."""

        def once(loop: LoopState) -> tuple[LoopState, Any]:
            loop, metrics = learn(self._learner, loop, (), 1)
            return loop._replace(agent=self.agent.lived(loop.agent, 1), ticks=loop.ticks + 1), metrics

        return jax.jit(partial(again, once), donate_argnums=0)

    @cached_property
    def _decide(self) -> Callable[[LoopState, Given], Decision]:
        def first(loop: LoopState, given: Given) -> Decision:
            return decide(self.agent, self.phase, given, loop)

        return jax.jit(self._each(first, (AXES, 0), 0))

    def _learn(self, loop: LoopState, given: Given) -> tuple[LoopState, Any]:
        return learn(self._learner, loop, given.data, updates_after(self.agent.needs))

    @cached_property
    def _turn(self) -> tuple[Callable[..., tuple[LoopState, Decision, Any]], ...]:
        """From a step of worlds that are not compiled to the next decision; with updates, and without."""

        def turn(learning: bool, loop: LoopState, decision: Decision, step: Any, given: Given) -> Any:
            loop = record(self.agent, self.stack, loop, decision, Shown(*step))
            loop, metrics = self._learn(loop, given) if learning else (loop, Nothing())
            loop = loop._replace(ticks=loop.ticks + 1)
            return loop, decide(self.agent, self.phase, given, loop), metrics

        made = (self._each(partial(turn, learning), (AXES, 0, 0, 0), (AXES, 0, 0)) for learning in (False, True))
        return tuple(jax.jit(one, donate_argnums=0) for one in made)

    @cached_property
    def _programs(self) -> Callable[[Worlds], tuple[Callable[..., Any], Callable[..., Any]]]:
        """In worlds that are compiled: to act until a tick or until learning can begin, and to act and learn."""

        def tick(worlds: Worlds, learning: bool, given: Given, loop: LoopState) -> tuple[LoopState, Any]:
            decision = decide(self.agent, self.phase, given, loop)
            state, ts = worlds.step(tick_keys(loop).step, loop.worlds, decision.action, given.source)
            shown = Shown(ts.obs, ts.reward, ts.terminated, ts.truncated, ts.final_obs)
            loop = record(self.agent, self.stack, loop._replace(worlds=state), decision, shown)
            loop, metrics = self._learn(loop, given) if learning else (loop, Nothing())
            return loop._replace(ticks=loop.ticks + 1), metrics

        def ticks_of(worlds: Worlds, given: Given, learning: bool) -> Callable[[LoopState], tuple[LoopState, Any]]:
            all_of_them = self._each(partial(tick, worlds, learning), (0, AXES), (AXES, 0))
            return partial(all_of_them, given)

        def programs(worlds: Worlds) -> tuple[Callable[..., Any], Callable[..., Any]]:
            def fill(loop: LoopState, given: Given, until: Int32[Array, ""]) -> LoopState:
                once = ticks_of(worlds, given, False)
                waits = lambda loop: (loop.ticks < until) & ~self._is_ready(loop.replay)  # noqa: E731
                return jax.lax.while_loop(waits, lambda loop: once(loop)[0], loop)

            def act(loop: LoopState, given: Given, ticks: Int32[Array, ""]) -> tuple[LoopState, Any]:
                return again(ticks_of(worlds, given, True), loop, ticks)

            return jax.jit(fill, donate_argnums=0), jax.jit(act, donate_argnums=0)

        return cache(programs)


def refuse_elsewhere(worlds: HostWorlds, here: HostObs, there: Obs) -> None:
    """WorldError where worlds that were brought back to where they stood show something else."""
    if not all(np.array_equal(here[name], np.asarray(x)) for name, x in there.items()):
        raise WorldError(
            f"{worlds.spec.id} does not come back to where it stood by its seed and the actions since: it draws at "
            "random from elsewhere, so begin anew, or let it draw from the seed of its reset.",
            worlds.spec,
        )


@jax.jit
def _added(total: Any, metrics: Any) -> Any:
    return jax.tree.map(jnp.add, total, metrics)
