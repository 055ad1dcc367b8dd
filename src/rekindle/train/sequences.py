"""The loop of agents that learn from sequences, as MR.Q does: act, store, learn, in worlds of either kind.

From the first step before which the replay holds `needs.warmup` slots, every step of every world is followed by
updates, and before every `needs.prepare_period` updates the agent prepares. Where worlds are not compiled, one program
stands between two of their steps: it stores the last, learns, and decides on the next. What a chunk does is decided by
`LoopState` alone, so that a run resumes exactly from a checkpoint of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.errors import ConfigError, WorldError
from rekindle.core.tree import apart, own, stacked
from rekindle.core.types import Agent, Data, Obs
from rekindle.envs.host.worlds import HostObs, HostWorlds
from rekindle.replay import ring, windows
from rekindle.replay.ring import Step
from rekindle.replay.windows import Windows
from rekindle.train.loop import named
from rekindle.train.off_policy import EpisodeCounts, Nothing, Worlds, again, count

LEAST_ENDS = 50
"""Slots for ends of episodes at least."""
HOPELESS = 2_000
"""Slots after which a replay from which nothing can be drawn is not going to change."""


class LoopState(NamedTuple):
    """Everything between two chunks. `ticks` numbers the random streams."""

    agent: Any
    worlds: Any
    obs: Obs
    start: Bool[Array, " B"]
    carry: PyTree
    counts: EpisodeCounts
    replay: Windows
    prepared: Any
    """What the agent last said of its preparation; zeros at first."""
    updates: Int32[Array, ""]
    ticks: Int32[Array, ""]
    key: Key[Array, ""]


AXES: Any = LoopState._make(None if name in ("updates", "ticks") else 0 for name in LoopState._fields)
"""Along which the states of several trainings are stacked: they share their numbers of updates and ticks."""


class Decision(NamedTuple):
    """What is done in all worlds, and the memory after it."""

    action: Array
    carry: PyTree


class Shown(NamedTuple):
    """What came of it; `final_obs` is the last observation of the episodes that ended."""

    obs: Obs
    reward: Float[Array, " B"]
    terminated: Bool[Array, " B"]
    truncated: Bool[Array, " B"]
    final_obs: Obs


class TickKeys(NamedTuple):
    """Of the random choices in a tick."""

    act: Key[Array, ""]
    step: Key[Array, ""]
    learn: Key[Array, ""]


def tick_keys(loop: LoopState) -> TickKeys:
    """Of the tick that the loop is in."""
    return TickKeys(*jax.random.split(jax.random.fold_in(loop.key, loop.ticks), 3))


def begin_at(
    agent: Agent, worlds: Worlds | HostWorlds, slots: int, inside: Any, obs: Obs, key: Key[Array, ""], state: Any
) -> LoopState:
    """The state before the first step, where the worlds have begun: what is inside them, and what they show."""
    init_key, act_key, run_key = jax.random.split(key, 3)
    fresh = agent.init(init_key, worlds.spec) if state is None else state
    rows, stack = worlds.rows, worlds.spec.stack
    ones, zeros = jnp.ones(rows, bool), jnp.zeros(rows)
    carry = agent.init_carry(fresh, rows)

    def like() -> Step:
        action = agent.act(act_key, fresh, carry, obs, ones, explore=True).action
        return Step(ring.newest(obs, stack), action, zeros, ones, ones)

    replay = windows.empty(jax.eval_shape(like), slots)
    prepared = jax.eval_shape(lambda: prepare(agent, stack, run_key, fresh, replay)[1])
    prepared = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), prepared)
    counts = EpisodeCounts(zeros, jnp.zeros(rows, jnp.int32), *(jnp.zeros(()) for _ in range(3)))
    return LoopState(fresh, inside, obs, ones, carry, counts, replay, prepared, jnp.int32(0), jnp.int32(0), run_key)


def is_ready(needs: Data, replay: Windows) -> Bool[Array, ""]:
    """Whether the next step is learnt after."""
    return (replay.filled >= needs.warmup) & (replay.tree.total > 0)


def decide(agent: Agent, loop: LoopState) -> Decision:
    """The agent's actions."""
    out = agent.act(tick_keys(loop).act, loop.agent, loop.carry, loop.obs, loop.start, explore=True)
    return Decision(out.action, out.carry)


