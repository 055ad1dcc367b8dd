"""Rows of a Gymnasium environment side by side, which can be brought back to where they stood.

Emulators and physics engines do not show their state. But what they do follows from a seed and the actions since, so
that is what a state is here: a checkpoint holds it, and worlds that stand elsewhere begin from the seeds and play the
actions again. A world takes a new seed at the first end of an episode after `RESEED` steps (an Atari game is loaded
anew by that, which takes longer than a hundred steps), so that never much has to be played again.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from rekindle.core.errors import ConfigError, DivergedError, WorldError, in_a_line
from rekindle.core.spaces import Box, Discrete, Space
from rekindle.core.types import EnvSpec

RESEED = 2_000
"""Steps of a world after which its next episode begins from a seed of its own."""
LONGEST = 2**16
"""Steps from one seed at most: an episode that goes on is then cut, as by a time limit. A quarter of it, where actions
are several numbers, as all of them are kept."""

NOWHERE = -1
"""Steps since its seed, of a world that failed."""

HostObs = dict[str, np.ndarray]


class HostStep(NamedTuple):
    """What a step of B worlds shows; where an episode ended, `obs` begins the next, and `final_obs` is its last.

    A step may terminate an episode and be the last that a time limit allows.
    """

    obs: HostObs
    reward: Float[np.ndarray, " B"]
    terminated: Bool[np.ndarray, " B"]
    truncated: Bool[np.ndarray, " B"]
    final_obs: HostObs


class HostState(NamedTuple):
    """Where B worlds stand."""

    seeds: Int[np.ndarray, " B"]
    """That they last began from."""
    since: Int[np.ndarray, " B"]
    """Steps since then."""
    actions: Shaped[np.ndarray, "B L *A"]
    """What was done in them."""


class Stepped(NamedTuple):
    """What a step of B worlds comes to, before any begins anew."""

    obs: HostObs
    reward: Float[np.ndarray, " B"]
    terminated: Bool[np.ndarray, " B"]
    truncated: Bool[np.ndarray, " B"]


@runtime_checkable
class Vector(Protocol):
    """What is needed of Gymnasium's vector environments."""

    num_envs: int

    def reset(self, *, seed: Any, options: Any) -> tuple[Any, Any]:
        """Begin episodes, of all or of those in `options["reset_mask"]`."""
        ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        """One step of all."""
        ...

    def render(self) -> Any:
        """A picture of every world, if it was made so."""
        ...

    def close(self, **kwargs: Any) -> Any:
        """Let go of threads and files."""
        ...


class MisfitError(Exception):
    """What a world returned is not what it has to return; where it did so nobody knows."""


