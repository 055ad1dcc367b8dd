"""To and from Gymnasium, at the edge: our worlds as `gymnasium.Env`, and foreign worlds as host environments.

Needs the extra: `pip install rekindle[gym]`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rekindle.core.errors import ConfigError
from rekindle.core.types import EnvSpec
from rekindle.envs import registry
from rekindle.envs.gymnasium_spaces import from_space, to_space
from rekindle.envs.registry import Made

try:
    import gymnasium
    from gymnasium import spaces
except ImportError as error:
    raise ConfigError("Gymnasium is not installed; pip install rekindle[gym].") from error


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


class HostStep(NamedTuple):
    """A step of a host environment, in NumPy; the words are those of `TimeStep`."""

    obs: dict[str, np.ndarray]
    reward: float
    terminated: bool
    truncated: bool


class HostEnv:
    """A Gymnasium environment with our spec: what one Python process steps, one world at a time.

    An observation that is no dictionary is called `obs`. It does not reset by itself.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], id: str):
        inner = env.observation_space
        shown = inner.spaces if isinstance(inner, spaces.Dict) else {"obs": inner}
        self._env = env
        name, _, version = id.rpartition("-v")
        self.spec = EnvSpec(
            f"gymnasium/{id}",
            int(version) if name and version.isdigit() else 0,
            {key: from_space(space, id) for key, space in shown.items()},
            from_space(env.action_space, id),
            kind="host",
        )

    def reset(self, seed: int | None = None) -> HostStep:
        """The start of an episode."""
        obs, _ = self._env.reset(seed=seed)
        return HostStep(self._named(obs), 0.0, False, False)

    def step(self, action: Any) -> HostStep:
        """One step; after an episode's end, call `reset`."""
        obs, reward, terminated, truncated, _ = self._env.step(np.asarray(action)[()])
        return HostStep(self._named(obs), float(reward), bool(terminated), bool(truncated))

    def close(self) -> None:
        """Let go of windows and files."""
        self._env.close()

    def _named(self, obs: Any) -> dict[str, np.ndarray]:
        named = obs if isinstance(obs, dict) else {"obs": obs}
        return {name: np.asarray(x, getattr(self.spec.obs[name], "dtype", None)) for name, x in named.items()}


def from_gymnasium(id: str, **options: Any) -> HostEnv:
    """A registered Gymnasium environment, `options` going to `gymnasium.make`.

    Raises:
        ConfigError: there is none of that name, or it shows or takes what our spaces cannot say.
    """
    try:
        env = gymnasium.make(id, **options)
    except gymnasium.error.Error as error:
        raise ConfigError(f"Gymnasium cannot make {id!r}: {error}") from error
    return HostEnv(env, id)


def _to_numpy(tree: Any) -> dict[str, Any]:
    return {name: np.asarray(x)[()] for name, x in tree.items()}
