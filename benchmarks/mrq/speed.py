"""How fast MR.Q learns on HalfCheetah, and how much of the machine's matrix products that is."""

import time
from typing import Any

import jax
import numpy as np

from rekindle.agents.mrq import mrq
from rekindle.agents.registry import config_to_json
from rekindle.envs import registry
from rekindle.train.forecast import best_rate, operations
from rekindle.train.sequence_engine import OnSequences

TASK = "gymnasium/HalfCheetah-v4"


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
