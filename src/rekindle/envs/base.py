"""The contract of a JAX environment (docs/design: JAX environment)."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Key, PyTree

from rekindle.core.types import EnvSpec, TimeStep

Params = PyTree


@runtime_checkable
class Env(Protocol):
    """Pure functions over explicit state. The task is inside `params`; the environment object holds only static sizes.

    Neither function resets by itself at an episode's end: that is what `wrappers.AutoReset` is for.
    """

    @property
    def spec(self) -> EnvSpec:
        """What this environment shows and takes."""
        ...

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[Any, TimeStep]:
        """The start of an episode of the task in `params`; reward 0, all flags False."""
        ...

    def step(self, key: Key[Array, ""], state: Any, action: Array, params: Params) -> tuple[Any, TimeStep]:
        """One step; after an episode's end the result is undefined until `reset`."""
        ...
