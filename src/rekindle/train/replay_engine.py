"""The engine that `loop.train` drives for agents that learn from a replay: alone, or in a phase of reincarnation.

What a tick is made of is in `off_policy.py`; where worlds are not compiled, how it is carried out is in `host.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from rekindle.core.tree import flatten_arrays, own, unflatten_arrays
from rekindle.core.types import Agent, Obs, Transitions
from rekindle.envs.host.worlds import HostWorlds
from rekindle.reincarnation.phases import Phase
from rekindle.replay import ring
from rekindle.replay.mapped import Mapped
from rekindle.replay.prioritised import Prioritised
from rekindle.replay.ring import Ring
from rekindle.train.agreement import COMPARED, Reference, Standing
from rekindle.train.host import HostLoop
from rekindle.train.off_policy import (
    Chunk,
    EpisodeCounts,
    Given,
    LoopState,
    Nothing,
    Worlds,
    act_on,
    begin,
    draw,
    pace,
    read_on,
    ticks_before,
)


@dataclass(frozen=True)
class OffPolicy:
    """The engine that `loop.train` drives: an agent alone, or in a phase of reincarnation."""

    agent: Agent
    worlds: Worlds | HostWorlds
    given: Given
    phase: Phase | None = None
    reference: Reference | None = None
    any_size: bool = True
    folder: Path | None = None
    """Where worlds that are not compiled keep their replay; without one, in a temporary folder."""

    @property
    def offline(self) -> bool:
        """Whether nothing is acted."""
        return self.phase is not None and self.phase.offline

    @property
    def steps_per_update(self) -> int:
        """Of a tick; where nothing is acted, one update."""
        return 1 if self.offline else pace(self.agent.needs).steps * self.worlds.rows

    def begin(self, key: Key[Array, ""], state: Any) -> LoopState:
        """See Engine."""
        worlds = self.worlds
        if isinstance(worlds, HostWorlds):
            return self._host.begin(key, state)
        start = jax.jit(lambda key, state, given: begin(self.agent, worlds, self.phase, given, key, state=state))
        return own(start(key, state, self.given))

    def chunk(self, loop: LoopState, updates: int, share: float) -> tuple[LoopState, Any]:
        """So many ticks; the first ones only fill the replay."""
        del share
        before = 0 if self.offline else min(max(ticks_before(self.agent.needs) - self._lived(loop), 0), updates)
        metrics: Any = Nothing()
        if before:
            loop, _ = self._compiled(False)(loop, before)
        if updates > before:
            loop, metrics = self._compiled(True)(loop, updates - before)
        return loop, metrics

    def steps(self, loop: LoopState) -> int:
        """Of the environment; where nothing is acted, updates."""
        return int(loop.ticks) * self.steps_per_update

    def learnt(self, loop: LoopState) -> int:
        """The same, once learning has begun."""
        return self.steps(loop) if self.offline or self._lived(loop) > ticks_before(self.agent.needs) else 0

    def drain(self, loop: LoopState) -> tuple[LoopState, dict[str, float]]:
        """Mean return and length of the episodes that ended, and the replay's size; in a phase, how it stands."""
        ended, total, steps = (float(x) for x in loop.counts[2:])
        values = {"episode/return": total / ended, "episode/length": steps / ended} if ended else {}
        counts = EpisodeCounts(*loop.counts[:2], *(jnp.zeros(()) for _ in range(3)))
        replay = self.given.data if self.offline else loop.replay
        replay = replay.ring if isinstance(replay, Prioritised) else replay
        values["replay/size"] = float(replay.filled * replay.rows)
        if self.phase is not None:
            values |= self._standing.values(loop, steps=self.steps(loop), updates=self._updates(loop),
                                            shown=lambda key: self._shown(key, loop))  # fmt: skip
        return loop._replace(counts=counts), values

    def room(self, loop: LoopState) -> int | None:
        """As far as the files of worlds that are not compiled reach, which are brought to where the loop left them."""
        if not isinstance(self.worlds, HostWorlds) or self.offline:
            return None
        self._host.stand_at(loop)
        slices = self._host.replay.room()
        return None if slices is None else slices // pace(self.agent.needs).steps

    def saved(self, loop: LoopState) -> dict[str, np.ndarray]:
        """All but the steps in those files."""
        if isinstance(self.worlds, HostWorlds):
            self._host.replay.save()
        return flatten_arrays(loop)

    def restored(self, fresh: LoopState, saved: Mapping[str, np.ndarray]) -> LoopState:
        """See Engine."""
        return unflatten_arrays(fresh, saved, where="the checkpoint")

    @contextmanager
    def unrolled(self, loop: LoopState) -> Iterator[dict[str, np.ndarray]]:
        """The steps of the replay as `library.dataset` keeps them; nothing where it is empty."""
        if isinstance(self.worlds, HostWorlds):
            with self._host.unrolled(loop) as arrays:
                yield arrays
            return
        kept = loop.replay.ring if isinstance(loop.replay, Prioritised) else loop.replay
        assert isinstance(kept, Ring)
        yield ring.to_arrays(ring.unlabelled(kept)) if int(kept.filled) else {}

    def trouble(self, loop: LoopState) -> str:
        """None that it knows of."""
        del loop
        return ""

    def hear(self, loop: LoopState, values: Mapping[str, float]) -> LoopState:
        """The phase goes on by the normalised score that an evaluation found."""
        if self.phase is None:
            return loop
        return loop._replace(progress=self.phase.after(loop.progress, values["score/normalised"], self.steps(loop)))

    def _lived(self, loop: LoopState) -> int:
        """Ticks, and as many as fill what the replay began with."""
        kept = self.phase is not None and self.phase.keeps_replay
        return int(loop.ticks) + (ticks_before(self.agent.needs) if kept else 0)

    def _updates(self, loop: LoopState) -> int:
        """Of this phase."""
        if self.offline:
            return int(loop.ticks)
        return max(self._lived(loop) - ticks_before(self.agent.needs), 0) * pace(self.agent.needs).updates

    @cached_property
    def _standing(self) -> Standing:
        assert self.phase is not None
        return Standing(self.agent, self.phase, self.reference)

    def _shown(self, key: Key[Array, ""], loop: LoopState) -> tuple[Obs, Float[Array, "B A"]]:
        """Observations with labels: of what is learnt from, or else of the teacher's data."""
        batch = self._labelled(key, loop)
        return batch.obs, batch.labels

    def _labelled(self, key: Key[Array, ""], loop: LoopState) -> Transitions:
        assert self.reference is not None
        if isinstance(self.worlds, HostWorlds):
            acted = not self.offline and self.given.teacher != ()
            return self._host.sample(loop, self._host.replay if acted else self._taught, key)
        own = self.given.data if self.offline else loop.replay
        own = own.ring if isinstance(own, Prioritised) else own
        labelled = isinstance(own, Ring) and jax.tree.leaves(own.steps.labels)
        return self._sampled(key, own if labelled and isinstance(own, Ring) else self.reference.data, loop.obs)

    @cached_property
    def _sampled(self) -> Callable[[Key[Array, ""], Ring, Obs], Transitions]:
        needs = replace(self.agent.needs, batch=COMPARED)
        return jax.jit(partial(draw, needs))

    @cached_property
    def _taught(self) -> Mapped:
        """The teacher's steps on the host."""
        assert self.reference is not None
        return Mapped(None, self.reference.data.slots, self.reference.data)

    @cached_property
    def _host(self) -> HostLoop:
        assert isinstance(self.worlds, HostWorlds)
        return HostLoop(self.agent, self.worlds, self.phase, self.given, self.folder, COMPARED)

    @cached_property
    def _compiled(self) -> Callable[[bool], Chunk]:
        def compiled(learning: bool) -> Chunk:
            if isinstance(self.worlds, HostWorlds):
                return self._host.read if self.offline else partial(self._host.act, learning=learning)
            if self.phase is not None and self.phase.offline:
                read = jax.jit(partial(read_on, self.agent, self.phase), donate_argnums=0)
                return lambda loop, ticks: read(loop, self.given, ticks)
            act = jax.jit(partial(act_on, self.agent, self.worlds, self.phase, learning), donate_argnums=0)
            return lambda loop, ticks: act(loop, self.given, ticks)

        return cache(compiled)
