"""E13: our copy of XLand-MiniGrid's world trains as theirs does; the same agent, the same rulesets, both worlds.

The setting is the small one of their meta-learning baseline: R1-9x9, trivial rulesets, neither goal nor rules shown,
256 worlds, episodes of 736 steps with 16 per update, 2M steps; scored by the return summed over three trials. Rulesets
are drawn by their recipe with repeats: without, 98 % of the goals are to put two things together, and 2M steps teach
nothing in either world.
"""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.stats import t as student

from benchmarks.common import Bar, Study, at_least, within
from rekindle.agents.ppo import ppo
from rekindle.core.types import Policy
from rekindle.curriculum import base
from rekindle.envs import registry
from rekindle.envs.base import Env
from rekindle.envs.minigrid.rulesets import RulesetPool, draw
from rekindle.envs.wrappers import Stream
from rekindle.evaluate.policies import RandomPolicy
from rekindle.train import on_policy
from rekindle.train.worlds import Solo

EPISODE, TRIALS = 736, 3
ARMS = ("ours", "theirs")
CONFIG = ppo.Config(
    learning_rate=1e-3, gamma=0.99, lambda_=0.95, clip=0.2, value_weight=0.5, entropy_weight=0.01, max_grad_norm=0.5,
    reward_scale=1.0, epochs=1, minibatches=16, num_envs=256, rollout_length=16, memory="gru", hidden=32, width=64,
)  # fmt: skip
"""Theirs, but for the width: there the encoder's 256 features go straight into the memory, and heads have 16 units."""


TASKS = base.Uniform(partial(draw, min_trials=1, max_trials=1), CONFIG.num_envs)
"""Rulesets as they are drawn."""


class Preset(NamedTuple):
    """Sizes of a run."""

    steps: int
    seeds: int
    tasks: int


PRESETS = {"smoke": Preset(30_000, 1, 64), "cpu": Preset(2_000_000, 15, 2048), "gpu": Preset(2_000_000, 15, 2048)}
RETURN, MARGIN = 0.8, 0.2


def run(study: Study, preset_name: str) -> tuple[dict[str, Any], list[Bar]]:
    """Train both arms with all seeds, score them on the training rulesets (as they do) and on held-out ones."""
    preset = PRESETS[preset_name]
    cells = {
        arm: [study.cell(f"E13-{arm}-seed{seed}", partial(compute, arm, seed, preset)) for seed in range(preset.seeds)]
        for arm in ARMS
    }
    table = [
        {"world": arm, "seed": seed, **{k: v for k, v in cell.items() if k != "curve"}}
        for arm, row in cells.items()
        for seed, cell in enumerate(row)
    ]
    ours, theirs = (np.array([cell["train"] for cell in cells[arm]]) for arm in ARMS)
    mean = spread(ours)
    low, high = difference(ours, theirs)
    off = float(ours.mean() / theirs.mean() - 1.0)
    bars = [
        at_least("E13.return", float(ours.mean()), ours.mean() - mean, ours.mean() + mean, RETURN),
        within("E13.difference", off, low, high, 0.0, MARGIN),
    ]
    return {"E13": table}, bars


def compute(arm: str, seed: int, preset: Preset) -> dict[str, Any]:
    """Train one arm with one seed; returns summed over three trials, mean over tasks."""
    made = registry.make("minigrid/x-trivial")
    pools = {split: jax.tree.map(jnp.asarray, made.pool(split=split, repeats=True)) for split in ("train", "test")}
    start, chunk, score = programs(arm, preset.tasks)
    train_key, score_key = jax.random.split(jax.random.key(seed))
    begin = time.perf_counter()
    loop = start(pools["train"], train_key, None)
    episodes = max(round(preset.steps / (CONFIG.num_envs * EPISODE)), 1)
    curve: list[float] = []
    rates: list[float] = []
    for number in range(episodes):
        before = time.perf_counter()
        rate = jnp.float32(CONFIG.learning_rate * (1 - number / episodes))
        loop, values = on_policy.drain(chunk(rate, loop, pools["train"]))
        rates.append(CONFIG.num_envs * EPISODE / (time.perf_counter() - before))
        curve.append(values["trial/reward"])
    wall_s = time.perf_counter() - begin
    policy = ppo.make(CONFIG).policy(loop.agent)
    scores = {split: float(score(policy, pool, score_key).mean()) for split, pool in pools.items()}
    random = float(score(RandomPolicy(6), pools["train"], score_key).mean())
    return {**scores, "random": random, "steps_per_s": float(np.median(rates)), "wall_s": wall_s, "curve": curve}


