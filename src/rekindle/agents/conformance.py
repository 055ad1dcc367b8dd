"""Checks that every learning algorithm must pass, for the agents of this package and of others."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from rekindle.core.errors import AgentContractError, CheckpointError
from rekindle.core.spaces import Box, Discrete, Image, MultiDiscrete, Space
from rekindle.core.tree import flatten_arrays, unflatten_arrays
from rekindle.core.types import ActOutput, Agent, EnvSpec, Obs, Rollout, Sequences, Transitions

Batch = Rollout | Sequences | Transitions
UPDATES = 8
"""Updates on one batch, after which its loss must be lower."""


def check_agent(agent: Agent, spec: EnvSpec, *, seed: int = 0, loss: str = "value_loss") -> None:
    """Hold an agent to its contract on random observations of a spec; give it a small config.

    Checked: `init`, `act` and `update` compile once and accept vmapped keys; two seeds give different parameters and
    actions and the same seed the same; a state that is saved and loaded goes on bit for bit; the loss of a fixed batch
    falls; nothing is NaN; no key is used twice.

    Args:
        agent: with its config bound.
        spec: what it is to see and do; one player.
        seed: of everything random.
        loss: the metric that must fall.

    Raises:
        AgentContractError: names what was broken, and the likely cause.
    """
    try:
        with jax.debug_key_reuse(True):
            _Check(agent, spec, seed).run(loss)
    except jax.errors.KeyReuseError as error:
        reason = str(error).partition("\n")[0][:200]
        raise AgentContractError(f"{agent.name} uses a random key twice; split it first: {reason}") from error


class _Check:
    def __init__(self, agent: Agent, spec: EnvSpec, seed: int):
        self.agent, self.spec, self.seed = agent, spec, seed
        self.traces: dict[str, int] = {}
        self.init = self._counted("init", lambda key: agent.init(key, spec))
        self.act = self._counted("act", partial(agent.act, explore=True))
        self.update = self._counted("update", agent.update)

    def run(self, loss: str) -> None:
        state, other = self.init(self._key(0)), self.init(self._key(1))
        self._seeds(state, other)
        made = {"transition": self._transitions, "sequence": self._sequences, "rollout": self._rollout}
        see, batch = made[self.agent.needs.kind](state)
        self._vmapped(see, batch)
        self._actions(state, see)
        self._resume(state, batch)
        self._learns(state, batch, loss)
        self.init(self._key(2))
        for name, times in self.traces.items():
            _need(times == 1, self, f"{name} was compiled {times} times: its output has other types or shapes than its "
                  f"input, or it looks at values in Python")  # fmt: skip

    def _key(self, stream: int) -> Key[Array, ""]:
        return jax.random.fold_in(jax.random.key(self.seed), stream)

    def _counted(self, name: str, f: Callable[..., Any]) -> Callable[..., Any]:
        self.traces[name] = 0

        def traced(*args: Any) -> Any:
            self.traces[name] += 1
            return f(*args)

        return jax.jit(traced)

    def _seeds(self, state: Any, other: Any) -> None:
        _need(
            _same(state, self.init(self._key(0))), self, "init gives two states for one key: it keeps state of its own"
        )
        _need(not _same(state, other), self, "init gives the same parameters for two keys: it does not use its key")
        _need(_finite(state), self, "init gives NaN or infinity")

    def _transitions(self, state: Any) -> tuple[tuple, Transitions]:
        """A carry, observations and starts to act on, and random transitions; one terminated, one is not to count."""
        rows = self.agent.needs.batch
        obs, after = (_sample_obs(self._key(100 + t), self.spec, rows) for t in range(2))
        see = (self.agent.init_carry(state, rows), obs, jnp.ones(rows, bool))
        out: ActOutput = self.act(self._key(1000), state, *see)
        reward, index = jax.random.normal(self._key(2), (rows,)), jnp.arange(rows, dtype=jnp.int32)
        discount = jnp.where(index == 0, 0.0, 0.9)
        weight = jnp.where(index == 1, 0.0, 1.0)
        return see, Transitions(obs, out.action, reward, discount, after, (), weight, index)

    def _sequences(self, state: Any) -> tuple[tuple, Sequences]:
        """The same, of random steps in a row; one sequence terminates in its second step."""
        rows, steps = self.agent.needs.batch, self.agent.needs.length
        obs = [_sample_obs(self._key(100 + t), self.spec, rows) for t in range(steps + 1)]
        see = (self.agent.init_carry(state, rows), obs[0], jnp.ones(rows, bool))
        action = jnp.stack([self.act(self._key(1000 + t), state, *see).action for t in range(steps)])
        over = jnp.zeros((steps, rows), bool).at[min(1, steps - 1), 0].set(True)
        reward, place = jax.random.normal(self._key(2), (steps, rows)), jnp.arange(rows, dtype=jnp.int32)
        return see, Sequences(jax.tree.map(lambda *x: jnp.stack(x), *obs), action, reward, over, place)

    def _rollout(self, state: Any) -> tuple[tuple, Rollout]:
        rows, steps = self.agent.needs.batch, self.agent.needs.length
        carry = first = self.agent.init_carry(state, rows)
        all_obs = [_sample_obs(self._key(100 + t), self.spec, rows) for t in range(steps + 1)]
        starts = [jnp.full(rows, t == 0).at[t % rows].set(True) for t in range(steps + 1)]
        seen = []
        for t in range(steps):
            out: ActOutput = self.act(self._key(1000 + t), state, carry, all_obs[t], starts[t])
            seen.append((all_obs[t], out.action, starts[t], out.extras))
            carry = out.carry
        obs, action, start, extras = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)
        reward = jax.random.normal(self._key(2), (steps, rows))
        terminated = jnp.stack(starts[1:])
        no = jnp.zeros_like(terminated)
        last = self.act(self._key(1000 + steps), state, carry, all_obs[-1], starts[-1]).extras
        number = jnp.full(reward.shape, -1, jnp.int32)
        batch = Rollout(obs, action, reward, start, terminated, no, terminated, jnp.zeros_like(reward), extras, first,
                        last.value, number, ~no, number)  # fmt: skip
        return (first, _first(obs), start[0]), batch

    def _vmapped(self, see: tuple, batch: Batch) -> None:
        keys = jax.random.split(self._key(3), 2)

        def both(key: Key[Array, ""]) -> tuple:
            init_key, act_key, update_key = jax.random.split(key, 3)
            fresh = self.agent.init(init_key, self.spec)
            out = self.agent.act(act_key, fresh, *see, explore=True)
            return fresh, out.action, self.agent.update(update_key, fresh, batch).state

        try:
            jax.eval_shape(jax.vmap(both), keys)
        except (TypeError, ValueError) as error:
            raise AgentContractError(f"{self.agent.name} does not take vmapped keys: {error}") from error

    def _actions(self, state: Any, see: tuple) -> None:
        outs: list[ActOutput] = [self.act(self._key(4 + i), state, *see) for i in range(4)]
        again: ActOutput = self.act(self._key(4), state, *see)
        _need(_same(outs[0], again), self, "act gives two actions for one key: it keeps state of its own")
        moved = any((out.action != outs[0].action).any() for out in outs)
        _need(moved, self, "act gives the same actions for four keys: it does not use its key, or does not explore")
        greedy = [self.agent.policy(state).act(self._key(8 + i), *see, explore=False).action for i in range(2)]
        _need(_same(*greedy), self, "act without exploration depends on its key: it must be greedy")

    def _resume(self, state: Any, batch: Batch) -> None:
        once = self.update(self._key(10), state, batch).state
        try:
            loaded = unflatten_arrays(self.init(self._key(11)), flatten_arrays(once), where="the saved state")
        except CheckpointError as error:
            message = f"{self.agent.name}: the state after an update is not like a fresh one: {error}"
            raise AgentContractError(message) from error
        straight, resumed = (self.update(self._key(12), s, batch).state for s in (once, loaded))
        message = "a state that was saved and loaded goes on differently: part of what learning needs is not in it"
        _need(_same(straight, resumed), self, message)

    def _learns(self, state: Any, batch: Batch, loss: str) -> None:
        losses = []
        for i in range(UPDATES):
            result = self.update(self._key(20 + i), state, batch)
            _need(not _same(state, result.state), self, f"update {i + 1} leaves the state as it was")
            state = result.state
            losses.append(float(getattr(result.metrics, loss)))
            _need(_finite((state, result.metrics)), self, f"update {i + 1} gives NaN or infinity")
        message = f"{loss} of a fixed batch goes from {losses[0]:.4g} to {losses[-1]:.4g} in {UPDATES} updates"
        _need(losses[-1] < losses[0], self, f"{message}: check the sign of the loss and the step size")


def _sample_obs(key: Key[Array, ""], spec: EnvSpec, rows: int) -> Obs:
    keys = jax.random.split(key, len(spec.obs))
    return {name: _sample(k, space, rows) for k, (name, space) in zip(keys, sorted(spec.obs.items()), strict=True)}


def _sample(key: Key[Array, ""], space: Space, rows: int) -> Array:
    """Uniform values of a space; infinite bounds count as +-1."""
    match space:
        case Discrete(n=n, dtype=dtype):
            return jax.random.randint(key, (rows,), 0, n).astype(dtype)
        case MultiDiscrete(nvec=nvec, dtype=dtype):
            return jax.random.randint(key, (rows, len(nvec)), 0, jnp.array(nvec)).astype(dtype)
        case Box(shape=shape, low=low, high=high, dtype=dtype):
            low, high = max(low, -1.0) if np.isinf(low) else low, min(high, 1.0) if np.isinf(high) else high
            if np.issubdtype(np.dtype(dtype), np.integer):
                return jax.random.randint(key, (rows, *shape), int(low), int(high) + 1).astype(dtype)
            return jax.random.uniform(key, (rows, *shape), minval=low, maxval=high).astype(dtype)
        case Image(dtype=dtype):
            return jax.random.randint(key, (rows, *space.shape), 0, 256).astype(dtype)
        case _:
            raise AgentContractError(f"an agent on arrays cannot see {space!r}.")


def _first(obs: Obs) -> Obs:
    return {name: x[0] for name, x in obs.items()}


def _need(holds: bool, check: _Check, message: str) -> None:
    if not holds:
        raise AgentContractError(f"{check.agent.name}: {message}.")


def _same(a: Any, b: Any) -> bool:
    a, b = flatten_arrays(a), flatten_arrays(b)
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def _finite(tree: Any) -> bool:
    arrays = flatten_arrays(tree).values()
    return all(np.isfinite(x).all() for x in arrays if np.issubdtype(x.dtype, np.floating))
