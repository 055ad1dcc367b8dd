"""How long a training will take, before it begins: as earlier runs measured it, or as its first updates take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from rekindle.agents.registry import config_from_json, make_agent
from rekindle.core.budget import parse_budget
from rekindle.core.errors import WorldError
from rekindle.core.types import Agent
from rekindle.envs.host.worlds import HostWorlds
from rekindle.library import provenance
from rekindle.library.library import Library
from rekindle.library.verify import METRICS, read_metrics
from rekindle.train import session
from rekindle.train.order import AnyMade, Order
from rekindle.train.sequence_engine import OnSequences
from rekindle.train.sequences import updates_after

LOOKED_AT = 20
"""Of the newest runs in the environment."""
RATE, LEARNT = "time/env_steps_per_s", "time/learner_steps"
FEWEST = 2_000
"""Steps that are learnt from; fewer are over before it is measured how long they take."""
BATCHES, APART, STEPS = 4, 8, 400
"""Of the measurement: batches of a preparation, ticks from one to the next, and ticks after which it is given up."""


class Forecast(NamedTuple):
    """What is expected."""

    steps_per_s: float
    seconds: float | None
    """Of the whole budget; None where that is in seconds."""
    source: str


def forecast(order: Order, made: AnyMade, library: Library) -> Forecast | None:
    """Of agents that learn from sequences, evaluations left out; None of others, which show at once how fast they are.

    None, too, of a training that ends sooner than one could tell.
    """
    agent = make_agent(order.agent, config_from_json(order.agent, order.settings))
    if agent.needs.kind != "sequence":
        return None
    steps = parse_budget(order.budget).env_steps
    learnt = None if steps is None else max(steps - agent.needs.warmup, 0)
    if (known := as_measured(order, library)) is None:
        rate = timed(order, made, agent) if learnt is None or learnt >= FEWEST else None
        known = None if rate is None else (rate, "by its first updates here")
    if known is None:
        return None
    rate, source = known
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


def timed(order: Order, made: AnyMade, agent: Agent) -> float | None:
    """Steps per second of the loop itself, with brief preparations; None where nothing can be learnt from soon.

    A preparation is a part of a step with an update, and takes so long for each of its batches.
    """
    needs, each = agent.needs, updates_after(agent.needs)
    batches = min(BATCHES, needs.prepare_batches)
    brief = replace(needs, warmup=min(needs.warmup, needs.length + 2), prepare_period=APART * each,
                    prepare_batches=batches)  # fmt: skip
    engine = session.from_replay(order, made, agent._replace(needs=brief), steps=STEPS)
    assert isinstance(engine, OnSequences)
    try:
        loop = engine.begin(jax.random.key(0), None)
        while not int(loop.updates):
            if int(loop.ticks) >= STEPS:
                return None
            loop, _ = engine.chunk(loop, APART, 0.0)
        loop, _ = engine.chunk(loop, -(int(loop.updates) // each) % APART or APART, 0.0)  # the next update prepares
        loop, with_preparation = clocked(engine, loop, 1)
        loop, without = clocked(engine, loop, APART - 1)
    except WorldError:  # which the training will tell
        return None
    finally:
        if isinstance(engine.worlds, HostWorlds):
            engine.worlds.close()
    step = without / (APART - 1)
    batch = max(with_preparation - step, 0.0) / max(batches, 1)
    return engine.steps_per_update / (step + batch * needs.prepare_batches * each / needs.prepare_period)


def clocked(engine: OnSequences, loop: Any, ticks: int) -> tuple[Any, float]:
    """After so many ticks, and the seconds that they took."""
    jax.block_until_ready(loop.agent)
    began = time.perf_counter()
    loop, _ = engine.chunk(loop, ticks, 0.0)
    jax.block_until_ready(loop.agent)
    return loop, time.perf_counter() - began
