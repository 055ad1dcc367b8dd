"""The off-policy loop in worlds that are not compiled: their step stands between two programs, and so does the replay.

What is decided, drawn and learnt is that of `off_policy.py`; the steps themselves are in files (`replay/mapped.py`), of
which only batches go to the device. The updates of a tick are computed while the worlds step, so that emulators and
network share the time; they learn from what was stored before the tick.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key

from rekindle.core.compiling import compiler_options
from rekindle.core.errors import WorldError
from rekindle.core.tree import own
from rekindle.core.types import Agent, EnvSpec, Transitions
from rekindle.envs.host.worlds import HostObs, HostStep, HostWorlds
from rekindle.reincarnation.phases import Phase
from rekindle.replay import ring
from rekindle.replay.mapped import Mapped, on_host
from rekindle.replay.prioritised import Prioritised
from rekindle.replay.ring import Outline, Step, Window
from rekindle.train import off_policy
from rekindle.train.off_policy import Decision, Drawn, Given, LoopState, Nothing, Shown, pace


class Draws(NamedTuple):
    """What an update learns from; the second is of data that are rehearsed, or ()."""

    mine: Any
    other: Any


class Programs(NamedTuple):
    """What is compiled of a tick."""

    decide: Any
    """From loop, what is given, and the number of the step in its tick to a Decision; jitted."""
    draw: Callable[[LoopState, Any], Draws]
    learn: Callable[[LoopState, Any, Draws, Draws], tuple[LoopState, Any]]
    record: Callable[[LoopState, Decision, Shown, Any], LoopState]


def programs(agent: Agent, spec: EnvSpec, phase: Phase | None, data: Outline | None) -> Programs:
    """Of an agent in a phase, with data of this outline; `learn` and `record` take over the loop's memory."""
    needs, turn, offline = agent.needs, pace(agent.needs), phase is not None and phase.offline

    def tick(loop: LoopState) -> Key[Array, ""]:
        return jax.random.fold_in(loop.key, loop.ticks)

    def keys(loop: LoopState, number: Int32[Array, ""]) -> off_policy.LearnKeys:
        key = tick(loop) if offline else jax.random.split(jax.random.split(tick(loop))[1], turn.updates)[number]
        return off_policy.learn_keys(key)

    def dials(loop: LoopState) -> Any:
        return None if phase is None else phase.dials(loop.progress)

    def decide(loop: LoopState, given: Given, number: Int32[Array, ""]) -> Decision:
        split = jax.random.split(jax.random.fold_in(jax.random.split(tick(loop))[0], number), 3)
        return off_policy.decide(agent, given, dials(loop), tuple(split), loop)

    def draw(loop: LoopState, number: Int32[Array, ""]) -> Draws:
        of, rehearses = keys(loop, number), phase is not None and phase.rehearse
        mine = off_policy.choose(needs, of.draw, data if offline and data is not None else loop.replay)
        return Draws(mine, off_policy.choose(needs, of.other, data) if rehearses and data is not None else ())

    def learn(loop: LoopState, number: Int32[Array, ""], drawn: Draws, found: Draws) -> tuple[LoopState, Any]:
        batch, other = (
            off_policy.made_of(needs, places, window, loop.obs) if isinstance(window, Window) else None
            for places, window in zip(drawn, found, strict=True)
        )
        assert batch is not None
        loop, metrics = off_policy.improve(agent, phase, dials(loop), keys(loop, number), loop, batch, other)
        if offline:
            loop = loop._replace(agent=agent.lived(loop.agent, 1), ticks=loop.ticks + 1)
        return loop, metrics

    def record(loop: LoopState, decision: Decision, shown: Shown, truncated: Any) -> LoopState:
        replay = off_policy.outgrown(needs, loop.replay, truncated)
        return off_policy.went_on(agent, loop, decision, shown)._replace(replay=replay)

    compiled = partial(jax.jit, compiler_options=compiler_options(spec))
    return Programs(compiled(decide), compiled(draw), compiled(learn, donate_argnums=0),
                    compiled(record, donate_argnums=0))  # fmt: skip


