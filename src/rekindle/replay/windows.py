"""A replay of sequences, drawn in proportion to priorities (LAP, Fujimoto et al. 2020, 2007.06049), as MR.Q needs it.

Every row of the worlds has a ring of its own, since episodes of different rows end at different times and an end takes
a slot more, which holds the observation that the episode ended with. A slot can be drawn once `horizon` steps of its
episode follow it; where the episode terminated, its last `horizon` slots can be drawn too, and what lies behind the end
has to be left out; where a time limit cut it (terminated or not), its last `horizon` slots never.

Of pictures that are made of several frames (`EnvSpec.stack`) the newest frame is stored, once; the others are those of
the slots before, and the episode's first frame stands for those from before the episode.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.errors import ConfigError
from rekindle.core.types import Obs, Past, Sequences
from rekindle.replay import sum_tree
from rekindle.replay.ring import Step, joined
from rekindle.replay.sum_tree import SumTree

LEAST_REWARD = 1e-8


class Slots(NamedTuple):
    """What the slots hold; leaves `[N, ...]`."""

    obs: Obs
    action: Array
    reward: Float[Array, " N"]
    terminated: Bool[Array, " N"]
    number: Int32[Array, " N"]
    """Steps of the episode before it."""
    priority: Float[Array, " N"]
    """With which it can be drawn for the first time."""
    labels: PyTree = ()
    """What a teacher says of the observation; () where there is none."""


class Windows(NamedTuple):
    """Rings of R rows, one after the other: number k of a row lies in its slot k modulo C."""

    slots: Slots
    tree: SumTree
    """Priorities of the slots that can be drawn; 0 of all others."""
    added: Int32[Array, " R"]
    """Slots that were ever filled."""
    begun: Int32[Array, " R"]
    """Steps of the episode that runs."""
    highest: Float[Array, ""]
    """The highest priority there ever was."""
    terminates: Bool[Array, ""]
    """Whether an episode ever terminated."""

    @property
    def rows(self) -> int:
        """R."""
        return self.added.shape[0]

    @property
    def room(self) -> int:
        """C."""
        return self.slots.reward.shape[0] // self.rows

    @property
    def filled(self) -> Int32[Array, ""]:
        """Slots that hold something, ends included, over all rows."""
        return jnp.sum(jnp.minimum(self.added, self.room), dtype=jnp.int32)


def empty(like: Step, slots: int) -> Windows:
    """For steps of this form (arrays or shapes of them, of R rows), so many slots for each row."""
    rows = like.reward.shape[0]
    room = lambda x: jnp.zeros((rows * slots, *x.shape[1:]), x.dtype)  # noqa: E731
    numbers, none = jnp.zeros(rows * slots, jnp.int32), jnp.zeros(rows, jnp.int32)
    held = Slots(jax.tree.map(room, like.obs), room(like.action), room(like.reward), room(like.terminated), numbers,
                 room(like.reward), jax.tree.map(room, like.labels))  # fmt: skip
    return Windows(held, sum_tree.empty(rows * slots), none, none, jnp.ones(()), jnp.array(False))


def add(replay: Windows, step: Step, final: Obs, *, horizon: int, stack: int = 1) -> Windows:
    """One more step of every row, and the end of those whose episode is over.

    Args:
        replay: what came before.
        step: of R rows; of stacked pictures the newest frame.
        final: what the rows whose episode is over show after the step (of the others anything), stored likewise.
        horizon: steps that have to follow a slot before it can be drawn; the longest sequence that will be asked for.
        stack: frames of a picture.

    Raises:
        ConfigError: fewer slots in a row than one draw looks at.
    """
    if replay.room <= horizon + stack:
        raise ConfigError(
            f"a replay of sequences of {horizon} steps needs more than {horizon + stack} slots per world; "
            f"got {replay.room}."
        )
    over = step.terminated | step.truncated
    one = Slots(step.obs, step.action, step.reward, step.terminated, replay.begun,
                jnp.broadcast_to(replay.highest, over.shape), step.labels)  # fmt: skip
    last = Slots(final, jnp.zeros_like(step.action), jnp.zeros_like(step.reward), jnp.ones_like(over),
                 replay.begun + 1, jnp.zeros_like(step.reward), jax.tree.map(jnp.zeros_like, step.labels))  # fmt: skip
    here, after = _places(replay, jnp.arange(2, dtype=jnp.int32)).T
    after = jnp.where(over, after, over.size * replay.room)  # nowhere
    write = lambda old, new, end: old.at[here].set(new).at[after].set(end, mode="drop")  # noqa: E731
    replay = replay._replace(slots=jax.tree.map(write, replay.slots, one, last))
    return replay._replace(
        tree=_drawable(replay, step, horizon, stack),
        added=replay.added + 1 + over.astype(jnp.int32),
        begun=jnp.where(over, 0, replay.begun + 1),
        terminates=replay.terminates | jnp.any(step.terminated),
    )


def _drawable(replay: Windows, step: Step, horizon: int, stack: int) -> SumTree:
    """Priorities after a step has been written: of the slots around it, some are given one and some lose theirs."""
    numbers = jnp.arange(-horizon, stack + 1, dtype=jnp.int32)
    place, ahead = _places(replay, numbers), numbers[None]
    steps, over = replay.begun[:, None] + 1, (step.terminated | step.truncated)[:, None]
    whole = (ahead == -horizon) & (steps > horizon)
    to_the_end = (step.terminated & ~step.truncated)[:, None] & (ahead <= 0) & (-ahead < jnp.minimum(steps, horizon))
    # written just now, or with a frame that was overwritten
    gone = (ahead >= 0) & (ahead < stack + over.astype(jnp.int32))
    kept = jnp.where(gone, 0.0, sum_tree.priorities(replay.tree, place))
    priority = jnp.where(whole | to_the_end, replay.slots.priority[place], kept)
    return sum_tree.put(replay.tree, place.ravel(), priority.ravel())


def _places(replay: Windows, ahead: Int32[Array, " n"]) -> Int32[Array, "R n"]:
    """Of the slots so far ahead of those that are filled next."""
    first = jnp.arange(replay.rows, dtype=jnp.int32) * replay.room
    return first[:, None] + (replay.added[:, None] + ahead[None]) % replay.room


def holding(steps: Step, slots: int, *, horizon: int, stack: int = 1) -> Windows:
    """A replay that begins with steps which exist already, the latest if there are more.

    They do not tell what an episode ended with: its last observation that was acted on stands for that, which is looked
    at by nothing but the prediction of what follows a termination. What follows the last of them is another's, so that
    no sequence may run on.

    Args:
        steps: of T slices of R rows, the oldest first.
        slots: for each row.
        horizon: see `add`.
        stack: see `add`.
    """
    last = jnp.arange(steps.reward.shape[0])[:, None] == steps.reward.shape[0] - 1
    steps = steps._replace(truncated=steps.truncated | (last & ~steps.terminated))
    begun = empty(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), steps), slots)
    once = lambda replay, step: (add(replay, step, step.obs, horizon=horizon, stack=stack), None)  # noqa: E731
    return jax.lax.scan(once, begun, steps)[0]


def draw(key: Key[Array, ""], replay: Windows, *shape: int) -> Int32[Array, "*shape"]:
    """Places at which sequences begin, with replacement. Some slot has to be drawable."""
    return sum_tree.draw(key, replay.tree, math.prod(shape)).reshape(shape)


def sample(key: Key[Array, ""], replay: Windows, batch: int, *, length: int, stack: int = 1, true_ends: bool = True
           ) -> Sequences:  # fmt: skip
    """A batch of sequences; see `draw` and `gather`."""
    return gather(replay, draw(key, replay, batch), length=length, stack=stack, true_ends=true_ends)


def gather(replay: Windows, place: Int32[Array, " B"], *, length: int, stack: int = 1, true_ends: bool = True
           ) -> Sequences:  # fmt: skip
    """The sequences that begin at these places.

    Args:
        replay: that they are in.
        place: as from `draw`.
        length: steps of each (T), at most the horizon.
        stack: frames of a picture.
        true_ends: show what an episode ended with. Without, the row's first slot is shown in its place, unless it is
            the sequence's last observation, as MR.Q's code does.
    """
    slots, row = replay.slots, place - place % replay.room
    at = [row + (place - row + t) % replay.room for t in range(length + 1)]
    terminated = [slots.terminated[a] for a in at[:-1]]
    shown = list(at)
    if not true_ends:
        shown[1:-1] = [jnp.where(over, row, a) for over, a in zip(terminated[:-1], at[1:-1], strict=True)]
    # stacked step by step, so that what an update does not look at is never copied
    obs = jax.tree.map(lambda *x: jnp.stack(x), *[_seen(replay, a, stack) for a in shown])
    action, reward = (jnp.stack([x[a] for a in at[:-1]]) for x in (slots.action, slots.reward))
    labels = jax.tree.map(lambda x: x[place], slots.labels)
    return Sequences(obs, action, reward, jnp.stack(terminated), place, labels)


def _seen(replay: Windows, place: Int32[Array, " B"], stack: int) -> Obs:
    """Observations with their earlier frames."""
    row, number = place - place % replay.room, replay.slots.number[place]
    back = [row + (place - row - jnp.minimum(frames, number)) % replay.room for frames in range(stack - 1, -1, -1)]
    return joined([jax.tree.map(lambda x, a=a: x[a], replay.slots.obs) for a in back])


def revise(
    replay: Windows, place: Int32[Array, " B"], priority: Float[Array, " B"], *, kept: Bool[Array, " B"] | None = None
) -> Windows:
    """New priorities of places that were drawn, unless they have been overwritten since; some may be `kept`."""
    old = sum_tree.priorities(replay.tree, place)
    if kept is not None:
        priority = jnp.where(kept, old, priority)
    tree = sum_tree.put(replay.tree, place, jnp.where(old > 0, priority, 0.0))
    return replay._replace(tree=tree, highest=jnp.maximum(replay.highest, jnp.max(priority)))


def past(replay: Windows) -> Past:
    """What `prepare` is told."""
    total, slots = jnp.sum(jnp.abs(replay.slots.reward)), jnp.maximum(replay.filled, 1)
    return Past(jnp.maximum(total / slots.astype(total.dtype), LEAST_REWARD), replay.terminates)


def packed(replay: Windows) -> Windows:
    """With as many slots of each row as the fullest row has filled, on the host; `unpacked` makes it whole again."""
    rows, room = replay.rows, replay.room
    used = min(int(jnp.max(replay.added)), room)
    cut = lambda x: np.asarray(x).reshape(rows, room, *x.shape[1:])[:, :used].reshape(-1, *x.shape[1:])  # noqa: E731
    return replay._replace(slots=jax.tree.map(cut, replay.slots))


def unpacked(arrays: Mapping[str, np.ndarray], *, prefix: str, rows: int, room: int) -> dict[str, np.ndarray]:
    """The arrays whose names begin so with `room` slots for each row again, zeros behind those that they have.

    What has no whole number of slots for each row, or more than `room`, stays as it is.
    """

    def whole(x: np.ndarray) -> np.ndarray:
        used, odd = divmod(x.shape[0], rows) if x.ndim else (0, 1)
        if odd or used > room:
            return x
        shape = x.reshape(rows, used, *x.shape[1:])
        return np.pad(shape, ((0, 0), (0, room - used), *((0, 0),) * (x.ndim - 1))).reshape(-1, *x.shape[1:])

    return {name: whole(x) if name.startswith(prefix) else x for name, x in arrays.items()}


def to_arrays(replay: Windows) -> dict[str, np.ndarray]:
    """The steps as `ring.to_arrays` has them, `[slices, rows, ...]`, the oldest first; nothing where there are none.

    Rows have different numbers of steps in as many slots; all but the latest that every row has are left out.
    """
    rows = [_steps_of(replay, row) for row in range(replay.rows)]
    least = min(len(row["reward"]) for row in rows)
    return {name: np.stack([row[name][-least:] for row in rows], axis=1) for name in rows[0]} if least else {}


def _steps_of(replay: Windows, row: int) -> dict[str, np.ndarray]:
    """Of one row, without the slots that hold the end of an episode."""
    added, begun = int(replay.added[row]), int(replay.begun[row])
    order = row * replay.room + np.arange(max(added - replay.room, 0), added) % replay.room
    slots = jax.tree.map(lambda x: np.asarray(x)[order], replay.slots)
    is_end = np.append(slots.number[1:] == 0, begun == 0)[: len(order)]
    followed_by_end = np.append(is_end[1:], False)[: len(order)]
    found = {f"obs.{name}": x for name, x in slots.obs.items()}
    found |= {"action": slots.action, "reward": slots.reward, "terminated": slots.terminated}
    found["truncated"] = followed_by_end & ~slots.terminated
    return {name: x[~is_end] for name, x in found.items()}
