"""Several probes as one world, so that an agent is compiled once for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rekindle.core.spaces import Discrete
from rekindle.core.types import EnvSpec
from rekindle.envs import registry
from rekindle.envs.probe.probe import Probe


class Which(NamedTuple):
    """A probe by its number, and its task."""

    number: jax.Array
    task: NamedTuple


@dataclass(frozen=True)
class Several:
    """Probes by name, of at most so many cues; which one it is lies in the task."""

    names: tuple[str, ...]
    cues: int

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("test/several", 1, {"cue": Discrete(self.cues)}, Discrete(2))

    @property
    def probes(self) -> tuple[Probe, ...]:
        return tuple(Probe(f"probe/{name}-v1") for name in self.names)

    def reset(self, key, params):
        return jax.lax.switch(params.number, [probe.reset for probe in self.probes], key, params.task)

    def step(self, key, state, action, params):
        steps = [probe.step for probe in self.probes]
        state, ts = jax.lax.switch(params.number, steps, key, state, action, params.task)
        limits = jnp.array([probe.problem.limit for probe in self.probes])
        limit = limits[params.number]  # the others end, as in `Trials`
        return state, ts._replace(terminated=ts.truncated & ~limit, truncated=ts.truncated & limit)


def tasks_of(names: Sequence[str]) -> Any:
    """Their tasks, stacked."""
    tasks = [registry.make(f"probe/{name}").pool() for name in names]
    return Which(jnp.arange(len(names)), jax.tree.map(lambda *x: jnp.stack(x), *tasks))
