"""The contracts that pass between the parts: environments, policies, agents.

Axis letters: T time, B batch (rows of a rollout), P players, H W grid, V view, N objects, R rules, K trials.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

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
    stack: int = 1
    """So many frames lie side by side in the last axis of its pictures, the newest last; a replay keeps that one."""

    def __hash__(self) -> int:
        """By name and version, since a dictionary has no hash."""
        return hash((self.id, self.version))

    def to_json(self) -> dict[str, Any]:
        """As JSON data; `from_json` inverts it exactly."""
        return {
            "id": self.id,
            "version": self.version,
            "obs": {k: space_to_json(v) for k, v in self.obs.items()},
            "action": space_to_json(self.action),
            "players": self.players,
            "kind": self.kind,
            **({"stack": self.stack} if self.stack > 1 else {}),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "EnvSpec":
        """Rebuild from `to_json`."""
        obs = {k: space_from_json(v) for k, v in data["obs"].items()}
        return EnvSpec(data["id"], data["version"], obs, space_from_json(data["action"]), data["players"], data["kind"],
                       data.get("stack", 1))  # fmt: skip


class Extras(NamedTuple):
    """What a policy may say beside its action; a field it does not have is None."""

    logits: Float[Array, "B A"] | None = None
    q: Float[Array, "B A"] | None = None
    value: Float[Array, " B"] | None = None
    log_prob: Float[Array, " B"] | None = None
    mean: Float[Array, "B D"] | None = None
    """Of vectors of actions, in units of the largest that the world takes: from -1 to 1."""
    next_value: Float[Array, " B"] | None = None
    """What a model expects the value to be after the action."""
    next_logits: Float[Array, "B A"] | None = None
    """What a model expects the policy to be after the action."""


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
    """Steps per row of a rollout or sequence; a sequence begins only where so many follow, or a termination does."""
    batch: int
    """Rows: worlds side by side for rollouts, samples otherwise."""
    n_step: int = 1
    warmup: int = 0
    """Environment steps before the first update; of sequences, slots of the replay (an episode's end has one)."""
    updates_per_step: float = 1.0
    rows: int = 1
    """Worlds side by side, for agents that learn from a replay."""
    capacity: int = 0
    """Transitions that the replay keeps, over all worlds."""
    gamma: float = 0.99
    """Discount of n-step returns."""
    reward_clip: float = 0.0
    """Rewards are cut off at plus and minus this before they are learnt from; 0 leaves them as they are."""
    prioritised: bool = False
    """Whether samples are drawn in proportion to the priorities that an update returns."""
    prepare_period: int = 0
    """Updates from one `prepare` to the next; the first comes before the first update. 0: there is none."""
    prepare_batches: int = 0
    """Batches that it is given."""
    true_ends: bool = True
    """Whether sequences show the observation that an episode ended with; without, what MR.Q's first code shows."""


class Proposal(NamedTuple):
    """Tasks that a curriculum offers, each leaf `[rows, alternatives, ...]`.

    A row whose episode ends takes one of its alternatives at random and plays a whole episode of it.
    """

    task: PyTree
    number: Int32[Array, "n Q"]
    """By which the curriculum knows the task again; -1 if it need not."""
    learn: Bool[Array, "n Q"]
    """False: the episode is played without gradients, to find out what the task is like."""
    forced: Int32[Array, "n Q"]
    """The action that is taken whatever the policy decides; -1 leaves it to the policy."""


class Rollout(NamedTuple):
    """`length` steps of `batch` rows, time-major, with the memory at its start.

    `start[t]` says that row's memory is emptied before acting on `obs[t]`. `terminated` is set where the return ended
    with the step, `truncated` where a time limit cut it: `final_value[t]` is then the value of the observation that was
    cut off. Neither is set at the border of two trials, `trial_end` is. `last_value` is that of the observation after
    the last step. `number`, `learn` and `forced` are those of the proposal that is being played; steps without
    `learn` count nothing in a loss.
    """

    obs: dict[str, Array]
    action: Array
    reward: Float[Array, "T B"]
    start: Bool[Array, "T B"]
    terminated: Bool[Array, "T B"]
    truncated: Bool[Array, "T B"]
    trial_end: Bool[Array, "T B"]
    final_value: Float[Array, "T B"]
    extras: Extras
    carry: PyTree
    last_value: Float[Array, " B"]
    number: Int32[Array, "T B"]
    learn: Bool[Array, "T B"]
    forced: Int32[Array, "T B"]

    def rows(self, rows: Any) -> "Rollout":
        """Some rows: axis 1 of what is time-major, axis 0 of the memory and the last value."""
        major = jax.tree.map(lambda x: x[:, rows], self._replace(carry=(), last_value=()))
        first = jax.tree.map(lambda x: x[rows], (self.carry, self.last_value))
        return major._replace(carry=first[0], last_value=first[1])


class Transitions(NamedTuple):
    """A batch for agents that learn from a replay: what n steps later was made of single steps.

    `reward` is the discounted sum of up to n rewards, `discount` what the value of `next_obs` is multiplied by: 0 where
    the episode terminated within them. A time limit shortens the n steps instead.
    """

    obs: dict[str, Array]
    action: Array
    reward: Float[Array, " B"]
    discount: Float[Array, " B"]
    next_obs: dict[str, Array]
    labels: PyTree
    """What a teacher says of `obs`; () where there is none."""
    weight: Float[Array, " B"]
    """Of each sample in the loss: 1, an importance weight, or 0 for one that cannot be learnt from."""
    place: Int32[Array, " B"]
    """Where it lies in the replay."""


class Sequences(NamedTuple):
    """A batch for agents that learn from a replay: T steps in a row, time-major, and one observation more.

    A sequence meets no time limit. It may run on past a termination: the observation after that is the episode's last;
    what follows is of something else, and has to be left out of every loss.
    """

    obs: dict[str, Array]
    """Leaves `[T + 1, B, ...]`."""
    action: Array
    reward: Float[Array, "T B"]
    terminated: Bool[Array, "T B"]
    place: Int32[Array, " B"]
    """Where it begins in the replay."""
    labels: PyTree = ()
    """What a teacher says of the first observation; () where there is none."""


class Past(NamedTuple):
    """What `prepare` is told of the whole replay."""

    reward_size: Float[Array, ""]
    """Mean of |reward| over its slots, of which an episode's end is one, without a reward."""
    terminates: Bool[Array, ""]
    """Whether an episode ever terminated."""


class Guidance(NamedTuple):
    """What somebody else adds to an update of an agent that learns from a replay: a teacher, or the data."""

    loss: Callable[[Float[Array, "B A"], Transitions | Sequences], Float[Array, " B"]]
    """From what the agent says of the observations (action values; of an agent that has a policy beside them, its
    logits or its actions in [-1, 1]), and the batch, to a loss of each sample."""
    weight: Float[Array, ""] | float
    """Of that loss."""
    own: Float[Array, ""] | float
    """Weight of the agent's own loss (of a policy's, where there is one)."""
    learning_rate: Float[Array, ""] | float
    """In place of the agent's."""


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
    refresh: Callable[[Any, PyTree], PyTree] = lambda state, carry: carry
    """Called as `refresh(state, carry)` after an update: what in a memory follows from the weights, computed anew."""
    lived: Callable[[Any, int], Any] = lambda state, steps: state
    """Called as `lived(state, steps)` when so many steps were acted (or learnt from without acting): its clock."""
    restart: Callable[..., Any] = lambda state, *, optimiser: state
    """Called as `restart(state, optimiser=...)` where a phase of learning begins: targets follow, optimisers forget."""
    prepare: Callable[..., Update] | None = None
    """Called as `prepare(key, state, batches, past, fetch=...)` before update 1, 1 + `needs.prepare_period`, ...: work
    on many batches at once. `fetch` makes a batch of each entry along the first axis of `batches`."""
