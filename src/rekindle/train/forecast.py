"""How long a training will take, before it begins: as earlier runs measured it, or by what the machine multiplies."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rekindle.core.budget import parse_budget
from rekindle.core.spaces import is_picture
from rekindle.core.types import EnvSpec
from rekindle.library import provenance
from rekindle.library.library import Library
from rekindle.library.verify import METRICS, read_metrics
from rekindle.train.order import Order

LOOKED_AT = 20
"""Of the newest runs in the environment."""
RATE, LEARNT = "time/env_steps_per_s", "time/learner_steps"
SHARE, OVERHEAD_S = 0.8, 0.006
"""What MR.Q's products reach of the machine's best, and what else a step takes: two numbers that bring full and reduced
size near to what they were measured at on a processor of two cores (7 and 74 to 87 steps/s)."""
SHAPE = (256, 512, 512)
"""Of the products that are timed: rows, inner, columns."""


class Forecast(NamedTuple):
    """What is expected."""

    steps_per_s: float
    seconds: float | None
    """Of the whole budget; None where that is in seconds."""
    source: str


def forecast(order: Order, spec: EnvSpec, library: Library) -> Forecast | None:
    """Of MR.Q, evaluations left out; None of others, which show at once how fast they are.

    None, too, where it sees pictures or learns on an accelerator, as long as no run has measured how fast that is.
    """
    if order.agent != "mrq":
        return None
    measured = as_measured(order, library)
    pictures = any(map(is_picture, spec.obs.values()))
    if measured is None and (pictures or jax.default_backend() != "cpu"):
        return None
    rate, source = measured or (1.0 / (operations(order.settings) / (SHARE * best_rate()) + OVERHEAD_S),
                                "by what this machine multiplies")  # fmt: skip
    steps = parse_budget(order.budget).env_steps
    learnt = None if steps is None else max(steps - order.settings["warmup"], 0)
    return Forecast(rate, None if learnt is None else learnt / rate, source)


def as_measured(order: Order, library: Library) -> tuple[float, str] | None:
    """By the newest run of the same agent in the same environment on the same device."""
    runs = library.runs(kind="train", env_id=order.env, status="done", limit=LOOKED_AT)
    for record in runs:
        config = record.manifest.config
        same = (config.get("agent"), config.get("settings")) == (order.agent, order.settings)
        if not same or record.manifest.device != provenance.device():
            continue
        path = record.fetch(METRICS)
        rate = typical_rate(read_metrics(path) if path.is_file() else [])
        if rate is not None:
            return rate, f"as {record.id} measured"
    return None


def typical_rate(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Steps per second of all chunks in which something was learnt, but for the first, which compiles; None of none."""
    seen = [row for row in rows if RATE in row and row.get(LEARNT)]
    if len(seen) < 2:
        return None
    steps = np.diff([row["env_steps"] for row in seen])
    seconds = steps / np.array([row[RATE] for row in seen[1:]])
    return float(steps.sum() / seconds.sum()) if seconds.sum() > 0 else None


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


def best_rate(seconds: float = 0.2) -> float:
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
