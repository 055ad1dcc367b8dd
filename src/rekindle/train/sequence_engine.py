"""The engine that `loop.train` drives for agents that learn from sequences: alone, or in a phase of reincarnation.

What a tick is made of, and how it is carried out, is in `sequences.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from rekindle.core.errors import CheckpointError, ConfigError
from rekindle.core.spaces import is_picture
from rekindle.core.tree import flatten_arrays, own, unflatten_arrays
from rekindle.core.types import Agent, Obs
from rekindle.envs.host.worlds import HostWorlds
from rekindle.reincarnation.phases import Phase
from rekindle.replay import ring, windows
from rekindle.replay.ring import Ring
from rekindle.replay.windows import Windows
from rekindle.train.agreement import COMPARED, Reference, Standing
from rekindle.train.loop import named
from rekindle.train.off_policy import NOTHING_GIVEN, EpisodeCounts, Given, Worlds
from rekindle.train.sequences import LoopState, Turns, begin_at, held

LEAST_ENDS = 50
"""Slots for ends of episodes at least."""
FIRST_SLICES = 4_096
"""Of the teacher's steps that a student is compared by."""
ROOM = "replay.room"
"""What a checkpoint calls the number of slots for each row."""
HOPELESS = 500
"""Slots after which a replay from which nothing can be drawn is not going to change."""


