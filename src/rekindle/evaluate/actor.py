"""An agent in a loop of one's own: called with what an environment shows, it says what to do."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from rekindle.agents.registry import Loaded
from rekindle.core.errors import ConfigError, within
from rekindle.core.spaces import Discrete
from rekindle.evaluate.policies import samples


class Actor:
    """`action = actor(obs)`, step by step; `actor.reset()` when an episode is over.

    Without exploration, except of agents that learn with sampled actions (PPO, Muesli), which act as they learnt to.
    """

    def __init__(self, agent: Loaded, action_space: Any = None, *, seed: int = 0):
        """Nothing has been seen yet.

        Args:
            agent: as `rekindle.load` gives it.
            action_space: Gymnasium's, whose bounds vectors are scaled to; without one, they are in [-1, 1].
            seed: of actions that are sampled, 0 or more.

        Raises:
            ConfigError: no agent, a seed below 0, or actions that are not the agent's.
        """
        if not isinstance(agent, Loaded):
            raise ConfigError(f"actor takes an agent as rekindle.load gives it; got {agent!r}.")
        within("seed", seed, 0)
        self.agent, self._space = agent, action_space
        self._explore = samples(agent.agent)
        if action_space is not None:
            self._refuse_other(action_space)
        self._key = jax.random.key(seed)
        self._act = eqx.filter_jit(_act)
        self.reset()

    def reset(self) -> None:
        """An episode is over: what comes next is the beginning of another, and what was remembered is forgotten."""
        self._carry, self._start = self.agent.policy.init_carry(1), True

    def __call__(self, obs: Any) -> Any:
        """What to do: a whole number, or a vector.

        Args:
            obs: what one environment shows, without an axis for several; an array, or a dictionary of arrays.

        Raises:
            ConfigError: it has other names or shapes than those that the agent was made for.
        """
        shown = self._named(obs)
        action, self._carry, self._key = self._act(
            self.agent.policy, self._key, self._carry, shown, np.array([self._start]), self._explore
        )
        self._start = False
        taken = np.asarray(action[0])
        if isinstance(self.agent.spec.action, Discrete):
            return int(taken)
        if self._space is None:
            return taken
        from rekindle.envs.host.foreign import bounded

        return bounded(taken, self._space)

    def _named(self, obs: Any) -> dict[str, np.ndarray]:
        spaces = self.agent.spec.obs
        named = obs if isinstance(obs, dict) else dict.fromkeys(list(spaces)[:1], obs)
        if set(named) != set(spaces):
            raise ConfigError(f"{self.agent.spec.id} shows {', '.join(spaces)}; got {', '.join(map(str, named))}.")
        arrays = {name: np.asarray(x, getattr(spaces[name], "dtype", None)) for name, x in named.items()}
        for name, array in arrays.items():
            shape = getattr(spaces[name], "shape", ())
            free = int(getattr(spaces[name], "set_axis", False))
            if array.ndim != len(shape) or array.shape[free:] != shape[free:]:
                raise ConfigError(
                    f"{self.agent.spec.id} shows {name} of the shape {shape}; got {array.shape}. An actor takes what "
                    "one environment shows, as it was shown in training."
                )
        return {name: array[None] for name, array in arrays.items()}

    def _refuse_other(self, space: Any) -> None:
        from rekindle.envs.host.foreign import action_of

        if (here := action_of(space, "this environment")) != self.agent.spec.action:
            raise ConfigError(f"the agent's actions are {self.agent.spec.action!r}, this environment's {here!r}.")


def _act(policy: Any, key: Any, carry: Any, obs: Any, start: Any, explore: bool) -> tuple[Any, Any, Any]:
    """An action, the memory after it, and the next key."""
    key, now = jax.random.split(key)
    out = policy.act(now, carry, obs, start, explore=explore)
    return out.action, out.carry, key
