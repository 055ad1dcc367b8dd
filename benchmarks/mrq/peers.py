"""Return by seconds of training, beside TD3 and SAC of Stable-Baselines3 in the same worlds and on the same machine."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from benchmarks import training
from benchmarks.common import Study
from benchmarks.mrq import published
from rekindle.agents.mrq import mrq
from rekindle.agents.registry import config_from_json, config_to_json
from rekindle.envs import registry
from rekindle.library.run import Run
from rekindle.train.order import Order

TASKS = {"HalfCheetah-v4": 2_000, "dmc/cartpole-swingup": 700}
"""Each with the return that is to be reached."""
EPISODES = 10
MISSING = "Stable-Baselines3 is not installed; pip install -e '.[bench]'."


class Size(NamedTuple):
    """Of a run."""

    steps: int
    every: int
    """Steps between two evaluations."""
    seeds: int


SIZES = {"smoke": Size(600, 300, 1), "cpu": Size(30_000, 2_500, 1), "gpu": Size(30_000, 2_500, 3)}


def ours(name: str, settings: Mapping[str, Any], study: Study, task: str, size: Size, seed: int
         ) -> list[dict[str, Any]]:  # fmt: skip
    """As `rekindle train` trains it; an interrupted one goes on where it stopped."""
    config, kept = config_to_json(config_from_json("mrq", dict(settings))), training.library()
    what = Order("mrq", config, full_id(task), f"{size.steps}steps", evaluate_steps=size.every, episodes=EPISODES)
    run = Run.open(kept, training.trained(f"{name}-{study.preset}", what, seed, kept, study.say).parent.name)
    return timed(run.metrics())


def timed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Evaluations by the seconds that training had taken by then, from the rates of all chunks before.

    That before the first step is left out: those of the peers begin after some.
    """
    before, seconds, points = 0, 0.0, []
    for row in rows:
        if not row["env_steps"]:
            continue
        seconds += (row["env_steps"] - before) / row["time/env_steps_per_s"]
        before = row["env_steps"]
        if "score/return" in row:
            points.append({"steps": before, "seconds": seconds, "return": row["score/return"]})
    return points


def theirs(agent: str, task: str, size: Size, seed: int) -> list[dict[str, Any]]:
    """With the settings that they come with."""
    from benchmarks.peers import sb3_continuous

    return sb3_continuous.curve(agent, registry.host(full_id(task)), steps=size.steps, every=size.every,
                                episodes=EPISODES, seed=seed, threads=cores())  # fmt: skip


def full_id(task: str) -> str:
    """Of the registry."""
    return task if "/" in task else f"gymnasium/{task}"


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(study: Study, settings: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """All agents on all tasks, with some settings of ours: two tables, and the number of seeds."""
    size = SIZES[study.preset]
    agents: dict[str, Mapping[str, Any] | None] = {
        "sb3-td3": None, "sb3-sac": None, "mrq:small": {**mrq.PRESETS["small"], **settings}, "mrq": settings,
    }  # fmt: skip
    found: dict[str, dict[str, list[dict[str, Any]]]] = {task: {} for task in TASKS}
    for agent, own in agents.items():
        for task in TASKS:
            cells = (cell(study, agent, own, task, size, seed) for seed in range(size.seeds))
            found[task][agent] = [one for one in cells if one is not None]
    reached = [line(task, agent, cells, size) for task in TASKS for agent, cells in found[task].items()]
    known = [row for row in published.table("peers") if row["task"] in TASKS]
    return {"reached": reached, "curves": curves(found), "published": known}, size.seeds


def cell(study: Study, agent: str, settings: Mapping[str, Any] | None, task: str, size: Size, seed: int
         ) -> dict[str, Any] | None:  # fmt: skip
    """One training; None where it takes what is not installed."""
    name = f"peers-{agent}-{task}".replace("/", "-").replace(":", "-").replace("_", "-")
    if settings is None and find_spec("stable_baselines3") is None and not study.has(f"{name}-seed{seed}"):
        study.say(f"{name}: {MISSING}")
        return None
    train: Callable[[], list[dict[str, Any]]] = (
        partial(theirs, agent.removeprefix("sb3-"), task, size, seed)
        if settings is None
        else partial(ours, name, settings, study, task, size, seed)
    )
    return study.cell(f"{name}-seed{seed}", lambda: {"curve": train(), "cores": cores()})


def line(task: str, agent: str, cells: list[dict[str, Any]], size: Size) -> dict[str, Any]:
    """When the first evaluation reached the return that is asked for; means, where every seed did."""
    bar, start = TASKS[task], {"task": task, "agent": agent, "return of": TASKS[task]}
    if not cells:
        return {**start, "note": MISSING}
    firsts = [first for one in cells if (first := reaches(one["curve"], bar)) is not None]
    means = {key: float(np.mean([first[key] for first in firsts])) if len(firsts) == len(cells) else None
             for key in ("seconds", "steps")}  # fmt: skip
    last = [one["curve"][-1] for one in cells]
    whole = {"return in the end": float(np.mean([point["return"] for point in last])),
             "steps/s": float(np.mean([point["steps"] / point["seconds"] for point in last])),
             "cores": max(one["cores"] for one in cells), "seeds": len(cells)}  # fmt: skip
    missed = len(cells) - len(firsts)
    note = f"not reached within {size.steps:,} steps by {missed} of {len(cells)}" if missed else ""
    return {**start, **means, **whole, "note": note}


def reaches(curve: list[dict[str, Any]], bar: float) -> dict[str, Any] | None:
    """The first evaluation with such a return."""
    return next((point for point in curve if point["return"] >= bar), None)


def curves(found: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Returns and seconds of every agent at all evaluations, means over seeds; published is MR.Q of full size."""
    rows = []
    for task, agents in found.items():
        known = {milestone.steps: milestone.mean for milestone in published.MILESTONES.get(task, ())}
        for agent, cells in agents.items():
            for points in zip(*(one["curve"] for one in cells), strict=True):
                means = {key: float(np.mean([point[key] for point in points])) for key in ("return", "seconds")}
                steps = points[0]["steps"]
                rows.append({"task": task, "method": agent, "steps": steps, **means,
                             "published": known.get(steps) if agent == "mrq" else None})  # fmt: skip
    return rows
