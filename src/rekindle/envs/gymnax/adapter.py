"""Worlds of gymnax as ours: in the graph, with time limits apart from ends.

Needs the extra: `pip install -e '.[gym]'`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int16, Key

from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.core.spaces import Box, Discrete, Space
from rekindle.core.types import EnvSpec, Obs, TimeStep
from rekindle.envs.registry import Made
from rekindle.envs.wrappers import Sticky

try:
    import gymnax
    from gymnax.environments import spaces
except ImportError as error:
    raise ConfigError("gymnax is not installed; pip install -e '.[gym]'.") from error

STICKY = 0.1
"""How probable it is that MinAtar repeats the last action (Young and Tian 2019, 1903.03176)."""
ArrayLike = Array | np.ndarray


class Task(NamedTuple):
    """One episode of a gymnax world."""

    trials: Int16[ArrayLike, ""]
    """Always 1: the world knows nothing of trials."""
    trial_length: Int16[ArrayLike, ""]
    """Its time limit in steps."""
    params: Any
    """Its own parameters."""


@dataclass(frozen=True)
class Gymnax:
    """A gymnax world.

    Observation: `obs`; MinAtar's planes as bytes 0 and 1. Action: an integer, or numbers in [-1, 1] that are spread
    over the world's own bounds. Ends: `terminated` is the world's own; `truncated` is its limit of steps, where nothing
    terminated. State: gymnax's. Params: a `Task`.
    """

    spec: EnvSpec
    """What gymnax says of its spaces."""
    env: Any
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None
    """The world's own lowest and highest, of actions that are numbers."""

    def reset(self, key: Key[Array, ""], params: Task) -> tuple[Any, TimeStep]:
        """The start of an episode."""
        with _lenient():
            obs, state = self.env.reset_env(key, self._limited(params))
        no, shown = jnp.zeros((), bool), self._shown(obs)
        return self._typed(state, params), TimeStep(shown, jnp.float32(0), no, no, no, shown, {})

    def step(self, key: Key[Array, ""], state: Any, action: Array, params: Task) -> tuple[Any, TimeStep]:
        """One step."""
        limited = self._limited(params)
        with _lenient():
            obs, state, reward, terminated, _ = self.env.step_env(key, state, self._meant(action), limited)
            cut = self.env.is_truncated(state, limited)
        terminated = jnp.asarray(terminated, bool)
        truncated = jnp.asarray(cut, bool) & ~terminated
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        shown = self._shown(obs)
        over = terminated | truncated
        return self._typed(state, params), TimeStep(shown, reward, terminated, truncated, over, shown, {})

    def _limited(self, params: Task) -> Any:
        return params.params.replace(max_steps_in_episode=jnp.asarray(params.trial_length).astype(jnp.int32))

    def _shown(self, obs: Array) -> Obs:
        space = self.spec.obs["obs"]
        assert isinstance(space, Box | Discrete)
        return {"obs": jnp.asarray(obs).astype(space.dtype).reshape(space.shape)}

    def _meant(self, action: Array) -> Array:
        if self.bounds is None:
            return action
        low, high = (jnp.asarray(bound).reshape(action.shape) for bound in self.bounds)
        return low + (action + 1.0) / 2.0 * (high - low)

    def _typed(self, state: Any, params: Task) -> Any:
        """Arrays of the types that a step returns, so that a loop can carry them."""
        with _lenient():
            like = jax.eval_shape(
                lambda: self.env.step_env(jax.random.key(0), state, self._meant(_zeros(self.spec.action)),
                                          self._limited(params))[1]
            )  # fmt: skip
        return jax.tree.map(lambda x, y: jnp.asarray(x).astype(y.dtype).reshape(y.shape), state, like)


def make(id: str, *, sticky: float = 0.0) -> Made:
    """A world that is registered with gymnax, as `gymnax/ID`.

    Args:
        id: with the prefix.
        sticky: how probable it is that the last action is repeated instead of the new one.

    Raises:
        ConfigError: gymnax has no such world, or one whose spaces ours cannot say.
    """
    name = id.partition("/")[2]
    if name not in gymnax.registered_envs:
        raise ConfigError(f"gymnax has no world {name!r}; {did_you_mean(name, gymnax.registered_envs)}")
    number = name.rpartition("-v")[2]
    return _made(id, int(number) if number.isdigit() else 0, name, sticky)


def make_minatar(id: str, *, sticky: float = STICKY) -> Made:
    """A game of MinAtar, as `minatar/breakout-v1`."""
    words = id.partition("/")[2].removesuffix("-v1").split("-")
    return _made(id, 1, "".join(word.capitalize() for word in words) + "-MinAtar", sticky)


def _made(id: str, version: int, name: str, sticky: float) -> Made:
    if not 0.0 <= sticky < 1.0:
        raise ConfigError(f"the option sticky of {id} takes a number from 0 to below 1; got {sticky!r}.")
    try:
        env, params = gymnax.make(name)
    except OSError as error:
        raise ConfigError(f"gymnax cannot make {name}: {error}. It fetches data from the network.") from error
    seen, action, bounds = _space(env.observation_space(params), id), _space(env.action_space(params), id), None
    if isinstance(seen, Box) and name.endswith("-MinAtar"):  # planes of ones and zeros
        seen = Box(seen.shape, 0, 1, "uint8")
    if isinstance(action, Box):
        own = env.action_space(params)
        low, high = (np.broadcast_to(bound, action.shape).ravel().tolist() for bound in (own.low, own.high))
        action, bounds = Box(action.shape, -1.0, 1.0), (tuple(low), tuple(high))
    world = Gymnax(EnvSpec(id, version, {"obs": seen}, action), env, bounds)
    limit = int(params.max_steps_in_episode)

    def pool(*, split: Literal["train", "test"] = "train", seed: int = 0) -> Task:
        """All there is: nothing is held out."""
        del split, seed
        return Task(np.asarray(1, np.int16), np.asarray(limit, np.int16), jax.tree.map(np.asarray, params))

    def draw(key: Key[Array, ""], pool: Task, *, min_trials: int = 1, max_trials: int = 1) -> Task:
        """The world as it is."""
        del key, min_trials, max_trials
        return pool

    return Made(Sticky(world, sticky) if sticky else world, pool, draw, 1)


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """Gymnax mixes types and ranks of arrays, which JAX can be told to forbid."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _space(space: Any, id: str) -> Space:
    match space:
        case spaces.Discrete():
            return Discrete(int(space.n))
        case spaces.Box():
            shape = tuple(int(n) for n in np.atleast_1d(space.shape)) if space.shape != () else ()
            whole = np.issubdtype(np.dtype(space.dtype), np.integer)
            return Box(shape, float(np.min(space.low)), float(np.max(space.high)), "int32" if whole else "float32")
        case _:
            raise ConfigError(f"{id} has the space {space!r}; known are gymnax's Discrete and Box.")


def _zeros(space: Space) -> Array:
    return jnp.zeros(getattr(space, "shape", ()), getattr(space, "dtype", "float32"))
