"""What is timed: a deep Q-network that trains on MinAtar's Breakout, ours compiled as a whole, theirs as it comes."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from rekindle.agents.dqn import dqn
from rekindle.core.tree import own
from rekindle.envs import registry
from rekindle.train.off_policy import Given, Worlds, act_on, begin, pace, ticks_before

CONFIG = dqn.Config()
"""A batch of 32 transitions after every 4 steps, four worlds side by side; a convolution and a dense layer."""
SEED = 0


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
        keys = jax.random.split(jax.random.key(SEED), seeds)
        many = jax.vmap(partial(begin, agent, worlds, None), in_axes=(None, 0))
        self.loop = own(jax.jit(many)(self.given, keys))
        fill, self.learn = (
            jax.jit(jax.vmap(partial(act_on, agent, worlds, None, learns), in_axes=(0, None, None)), donate_argnums=0)
            for learns in (False, True)
        )
        self.loop, _ = fill(self.loop, self.given, ticks_before(agent.needs))
        self._chunk(1)
        self.compile_s = time.perf_counter() - start

    def run(self, seconds: float) -> float:
        begun, done, passed = time.perf_counter(), 0, 0.0
        while passed < seconds:
            self._chunk(self.ticks)
            done, passed = done + self.ticks, time.perf_counter() - begun
        return done * self.per_tick / passed

    def _chunk(self, ticks: int) -> None:
        self.loop, metrics = self.learn(self.loop, self.given, ticks)
        jax.block_until_ready(metrics)


@dataclass
class Sb3:
    """DQN of Stable-Baselines3, with so many threads of torch."""

    threads: int
    steps: int
    """Of a call, at least."""

    def __post_init__(self) -> None:
        from benchmarks.peers import minatar_dqn

        start = time.perf_counter()
        self.model: Any = minatar_dqn.make("breakout", CONFIG, SEED)
        self._learn(CONFIG.warmup + self.steps)
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


ARMS = {
    "ours": lambda steps: Ours(1, steps // CONFIG.num_envs),
    "sb3": lambda steps: Sb3(1, steps),
    "sb3-2-threads": lambda steps: Sb3(2, steps),
    "ours-8-seeds": lambda steps: Ours(8, steps // (8 * CONFIG.num_envs)),
}
"""By name, from the number of steps of a call to something that is ready to be timed."""
