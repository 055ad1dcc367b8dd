"""Worlds side by side, as the on-policy loop steps them: one seat for the learner, the other, if any, for co-players.

Fictitious self-play (AdA, Adaptive Agents Team 2023, 2301.07608, section 3.4, App. D.5): the pool of co-players starts
with one that acts at random and gains frozen copies of the learner. Rows are shared out among the pool as evenly as
they go, instead of drawn uniformly; the learner's seat is drawn for every episode, and is the only one there in a task
that leaves the other player out.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.errors import ConfigError
from rekindle.core.types import Agent, EnvSpec, Obs, Proposal, TimeStep
from rekindle.envs.base import Env
from rekindle.envs.seats import present, seat_spec
from rekindle.envs.wrappers import AutoReset, AutoResetState


@runtime_checkable
class Worlds(Protocol):
    """Rows of environments that look like environments for one player; observations have a row axis."""

    @property
    def spec(self) -> EnvSpec:
        """What the learner sees and does."""
        ...

    def gather(self, key: Key[Array, ""], agent: Agent, state: Any) -> Any:
        """The co-players at the beginning; `()` where there are none."""
        ...

    def reset(self, key: Key[Array, ""], proposal: Proposal, partners: Any) -> tuple[Any, Obs]:
        """The first episodes."""
        ...

    def step(
        self, key: Key[Array, ""], state: Any, action: Array, proposal: Proposal, partners: Any
    ) -> tuple[Any, TimeStep]:
        """One step of every row; an episode that ended is followed by one of the row's proposed tasks."""
        ...

    def played(self, state: Any) -> Proposal:
        """What each row is playing, leaves `[rows, ...]`."""
        ...

    def grow(self, agent: Agent, state: Any, partners: Any, learnt: Float[Array, ""]) -> Any:
        """The co-players after an update; `learnt` counts thousands of steps."""
        ...


@dataclass(frozen=True)
class _Proposed:
    """An environment whose params are a proposal's entry."""

    env: Env

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def reset(self, key: Key[Array, ""], params: Proposal) -> tuple[Any, TimeStep]:
        return self.env.reset(key, params.task)

    def step(self, key: Key[Array, ""], state: Any, action: Array, params: Proposal) -> tuple[Any, TimeStep]:
        return self.env.step(key, state, action, params.task)


def rows_of(env: Env) -> AutoReset:
    """A row: the next episode plays one of the alternatives that are proposed at that moment."""

    def choose(key: Key[Array, ""], proposal: Proposal, _: Any) -> Proposal:
        chosen = jax.random.randint(key, (), 0, proposal.number.shape[0])
        return jax.tree.map(lambda leaf: leaf[chosen], proposal)

    return AutoReset(_Proposed(env), choose)


@dataclass(frozen=True)
class Solo:
    """One player per world."""

    env: Env

    def __post_init__(self) -> None:
        """Refuse worlds for more."""
        if self.env.spec.players != 1:
            raise ConfigError(f"{self.env.spec.id} has {self.env.spec.players} players and needs co-players.")

    @property
    def spec(self) -> EnvSpec:
        """The environment's."""
        return self.env.spec

    def gather(self, key: Key[Array, ""], agent: Agent, state: Any) -> Any:
        """None."""
        del key, agent, state
        return ()

    def reset(self, key: Key[Array, ""], proposal: Proposal, partners: Any) -> tuple[AutoResetState, Obs]:
        """The first episodes."""
        del partners
        keys = jax.random.split(key, proposal.number.shape[0])
        state, first = jax.vmap(rows_of(self.env).reset)(keys, proposal)
        return state, first.obs

    def step(
        self, key: Key[Array, ""], state: AutoResetState, action: Array, proposal: Proposal, partners: Any
    ) -> tuple[AutoResetState, TimeStep]:
        """One step of every row."""
        del partners
        keys = jax.random.split(key, proposal.number.shape[0])
        return jax.vmap(rows_of(self.env).step)(keys, state, action, proposal)

    def played(self, state: AutoResetState) -> Proposal:
        """What each row is playing."""
        return state.params

    def grow(self, agent: Agent, state: Any, partners: Any, learnt: Float[Array, ""]) -> Any:
        """None."""
        del agent, state, learnt
        return partners


