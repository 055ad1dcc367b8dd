"""How a student in a phase of reincarnation stands beside its teacher, as its curves show it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rekindle.core.types import Agent, Obs, given
from rekindle.reincarnation.phases import Dials, OutputKinds, Phase
from rekindle.replay.ring import Ring
from rekindle.train.off_policy import NO_TICK

COMPARED = 256
"""Observations on which a student is compared with its teacher."""
NEAR = 0.1
"""Numbers of an action that is a vector are the same where they differ by no more, of a range from -1 to 1."""


class Reference(NamedTuple):
    """What a student is compared with."""

    kinds: OutputKinds
    data: Ring
    """Labelled steps of the teacher, where those that are learnt from have no labels."""


class Agreement(NamedTuple):
    """How near a student is to its teacher, over some observations."""

    agreement: Float[Array, ""]
    """Share of them on which both would do the same; of vectors, share of their numbers."""
    teacher_entropy: Float[Array, ""]
    """Of the teacher's policy, in nats: of softmax(Q / tau) where it says action values; 0 where it says actions."""
    teacher_spread: Float[Array, ""]
    """Standard deviation of what the teacher says, over actions: for value teachers, the scale of a temperature."""


def compare(
    agent: Agent, kinds: OutputKinds, tau: float, key: Key[Array, ""], state: Any, obs: Obs, labels: Float[Array, "B A"]
) -> Agreement:
    """The student's best actions beside what its teacher said of the same observations."""
    rows = labels.shape[0]
    out = agent.act(key, state, agent.init_carry(state, rows), obs, jnp.ones(rows, bool), explore=False)
    spread = jnp.mean(jnp.std(labels, axis=-1))
    if kinds.teacher == "actions":
        same = jnp.abs(given(out.extras.mean) - labels) <= NEAR
        return Agreement(jnp.mean(same.astype(jnp.float32)), jnp.zeros(()), spread)
    best = out.action if out.extras.logits is None else jnp.argmax(out.extras.logits, axis=-1)
    same = jnp.argmax(labels, axis=-1) == best
    entropy = jnp.sum(jax.scipy.special.entr(jax.nn.softmax(kinds.logits(labels, tau))), axis=-1)
    return Agreement(jnp.mean(same.astype(jnp.float32)), jnp.mean(entropy), spread)


@dataclass(frozen=True)
class Standing:
    """What the curves of a phase tell."""

    agent: Agent
    phase: Phase
    reference: Reference | None

    def values(
        self, loop: Any, *, steps: int, updates: int, shown: Callable[[Key[Array, ""]], tuple[Obs, Float[Array, "B A"]]]
    ) -> dict[str, float]:
        """By their names.

        Args:
            loop: whose agent and progress are looked at.
            steps: of the phase.
            updates: of the phase.
            shown: from a key to observations with what the teacher says of them, if there is one to compare with.
        """
        found: dict[str, Any] = {"steps": steps, "updates": updates, "multiplier": loop.progress.multiplier}
        found |= self._dials(loop.progress)._asdict()
        if self.reference is not None:
            draw_key, act_key = jax.random.split(jax.random.fold_in(loop.key, NO_TICK))
            found |= self._compare(act_key, loop.agent, *shown(draw_key))._asdict()
        return {f"phase/{name}": float(value) for name, value in found.items()}

    @cached_property
    def _dials(self) -> Callable[[Any], Dials]:
        return jax.jit(self.phase.dials)

    @cached_property
    def _compare(self) -> Callable[..., Agreement]:
        assert self.reference is not None
        return jax.jit(partial(compare, self.agent, self.reference.kinds, self.phase.tau))