class HostWorlds:
    """B worlds, each in an episode that follows the last. Actions are numbers, or vectors in [-1, 1]."""

    def __init__(self, opened: Callable[[], Vector], spec: EnvSpec, named: Callable[[Any], HostObs], *,
                 taken: Callable[[np.ndarray], np.ndarray] = np.asarray, partial_seeds: bool = False,
                 reseed: int = RESEED):  # fmt: skip
        """Wrap a vector environment.

        Args:
            opened: makes it; it must not begin episodes by itself before they are asked for.
            spec: what it shows and takes, one world of it.
            named: from its observations to ours, `[B, ...]` each, copies.
            taken: from our actions to its.
            partial_seeds: whether it takes seeds only for the worlds that begin, instead of one for each.
            reseed: steps after which a world takes a new seed.

        Raises:
            ConfigError: its actions are neither numbered nor vectors in [-1, 1].
        """
        if not isinstance(spec.action, Discrete) and not is_scaled(spec.action):
            raise ConfigError(
                f"worlds that are not written in JAX take numbered actions or one vector; {spec.id} takes "
                f"{spec.action!r}. Gymnasium has wrappers that flatten actions."
            )
        self.spec, self._opened, self._vector = spec, opened, opened()
        self._named, self._taken, self._partial, self._reseed = named, taken, partial_seeds, reseed
        self.rows = self._vector.num_envs
        vector = spec.action.shape if isinstance(spec.action, Box) else ()
        self._longest = LONGEST // 4 if vector else LONGEST
        self._state = HostState(
            np.zeros(self.rows, np.int32),
            np.zeros(self.rows, np.int32),
            np.zeros((self.rows, self._longest, *vector), np.float32 if vector else np.int32),
        )
        self._obs: HostObs = {}

    def reset(self, seed: int) -> HostObs:
        """Begin everywhere; all that follows is decided by the seed and the actions.

        Raises:
            WorldError: it failed.
        """
        everywhere = np.ones(self.rows, bool)
        self._state.seeds[:] = seed
        return self._begin(everywhere, fresh=everywhere)

    def step(self, actions: Shaped[np.ndarray, "B *A"]) -> HostStep:
        """One step of every world.

        Raises:
            WorldError: it failed, or its observations or rewards are no numbers, or such as its spec does not have. It
                has to be begun anew, or restored, before it is stepped again.
            DivergedError: the actions are no numbers.
        """
        if actions.dtype.kind == "f" and not np.isfinite(actions).all():
            raise DivergedError(
                f"the agent's actions in {self.spec.id} are no numbers any more: its training diverged; lower its step "
                "size."
            )
        rows, since = np.arange(self.rows), self._state.since
        self._state.actions[rows, since] = actions
        final, reward, terminated, truncated = self._stepped(np.asarray(actions))
        since += 1
        truncated = truncated | (since >= self._longest)
        over = terminated | truncated
        fresh = over & (since >= min(self._reseed, self._longest))
        self._obs = self._begin(over, fresh=fresh) if over.any() else final
        return HostStep(self._obs, reward, terminated, truncated, final)

    def save(self) -> HostState:
        """Where they stand."""
        return HostState(*(np.array(x) for x in self._state))

    def restore(self, state: HostState) -> HostObs:
        """Bring them to where they stood, if they stand elsewhere; what they show there."""
        state = HostState(*(np.array(x, like.dtype) for x, like in zip(state, self._state, strict=True)))
        if not self._stand_at(state):
            self._replay(state)
        return self._obs

    def pictures(self) -> list[UInt8[np.ndarray, "H W 3"]]:
        """What a person would see of every world.

        Raises:
            ConfigError: it cannot be drawn here.
        """
        try:
            return [np.array(picture, np.uint8) for picture in self._vector.render()]
        except Exception as error:  # whatever an environment raises without a display, or what it draws with
            raise ConfigError(f"{self.spec.id} cannot be drawn here: {in_a_line(error)}.") from error

    def close(self) -> None:
        """Let go of threads and files."""
        self._vector.close()

    def beside(self) -> "HostWorlds":
        """Others of the same kind, opened once: for evaluations, so that these stand where they stood."""
        return self._others

    @cached_property
    def _others(self) -> "HostWorlds":
        return HostWorlds(self._opened, self.spec, self._named, taken=self._taken, partial_seeds=self._partial,
                          reseed=self._reseed)  # fmt: skip

    def _stand_at(self, state: HostState) -> bool:
        same = (self._state.seeds == state.seeds).all() and (self._state.since == state.since).all()
        longest = int(state.since.max())
        played = np.arange(longest) < state.since[:, None]
        return bool(same and (self._state.actions[:, :longest] == state.actions[:, :longest])[played].all())

    def _replay(self, state: HostState) -> None:
        """Every world begins from its seed so late that all of them arrive together."""
        longest, everywhere = int(state.since.max()), np.ones(self.rows, bool)
        self._state = HostState(state.seeds.copy(), np.zeros_like(state.since), np.zeros_like(state.actions))
        self._obs = self._resets(everywhere, state.seeds)
        for left in range(longest, -1, -1):
            if (begins := state.since == left).any() and left < longest:
                self._obs = self._resets(begins, state.seeds)
            if left:
                at = np.maximum(state.since - left, 0)
                obs, _, terminated, truncated = self._stepped(state.actions[np.arange(self.rows), at])
                self._obs = self._resets(over, None) if (over := terminated | truncated).any() else obs
        self._state = HostState(*(x.copy() for x in state))

    def _begin(self, which: Bool[np.ndarray, " B"], *, fresh: Bool[np.ndarray, " B"]) -> HostObs:
        """Episodes of some worlds, of some of those from new seeds."""
        if (old := which & ~fresh).any():
            self._obs = self._resets(old, None)
        if fresh.any():
            self._state.seeds[fresh] = [_after(int(self._state.seeds[row]), int(row)) for row in np.flatnonzero(fresh)]
            self._state.since[fresh] = 0
            self._obs = self._resets(fresh, self._state.seeds)
        return self._obs

    def _stepped(self, actions: Shaped[np.ndarray, "B *A"]) -> Stepped:
        """Of the vector environment, in our names and types."""
        with self._failures_told():
            obs, reward, terminated, truncated, _ = self._vector.step(self._taken(actions))
            ends = np.asarray(terminated, bool), np.asarray(truncated, bool)
            stepped = Stepped(self._named(obs), np.asarray(reward, np.float32), *ends)
        self._check(stepped.obs, {"reward": (stepped.reward, ())})
        return stepped

    def _resets(self, which: Bool[np.ndarray, " B"], seeds: Int[np.ndarray, " B"] | None) -> HostObs:
        told: Any = None
        if seeds is not None:
            told = seeds[which] if self._partial else [int(s) if w else None for s, w in zip(seeds, which, strict=True)]
        options = None if which.all() else {"reset_mask": which.copy()}
        with self._failures_told():
            obs = self._named(self._vector.reset(seed=told, options=options)[0])
        self._check(obs, {})
        return obs

    def _check(self, obs: HostObs, beside: dict[str, tuple[np.ndarray, tuple[int, ...]]]) -> None:
        """WorldError where something has another shape than it should, in every world, or holds no such number."""
        spaces = self.spec.obs
        shapes = {f"observation {name}": (x, getattr(spaces[name], "shape", ())) for name, x in obs.items()}
        for what, (array, shape) in (beside | shapes).items():
            if array.shape != (self.rows, *shape):
                raise self._failure(f"showed its {what} in the shape {array.shape[1:]}, not {shape}")
            if array.dtype.kind == "f" and not (whole := np.isfinite(array.reshape(self.rows, -1)).all(axis=1)).all():
                row = int(np.argmin(whole))
                values = np.ravel(array[row])
                raise self._failure(f"showed {values[~np.isfinite(values)][0]} in its {what}", row)
        for name, array in obs.items():
            if isinstance(space := spaces[name], Discrete) and (wrong := (array < 0) | (array >= space.n)).any():
                row = int(np.argmax(wrong))
                raise self._failure(f"showed {array[row]} as its observation {name}, of {space.n} from 0", row)

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        """WorldError, naming the line, for whatever an environment raises."""
        try:
            yield
        except (Exception, SystemExit) as error:  # a world that ends the program would take what was learnt with it
            if isinstance(error, MisfitError):
                raise self._failure(f"failed: {error}") from error
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise self._failure(f"failed with {in_a_line(error)} ({at.filename}, line {at.lineno})") from error

    def _failure(self, how: str, row: int | None = None) -> WorldError:
        """From here on they stand nowhere. Which row it was is not always known."""
        row, which = (0, "it") if self.rows == 1 else (row, f"world {(row or 0) + 1} of {self.rows}")
        seeds, since = self._state.seeds, self._state.since.copy()
        self._state.since[:] = NOWHERE
        if row is None:
            where = f"in one of its {self.rows} worlds, at most {since.max():,} steps after that began from a seed"
        else:
            where = f"{since[row]:,} steps after {which} began from the seed {seeds[row]}"
        return WorldError(f"{self.spec.id} {how}, {where}.", self.spec)


def is_scaled(space: Space) -> TypeGuard[Box]:
    """Whether it is a vector of numbers in [-1, 1], as continuous actions are here."""
    return isinstance(space, Box) and len(space.shape) == 1 and (space.low, space.high) == (-1.0, 1.0)


def within_bounds(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> Float[np.ndarray, "*B A"]:
    """From vectors in [-1, 1] to such whose elements reach from `low` to `high`."""
    low, high = low.astype(np.float64), high.astype(np.float64)
    return np.clip(low + (action.astype(np.float64) + 1) / 2 * (high - low), low, high)


def _after(seed: int, row: int) -> int:
    """The seed that a world takes after this one."""
    return int(np.random.default_rng([row, seed]).integers(2**31 - 1))