def record(agent: Agent, stack: int, loop: LoopState, decision: Decision, shown: Shown) -> LoopState:
    """The state after a step of all worlds, which is stored."""
    over = shown.terminated | shown.truncated
    step = Step(ring.newest(loop.obs, stack), decision.action, shown.reward, shown.terminated, shown.truncated)
    final = ring.newest(shown.final_obs, stack)
    return loop._replace(
        agent=agent.lived(loop.agent, over.shape[0]), obs=shown.obs, start=over, carry=decision.carry,
        counts=count(loop.counts, shown.reward, over),
        replay=windows.add(loop.replay, step, final, horizon=agent.needs.length, stack=stack),
    )  # fmt: skip


def learn(agent: Agent, stack: int, loop: LoopState) -> tuple[LoopState, Any]:
    """The updates that follow a step of all worlds; means of their metrics."""
    once = partial(improve, agent, stack)
    loop, metrics = jax.lax.scan(once, loop, jax.random.split(tick_keys(loop).learn, updates_after(agent.needs)))
    return loop, jax.tree.map(jnp.mean, metrics)


def updates_after(needs: Data) -> int:
    """Of a step of all worlds."""
    return max(round(needs.rows * needs.updates_per_step), 1)


def improve(agent: Agent, stack: int, loop: LoopState, key: Key[Array, ""]) -> tuple[LoopState, Any]:
    """One update, after the preparation that is due."""
    prepare_key, draw_key, update_key = jax.random.split(key, 3)
    state, prepared = loop.agent, loop.prepared
    if agent.prepare is not None:
        state, prepared = jax.lax.cond(
            loop.updates % agent.needs.prepare_period == 0,
            lambda: prepare(agent, stack, prepare_key, state, loop.replay),
            lambda: (state, prepared),
        )
    batch = sequences(agent.needs, stack, loop.replay, windows.draw(draw_key, loop.replay, agent.needs.batch))
    result = agent.update(update_key, state, batch)
    assert result.priorities is not None
    replay = windows.revise(loop.replay, batch.place, result.priorities)
    loop = loop._replace(agent=result.state, replay=replay, prepared=prepared, updates=loop.updates + 1)
    return loop, result.metrics


def prepare(agent: Agent, stack: int, key: Key[Array, ""], state: Any, replay: Windows) -> tuple[Any, Any]:
    """The agent's preparation, on batches that are drawn at once and made when they are looked at."""
    if agent.prepare is None:
        return state, Nothing()
    draw_key, prepare_key = jax.random.split(key)
    places = windows.draw(draw_key, replay, agent.needs.prepare_batches, agent.needs.batch)
    result = agent.prepare(prepare_key, state, places, windows.past(replay),
                           fetch=partial(sequences, agent.needs, stack, replay))  # fmt: skip
    return result.state, result.metrics


def sequences(needs: Data, stack: int, replay: Windows, place: Int32[Array, " B"]) -> Any:
    """What begins at these places."""
    return windows.gather(replay, place, length=needs.length, stack=stack, true_ends=needs.true_ends)


