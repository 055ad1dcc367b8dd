"""A replay: a ring of time slices of rows that step together. n-step returns are made at sampling.

Only what was acted on is stored, once: the observation after a step is that of the next slice. What follows a time
limit is therefore unknown, and an n-step return that meets one ends before it, with the value of the last observation
acted on; the step that met the limit is itself never learnt from. Where an episode terminated, nothing follows.

Of pictures that are made of several frames (`EnvSpec.stack`) the newest frame is stored, once; the others are those of
the slices before, and none (zeros) from before the episode.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.types import Obs, Transitions


class Step(NamedTuple):
    """One step of B rows: what was seen, done and earned, and whether that was the end; what a teacher says of it."""

    obs: Obs
    action: Array
    reward: Float[Array, "*C B"]
    terminated: Bool[Array, "*C B"]
    truncated: Bool[Array, "*C B"]
    labels: PyTree = ()


class Ring(NamedTuple):
    """Slices of C steps; number k lies in slot k modulo C."""

    steps: Step
    """Leaves `[C, B, ...]`."""
    added: Int32[Array, ""]
    """Slices that were ever added."""

    @property
    def slots(self) -> int:
        """C."""
        return self.steps.reward.shape[0]

    @property
    def rows(self) -> int:
        """B."""
        return self.steps.reward.shape[1]

    @property
    def filled(self) -> Int32[Array, ""]:
        """Slices that are there."""
        return jnp.minimum(self.added, self.slots)


class Outline(eqx.Module):
    """What the device knows of a ring whose slices lie on the host (`mapped.py`)."""

    added: Int32[Array, ""]
    slots: int = eqx.field(static=True)
    rows: int = eqx.field(static=True)

    @property
    def filled(self) -> Int32[Array, ""]:
        """Slices that are there."""
        return jnp.minimum(self.added, self.slots)


class Window(NamedTuple):
    """The slices around some steps: row j of the ring holds those around step j, which has slot `stack - 1`."""

    ring: Ring
    age: Int32[Array, " b"]
    """Slices before each step that are still there; what the window has beyond them is of no meaning."""


def empty(like: Step, slots: int) -> Ring:
    """A ring for steps of this form (arrays or shapes of them)."""
    steps = jax.tree.map(lambda x: jnp.zeros((slots, *x.shape), x.dtype), like)
    return Ring(steps, jnp.int32(0))


def add(ring: Ring, step: Step) -> Ring:
    """One more slice, in place of the oldest if the ring is full."""
    at = ring.added % ring.slots
    steps = jax.tree.map(lambda all, one: jax.lax.dynamic_update_index_in_dim(all, one, at, 0), ring.steps, step)
    return Ring(steps, ring.added + 1)


def newest(obs: Mapping[str, Any], stack: int) -> dict[str, Any]:
    """What is stored of an observation: of its pictures `[..., H, W, C]` the newest frame of `stack`."""
    if stack == 1:
        return dict(obs)
    return {name: x[..., -(x.shape[-1] // stack) :] if x.ndim >= 4 else x for name, x in obs.items()}


def stack_of(shown: Obs, kept: Obs) -> int:
    """How many frames observations `[B, ...]` are made of, when this is stored of them."""
    return max([x.shape[-1] // kept[name].shape[-1] for name, x in shown.items() if x.ndim == 4], default=1)


def seen(ring: Ring, slot: Int32[Array, " b"], row: Int32[Array, " b"], age: Int32[Array, " b"], stack: int
         ) -> tuple[Obs, Bool[Array, " b"]]:  # fmt: skip
    """Observations with their earlier frames, and whether all of those are still there."""
    obs = jax.tree.map(lambda x: x[slot, row], ring.steps.obs)
    same, whole, frames = jnp.ones(slot.shape, bool), jnp.ones(slot.shape, bool), [obs]
    for back in range(1, stack):
        at = (slot - back) % ring.slots
        whole = whole & (~same | (age >= back))
        same = same & (age >= back) & ~(ring.steps.terminated[at, row] | ring.steps.truncated[at, row])
        earlier = {name: x[at, row] for name, x in ring.steps.obs.items()}
        frames.append({name: jnp.where(same.reshape(-1, *(1,) * (x.ndim - 1)), x, 0) for name, x in earlier.items()})
    return joined(frames[::-1]), whole


def joined(frames: list[Obs]) -> Obs:
    """Frames of pictures as one observation, the oldest first; of everything else the last."""
    return {name: jnp.concatenate([f[name] for f in frames], axis=-1) if x.ndim == 4 else x
            for name, x in frames[-1].items()}  # fmt: skip


def adopted(data: Ring, slots: int) -> Ring:
    """A ring of so many slices that begins with these steps, the latest if there are more; their last is cut off.

    What follows it is another's, so that no return may run on.
    """
    steps = jax.tree.map(lambda x: x[-slots:], data.steps)._replace(truncated=cut_off(data, slots))
    kept = min(data.slots, slots)
    padded = jax.tree.map(lambda x: jnp.zeros((slots, *x.shape[1:]), x.dtype).at[:kept].set(x), steps)
    return Ring(padded, jnp.int32(kept))


def cut_off(data: Ring, slots: int) -> Bool[Array, "T B"]:
    """Of the latest so many slices, which steps met a time limit, if what follows the last of them is another's."""
    truncated = jnp.asarray(data.steps.truncated[-slots:])
    return truncated.at[-1].set(truncated[-1] | ~jnp.asarray(data.steps.terminated[-1]))


