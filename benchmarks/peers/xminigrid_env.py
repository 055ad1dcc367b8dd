"""XLand-MiniGrid's own world as one of our environments, so that the same loop trains the same agent on it.

Needs `pip install xminigrid==0.9.3`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import xminigrid
from jaxtyping import Array, Key
from xminigrid.types import RuleSet

from rekindle.core.types import EnvSpec, Obs, TimeStep
from rekindle.envs.minigrid.env import MiniGrid, Task


@dataclass(frozen=True)
class Peer:
    """One trial of a task in `XLand-MiniGrid-{rooms}-{size}x{size}`; shows and takes what `ours` does.

    The trial length is theirs, 3 x size x size, whatever the task says. State: their time step, less its key.
    """

    ours: MiniGrid

    @property
    def spec(self) -> EnvSpec:
        """That of our world."""
        return self.ours.spec

    @cached_property
    def _made(self) -> tuple[Any, Any]:
        return xminigrid.make(f"XLand-MiniGrid-{self.ours.rooms}-{self.ours.size}x{self.ours.size}",
                              view_size=self.ours.view)  # fmt: skip

    def reset(self, key: Key[Array, ""], params: Task) -> tuple[Any, TimeStep]:
        """Their reset, with the task's ruleset."""
        env, settings = self._made
        goal, rules, tiles = (jnp.asarray(x) for x in params[:3])
        now = env.reset(settings.replace(ruleset=RuleSet(goal=goal, rules=rules, init_tiles=tiles)), key)
        now = now.replace(state=now.state.replace(key=jnp.uint32(0)))
        obs, no = self._show(now), jnp.zeros((), bool)
        return now, TimeStep(obs, jnp.float32(0), no, no, no, obs, {})

    def step(self, key: Key[Array, ""], state: Any, action: Array, params: Task) -> tuple[Any, TimeStep]:
        """Their step."""
        del key, params  # the ruleset is in their state
        env, settings = self._made
        now = env.step(settings, state, action)
        obs, over, terminated = self._show(now), now.last(), now.discount == 0.0
        return now, TimeStep(obs, now.reward, terminated, over & ~terminated, over, obs, {})

    def _show(self, now: Any) -> Obs:
        obs: Obs = {"tiles": now.observation}
        if self.ours.heading:
            obs["heading"] = now.state.agent.direction.astype(jnp.int8)
        if self.ours.show_task:
            obs |= {"goal": now.state.goal_encoding, "rules": now.state.rule_encoding}
        return obs