class Partners(NamedTuple):
    """The pool of co-players. Slot 0 acts at random, whatever it holds."""

    policies: PyTree
    """Arrays of the frozen policies, stacked along a first axis S."""
    filled: Int32[Array, ""]
    """Slots in use."""
    copies: Int32[Array, ""]
    """Copies that were made, including those that were not kept."""
    numbers: Int32[Array, " S"]
    """Of the copies in the slots, counted from 1 in the order in which they were made."""
    key: Key[Array, ""]
    """Decides which copies are kept."""


class PairState(NamedTuple):
    """The worlds, and what the co-players see and remember."""

    inner: AutoResetState
    obs: Obs
    start: Bool[Array, " B"]
    carry: PyTree
    """Leaves `[S, B / S, ...]`."""
    seat: Int32[Array, " B"]
    """The learner's."""
    beside: Int32[Array, " S"]
    """Numbers of the copies that the groups of rows have played beside."""


@dataclass(frozen=True)
class Pairs:
    """Two players per world, the other one from a pool; row r plays beside number r modulo the size of the pool."""

    env: Env
    agent: Agent
    slots: int = 8
    """Size of the pool, the random player included. Of more copies than fit, it holds a uniform sample."""
    copy_every: float = 250.0
    """Thousands of learnt steps between two copies (AdA: 500 million frames of 100 billion)."""

    first: Any = None
    """A policy of the agent's kind that is in the pool from the beginning."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.env.spec.players != 2:
            raise ConfigError(
                f"co-players need a world for two; the players of {self.env.spec.id} are {self.env.spec.players}."
            )
        if self.slots < 2 or self.copy_every <= 0:
            raise ConfigError(
                f"a pool of co-players needs at least 2 slots and a positive copy_every; got {self.slots} and "
                f"{self.copy_every}."
            )

    @property
    def spec(self) -> EnvSpec:
        """What one seat sees."""
        return seat_spec(self.env.spec)

    def gather(self, key: Key[Array, ""], agent: Agent, state: Any) -> Partners:
        """The random player, and the one to begin with if there is one; the other slots wait."""
        arrays = eqx.filter(agent.policy(state), eqx.is_array)
        if self.first is not None:
            arrays = eqx.filter(self.first, eqx.is_array)
        known = 0 if self.first is None else 1
        stacked = jax.tree.map(lambda x: jnp.repeat(x[None], self.slots, axis=0), arrays)
        numbers = jnp.where(jnp.arange(self.slots) == 1, known, 0).astype(jnp.int32)
        return Partners(stacked, jnp.int32(1 + known), jnp.int32(known), numbers, key)

    def reset(self, key: Key[Array, ""], proposal: Proposal, partners: Partners) -> tuple[PairState, Obs]:
        """The first episodes.

        Raises:
            ConfigError: the rows cannot be shared out evenly.
        """
        rows = proposal.number.shape[0]
        if rows % self.slots:
            raise ConfigError(f"rows must be a multiple of the pool's {self.slots} co-players; got {rows}.")
        reset_key, seat_key = jax.random.split(key)
        inner, first = jax.vmap(rows_of(self.env).reset)(jax.random.split(reset_key, rows), proposal)
        seat = self._draw_seats(seat_key, inner)
        policy = self._policies(partners)
        carry = jax.vmap(lambda one: one.init_carry(rows // self.slots))(policy)
        beside = partners.numbers[self._used(partners)]
        state = PairState(inner, sit(first.obs, 1 - seat), jnp.ones(rows, bool), carry, seat, beside)
        return state, sit(first.obs, seat)

    def step(
        self, key: Key[Array, ""], state: PairState, action: Array, proposal: Proposal, partners: Partners
    ) -> tuple[PairState, TimeStep]:
        """The co-players act on what they saw, then all worlds step."""
        rows = action.shape[0]
        act_key, random_key, env_key, seat_key = jax.random.split(key, 4)
        keys = jax.random.split(act_key, self.slots)

        def act(policy: Any, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Array) -> tuple[Array, PyTree]:
            out = policy.act(key, carry, obs, start, explore=True)
            return out.action, out.carry

        beside = partners.numbers[self._used(partners)]
        changed = jnp.tile(beside != state.beside, rows // self.slots)  # what one remembers is nothing to another
        theirs, carry = eqx.filter_vmap(act)(self._policies(partners), keys, state.carry, self._share(state.obs),
                                             self._share(state.start | changed))  # fmt: skip
        theirs = theirs.swapaxes(0, 1).reshape(rows)
        anything = jax.random.randint(random_key, (rows,), 0, self.env.spec.action.n)  # pyright: ignore
        slot = jnp.tile(self._used(partners), rows // self.slots)
        theirs = jnp.where(slot == 0, anything, theirs).astype(action.dtype)
        joint = jnp.where((state.seat == 0)[:, None], jnp.stack([action, theirs], 1), jnp.stack([theirs, action], 1))
        inner, ts = jax.vmap(rows_of(self.env).step)(jax.random.split(env_key, rows), state.inner, joint, proposal)
        ended = ts.terminated | ts.truncated
        seat = jnp.where(ended, self._draw_seats(seat_key, inner), state.seat)
        after = PairState(inner, sit(ts.obs, 1 - seat), ended, carry, seat, beside)
        mine = ts._replace(
            obs=sit(ts.obs, seat), final_obs=sit(ts.final_obs, state.seat), reward=sit(ts.reward, state.seat)
        )
        return after, mine

    def played(self, state: PairState) -> Proposal:
        """What each row is playing."""
        return state.inner.params

    def grow(self, agent: Agent, state: Any, partners: Partners, learnt: Float[Array, ""]) -> Partners:
        """Copies the learner into the pool when it is time.

        Once the pool is full, copy number n is kept with probability (slots - 1) / n, in place of any other: all copies
        that were ever made are equally likely to be there (reservoir sampling, Vitter 1985).
        """
        number = partners.copies + 1
        due = learnt >= number.astype(jnp.float32) * self.copy_every
        drawn = 1 + jax.random.randint(jax.random.fold_in(partners.key, number), (), 0, number)
        at = jnp.where(number < self.slots, number, drawn)
        kept = due & (at < self.slots)
        arrays = eqx.filter(agent.policy(state), eqx.is_array)
        policies = jax.tree.map(
            lambda all, one: all.at[at].set(jnp.where(kept, one, all[at])), partners.policies, arrays
        )
        filled = jnp.minimum(partners.filled + due.astype(jnp.int32), self.slots)
        numbers = partners.numbers.at[at].set(jnp.where(kept, number, partners.numbers[at]))
        return Partners(policies, filled, partners.copies + due.astype(jnp.int32), numbers, partners.key)

    def _draw_seats(self, key: Key[Array, ""], inner: AutoResetState) -> Int32[Array, " B"]:
        """The learner's in every row, among the players whom the row's task has."""
        there = jax.vmap(lambda proposal: present(self.env, proposal.task))(inner.params)
        return jax.random.categorical(key, jnp.where(there, 0.0, -jnp.inf)).astype(jnp.int32)

    def _policies(self, partners: Partners) -> Any:
        """The policies that the S groups of rows play beside, stacked; while the pool fills, some several times."""
        static = eqx.filter(self._like(), eqx.is_array, inverse=True)
        used = self._used(partners)
        return eqx.combine(jax.tree.map(lambda x: x[used], partners.policies), static)

    def _used(self, partners: Partners) -> Int32[Array, " S"]:
        """The slot whose policy every group plays beside."""
        return jnp.arange(self.slots, dtype=jnp.int32) % partners.filled

    def _like(self) -> Any:
        return eqx.filter_eval_shape(lambda: self.agent.policy(self.agent.init(jax.random.key(0), self.spec)))

    def _share(self, rows: PyTree) -> PyTree:
        """Leaves `[B, ...]` as `[S, B / S, ...]`: row r goes to group r modulo S."""
        return jax.tree.map(lambda x: x.reshape(-1, self.slots, *x.shape[1:]).swapaxes(0, 1), rows)


def sit(leaves: PyTree, seat: Int32[Array, " B"]) -> PyTree:
    """What each row's player in a seat has, of leaves `[B, P, ...]`."""
    rows = jnp.arange(seat.shape[0])
    return jax.tree.map(lambda x: x[rows, seat], leaves)