@cache
def programs(arm: str, tasks: int) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Start, one episode of training, and scoring; compiled once for all seeds."""
    world = world_of(arm)
    worlds = Solo(Stream(world, EPISODE))
    start = on_policy.make_start(ppo.make(CONFIG), worlds, TASKS)
    chunk = jax.jit(partial(episode, worlds), donate_argnums=1)
    return start, chunk, jax.jit(partial(summed_returns, Stream(world, TRIALS * 243), tasks))


def episode(worlds: Solo, learning_rate: Array, loop: on_policy.LoopState, pool: RulesetPool) -> on_policy.LoopState:
    """All updates of one episode of every world; theirs lowers the learning rate linearly, episode by episode, too."""
    config = eqx.tree_at(lambda c: c.learning_rate, CONFIG, learning_rate)
    return on_policy.chunk(ppo.make(config), worlds, TASKS, EPISODE // CONFIG.rollout_length, loop, pool)[0]


def world_of(arm: str) -> Env:
    """One trial of our world, or of theirs."""
    ours = registry.make("minigrid/x-trivial").env.env
    if arm == "ours":
        return ours
    from benchmarks.peers.xminigrid_env import Peer

    return Peer(ours)


def summed_returns(env: Stream, tasks: int, policy: Policy, pool: RulesetPool,
                   key: Key[Array, ""]) -> Float[Array, " n"]:  # fmt: skip
    """Reward until the end of the third trial, for so many tasks of a pool, acting as in training."""
    draw_key, reset_key, run_key = jax.random.split(key, 3)
    pick = partial(draw, min_trials=1, max_trials=1)
    task = jax.vmap(pick, in_axes=(0, None))(jax.random.split(draw_key, tasks), pool)
    state, first = jax.vmap(env.reset)(jax.random.split(reset_key, tasks), task)

    def step(now: tuple, key: Key[Array, ""]) -> tuple[tuple, None]:
        state, obs, carry, start, ended, total = now
        act_key, step_key = jax.random.split(key)
        out = policy.act(act_key, carry, obs, start, explore=True)
        state, ts = jax.vmap(env.step)(jax.random.split(step_key, tasks), state, out.action, task)
        total = total + jnp.where(ended < TRIALS, ts.reward, 0.0)
        return (state, ts.obs, out.carry, jnp.zeros_like(start), ended + ts.trial_end, total), None

    begin = (state, first.obs, policy.init_carry(tasks), jnp.ones(tasks, bool), jnp.zeros(tasks, jnp.int32),
             jnp.zeros(tasks))  # fmt: skip
    return jax.lax.scan(step, begin, jax.random.split(run_key, env.length))[0][-1]


def spread(values: np.ndarray) -> float:
    """Half of the 95 % interval of the mean, by Student's distribution; infinite for a single seed."""
    if len(values) < 2:
        return float("inf")
    return quantile(len(values)) * values.std(ddof=1) / np.sqrt(len(values))


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % interval of the relative difference of two means over independent seeds, by the delta method."""
    if len(ours) < 2:
        return -float("inf"), float("inf")
    ratio = ours.mean() / theirs.mean()
    variances = [(x.std(ddof=1) / x.mean()) ** 2 / len(x) for x in (ours, theirs)]
    half = quantile(len(ours)) * ratio * np.sqrt(sum(variances))
    return ratio - 1.0 - half, ratio - 1.0 + half


def quantile(seeds: int) -> float:
    """Student's 0.975 quantile, by number of seeds."""
    return float(student.ppf(0.975, seeds - 1))
