"""What is timed: a deep Q-network that trains on Breakout, MinAtar's and Atari's, ours and theirs as they come."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rekindle.agents.dqn import dqn
from rekindle.core.tree import own
from rekindle.envs import registry
from rekindle.train.off_policy import Given, Worlds, act_on, begin, draw, pace, ticks_before
from rekindle.train.replay_engine import OffPolicy

CONFIG = dqn.Config()
"""A batch of 32 transitions after every 4 steps, four worlds side by side; a convolution and a dense layer."""
ATARI = dqn.Config(**dqn.PRESETS["atari"] | {"num_envs": 4, "capacity": 10_000, "warmup": 1_000, "epsilon_warmup": 0,
                                             "epsilon_steps": 1})  # fmt: skip
"""The published settings, four games side by side, a replay that fits the memory of any machine, exploration done."""
GAME = "ALE/Breakout-v5"
ATARI_SHARE = 10
"""How many times fewer steps a call makes there: each takes so much longer."""
SEED = 0
FEATURES = 8 * 8 * 16
"""Inputs of the dense layer: 16 planes of what a convolution of 3 by 3 makes of 10 by 10."""


class Timed(Protocol):
    """Something that can be timed again and again."""

    compile_s: float

    def run(self, seconds: float) -> float:
        """Environment steps per second of training over at least so long, all seeds together."""
        ...


class Ours:
    """Our loop: act, store, sample, update, in one compiled chunk; with several seeds, all of them in one program."""

    def __init__(self, seeds: int, ticks: int):
        """Compile, and fill the replay until learning begins."""
        agent, made = dqn.make(CONFIG), registry.make("minatar/breakout-v1")
        worlds = Worlds(made.env, made.draw, CONFIG.num_envs)
        self.given = Given(jax.tree.map(jnp.asarray, made.pool()))
        self.ticks, self.per_tick = ticks, seeds * pace(agent.needs).steps * CONFIG.num_envs
        start = time.perf_counter()
        key, beginning = jax.random.key(SEED), partial(begin, agent, worlds, None)
        chunks = [partial(act_on, agent, worlds, None, learns) for learns in (False, True)]
        if seeds > 1:
            key, beginning = jax.random.split(key, seeds), jax.vmap(beginning, in_axes=(None, 0))
            chunks = [jax.vmap(chunk, in_axes=(0, None, None)) for chunk in chunks]
        self.loop = own(jax.jit(beginning)(self.given, key))
        self.fill, self.learn = (jax.jit(chunk, donate_argnums=0) for chunk in chunks)
        self.loop, _ = self.fill(self.loop, self.given, ticks_before(agent.needs))
        self.chunk(1)
        self.compile_s = time.perf_counter() - start

    def run(self, seconds: float) -> float:
        begun, done, passed = time.perf_counter(), 0, 0.0
        while passed < seconds:
            self.chunk(self.ticks)
            done, passed = done + self.ticks, time.perf_counter() - begun
        return done * self.per_tick / passed

    def chunk(self, ticks: int) -> None:
        """So many ticks."""
        self.loop, metrics = self.learn(self.loop, self.given, ticks)
        jax.block_until_ready(metrics)


class OursInAtari:
    """Our loop where the worlds are not compiled: emulators step while the network learns; the replay is in files."""

    def __init__(self, ticks: int):
        """Compile, and fill the replay until learning begins."""
        agent, made = dqn.make(ATARI), registry.host(GAME)
        self.folder = tempfile.TemporaryDirectory()
        self.engine = OffPolicy(agent, made.open(ATARI.num_envs), Given(()), folder=Path(self.folder.name))
        self.ticks = ticks
        start = time.perf_counter()
        self.loop = self.engine.begin(jax.random.key(SEED), None)
        self.chunk(ticks_before(agent.needs) + 1)
        self.compile_s = time.perf_counter() - start

    def run(self, seconds: float) -> float:
        begun, before, passed = time.perf_counter(), self.engine.steps(self.loop), 0.0
        while passed < seconds:
            self.chunk(self.ticks)
            passed = time.perf_counter() - begun
        return (self.engine.steps(self.loop) - before) / passed

    def chunk(self, ticks: int) -> None:
        """So many ticks."""
        self.loop, metrics = self.engine.chunk(self.loop, ticks, 0.0)
        jax.block_until_ready((self.loop, metrics))


def parts(times: int) -> dict[str, Callable[[], Any]]:
    """What a tick of ours consists of, each part so many times in one compiled call: four steps with one update."""
    ours, agent = Ours(1, times), dqn.make(CONFIG)
    batch = jax.jit(partial(draw, agent.needs))(jax.random.key(SEED), ours.loop.replay, ours.loop.obs)
    updated = jax.jit(lambda state, batch: jax.lax.fori_loop(
        0, times, lambda _, now: agent.update(jax.random.key(SEED), now, batch).state, state))  # fmt: skip
    rows, inputs, width = CONFIG.batch, FEATURES, CONFIG.width
    x, w, g = jnp.ones((rows, inputs)), jnp.full((inputs, width), 1e-3), jnp.ones((rows, width))

    def products(now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Of a dense layer: forward for both networks, and both gradients; each needs what the others gave."""
        x, w, g = now
        g = (x @ w + (1e-9 * x) @ w + g) * 1e-3
        return x + 1e-9 * (g @ w.T), w + 1e-9 * (x.T @ g), g

    multiplied = jax.jit(lambda now: jax.lax.fori_loop(0, times, lambda _, now: products(now), now))

    def acted() -> Any:
        ours.loop, _ = ours.fill(ours.loop, ours.given, times)
        return ours.loop.obs

    return {
        "a tick": lambda: ours.chunk(times),
        "acting, the worlds, storing": acted,
        "an update on a batch that is there": lambda: updated(ours.loop.agent, batch),
        "the dense layer's four matrix products": lambda: multiplied((x, w, g)),
    }