def unlabelled(ring: Ring) -> Ring:
    """The same steps without labels."""
    return ring._replace(steps=ring.steps._replace(labels=()))


def unrolled(ring: Ring) -> Step:
    """The steps that are there, the oldest first; the very arrays, where they lie so. Not for jit."""
    if int(ring.added) == ring.slots:
        return ring.steps
    filled = int(ring.filled)
    order = (int(ring.added) - filled + jnp.arange(filled)) % ring.slots
    return jax.tree.map(lambda x: x[order], ring.steps)


def to_arrays(ring: Ring) -> dict[str, Any]:
    """Its steps, the oldest first, as `library.dataset` keeps them."""
    return {name: np.asarray(x) for name, x in named(unrolled(ring)).items()}


def from_arrays(arrays: Mapping[str, Any]) -> Ring:
    """A full ring of the steps of a dataset, on the device."""
    return jax.tree.map(jnp.asarray, in_place(arrays))


def in_place(arrays: Mapping[str, Any]) -> Ring:
    """The same of the very arrays, wherever they are: nothing is copied."""
    added: Any = np.int32(arrays["reward"].shape[0])
    return Ring(unnamed(arrays), added)


def named(steps: Step) -> dict[str, Any]:
    """The arrays of steps by the names that a dataset has for them."""
    arrays = {f"obs.{name}": x for name, x in steps.obs.items()}
    arrays |= {name: getattr(steps, name) for name in ("action", "reward", "terminated", "truncated")}
    return arrays | ({} if isinstance(steps.labels, tuple) else {"labels": steps.labels})


def unnamed(arrays: Mapping[str, Any]) -> Step:
    """Inverts `named`."""
    obs = {name.removeprefix("obs."): x for name, x in arrays.items() if name.startswith("obs.")}
    rest = {name: arrays[name] for name in ("action", "reward", "terminated", "truncated")}
    return Step(obs=obs, labels=arrays.get("labels", ()), **rest)


def sample(
    key: Key[Array, ""], ring: Ring, batch: int, *, n: int, gamma: float, clip: float = 0.0, stack: int = 1
) -> Transitions:
    """Uniform over the steps that n others follow; those that met a time limit, or lack a frame, have weight 0.

    The ring has to hold more than n slices. Rewards are cut off at +-clip, if that is not 0.
    """
    return gather(ring, places(key, ring, batch, n=n), n=n, gamma=gamma, clip=clip, stack=stack)


def places(key: Key[Array, ""], ring: Ring | Outline, batch: int, *, n: int) -> Int32[Array, " b"]:
    """Where the steps of a sample lie: `slot * B + row`."""
    slice_key, row_key = jax.random.split(key)
    number = ring.added - ring.filled + jax.random.randint(slice_key, (batch,), 0, ring.filled - n)
    row = jax.random.randint(row_key, (batch,), 0, ring.rows)
    return (number % ring.slots) * ring.rows + row


def made_of(window: Window, *, n: int, gamma: float, clip: float = 0.0, stack: int = 1) -> Transitions:
    """The transitions that begin at the steps of a window."""
    rows = window.ring.rows
    index = (stack - 1) * rows + jnp.arange(rows, dtype=jnp.int32)
    return gather(window.ring, index, n=n, gamma=gamma, clip=clip, stack=stack, age=window.age)


def gather(
    ring: Ring, index: Int32[Array, " b"], *, n: int, gamma: float, clip: float = 0.0, stack: int = 1,
    age: Int32[Array, " b"] | None = None,
) -> Transitions:  # fmt: skip
    """The transitions that begin at places `slot * B + row`; n steps have to follow each.

    `age` says how many slices before each are there, where the ring itself does not.
    """
    slot, row = index // ring.rows, index % ring.rows
    age = (slot - jnp.where(ring.added > ring.slots, ring.added, 0)) % ring.slots if age is None else age
    total, discount = jnp.zeros(index.shape), jnp.ones(index.shape)
    going, after = jnp.ones(index.shape, bool), slot
    for i in range(n):
        at = (slot + i) % ring.slots
        cut = ring.steps.truncated[at, row] & (i > 0)
        after = jnp.where(going, at, after)
        going = going & ~cut
        reward = ring.steps.reward[at, row]
        reward = jnp.clip(reward, -clip, clip) if clip else reward
        total = total + jnp.where(going, discount * reward, 0.0)
        ended = ring.steps.terminated[at, row]
        discount = jnp.where(going, jnp.where(ended, 0.0, discount * gamma), discount)
        after = jnp.where(going, (at + 1) % ring.slots, after)
        going = going & ~ended
    obs, whole = seen(ring, slot, row, age, stack)
    following, _ = seen(ring, after, row, age + (after - slot) % ring.slots, stack)
    weight = jnp.where(ring.steps.truncated[slot, row] | ~whole, 0.0, 1.0)
    labels = jax.tree.map(lambda x: x[slot, row], ring.steps.labels)
    return Transitions(obs, ring.steps.action[slot, row], total, discount, following, labels, weight, index)
