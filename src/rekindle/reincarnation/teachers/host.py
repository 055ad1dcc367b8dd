"""Teachers that are asked outside the compiled program: ONNX files, functions, what Stable-Baselines3 itself loads."""

import logging
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, PyTree

from rekindle.core.errors import CheckpointError, ConfigError, in_a_line
from rekindle.core.exploration import greedy
from rekindle.core.extras import from_here, optional
from rekindle.core.memoryless import Memoryless
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import ActOutput, Extras, Obs
from rekindle.reincarnation.phases import OutputKind

Scores = Callable[[dict[str, np.ndarray]], np.ndarray]
"""From a batch of observations to a number for each action, `[B, A]`, or to actions, `[B]`; where actions are vectors,
to these, `[B, D]`, as worlds here take them: from -1 to 1."""
SLACK = 1e-3
"""By which numbers of a vector may lie outside, from rounding."""
SURE = 0.99
"""Probability of the action of a teacher that says nothing but actions."""


class HostTeacher(Memoryless):
    """Asks a function in Python for every batch; slower than a policy inside the program, and not portable."""

    scores: Scores = eqx.field(static=True)
    size: int = eqx.field(static=True)
    """Numbers that it says of an observation."""
    says: OutputKind = eqx.field(static=True)
    what: str = eqx.field(static=True)
    """Its name, for those who have to mend it."""
    reach: float = eqx.field(static=True, default=1.0)
    """The largest number of a vector that the world takes: what the function calls 1. What is larger is cut off."""

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """The best action."""
        del key, start, explore
        rows = next(iter(obs.values())).shape[0]
        form = jax.ShapeDtypeStruct((rows, self.size), jnp.float32)
        said = jax.pure_callback(self._ask, form, obs, vmap_method="sequential")
        if self.says == "actions":
            mean = jnp.clip(said, -1.0, 1.0)
            return ActOutput(mean * self.reach, carry, Extras(mean=mean))
        extras = Extras(q=said) if self.says == "values" else Extras(logits=said)
        return ActOutput(greedy(said), carry, extras)

    def _ask(self, obs: Obs) -> np.ndarray:
        try:
            said = answered(self.scores, obs, self.size, choices=self.says != "actions", what=self.what)
        except ConfigError as error:
            _failures.append(error)
            raise
        if said.ndim == 1:  # nothing but choices
            other = (1.0 - SURE) / max(self.size - 1, 1)
            said = np.log(np.where(np.arange(self.size) == said[:, None], SURE, other))
        return said.astype(np.float32)


_failures: list[ConfigError] = []
"""Of teachers in the middle of a program, which can only say that one of its calls failed."""


@contextmanager
def failures_named() -> Iterator[None]:
    """Where a teacher fails in the middle of a program, its own error in place of the runtime's.

    Raises:
        ConfigError: the teacher raised an error, or answered with something else than it has to.
    """
    _failures.clear()
    loud = logging.getLogger("jax._src.callback")  # it would print the traceback as well
    before, loud.disabled = loud.disabled, True
    try:
        yield
    except Exception:  # the runtime's errors are of several types
        if _failures:
            raise _failures[0] from None
        raise
    finally:
        loud.disabled = before


def answered(scores: Scores, obs: Mapping[str, Any], size: int, *, choices: bool, what: str) -> np.ndarray:
    """What a teacher answers to a batch, `[B, size]`, or where there are choices perhaps `[B]`.

    Raises:
        ConfigError: it fails, or answers with something else.
    """
    try:
        said = np.asarray(scores({name: np.asarray(x) for name, x in obs.items()}))
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{at.filename}, line {at.lineno}"
        raise ConfigError(
            f"the teacher {what} fails on a batch of observations: {in_a_line(error)} ({where})."
        ) from error
    rows = next(iter(obs.values())).shape[0]
    forms = ((rows,), (rows, size)) if choices else ((rows, size),)
    if said.shape not in forms or said.dtype.kind not in "iufb" or not np.isfinite(said).all():
        other = f" or [{rows}] actions" if choices else ""
        odd = " with some that are not finite" if said.shape in forms and said.dtype.kind == "f" else ""
        raise ConfigError(
            f"the teacher {what} has to answer {rows} observations with [{rows}, {size}] finite numbers{other}; got "
            f"{said.dtype}{list(said.shape)}{odd}."
        )
    if said.shape == (rows,):
        numbers = said.astype(np.float64)
        wrong = numbers[(numbers != np.floor(numbers)) | (numbers < 0) | (numbers >= size)]
        if wrong.size:
            raise ConfigError(f"the teacher {what} says action {wrong[0]:g}; the world has actions 0 to {size - 1}.")
    return said


