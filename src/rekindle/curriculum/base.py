"""The contract of a curriculum, and the one that draws tasks as they come."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, PyTree

from rekindle.core.errors import ConfigError
from rekindle.core.types import Proposal, Rollout

Draw = Callable[[Key[Array, ""], PyTree], PyTree]
"""From a key and the source of tasks (a pool or a mixture) to one task with its number of trials."""


@runtime_checkable
class Curriculum(Protocol):
    """What is played next. Pure functions over an explicit state, for jit; the object holds static sizes.

    The loop asks `propose` before every rollout and tells `report` what came of it. The source of tasks is handed in
    each time, because it may change as training goes on.
    """

    @property
    def rows(self) -> int:
        """Worlds side by side. The first ones, as many as the agent's batch, are learnt from; the others never."""
        ...

    @property
    def always_learns(self) -> bool:
        """Whether every step of the learnt rows counts, so that an update never has nothing to learn."""
        ...

    def init(self, source: PyTree) -> Any:
        """The state before the first task."""
        ...

    def propose(self, key: Key[Array, ""], state: Any, source: PyTree) -> Proposal:
        """Alternatives for every row."""
        ...

    def report(self, state: Any, rollout: Rollout) -> Any:
        """The state after a rollout of all rows."""
        ...

    def stats(self, state: Any) -> dict[str, Array]:
        """Numbers to log."""
        ...

    def trouble(self, state: Any) -> str:
        """Why nothing will ever be learnt, in a sentence; empty while all is well. Looks at values: not for jit."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Tasks as they are drawn; everything is learnt from."""

    draw: Draw
    rows: int
    alternatives: int = 4
    """Tasks offered to a row between two updates, so that short episodes do not repeat one."""
    always_learns: bool = True

    def init(self, source: PyTree) -> tuple[()]:
        """It remembers nothing."""
        del source
        return ()

    def propose(self, key: Key[Array, ""], state: Any, source: PyTree) -> Proposal:
        """Independent draws."""
        del state
        shape = (self.rows, self.alternatives)
        tasks = jax.vmap(jax.vmap(self.draw, in_axes=(0, None)), in_axes=(0, None))(
            jax.random.split(key, shape), source
        )
        return offer(tasks, learn=jnp.ones(shape, bool))

    def report(self, state: Any, rollout: Rollout) -> Any:
        """Nothing to remember."""
        del rollout
        return state

    def stats(self, state: Any) -> dict[str, Array]:
        """Nothing to log."""
        del state
        return {}

    def trouble(self, state: Any) -> str:
        """None."""
        del state
        return ""


@dataclass(frozen=True, kw_only=True)
class Chooser:
    """What curricula share that choose among numbered tasks, and try new ones beside those they train on."""

    task: Callable[[PyTree, Array, Array], PyTree]
    """From the pool, a task's number and a number of trials to the task."""
    size: Callable[[PyTree], int]
    """How many tasks the pool holds."""
    batch: int
    """Rows that train; the agent's."""
    min_trials: int
    max_trials: int
    share: float = 0.5
    """Of the rows that train, in (0, 1); the others try."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 0.01 <= self.share < 1:
            raise ConfigError(f"the share of rows that train must lie in [0.01, 1); got {self.share}.")

    @property
    def rows(self) -> int:
        """Rows that train, then those that try."""
        return max(round(self.batch / self.share), self.batch + 1)

    @property
    def always_learns(self) -> bool:
        """Not before something was found."""
        return False


def offer(tasks: PyTree, *, learn: Array, number: Array | None = None, forced: Array | None = None) -> Proposal:
    """A proposal; tasks are not numbered and no action is forced unless said otherwise."""
    none = jnp.full(learn.shape, -1, jnp.int32)
    return Proposal(tasks, none if number is None else number, learn, none if forced is None else forced)


def asked_when_free(before: Bool[Array, " n"], free: Bool[Array, " n"], steps: int) -> Bool[Array, "T n"]:
    """Whether an episode that begins at each step of a rollout was proposed after its row was done with its task.

    What follows an episode is what was proposed before the rollout in which it ended. So an episode that begins with a
    rollout's first step was proposed one rollout earlier, when `before` says which rows were done with their task; one
    that begins later, with this rollout, when `free` says so.
    """
    return jnp.where((jnp.arange(steps) == 0)[:, None], before[None], free[None])
