"""The off-policy loop in worlds that are not compiled: their step stands between two programs.

What is decided, stored and learnt is that of `off_policy.py`. The updates of a tick are computed while the worlds step,
so that emulators and network share the time; they learn from what was stored before the tick.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key

from rekindle.core.tree import own
from rekindle.core.types import Agent
from rekindle.envs.host.worlds import HostWorlds
from rekindle.reincarnation.phases import Phase
from rekindle.train import off_policy
from rekindle.train.off_policy import Chunk, Decision, Given, LoopState, Nothing, Shown, pace


class Programs(NamedTuple):
    """What is compiled of a tick."""

    decide: Callable[[LoopState, Given, Any], Decision]
    learn: Callable[[LoopState, Given], tuple[LoopState, Any]]
    record: Callable[[LoopState, Decision, Shown], LoopState]


def programs(agent: Agent, stack: int, phase: Phase | None) -> Programs:
    """Of an agent in a phase; the loop's memory is taken over by `learn` and `record`."""
    turn = pace(agent.needs)

    def keys(loop: LoopState) -> Key[Array, " 2"]:
        return jax.random.split(jax.random.fold_in(loop.key, loop.ticks))

    def dials(loop: LoopState) -> Any:
        return None if phase is None else phase.dials(loop.progress)

    def decide(loop: LoopState, given: Given, number: Int32[Array, ""]) -> Decision:
        split = jax.random.split(jax.random.fold_in(keys(loop)[0], number), 3)
        return off_policy.decide(agent, given, dials(loop), tuple(split), loop)

    def learn(loop: LoopState, given: Given) -> tuple[LoopState, Any]:
        better = lambda loop, key: off_policy.learn(agent, phase, given, dials(loop), key, loop)  # noqa: E731
        loop, metrics = jax.lax.scan(better, loop, jax.random.split(keys(loop)[1], turn.updates))
        return loop, jax.tree.map(jnp.mean, metrics)

    def record(loop: LoopState, decision: Decision, shown: Shown) -> LoopState:
        return off_policy.record(agent, stack, loop, decision, shown)

    return Programs(jax.jit(decide), jax.jit(learn, donate_argnums=0), jax.jit(record, donate_argnums=0))


def begin(agent: Agent, worlds: HostWorlds, phase: Phase | None, given: Given, key: Key[Array, ""], state: Any
          ) -> LoopState:  # fmt: skip
    """The state before the first step; see `off_policy.begin`."""
    obs = worlds.reset(int(jax.random.randint(jax.random.fold_in(key, 1), (), 0, 2**31 - 1)))
    start = jax.jit(
        lambda key, state, given, obs: off_policy.begin_at(agent, worlds.spec, phase, given, (), obs, key, state=state)
    )
    return own(start(key, state, given, obs)._replace(worlds=worlds.save()))


def act(agent: Agent, worlds: HostWorlds, phase: Phase | None, learning: bool) -> Chunk:
    """What carries out ticks."""
    return partial(act_on, programs(agent, worlds.spec.stack, phase), agent, worlds, learning)


def act_on(
    programs: Programs, agent: Agent, worlds: HostWorlds, learning: bool, loop: LoopState, given: Given, ticks: int
) -> tuple[LoopState, Any]:
    """So many ticks; metrics are means over their updates. The worlds are first brought to where the loop left them."""
    worlds.restore(loop.worlds)
    loop, found = loop._replace(worlds=()), []
    for _ in range(ticks):
        for number in range(pace(agent.needs).steps):
            decision = programs.decide(loop, given, np.int32(number))
            action = np.asarray(decision.action)
            if learning and number == 0:
                loop, metrics = programs.learn(loop, given)
                found.append(metrics)
            shown = jax.tree.map(jnp.asarray, worlds.step(action))
            loop = programs.record(loop, decision, Shown(*shown))
        loop = loop._replace(ticks=loop.ticks + 1)
    means = jax.tree.map(lambda *x: np.mean(np.stack(x)), *found) if found else Nothing()
    return loop._replace(worlds=own(worlds.save())), means
