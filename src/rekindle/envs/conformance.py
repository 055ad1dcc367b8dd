"""Checks that every environment must pass, for the worlds of this package and of others."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from rekindle.core.errors import EnvContractError
from rekindle.core.spaces import Box, Discrete, Image, MultiDiscrete, Space
from rekindle.core.types import EnvSpec, TimeStep
from rekindle.envs.base import Env
from rekindle.envs.registry import Made
from rekindle.envs.wrappers import Trials

TRIAL_INPUTS = ("prev_action", "prev_reward", "trial")
"""What `wrappers.Trials` adds; the rest of an observation comes from the world itself."""


class Walk(NamedTuple):
    """Random walks of several rows, as NumPy, time-major: step 0 is the reset."""

    steps: Any
    """A `TimeStep` of NumPy arrays."""
    finite: np.ndarray
    """Whether state, observation and reward were free of NaN and infinity. [T, B]."""

    def alive(self) -> np.ndarray:
        """Steps of the first episode, its last one included. [T, B]."""
        ended = self.steps.terminated | self.steps.truncated
        before = np.cumsum(ended, axis=0) - ended
        return before == 0


def check_env(made: Made, params: PyTree, *, rows: int = 6, seed: int = 0, max_steps: int = 400) -> None:
    """Hold an environment to its contract on random walks through tasks drawn from `params`, a source of tasks.

    Checked: what the spec promises holds at every step; nothing is NaN or infinite; same key, same result; one compiled
    program serves all tasks; rows of a batch do not touch each other; a time limit is not a termination; `final_obs`
    is the last observation of what ended; k trials make an episode that terminates with the k-th.

    Args:
        made: the environment with its trials, as `registry.make` returns it.
        params: what `made.draw` draws tasks from, as `made.pool(...)` returns it.
        rows: tasks that are walked side by side.
        seed: of tasks, resets and actions.
        max_steps: of each walk; longer episodes are checked up to there.

    Raises:
        EnvContractError: names the first thing that was broken, the step, and the likely cause.
    """
    spec = made.spec
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), rows)
    source = jax.tree.map(jnp.asarray, params)
    tasks = jax.jit(jax.vmap(made.draw, in_axes=(0, None)))(keys, source)
    limit = np.asarray(tasks.trials, int) * np.asarray(tasks.trial_length, int)
    length = int(min(max_steps, limit.max()))
    _same_types(made.env, tasks)
    walker = _Walker(made.env, length, seed)
    walk = walker(tasks)
    _spec_holds(spec, walk)
    (_trials_hold if isinstance(made.env, Trials) else _episodes_hold)(spec, tasks, walk)
    _final_obs_holds(spec, walk, walker(tasks._replace(trial_length=tasks.trial_length + 1)))
    _limits_hold(made, length, seed, tasks)
    _rows_hold(spec, walker, tasks, walk)
    again = _Walker(made.env, length, seed)(tasks)
    same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (walk.steps, again.steps)), strict=True))
    _need(same, spec, "traced again, the same keys give another result: it keeps state of its own, outside `state`")


class _Walker:
    """Walks rows at random: one compiled program for all tasks; row i always has the same keys and actions."""

    def __init__(self, env: Env, length: int, seed: int):
        self.env, self.length, self.seed = env, length, seed
        self.program = jax.jit(self._walk)

    def __call__(self, tasks: PyTree) -> Walk:
        try:
            return Walk(*jax.device_get(self.program(tasks)))
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError) as error:
            raise EnvContractError(
                f"{self.env.spec.id}: it looks at values in Python, so that it cannot be compiled once for all tasks; "
                f"use jnp.where or lax.cond: {str(error).partition(chr(10))[0]}"
            ) from error

    def _walk(self, tasks: PyTree) -> tuple[TimeStep, Array]:
        reset_key, action_key, step_key = jax.random.split(jax.random.key(self.seed), 3)
        rows = tasks.trials.shape[0]
        state, first = jax.vmap(self.env.reset)(jax.random.split(reset_key, rows), tasks)

        def step(state: Any, now: tuple[Array, Array]) -> tuple[Any, tuple]:
            state, seen = jax.vmap(self.env.step)(now[0], state, now[1], tasks)
            return state, (seen, _finite((state, seen.obs, seen.reward)))

        keys = jax.random.split(step_key, (self.length, rows))
        _, rest = jax.lax.scan(step, state, (keys, _actions(self.env.spec, action_key, (self.length, rows))))
        begin = (first, _finite((state, first.obs, first.reward)))
        return jax.tree.map(lambda one, many: jnp.concatenate([one[None], many]), begin, rest)


def _actions(spec: EnvSpec, key: Array, axes: tuple[int, ...]) -> Array:
    players = () if spec.players == 1 else (spec.players,)
    if isinstance(spec.action, Box):
        return jax.random.uniform(key, (*axes, *players, *spec.action.shape), minval=-1.0)
    assert isinstance(spec.action, Discrete)
    return jax.random.randint(key, (*axes, *players), 0, spec.action.n, jnp.int32)


def _finite(tree: PyTree) -> Array:
    """Row by row."""
    numbers = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    good = [jnp.isfinite(x).reshape(x.shape[0], -1).all(axis=1) for x in numbers]
    return jnp.stack(good).all(axis=0)


def _same_types(env: Env, tasks: PyTree) -> None:
    """A step returns what a reset returned: the same tree of the same shapes and dtypes."""
    task = jax.tree.map(lambda x: x[0], tasks)

    def both() -> tuple:
        state, first = env.reset(jax.random.key(0), task)
        return (state, first), env.step(jax.random.key(1), state, _actions(env.spec, jax.random.key(2), ()), task)

    try:
        reset, step = jax.eval_shape(both)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError):
        return  # the walk says so with its cause
    here, there = (jax.tree_util.tree_leaves_with_path(x) for x in (reset, step))
    _need(jax.tree.structure(reset) == jax.tree.structure(step), env.spec, "a step returns another tree than a reset: "
          "all fields of the state and all keys of `obs` and `metrics` must always be there")  # fmt: skip
    for (path, a), (_, b) in zip(here, there, strict=True):
        name = jax.tree_util.keystr(path[1:])
        what = f"{'the state' if path[0].idx == 0 else 'the time step'}'s {name}"
        same = (a.shape, a.dtype) == (b.shape, b.dtype)
        _need(same, env.spec, f"{what} is {_type(a)} after a reset and {_type(b)} after a step; cast it")


def _type(x: Any, axes: int = 0) -> str:
    return f"{x.dtype}{list(x.shape[axes:])}"


def _spec_holds(spec: EnvSpec, walk: Walk) -> None:
    alive, seen = walk.alive(), walk.steps
    for which, obs in (("obs", seen.obs), ("final_obs", seen.final_obs)):
        _need(set(obs) == set(spec.obs), spec, f"{which} has {sorted(obs)}, the spec promises {sorted(spec.obs)}")
        for name, space in spec.obs.items():
            _space_holds(spec, f"{which}[{name!r}]", space, obs[name], alive)
    axes = () if spec.players == 1 else (spec.players,)
    kinds = {"reward": ("float32", axes)} | {name: ("bool", ()) for name in ("terminated", "truncated", "trial_end")}
    for name, (dtype, shape) in kinds.items():
        value = getattr(seen, name)
        right = value.shape[2:] == shape and value.dtype == dtype
        _need(right, spec, f"{name} is {_type(value, 2)}, expected {dtype}{list(shape)}")
        _need(not value[0].any(), spec, f"{name} is set after a reset, where nothing has happened yet")
    _at(walk.finite | ~alive, spec, "NaN or infinity in state, observation or reward: look for a division by zero")


def _space_holds(spec: EnvSpec, name: str, space: Space, value: np.ndarray, alive: np.ndarray) -> None:
    assert isinstance(space, Box | Discrete | MultiDiscrete | Image)
    right = value.shape[2:] == space.shape and value.dtype == space.dtype
    _need(right, spec, f"{name} is {_type(value, 2)}, the spec promises {space.dtype}{list(space.shape)}")
    match space:
        case Box(low=low, high=high):
            pass
        case MultiDiscrete(nvec=nvec):
            low, high = 0, np.asarray(nvec) - 1
        case Discrete(n=n):
            low, high = 0, n - 1
        case _:
            low, high = 0, 255
    inside = (value >= low) & (value <= high) | ~np.isfinite(value)
    _at(_rowwise(inside) | ~alive, spec, f"{name} is outside the bounds that the spec promises, {space!r}")


def _trials_hold(spec: EnvSpec, tasks: PyTree, walk: Walk) -> None:
    """An episode is k trials of at most T steps; only the k-th terminates."""
    alive, seen = walk.alive(), walk.steps
    trials, limit = np.asarray(tasks.trials, int), np.asarray(tasks.trial_length, int)
    for row in range(alive.shape[1]):
        ends, terminated, cut = (
            np.flatnonzero(flag[:, row] & alive[:, row]) for flag in (seen.trial_end, seen.terminated, seen.truncated)
        )
        message = "the agent is told its horizon: the last trial ends with `terminated`, others with `trial_end` alone"
        _need(not cut.size, spec, f"truncated at step {cut.tolist()}; {message}")
        longest = np.diff(np.append(ends, alive[:, row].sum() - 1), prepend=0).max()
        _need(longest <= limit[row], spec, f"a trial of {longest} steps ignores its limit, trial_length = {limit[row]}")
        expected = ends[trials[row] - 1 : trials[row]].tolist()
        message = f"an episode terminates at the end of trial {trials[row]} (params.trials) and nowhere else"
        _need(terminated.tolist() == expected, spec, f"terminated at {terminated.tolist()}, not {expected}; {message}")


def _episodes_hold(spec: EnvSpec, tasks: PyTree, walk: Walk) -> None:
    """Without trials: an episode ends once, and its time limit, which the agent is not told, is `truncated` only."""
    alive, seen = walk.alive(), walk.steps
    both = seen.terminated & seen.truncated
    _at(~both | ~alive, spec, "it is `terminated` and `truncated` at once; what terminated has no time limit any more")
    ended = seen.terminated | seen.truncated
    _at((seen.trial_end == ended) | ~alive, spec, "`trial_end` must be set where the episode ends, and only there")
    steps, limit = np.arange(len(alive))[:, None], np.asarray(tasks.trial_length, int)[None]
    _at((steps <= limit) | ~alive, spec, "the episode ignores its limit, params.trial_length")
    _at(~seen.truncated | (steps >= limit) | ~alive, spec, "it is `truncated` before its limit, params.trial_length")


def _final_obs_holds(spec: EnvSpec, walk: Walk, longer: Walk) -> None:
    """At the end of a first trial, compare with a walk whose limit is a step longer; elsewhere, with `obs`."""
    seen, on = walk.steps, longer.steps
    first = np.cumsum(seen.trial_end, axis=0) == seen.trial_end
    for name in spec.obs:
        same = _rowwise(seen.obs[name] == seen.final_obs[name]) | seen.trial_end | ~walk.alive()
        _at(same, spec, f"final_obs[{name!r}] differs from `obs` where nothing ended")
        if name not in TRIAL_INPUTS:
            same = _rowwise(seen.final_obs[name] == on.final_obs[name]) | ~first
            message = "is not the last observation of the trial that ended; is it the first of the next one?"
            _at(same, spec, f"final_obs[{name!r}] {message}")


def _limits_hold(made: Made, length: int, seed: int, tasks: PyTree) -> None:
    """The world inside the trials must say `truncated` where its clock ran out, not `terminated`."""
    walker = _Walker(made.env.env if isinstance(made.env, Trials) else made.env, length, seed)
    short, longer = walker(tasks), walker(tasks._replace(trial_length=tasks.trial_length + 1))
    moved = short.steps.terminated & ~longer.steps.terminated & short.alive() & longer.alive()
    message = "with one step more it does not. A time limit is `truncated`; else what follows is learnt to be worthless"
    _at(~moved, made.spec, f"it says `terminated` because its time was up: {message}")


def _rows_hold(spec: EnvSpec, walker: "_Walker", tasks: PyTree, walk: Walk) -> None:
    """Row 0 does the same when the other rows are given its task."""
    alone = walker(jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), tasks))
    pairs = zip(jax.tree.leaves(walk.steps), jax.tree.leaves(alone.steps), strict=True)
    same = all(np.array_equal(a[:, 0], b[:, 0], equal_nan=True) for a, b in pairs)
    message = "rows leak; look for sums or maxima over the batch in code with its own batching rule"
    _need(same, spec, f"a row does something else when only the other rows' tasks change: {message}")


def _rowwise(flags: np.ndarray) -> np.ndarray:
    """[T, B, ...] to [T, B]."""
    return np.all(flags.reshape(*flags.shape[:2], -1), axis=-1)


def _at(good: np.ndarray, spec: EnvSpec, message: str) -> None:
    """Demand truth at every step of every row."""
    if not good.all():
        step, row = np.argwhere(~good)[0].tolist()
        raise EnvContractError(f"{spec.id}, step {step} of row {row}: {message}.")


def _need(holds: bool | np.bool_, spec: EnvSpec, message: str) -> None:
    if not holds:
        raise EnvContractError(f"{spec.id}: {message}.")
