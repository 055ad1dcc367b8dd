"""The contracts that pass between the parts: environments, policies, agents.

Axis letters: T time, B batch (rows of a rollout), P players, H W grid, V view, N objects, R rules, K trials.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Bool, Float, Key, PyTree

from rekindle.core.spaces import Space, space_from_json, space_to_json

Obs = dict[str, Array]
T = TypeVar("T")


class TimeStep(NamedTuple):
    """What a step shows. All fields are always present; `obs` and `reward` carry a player axis iff players > 1.

    With auto-reset, `obs` belongs to the new episode (or trial) and `final_obs` to the one that just ended;
    otherwise the two are equal. `trial_end` is set on the last step of every trial, `terminated` when the return
    after this step is known to be nothing, `truncated` when a time limit cut it and the loss must bootstrap.
    """

    obs: Obs
    reward: Float[Array, "*players"]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    trial_end: Bool[Array, ""]
    final_obs: Obs
    metrics: dict[str, Array]


@dataclass(frozen=True)
class EnvSpec:
    """What an environment shows and takes: enough to build a network for it, and to refuse a foreign one."""

    id: str
    version: int
    obs: dict[str, Space]
    action: Space
    players: int = 1
    kind: Literal["jax", "host"] = "jax"

    def to_json(self) -> dict[str, Any]:
        """As JSON data; `from_json` inverts it exactly."""
        return {
            "id": self.id,
            "version": self.version,
            "obs": {k: space_to_json(v) for k, v in self.obs.items()},
            "action": space_to_json(self.action),
            "players": self.players,
            "kind": self.kind,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "EnvSpec":
        """Rebuild from `to_json`."""
        obs = {k: space_from_json(v) for k, v in data["obs"].items()}
        return EnvSpec(data["id"], data["version"], obs, space_from_json(data["action"]), data["players"], data["kind"])


class Extras(NamedTuple):
    """What a policy may say beside its action; a field it does not have is None."""

    logits: Float[Array, "B A"] | None = None
    q: Float[Array, "B A"] | None = None
    value: Float[Array, " B"] | None = None
    log_prob: Float[Array, " B"] | None = None
    mean: Float[Array, "B D"] | None = None


def given(value: T | None) -> T:
    """A field of `Extras` that this policy is known to have."""
    assert value is not None
    return value


class ActOutput(NamedTuple):
    """A batch of actions, the memory after them, and extras."""

    action: Array
    carry: PyTree
    extras: Extras


@runtime_checkable
class Policy(Protocol):
    """What acts. The one thing that evaluation, teachers and the library know. A pytree, so that jit takes it."""

    def init_carry(self, batch_size: int) -> PyTree:
        """Empty memory for `batch_size` rows; `()` without memory."""
        ...

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """One action per row; `start` empties the memory of its rows first; `explore=False` is greedy."""
        ...


@dataclass(frozen=True)
class Data:
    """What an agent's `update` eats; the loops drive every agent through it."""

    kind: Literal["rollout", "transition", "sequence"]
    length: int
    """Steps per row of a rollout or sequence."""
    batch: int
    """Rows: worlds side by side for rollouts, samples otherwise."""
    n_step: int = 1
    warmup: int = 0
    """Environment steps of random data before the first update."""
    updates_per_step: float = 1.0


class Rollout(NamedTuple):
    """`length` steps of `batch` rows, time-major, with the memory at its start.

    `start[t]` says that row's memory is emptied before acting on `obs[t]`. `discount` is 1 within an episode, trial
    borders included, and 0 where the episode ended; `bootstrap[t]` is added to the reward where a time limit cut the
    episode (the discounted value of `final_obs`), else 0.
    """

    obs: dict[str, Array]
    action: Array
    reward: Float[Array, "T B"]
    start: Bool[Array, "T B"]
    terminated: Bool[Array, "T B"]
    truncated: Bool[Array, "T B"]
    final_value: Float[Array, "T B"]
    extras: Extras
    carry: PyTree
    last_obs: dict[str, Array]
    last_start: Bool[Array, " B"]
    last_carry: PyTree


class Update(NamedTuple):
    """The state after an update, what to log, and new priorities for a prioritised replay (or None)."""

    state: Any
    metrics: NamedTuple
    priorities: Array | None = None


class Agent(NamedTuple):
    """A learning algorithm with its config bound: named pure functions over an explicit state."""

    name: str
    config: Any
    needs: Data
    init: Callable[..., Any]
    init_carry: Callable[..., PyTree]
    act: Callable[..., ActOutput]
    update: Callable[..., Update]
    policy: Callable[[Any], Policy]