@dataclass(frozen=True)
class Turns:
    """Carries out ticks; of `many` trainings at once where their states are stacked along a first axis.

    Those have taken equally many steps and updates; learning begins when all of them are ready.
    """

    agent: Agent
    stack: int
    many: bool = False

    def chunk(self, worlds: Sequence[Worlds | HostWorlds], loop: LoopState, source: Any, ticks: int
              ) -> tuple[LoopState, Any]:  # fmt: skip
        """So many ticks, and means over their updates, if there were any.

        Args:
            worlds: of every training.
            loop: their states.
            source: what tasks are drawn from, in worlds that are compiled.
            ticks: how many.

        Raises:
            ConfigError: trainings that have not come equally far.
        """
        number = len(worlds)
        loop = self._in_step(loop) if self.many else loop
        hosted = [one for one in worlds if isinstance(one, HostWorlds)]
        loop, metrics = self._on_host(hosted, loop, ticks) if hosted else self._act(worlds[0], loop, source, ticks)
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

    def _on_host(self, worlds: Sequence[HostWorlds], loop: LoopState, ticks: int) -> tuple[LoopState, Any]:
        states = apart(loop.worlds, len(worlds)) if self.many else [loop.worlds]
        shown = apart(loop.obs, len(worlds)) if self.many else [loop.obs]
        for one, state, obs in zip(worlds, states, shown, strict=True):
            refuse_elsewhere(one, one.restore(state), obs)
        loop = loop._replace(worlds=())
        decision, total, learnt = self._decide(loop), None, 0
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
            loop, decision, metrics = self._turn[learning](loop, decision, shown)
            if learning:
                total, learnt = metrics if total is None else _added(total, metrics), learnt + 1
            learning = learning or bool(self._is_ready(loop.replay))
        states = [one.save() for one in worlds]
        loop = loop._replace(worlds=own(stacked(states) if self.many else states[0]))
        return loop, Nothing() if total is None else jax.tree.map(lambda x: np.asarray(x) / learnt, total)

    def _act(self, worlds: Any, loop: LoopState, source: Any, ticks: int) -> tuple[LoopState, Any]:
        until = int(loop.ticks) + ticks
        if not self._is_ready(loop.replay):
            loop = self._programs(worlds)[0](loop, source, until)
        left = until - int(loop.ticks)
        return self._programs(worlds)[1](loop, source, left) if left else (loop, Nothing())

    def _each(self, function: Callable[..., Any], takes: Any, gives: Any) -> Callable[..., Any]:
        """A function of one training for all of them."""
        return jax.vmap(function, in_axes=takes, out_axes=gives) if self.many else function

    @cached_property
    def _is_ready(self) -> Callable[[Windows], Bool[Array, ""]]:
        ready = self._each(partial(is_ready, self.agent.needs), 0, 0)
        return jax.jit(lambda replay: jnp.all(ready(replay)))

    @cached_property
    def _decide(self) -> Callable[[LoopState], Decision]:
        return jax.jit(self._each(partial(decide, self.agent), (AXES,), 0))

    @cached_property
    def _turn(self) -> tuple[Callable[..., tuple[LoopState, Decision, Any]], ...]:
        """From a step of worlds that are not compiled to the next decision; with updates, and without."""

        def turn(learning: bool, loop: LoopState, decision: Decision, step: Any) -> Any:
            loop = record(self.agent, self.stack, loop, decision, Shown(*step))
            loop, metrics = learn(self.agent, self.stack, loop) if learning else (loop, Nothing())
            loop = loop._replace(ticks=loop.ticks + 1)
            return loop, decide(self.agent, loop), metrics

        made = (self._each(partial(turn, learning), (AXES, 0, 0), (AXES, 0, 0)) for learning in (False, True))
        return tuple(jax.jit(one, donate_argnums=0) for one in made)

    @cached_property
    def _programs(self) -> Callable[[Worlds], tuple[Callable[..., Any], Callable[..., Any]]]:
        """In worlds that are compiled: to act until a tick or until learning can begin, and to act and learn."""

        def tick(worlds: Worlds, source: PyTree, learning: bool, loop: LoopState) -> tuple[LoopState, Any]:
            decision = decide(self.agent, loop)
            state, ts = worlds.step(tick_keys(loop).step, loop.worlds, decision.action, source)
            shown = Shown(ts.obs, ts.reward, ts.terminated, ts.truncated, ts.final_obs)
            loop = record(self.agent, self.stack, loop._replace(worlds=state), decision, shown)
            loop, metrics = learn(self.agent, self.stack, loop) if learning else (loop, Nothing())
            return loop._replace(ticks=loop.ticks + 1), metrics

        def ticks_of(worlds: Worlds, source: PyTree, learning: bool) -> Callable[[LoopState], tuple[LoopState, Any]]:
            all_of_them = self._each(lambda source, loop: tick(worlds, source, learning, loop), (0, AXES), (AXES, 0))
            return partial(all_of_them, source)

        def programs(worlds: Worlds) -> tuple[Callable[..., Any], Callable[..., Any]]:
            def fill(loop: LoopState, source: PyTree, until: Int32[Array, ""]) -> LoopState:
                once = ticks_of(worlds, source, False)
                waits = lambda loop: (loop.ticks < until) & ~self._is_ready(loop.replay)  # noqa: E731
                return jax.lax.while_loop(waits, lambda loop: once(loop)[0], loop)

            def act(loop: LoopState, source: PyTree, ticks: Int32[Array, ""]) -> tuple[LoopState, Any]:
                return again(ticks_of(worlds, source, True), loop, ticks)

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


