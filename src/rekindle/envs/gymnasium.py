"""To and from Gymnasium, at the edge: our worlds as `gymnasium.Env`, and foreign worlds as host environments.

Needs the extra: `pip install -e '.[gym]'`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rekindle.core.errors import ConfigError
from rekindle.envs import registry
from rekindle.envs.gymnasium_spaces import to_space
from rekindle.envs.host.worlds import HostWorlds
from rekindle.envs.registry import Made

try:
    import gymnasium
    from gymnasium import spaces
except ImportError as error:
    raise ConfigError("Gymnasium is not installed; pip install -e '.[gym]'.") from error


def to_gymnasium(world: str | Made, seed: int = 0, **options: Any) -> "GymnasiumEnv":
    """One of our worlds as a Gymnasium environment; an episode is k trials of a task that `reset` draws.

    `options` go to `registry.make`. It does not reset by itself; for many worlds side by side, use the JAX environment.

    Raises:
        ConfigError: the world has more than one player.
    """
    made = registry.make(world, **options) if isinstance(world, str) else world
    if made.spec.players != 1:
        raise ConfigError(
            f"Gymnasium's worlds have one player; {made.spec.id} has {made.spec.players}. Use the JAX environment that "
            "rekindle.envs.registry.make returns."
        )
    return GymnasiumEnv(made, seed)


class GymnasiumEnv(gymnasium.Env[dict[str, Any], Any]):
    """Jitted steps of one world; `info` has `trial_end` and the world's metrics."""

    def __init__(self, made: Made, seed: int):
        self.metadata = {"render_modes": []}
        self.observation_space = spaces.Dict({name: to_space(s) for name, s in made.spec.obs.items()})
        self.action_space = to_space(made.spec.action)
        self._pool = jax.tree.map(jnp.asarray, made.pool(split="train", seed=seed))
        self._key = jax.random.key(seed)
        self._draw, self._reset, self._step = jax.jit(made.draw), jax.jit(made.env.reset), jax.jit(made.env.step)
        self._state = self._task = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """Draw a task and start its first trial; a seed makes all that follows reproducible."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._key = jax.random.key(seed)
        self._task = self._draw(self._next_key(), self._pool)
        self._state, first = self._reset(self._next_key(), self._task)
        return _to_numpy(first.obs), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One step; after an episode's end, call `reset`."""
        if self._state is None:
            raise ConfigError("step was called before reset; call reset first.")
        action = jnp.asarray(action, self.action_space.dtype)
        self._state, now = self._step(self._next_key(), self._state, action, self._task)
        info = {"trial_end": bool(now.trial_end), **_to_numpy(now.metrics)}
        return (
            _to_numpy(now.final_obs if now.terminated else now.obs),
            float(now.reward),
            bool(now.terminated),
            bool(now.truncated),
            info,
        )

    def _next_key(self) -> jax.Array:
        self._key, key = jax.random.split(self._key)
        return key


def from_gymnasium(id: str, rows: int = 1, **options: Any) -> HostWorlds:
    """So many worlds of a registered Gymnasium environment, `options` going to `gymnasium.make`.

    Raises:
        ConfigError: there is none of that name, or it shows or takes what our spaces cannot say.
    """
    return registry.host(id if registry.is_hosted(id) else f"gymnasium/{id}", **options).open(rows)


def _to_numpy(tree: Any) -> dict[str, Any]:
    return {name: np.asarray(x)[()] for name, x in tree.items()}
