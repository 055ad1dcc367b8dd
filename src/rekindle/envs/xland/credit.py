"""Whose doing was it? An XLand that says which player made a rule fire, so that division of labour can be counted."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from rekindle.core.types import EnvSpec, TimeStep
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import game
from rekindle.envs.xland.env import State, XLand
from rekindle.envs.xland.level import NOOP, Task

TRIGGERED = "triggered"
"""Name of the metric: Bool[P], whether the player made a rule fire in this step."""


@dataclass(frozen=True)
class Credit:
    """An XLand with the metric `triggered`. The rest is the world's own.

    A player *triggers* a rule in a step if the rule fires and would not have, had this player done nothing and the
    other the same as it did. So both trigger it where it took both, and neither where either of them would have been
    enough or where it fired by itself. Rules that fire only because another has in the same step are not looked at.

    It takes three times the work of a step: for evaluation, not for training.
    """

    env: XLand

    @property
    def spec(self) -> EnvSpec:
        """The world's."""
        return self.env.spec

    def reset(self, key: Key[Array, ""], params: Task) -> tuple[State, TimeStep]:
        """Nobody has triggered anything."""
        state, first = self.env.reset(key, params)
        return state, _with(first, jnp.zeros(self.env.players, bool))

    def step(self, key: Key[Array, ""], state: State, action: Array, params: Task) -> tuple[State, TimeStep]:
        """The world's step, and who triggered rules in it."""
        after, now = self.env.step(key, state, action, params)
        return after, _with(now, self.triggered(state, action, params))

    def triggered(self, state: State, action: Array, params: Task) -> Bool[Array, " P"]:
        """Which players trigger a rule by acting so."""
        actions = jnp.atleast_1d(action).astype(jnp.int32)

        def fires(actions: Array) -> Bool[Array, " R"]:
            scene = game.act_all(state.scene, params.world, actions, self.env.second_first(state.time))
            return game.check(scene, params.world, params.game, self.env.view, self.env.relations)[1]

        together = fires(actions)
        without = [fires(actions.at[p].set(NOOP)) for p in range(self.env.players)]
        return jnp.stack([jnp.any(together & ~rules) for rules in without])


def with_credit(env: Trials) -> Trials:
    """The same environment of trials, with the metric."""
    assert isinstance(env.env, XLand)
    return replace(env, env=Credit(env.env))


def _with(now: TimeStep, triggered: Bool[Array, " P"]) -> TimeStep:
    return now._replace(metrics={**now.metrics, TRIGGERED: triggered})