@dataclass(frozen=True)
class OnSequences:
    """The engine that `loop.train` drives."""

    agent: Agent
    worlds: Worlds | HostWorlds
    source: Any = ()
    """What tasks are drawn from, in worlds that are compiled."""
    most_steps: int | None = None
    """Of the environment that will ever be taken: so much is made room for, if it is less than the replay may hold."""
    any_size: bool = True

    @property
    def steps_per_update(self) -> int:
        """A step of all worlds."""
        return self.worlds.rows

    @property
    def slots(self) -> int:
        """Of each row: for every step one, and for ends as many more; where they hold pictures a tenth as many."""
        most, spec = self.agent.needs.capacity // self.worlds.rows, self.worlds.spec
        if self.most_steps is None:
            return most
        steps = -(-self.most_steps // self.worlds.rows) + 1
        pictures = any(len(getattr(space, "shape", ())) > 1 for space in spec.obs.values())
        return min(most, steps + (steps // 10 + LEAST_ENDS if pictures else steps))

    def begin(self, key: Key[Array, ""], state: Any) -> LoopState:
        """See Engine."""
        world_key, key = jax.random.split(key)
        worlds, start = self.worlds, partial(begin_at, self.agent, self.worlds)
        if isinstance(worlds, HostWorlds):
            obs = worlds.reset(int(jax.random.randint(world_key, (), 0, 2**31 - 1)))
            return own(jax.jit(partial(start, self.slots, ()))(obs, key, state)._replace(worlds=worlds.save()))

        def everything(key: Key[Array, ""], state: Any, source: PyTree) -> LoopState:
            return start(self.slots, *worlds.reset(world_key, source), key, state)

        return own(jax.jit(everything)(key, state, self.source))

    def chunk(self, loop: LoopState, updates: int, share: float) -> tuple[LoopState, Any]:
        """So many steps of all worlds; means over the updates, if there were any."""
        del share
        return self._turns.chunk([self.worlds], loop, self.source, updates)

    def steps(self, loop: LoopState) -> int:
        """All of them."""
        return int(loop.ticks) * self.worlds.rows

    def learnt(self, loop: LoopState) -> int:
        """The same, once learning has begun."""
        return self.steps(loop) if int(loop.updates) else 0

    def drain(self, loop: LoopState) -> tuple[LoopState, dict[str, float]]:
        """Mean return and length of the episodes that ended, the replay's size, and the last preparation."""
        ended, total, steps = (float(x) for x in loop.counts[2:])
        values = {"episode/return": total / ended, "episode/length": steps / ended} if ended else {}
        values["replay/size"] = float(loop.replay.filled)
        if int(loop.updates):
            values |= named(self.agent.name, loop.prepared._asdict())
        counts = EpisodeCounts(*loop.counts[:2], *(jnp.zeros(()) for _ in range(3)))
        return loop._replace(counts=counts), values

    def room(self, loop: LoopState) -> int | None:
        """A checkpoint holds everything."""
        del loop

    def secure(self, loop: LoopState) -> None:
        """The same."""
        del loop

    def trouble(self, loop: LoopState) -> str:
        """Episodes of which nothing can be learnt."""
        if int(loop.replay.filled) < max(self.agent.needs.warmup, HOPELESS) or float(loop.replay.tree.total) > 0:
            return ""
        return (
            f"{self.agent.name} learns from {self.agent.needs.length} steps in a row, and a time limit cut every "
            f"episode of {self.worlds.spec.id} before so many were taken; lengthen its episodes."
        )

    def hear(self, loop: LoopState, values: Mapping[str, float]) -> LoopState:
        """Evaluations change nothing."""
        del values
        return loop

    @contextmanager
    def unrolled(self, loop: LoopState) -> Iterator[dict[str, np.ndarray]]:
        """The steps of the replay as `library.dataset` keeps them; nothing where it is empty."""
        yield windows.to_arrays(loop.replay)

    @cached_property
    def _turns(self) -> "Turns":
        return Turns(self.agent, self.worlds.spec.stack)
