"""The two worlds behind one pair of functions, and the clock."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import xminigrid
from jaxtyping import Array, Float, Key, PyTree
from xminigrid.types import RuleSet
from xminigrid.wrappers import GymAutoResetWrapper

from rekindle.envs.wrappers import AutoReset
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.game import View
from rekindle.envs.xland.level import Task

VIEW = 5
NUM_ACTIONS = 6
"""Forward, two turns, pick, put, toggle: in both worlds."""
SHORTEST = 0.3
"""Seconds of a repetition, at least."""


class Arm(NamedTuple):
    """A world to be timed; both functions are for one world and are vmapped."""

    reset: Callable[[Key[Array, ""], Any], PyTree]
    step: Callable[[Key[Array, ""], PyTree, Array, Any], tuple[PyTree, Float[Array, ""]]]
    """Key, state, action, task to the next state and a number that depends on everything that the step shows."""
    tasks: PyTree
    """Stacked along a first axis."""


def ours(tasks: Task, *, rules: int, relations: tuple[int, ...], auto_reset: bool) -> Arm:
    """Rekindle's world. With auto-reset the task stays, the layout and the heading are drawn anew."""
    world = XLand(max_rules=rules, view=View(VIEW, "bottom"), relations=relations)
    env = AutoReset(world, lambda key, source, task: source) if auto_reset else world

    def step(key: Key[Array, ""], state: PyTree, action: Array, task: Task) -> tuple[PyTree, Array]:
        state, now = env.step(key, state, action, task)
        return state, digest(now.reward, now.truncated, now.obs)

    return Arm(lambda key, task: env.reset(key, task)[0], step, tasks)


def theirs(rule_sets: RuleSet, *, auto_reset: bool) -> Arm:
    """XLand-MiniGrid's R4-13x13. With auto-reset the rule set stays, everything else is drawn anew."""
    env, params = xminigrid.make("XLand-MiniGrid-R4-13x13", view_size=VIEW)
    env = GymAutoResetWrapper(env) if auto_reset else env

    def step(key: Key[Array, ""], state: PyTree, action: Array, task: RuleSet) -> tuple[PyTree, Array]:
        del key
        now = env.step(params.replace(ruleset=task), state, action)
        return now, digest(now.reward, now.discount, now.step_type, now.observation)

    return Arm(lambda key, task: env.reset(params.replace(ruleset=task), key), step, rule_sets)


def digest(*shown: PyTree) -> Float[Array, ""]:
    """The sum of all numbers, so that nothing is dead code."""
    return sum((jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(shown)), start=jnp.float32(0))


class Timed:
    """An arm compiled for so many worlds and steps, and where its worlds are."""

    def __init__(self, arm: Arm, worlds: int, steps: int, seed: int):
        """Reset the worlds and compile; `compile_s` counts tracing too."""
        self.work, self.tasks, self.key = worlds * steps, arm.tasks, jax.random.key(seed)
        self.state = jax.jit(jax.vmap(arm.reset))(jax.random.split(self.key, worlds), arm.tasks)

        def one(carry: tuple[PyTree, Array], key: Key[Array, ""], tasks: PyTree) -> tuple[tuple[PyTree, Array], None]:
            state, total = carry
            action_key, step_key = jax.random.split(key)
            action = jax.random.randint(action_key, (worlds,), 0, NUM_ACTIONS)
            state, shown = jax.vmap(arm.step)(jax.random.split(step_key, worlds), state, action, tasks)
            return (state, total + shown), None

        def chunk(key: Key[Array, ""], state: PyTree, tasks: PyTree) -> tuple[Key[Array, ""], PyTree, Array]:
            next_key, steps_key = jax.random.split(key)
            start, keys = (state, jnp.zeros(worlds)), jax.random.split(steps_key, steps)
            return next_key, *jax.lax.scan(lambda carry, k: one(carry, k, tasks), start, keys)[0]

        begin = time.perf_counter()
        self.chunk = jax.jit(chunk, donate_argnums=1).lower(self.key, self.state, self.tasks).compile()
        self.compile_s = time.perf_counter() - begin

    def run(self) -> float:
        """One repetition: chunks until `SHORTEST` has passed; environment steps per second."""
        jax.block_until_ready((self.key, self.state))
        begin, chunks, passed = time.perf_counter(), 0, 0.0
        while passed < SHORTEST:
            self.key, self.state, total = self.chunk(self.key, self.state, self.tasks)
            jax.block_until_ready(total)
            chunks, passed = chunks + 1, time.perf_counter() - begin
        return chunks * self.work / passed