@dataclass
class Sb3:
    """DQN of Stable-Baselines3, with so many threads of torch."""

    made: Callable[[], Any]
    """The agent."""
    threads: int
    steps: int
    """Of a call, at least."""

    def __post_init__(self) -> None:
        start = time.perf_counter()
        self.model = self.made()
        self._learn(self.model.learning_starts + self.steps)
        self.compile_s = time.perf_counter() - start

    def run(self, seconds: float) -> float:
        begun, before, passed = time.perf_counter(), self.model.num_timesteps, 0.0
        while passed < seconds:
            self._learn(self.steps)
            passed = time.perf_counter() - begun
        return (self.model.num_timesteps - before) / passed

    def _learn(self, steps: int) -> None:
        import torch

        torch.set_num_threads(self.threads)
        self.model.learn(steps, reset_num_timesteps=False)


def theirs_in_minatar() -> Any:
    """With the network that ours has."""
    from benchmarks.peers import minatar_dqn

    return minatar_dqn.make("breakout", CONFIG, SEED)


def theirs_in_atari() -> Any:
    """With the network that both have."""
    from benchmarks.peers import atari_dqn

    return atari_dqn.make(GAME, ATARI, SEED)


ARMS: dict[str, Callable[[int], Timed]] = {
    "ours": lambda steps: Ours(1, steps // CONFIG.num_envs),
    "sb3": lambda steps: Sb3(theirs_in_minatar, 1, steps),
    "sb3-2-threads": lambda steps: Sb3(theirs_in_minatar, 2, steps),
    "ours-8-seeds": lambda steps: Ours(8, steps // (8 * CONFIG.num_envs)),
    "atari": lambda steps: OursInAtari(steps // (ATARI_SHARE * ATARI.num_envs)),
    "atari-sb3": lambda steps: Sb3(theirs_in_atari, 1, steps // ATARI_SHARE),
    "atari-sb3-2-threads": lambda steps: Sb3(theirs_in_atari, 2, steps // ATARI_SHARE),
}
"""By name, from the number of steps of a call to something that is ready to be timed."""