@dataclass(frozen=True)
class HostLoop:
    """Carries out ticks; the files of its replay and its worlds stand where the last of them left them."""

    agent: Agent
    worlds: HostWorlds
    phase: Phase | None
    given: Given
    folder: Path | None
    """Where the replay is kept; without one, in a temporary folder."""
    compared: int
    """Steps of a sample."""

    def begin(self, key: Key[Array, ""], state: Any) -> LoopState:
        """The state before the first step; see `off_policy.begin`."""
        obs = self.worlds.reset(int(jax.random.randint(jax.random.fold_in(key, 1), (), 0, 2**31 - 1)))
        start = jax.jit(
            lambda key, state, teacher, obs: off_policy.begin_at(
                self.agent, self.worlds.spec, self.phase, self.given._replace(teacher=teacher), (), obs, key,
                state=state,
            )
        )  # fmt: skip
        return own(start(key, state, self.given.teacher, obs)._replace(worlds=self.worlds.save()))

    def act(self, loop: LoopState, ticks: int, *, learning: bool) -> tuple[LoopState, Any]:
        """So many ticks; metrics are means over their updates. Worlds and files are first brought to where it was."""
        obs = self.worlds.restore(loop.worlds)
        loop, found = loop._replace(worlds=()), []
        self.stand_at(loop)
        with ThreadPoolExecutor(1) as beside:
            for _ in range(ticks):
                for number in range(pace(self.agent.needs).steps):
                    decision = self._programs.decide(loop, self._on_device, np.int32(number))
                    action = np.asarray(decision.action)
                    learnt = beside.submit(self._learn, loop) if learning and number == 0 else None
                    try:
                        step = self.worlds.step(action)
                    except WorldError as error:
                        now = loop if learnt is None else learnt.result()[0]
                        error.state, error.env_steps = now.agent, self._steps(now)
                        raise
                    if learnt is not None:
                        loop, metrics = learnt.result()
                        found += metrics
                    shown = Shown(*jax.tree.map(jnp.asarray, step[:4]))
                    cut = self.replay.truncated(self.replay.added - self.agent.needs.n_step)
                    loop = self._programs.record(loop, decision, shown, cut)
                    self.replay.write(self._slice(obs, decision, step))
                    obs = step.obs
                loop = loop._replace(ticks=loop.ticks + 1)
        return loop._replace(worlds=own(self.worlds.save())), _means(found)

    def _steps(self, loop: LoopState) -> int:
        return int(loop.ticks) * pace(self.agent.needs).steps * self.worlds.rows

    def read(self, loop: LoopState, ticks: int) -> tuple[LoopState, Any]:
        """So many updates on data that exists."""
        found, worlds = [], loop.worlds
        loop = loop._replace(worlds=())
        for _ in range(ticks):
            loop, metrics = self._update(loop, 0)
            found.append(metrics)
        return loop._replace(worlds=worlds), _means(found)

    def sample(self, loop: LoopState, source: Mapped, key: Key[Array, ""]) -> Transitions:
        """Uniform, of the steps in these files."""
        choose, made_of = self._sampled
        drawn = choose(key, Outline(jnp.int32(source.added), source.slots, source.rows))
        return made_of(drawn, self.window(source, drawn.place), loop.obs)

    @cached_property
    def _sampled(self) -> tuple[Callable[..., Drawn], Callable[..., Transitions]]:
        needs = replace(self.agent.needs, batch=self.compared)
        return jax.jit(partial(off_policy.choose, needs)), jax.jit(partial(off_policy.made_of, needs))

    @contextmanager
    def unrolled(self, loop: LoopState) -> Iterator[dict[str, np.ndarray]]:
        """The steps of a replay, the oldest first, without labels; nothing where it is empty."""
        if int(outline_of(loop).added) == self.replay.kept == 0:
            yield {}
            return
        self.stand_at(loop)
        with self.replay.unrolled() as arrays:
            yield arrays

    def window(self, source: Mapped, index: Any) -> Window:
        """What lies around places."""
        return source.window(np.asarray(index), before=self.worlds.spec.stack - 1, after=self.agent.needs.n_step)

    def stand_at(self, loop: LoopState) -> None:
        """Bring the files of the replay to where a loop left them."""
        rows, decided = self.worlds.rows, self._programs.decide.eval_shape(loop, self._on_device, np.int32(0))

        def like(loop: LoopState, decision: Decision) -> Step:
            obs, none = ring.newest(loop.obs, self.worlds.spec.stack), jnp.zeros(rows, bool)
            return Step(obs, decision.action, jnp.zeros(rows), none, none, decision.labels)

        self.replay.stand_at(int(outline_of(loop).added), jax.eval_shape(like, loop, decided))

    @cached_property
    def replay(self) -> Mapped:
        """Of the steps that are acted, after those that are adopted."""
        adopted = self.given.data if self.phase is not None and self.phase.keeps_replay else None
        return Mapped(self.folder, self.agent.needs.capacity // self.worlds.rows, adopted)

    @cached_property
    def data(self) -> Mapped:
        """The steps that exist already."""
        return Mapped(None, self.given.data.slots, self.given.data)

    def _learn(self, loop: LoopState) -> tuple[LoopState, list[Any]]:
        """The updates of a tick."""
        found = []
        for number in range(pace(self.agent.needs).updates):
            loop, metrics = self._update(loop, number)
            found.append(metrics)
        return loop, found

    def _update(self, loop: LoopState, number: int) -> tuple[LoopState, Any]:
        offline = self.phase is not None and self.phase.offline
        drawn = self._programs.draw(loop, np.int32(number))
        mine = self.window(self.data if offline else self.replay, drawn.mine.place)
        other = self.window(self.data, drawn.other.place) if isinstance(drawn.other, Drawn) else ()
        return self._programs.learn(loop, np.int32(number), drawn, Draws(mine, other))

    def _slice(self, obs: HostObs, decision: Decision, step: HostStep) -> Step:
        labels = jax.tree.map(np.asarray, decision.labels)
        seen = ring.newest(obs, self.worlds.spec.stack)
        return on_host(seen, np.asarray(decision.action), step.reward, step.terminated, step.truncated, labels)

    @property
    def _on_device(self) -> Given:
        return self.given._replace(data=())

    @cached_property
    def _programs(self) -> Programs:
        data = self.given.data
        outline = None if data == () else Outline(jnp.int32(data.slots), data.slots, data.rows)
        return programs(self.agent, self.worlds.spec, self.phase, outline)


def outline_of(loop: LoopState) -> Outline:
    """How many steps there are."""
    found = loop.replay.ring if isinstance(loop.replay, Prioritised) else loop.replay
    assert isinstance(found, Outline)
    return found


def _means(found: list[Any]) -> Any:
    return jax.tree.map(lambda *x: np.mean(np.stack(x)), *found) if found else Nothing()
