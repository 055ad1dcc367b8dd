"""How fast MR.Q learns on HalfCheetah, and how much of the machine's matrix products that is."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rekindle.agents.mrq import mrq
from rekindle.agents.registry import config_to_json
from rekindle.envs import registry
from rekindle.train.sequence_engine import OnSequences

TASK = "gymnasium/HalfCheetah-v4"
SHAPE = (256, 512, 512)
"""Of the products that are timed: rows, inner, columns."""


def measure(settings: dict[str, Any], *, brief: bool) -> dict[str, dict[str, float]]:
    """Steps per second of the whole loop, products per second of float32 matrices, and the one by the other."""
    rates = steps_per_second(settings, blocks=2 if brief else 5)
    peak = best_rate(0.2 if brief else 2.0)
    work = operations(config_to_json(mrq.Config(**settings)))
    share = [rate * work / peak for rate in rates]
    return {
        "steps_per_s": spread(rates),
        "GFLOP_per_s_of_matmul": spread([peak / 1e9]),
        "share_of_matmul": spread(share),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"value": float(np.median(values)), "low": min(values), "high": max(values)}


def steps_per_second(settings: dict[str, Any], *, blocks: int) -> list[float]:
    """Of acting, storing and learning, in blocks of 250 steps, each with a phase of the encoder."""
    config = mrq.Config(**{**settings, "warmup": 1_000})
    made = registry.host(TASK)
    engine = OnSequences(mrq.make(config), made.open(1), most_steps=1_000 + 250 * (blocks + 2))
    loop = engine.begin(jax.random.key(0), None)
    loop, _ = engine.chunk(loop, 1_250, 0.0)
    rates = []
    for _ in range(blocks):
        jax.block_until_ready(loop.agent)
        began = time.perf_counter()
        loop, _ = engine.chunk(loop, 250, 0.0)
        jax.block_until_ready(loop.agent)
        rates.append(250 / (time.perf_counter() - began))
    return rates


def operations(settings: dict[str, Any]) -> float:
    """Floating-point operations of a step of MR.Q: one update of the encoder, one of the critics and the policy.

    Two per multiplication of the layers' matrices, and a backward pass costs twice the forward one; the layer that
    takes what is seen is left out.
    """
    state, pair, action, hidden = (settings[n] for n in ("state_width", "pair_width", "action_width", "hidden"))
    features = 2 * hidden * state
    join = (state + action) * hidden + hidden * hidden + hidden * pair
    model = pair * (1 + state + settings["bins"])
    critic = pair * hidden + 2 * hidden * hidden
    actor = state * hidden + hidden * hidden
    horizon = settings["encoder_horizon"]
    encoder = 3 * (features + horizon * (join + model)) + horizon * features
    values = 2 * features + 2 * join + 3 * 2 * critic + 2 * critic + actor
    policy = 3 * actor + 2 * join + 2 * 2 * critic
    return 2.0 * settings["batch"] * (encoder + values + policy)


def best_rate(seconds: float) -> float:
    """Floating-point operations per second of products of float32 matrices, each of which needs the one before."""
    rows, inner, columns = SHAPE
    x, w = jnp.ones((rows, inner)) / inner, jnp.ones((inner, columns)) / inner
    often = jax.jit(lambda x: jax.lax.fori_loop(0, 50, lambda _, x: x @ w, x))
    jax.block_until_ready(often(x))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        jax.block_until_ready(often(x))
        best = max(best, 50 * 2.0 * rows * inner * columns / (time.perf_counter() - began))
    return best