@dataclass(frozen=True)
class OnSequences:
    """The engine that `loop.train` drives."""

    agent: Agent
    worlds: Worlds | HostWorlds
    given: Given = NOTHING_GIVEN
    most_steps: int | None = None
    """Of the environment that will ever be taken: so much is made room for, if it is less than the replay may hold."""
    phase: Phase | None = None
    reference: Reference | None = None
    any_size: bool = True

    @property
    def offline(self) -> bool:
        """Whether nothing is acted."""
        return self.phase is not None and self.phase.offline

    @property
    def steps_per_update(self) -> int:
        """A step of all worlds; where nothing is acted, one update."""
        return 1 if self.offline else self.worlds.rows

    @property
    def slots(self) -> int:
        """Of each row: for every step one, and for ends as many more; where they hold pictures a tenth as many."""
        if self.offline:
            return self._room_for(self.given.data.slots, self.given.data.rows)
        if self.most_steps is None:
            return self.agent.needs.capacity // self.worlds.rows
        return self._room_for(-(-self.most_steps // self.worlds.rows), self.worlds.rows)

    def _room_for(self, steps: int, rows: int) -> int:
        pictures = any(map(is_picture, self.worlds.spec.obs.values()))
        ends = steps // 10 + LEAST_ENDS if pictures else steps + 1
        return min(self.agent.needs.capacity // rows, steps + 1 + ends)

    def begin(self, key: Key[Array, ""], state: Any) -> LoopState:
        """See Engine.

        Raises:
            ConfigError: data in which no episode is long enough to learn from.
        """
        world_key, key = jax.random.split(key)
        worlds, given = self.worlds, self.given if self.offline else self.given._replace(data=())
        start = partial(begin_at, self.agent, worlds, self.slots, self.phase)
        if isinstance(worlds, HostWorlds):
            obs = worlds.reset(int(jax.random.randint(world_key, (), 0, 2**31 - 1)))
            begun = jax.jit(lambda given, *rest: start(given, (), *rest))(given, obs, key, state)
            loop = begun._replace(worlds=worlds.save())
        else:

            def everything(given: Given, key: Key[Array, ""], state: Any) -> LoopState:
                return start(given, *worlds.reset(world_key, given.source), key, state)

            loop = jax.jit(everything)(given, key, state)
        if self.offline:
            self._refuse_short(loop.replay)
        return own(loop)

    def chunk(self, loop: LoopState, updates: int, share: float) -> tuple[LoopState, Any]:
        """So many steps of all worlds; means over the updates, if there were any."""
        del share
        return self._turns.chunk([self.worlds], loop, self.given._replace(data=self._rehearsed), updates)

    def steps(self, loop: LoopState) -> int:
        """All of them; where nothing is acted, updates."""
        return int(loop.ticks) * self.steps_per_update

    def learnt(self, loop: LoopState) -> int:
        """The same, once learning has begun."""
        return self.steps(loop) if int(loop.updates) else 0

    def drain(self, loop: LoopState) -> tuple[LoopState, dict[str, float]]:
        """Mean return and length of the episodes that ended, the replay's size, the last preparation, the phase."""
        ended, total, steps = (float(x) for x in loop.counts[2:])
        values = {"episode/return": total / ended, "episode/length": steps / ended} if ended else {}
        values["replay/size"] = float(loop.replay.filled)
        if int(loop.updates):
            values |= named(self.agent.name, loop.prepared._asdict())
        if self.phase is not None:
            values |= self._standing.values(loop, steps=self.steps(loop), updates=int(loop.updates),
                                            shown=lambda key: self._shown(key, loop))  # fmt: skip
        counts = EpisodeCounts(*loop.counts[:2], *(jnp.zeros(()) for _ in range(3)))
        return loop._replace(counts=counts), values

    def room(self, loop: LoopState) -> int | None:
        """A checkpoint holds everything."""
        del loop

    def saved(self, loop: LoopState) -> dict[str, np.ndarray]:
        """Everything but slots of the replay that hold nothing yet, and how many there are for each row."""
        packed = flatten_arrays(loop._replace(replay=windows.packed(loop.replay)))
        return packed | {ROOM: np.array(loop.replay.room, np.int32)}

    def restored(self, fresh: LoopState, saved: Mapping[str, np.ndarray]) -> LoopState:
        """See Engine."""
        rows, room = fresh.replay.rows, fresh.replay.room
        if int(saved.get(ROOM, room)) != room:  # older ones have all slots
            raise CheckpointError(f"the checkpoint is of a replay of {int(saved[ROOM])} slots a row, this has {room}.")
        arrays = {name: array for name, array in saved.items() if name != ROOM}
        full = windows.unpacked(arrays, prefix="replay.slots.", rows=rows, room=room)
        return unflatten_arrays(fresh, full, where="the checkpoint")

    def trouble(self, loop: LoopState) -> str:
        """Episodes of which nothing can be learnt."""
        if int(loop.replay.filled) < max(self.agent.needs.warmup, HOPELESS) or float(loop.replay.tree.total) > 0:
            return ""
        return (
            f"{self.agent.name} needs {self.agent.needs.length + 1} steps of an episode to learn from, and a time "
            f"limit cut every episode of {self.worlds.spec.id} before; lengthen them."
        )

    def hear(self, loop: LoopState, values: Mapping[str, float]) -> LoopState:
        """A phase goes on by the normalised score that an evaluation found."""
        if self.phase is None:
            return loop
        return loop._replace(progress=self.phase.after(loop.progress, values["score/normalised"], self.steps(loop)))

    @contextmanager
    def unrolled(self, loop: LoopState) -> Iterator[dict[str, np.ndarray]]:
        """The steps of the replay as `library.dataset` keeps them; nothing where they are the teacher's, or none."""
        yield {} if self.offline else windows.to_arrays(loop.replay)

    @cached_property
    def _turns(self) -> Turns:
        return Turns(self.agent, self.worlds.spec.stack, self.phase)

    @cached_property
    def _rehearsed(self) -> Windows | tuple[()]:
        """Data that are mixed into batches, as a replay."""
        if self.phase is None or not self.phase.rehearse:
            return ()
        data, stack = self.given.data, self.worlds.spec.stack
        slots = self._room_for(data.slots, data.rows)
        replay = jax.jit(partial(held, self.agent.needs, stack, slots=slots))(data.steps)
        self._refuse_short(replay)
        return replay

    def _refuse_short(self, replay: Windows) -> None:
        if not float(replay.tree.total) > 0:
            raise ConfigError(
                f"{self.agent.name} needs {self.agent.needs.length + 1} steps of an episode to learn from, and the "
                "teacher's data have none of so many; take another replay, or a teacher without one."
            )

    @cached_property
    def _standing(self) -> Standing:
        assert self.phase is not None
        return Standing(self.agent, self.phase, self.reference)

    def _shown(self, key: Key[Array, ""], loop: LoopState) -> tuple[Obs, Float[Array, "B A"]]:
        """Observations with labels: of what is learnt from, or else of the teacher's data."""
        return self._sampled(key, loop.replay) if jax.tree.leaves(loop.replay.slots.labels) else self._theirs

    @cached_property
    def _sampled(self) -> Callable[[Key[Array, ""], Windows], tuple[Obs, Float[Array, "B A"]]]:
        def shown(key: Key[Array, ""], kept: Windows) -> tuple[Obs, Float[Array, "B A"]]:
            batch = windows.sample(key, kept, COMPARED, length=1, stack=self.worlds.spec.stack)
            return jax.tree.map(lambda x: x[0], batch.obs), batch.labels

        return jax.jit(shown)

    @cached_property
    def _theirs(self) -> tuple[Obs, Float[Array, "B A"]]:
        """Some of the teacher's steps, from the first slices, so that data on the host are not all brought here."""
        assert self.reference is not None
        data, stack = self.reference.data, self.worlds.spec.stack
        few = jax.tree.map(lambda x: x[:FIRST_SLICES], data.steps)
        kept = Ring(few, jnp.int32(len(few.reward)))
        batch = ring.sample(jax.random.key(0), kept, COMPARED, n=1, gamma=1.0, stack=stack)
        return batch.obs, batch.labels
