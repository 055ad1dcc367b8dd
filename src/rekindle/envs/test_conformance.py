from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_batching import custom_vmap

from rekindle.core.errors import EnvContractError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec, TimeStep
from rekindle.envs import registry
from rekindle.envs.conformance import check_env
from rekindle.envs.probe.probe import Task
from rekindle.envs.registry import Made
from rekindle.envs.wrappers import Trials

CHEAP = {"xland": {"worlds": 4, "games": 8}, "probe": {}, "minigrid": {"count": 8, "trial_length": 20}, "minatar": {}}
SHIPPED = ("xland/f0t-v1",)
SAME = {f"xland/doors-{n}-v1" for n in range(3, 9)} | {
    f"xland/{name}-v1" for name in ("f0", "f0-visible", "f0-diluted", "f1", "c2-f1")
} | {f"minigrid/x-{name}-v1" for name in ("trivial", "high")}  # fmt: skip
SAME |= {id for id in registry.ids() if id.startswith("xland/probe-")}
SAME |= {f"probe/{name}-v1" for name in ("delay", "wages", "choice")}
"""Other worlds and games for the programs of doors-2, f0t, c2, x-small, x-medium and chain; left out to save time."""


@pytest.mark.parametrize("id", sorted(registry.ids().keys() - SAME))
def test_conforms(id):
    made = registry.make(id, **({} if id in SHIPPED else CHEAP[id.partition("/")[0]]))
    check_env(made, made.pool(split="train", seed=0), rows=4, max_steps=60)


@dataclass(frozen=True)
class Counter:
    """A world that counts its steps; `fault` breaks it in one way."""

    fault: str = ""

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("test/counter", 1, {"count": Box((2,), 0, 100), "kind": Discrete(2)}, Discrete(2))

    def reset(self, key, params):
        start = jax.random.uniform(key, maxval=10.0)
        return self._show((start, jnp.int32(0)), jnp.float32(0), params)

    def step(self, key, state, action, params):
        del key
        count, time = state[0] + action.astype(jnp.float32), state[1] + 1
        if self.fault == "python" and params.trials > 1:
            count = count + 1
        if self.fault == "remembers":
            CALLS.append(0)
            count = count + len(CALLS)
        if self.fault == "leaks":
            count = _shared(count, params.trials.astype(jnp.float32))
        return self._show((count, time), count, params)

    def _show(self, state: Any, reward: jax.Array, params: Task) -> tuple:
        count, time = state
        shown = jnp.stack([count, count]) if self.fault != "shape" else count[None]
        if self.fault == "bounds":
            shown = -1 - shown
        if self.fault == "nan":
            shown = shown / jnp.where(time == 3, 0.0, 1.0) * jnp.where(time == 3, 0.0, 1.0)
        kind = (time % 2).astype(jnp.int8 if self.fault == "dtype" else jnp.int32)
        obs = {"count": shown, "kind": kind}
        if self.fault == "missing":
            del obs["kind"]
        over = time >= params.trial_length.astype(jnp.int32)
        flags = (over, jnp.zeros((), bool)) if self.fault == "limit" else (jnp.zeros((), bool), over)
        if self.fault == "starts ended":
            flags = (jnp.zeros((), bool), jnp.ones((), bool))
        return state, TimeStep(obs, reward, *flags, over, obs, {})


CALLS: list[int] = []


@custom_vmap
def _shared(x, y):
    return x + 0 * y


@_shared.def_vmap
def _leak(size, batched, x, y):
    del size, batched
    return x + y.sum(), True


@dataclass(frozen=True)
class BrokenTrials(Trials):
    """Trials that break one of their own promises."""

    fault: str = ""

    def step(self, key, state, action, params):
        state, now = super().step(key, state, action, params)
        match self.fault:
            case "retyped":
                state = state._replace(trial=state.trial.astype(jnp.int16))
            case "final_obs":
                now = now._replace(final_obs=now.obs)
            case "stale":
                now = now._replace(final_obs=jax.tree.map(jnp.zeros_like, now.final_obs))
            case "every trial terminates":
                now = now._replace(terminated=now.trial_end)
            case "never terminates":
                now = now._replace(terminated=jnp.zeros((), bool))
            case "truncates":
                now = now._replace(terminated=jnp.zeros((), bool), truncated=now.terminated)
            case "no limit":
                now = now._replace(trial_end=now.terminated)
        return state, now


def draw(key, pool, *, min_trials=1, max_trials=3):
    return pool._replace(trials=jax.random.randint(key, (), min_trials, max_trials + 1).astype(jnp.int16))


POOL = Task(np.int16(1), np.int16(5), np.asarray(False))


def check(env: Trials) -> None:
    check_env(Made(env, lambda **_: POOL, partial(draw, min_trials=2), 3), jax.tree.map(np.asarray, POOL))


def test_the_unbroken_world_passes():
    check(Trials(Counter()))
    check(BrokenTrials(Counter()))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", r"obs\['count'\] is float32\[1\], the spec promises float32\[2\]"),
        ("dtype", r"obs\['kind'\] is int8\[\], the spec promises int32\[\]"),
        ("missing", r"obs has .*, the spec promises"),
        ("bounds", r"step 0 of row 0: obs\['count'\] is outside the bounds"),
        ("nan", "step 3 of row 0: NaN or infinity"),
        ("python", "looks at values in Python"),
        ("remembers", "keeps state of its own"),
        ("leaks", "rows leak"),
        ("limit", "because its time was up"),
        ("starts ended", "truncated is set after a reset"),
    ],
)
def test_broken_worlds_are_found(fault, message):
    with pytest.raises(EnvContractError, match=message):
        check(Trials(Counter(fault)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("retyped", r"the state's .*trial is int32\[\] after a reset and int16\[\] after a step"),
        ("final_obs", "is it the first of the next one"),
        ("stale", "differs from `obs` where nothing ended"),
        ("every trial terminates", "terminated at .* and nowhere else"),
        ("never terminates", "terminated at .* and nowhere else"),
        ("truncates", "told its horizon"),
        ("no limit", "ignores its limit"),
    ],
)
def test_broken_trials_are_found(fault, message):
    with pytest.raises(EnvContractError, match=message):
        check(BrokenTrials(Counter(), fault=fault))