def checked(
    scores: Scores, obs: dict[str, np.ndarray], space: Discrete | Box, *, valued: bool, what: str
) -> HostTeacher:
    """A teacher whose answer to one batch was looked at.

    Raises:
        ConfigError: it fails, or says something else than a number for each action, or an action, for every row.
    """
    size = space.n if isinstance(space, Discrete) else math.prod(space.shape)
    said = answered(scores, obs, size, choices=isinstance(space, Discrete), what=what)
    if isinstance(space, Box):
        if valued:
            raise ConfigError(f"--valued is for teachers that say a number for each action; {what} says vectors.")
        if np.abs(said).max() > 1.0 + SLACK:
            raise ConfigError(
                f"the teacher {what} says {np.abs(said).max():g}; the numbers of a vector lie from -1, the world's "
                "least, to 1, its largest."
            )
        return HostTeacher(scores, size, "actions", what, space.high)
    return HostTeacher(scores, size, "values" if valued and said.ndim == 2 else "logits", what)


def from_name(place: str) -> Scores:
    """The function `module:attr`. The module is imported, which executes it: name only what you trust.

    Raises:
        ConfigError: there is no such module or function.
    """
    module, _, attribute = place.partition(":")
    from_here()
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"no teacher {place!r}: {error}. It takes module:function, importable from here.") from error
    if not callable(found):
        raise ConfigError(f"{place} is no function, but {type(found).__name__}.")
    return lambda obs: np.asarray(found(obs))


def from_onnx(path: Path) -> Scores:
    """A network in ONNX's form with one input, a batch of observations, whose first output is what teachers say.

    Raises:
        ConfigError: onnxruntime is not installed.
        CheckpointError: the file cannot be read.
    """
    onnxruntime = optional("onnxruntime", what=f"reading {path}", extra="teachers")
    try:
        session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CheckpointError(f"{path} is no file of ONNX, or it is damaged ({str(error)[:120]}).") from None
    wanted = session.get_inputs()
    if len(wanted) != 1:
        raise ConfigError(f"{path} takes {len(wanted)} inputs; a teacher takes one, the observations.")
    kind = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(uint8)": np.uint8,
            "tensor(int64)": np.int64}.get(wanted[0].type, np.float32)  # fmt: skip

    def scores(obs: dict[str, np.ndarray]) -> np.ndarray:
        (seen,) = obs.values()
        return session.run(None, {wanted[0].name: seen.astype(kind)})[0]

    return scores


def _predicted(model: Any, obs: dict[str, np.ndarray]) -> np.ndarray:
    """What a model does; vectors are brought from its world's bounds to [-1, 1]."""
    action, space = model.predict(next(iter(obs.values())), deterministic=True)[0], model.action_space
    return 2.0 * (action - space.low) / (space.high - space.low) - 1.0 if hasattr(space, "low") else action


def from_stable_baselines(path: Path) -> Scores:
    """What Stable-Baselines3's own loader makes of a file. It executes what is in it: name only what you trust.

    Raises:
        ConfigError: it is not installed, or cannot load the file.
    """
    baselines = optional("stable_baselines3", what=f"loading {path}", extra="teachers")
    problems = []
    for algorithm in (baselines.DQN, baselines.PPO, baselines.A2C, baselines.TD3, baselines.SAC, baselines.DDPG):
        try:
            model: Any = algorithm.load(path, device="cpu")
        except Exception as error:
            problems.append(f"{algorithm.__name__}: {str(error)[:80]}")
            continue
        return partial(_predicted, model)
    raise ConfigError(f"Stable-Baselines3 cannot load {path} ({'; '.join(problems)}).")
