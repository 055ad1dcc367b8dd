"""MR.Q beside its published curves: `python -m benchmarks.mrq --preset smoke|cpu|gpu [--only gym|dmc|small|...]`.

Every curve is what `rekindle train mrq --env ... --seeds N` makes: evaluations of ten episodes without noise. Each
(task, seed) is a cell, and a training that was interrupted goes on from its checkpoint.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import training
from benchmarks.common import Bar, Study, at_least, value_at_least
from benchmarks.mrq import ablations, published, reuse, speed
from benchmarks.mrq.aggregates import rows as aggregates
from benchmarks.mrq.peers import full_id
from benchmarks.mrq.peers import run as compare
from benchmarks.mrq.published import Milestone
from rekindle.agents.mrq import mrq
from rekindle.agents.registry import config_from_json, config_to_json, load
from rekindle.core.stats import Interval, bootstrap
from rekindle.envs import registry
from rekindle.library.run import Run
from rekindle.train import session
from rekindle.train.order import Order, made_for

EVALUATE_STEPS, ATARI_STEPS, EPISODES = 5_000, 100_000, 10
"""Steps between evaluations, and episodes of one, as published."""
BRIEF_EPISODES = 2
"""Of the evaluation of a training that ends before the first one is due."""
TINY = {"state_width": 16, "pair_width": 16, "action_width": 8, "hidden": 16, "batch": 16, "warmup": 200,
        "encoder_updates": 25}  # fmt: skip


class Preset(NamedTuple):
    """Sizes of a run."""

    settings: dict[str, Any]
    """Of the agent, beside those of a part."""
    full: dict[str, tuple[int, dict[str, int]]]
    """Of full size: by part, the number of seeds, and the steps that each task is trained for."""
    small_seeds: int
    small_steps: int
    reuse: tuple[int, int]
    """Steps of a teacher, and of a student."""


BRIEF = {
    "gym": (1, {"HalfCheetah-v4": 600}),
    "dmc": (1, {"dmc/cartpole-balance": 600, "dmc/walker-stand": 600}),
    "dmc-visual": (1, {"dmc/cartpole-balance-visual": 250}),
    "atari": (1, {"ALE/Pong-v5": 250}),
}
"""What shows that all of it runs."""
SHORT = {
    "gym": (1, {"HalfCheetah-v4": 20_000}),
    "dmc": (1, {"dmc/cartpole-balance": 20_000, "dmc/walker-stand": 25_000}),
}
"""What shows on a processor, within one to three hours each, that it learns as published."""
LONG = {
    "gym": (3, {"HalfCheetah-v4": 200_000, "Walker2d-v4": 200_000, "Ant-v4": 200_000}),
    "dmc": (3, {"dmc/cartpole-balance": 25_000, "dmc/walker-stand": 30_000, "dmc/cheetah-run": 100_000,
                "dmc/walker-walk": 100_000, "dmc/quadruped-walk": 100_000, "dmc/dog-walk": 200_000}),
    "dmc-visual": (1, {"dmc/cartpole-balance-visual": 50_000, "dmc/walker-stand-visual": 100_000}),
    "atari": (3, {"ALE/Pong-v5": 200_000, "ALE/Boxing-v5": 200_000, "ALE/Freeway-v5": 100_000,
                  "ALE/Krull-v5": 100_000}),
}  # fmt: skip
"""What shows on an accelerator that it goes on learning as published: every gate of `published/gates.csv` but that of a
task which is solved at once."""
PRESETS = {
    "smoke": Preset(TINY, BRIEF, 1, 600, (600, 600)),
    "cpu": Preset({}, SHORT, 3, 50_000, (20_000, 20_000)),
    "gpu": Preset({}, LONG, 3, 50_000, (20_000, 20_000)),
}


def main() -> None:
    """Run one part, or all."""
    study = Study("mrq", about=__doc__ or "", parts=tuple(PARTS))
    values: dict[str, Any] = {}
    bars: list[Bar] = []
    size, most = PRESETS[study.preset], 1
    for name, run in PARTS.items():
        if study.only in (None, name):
            found, judged, seeds = run(study, size)
            values |= {f"{name}_{key}": value for key, value in found.items()}
            bars, most = [*bars, *judged], max(most, seeds)
    study.finish(seeds=list(range(most)), values=values, bars=bars)


def full(part: str, study: Study, size: Preset) -> tuple[dict[str, Any], list[Bar], int]:
    """The agent as published, on tasks that can be told from failure early; where they take too long, a brief run."""
    size = size if part in size.full else PRESETS["smoke"]
    seeds, tasks = size.full[part]
    cells, bars = {}, []
    for task, steps in tasks.items():
        cells[task] = curves(study, f"{part}-{task}", order(task, steps, size.settings), seeds)
        bars += [bar for known in published.MILESTONES[task] if known.steps <= steps
                 for bar in gates(task, known, cells[task])]  # fmt: skip
    finals = [row for task, row in published.finals(part).items() if task in tasks]
    tables = {"curves": rows(cells), "normalised": aggregates(part, cells), "costs": costs(cells)}
    if part == "atari":
        tables["protocols"] = protocols(cells)
    return {**tables, f"published_after_{published.STEPS[part]}": finals}, bars, seeds


def small(study: Study, size: Preset) -> tuple[dict[str, Any], list[Bar], int]:
    """The reduced agent, whose gates are estimates: two of three seeds have to reach them."""
    settings = {**mrq.PRESETS["small"], **size.settings}
    cells = {task: curves(study, f"small-{task}", order(task, size.small_steps, settings), size.small_seeds)
             for task in published.SMALL}  # fmt: skip
    bars = []
    for task, bar in published.SMALL.items():
        last = sorted(cell["curve"][-1]["return"] for cell in cells[task])
        second = last[-2] if len(last) > 1 else last[-1]
        bars.append(value_at_least(f"small.{task}.second-best-seed", second, last[0], last[-1], bar))
    tables = {"curves": rows(cells), "last": lasts(cells), "normalised": aggregates("dmc", cells),
              "costs": costs(cells)}  # fmt: skip
    return tables, bars if study.preset != "smoke" else [], size.small_seeds


def lasts(cells: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The last evaluation of every seed."""
    return [{"task": task, **{f"seed {seed}": cell["curve"][-1]["return"] for seed, cell in enumerate(of)}}
            for task, of in cells.items()]  # fmt: skip


def order(task: str, steps: int, settings: Mapping[str, Any]) -> Order:
    """What a person would ask for."""
    config = config_to_json(config_from_json("mrq", dict(settings)))
    every = ATARI_STEPS if task.startswith("ALE/") else EVALUATE_STEPS
    episodes = EPISODES if steps >= every else BRIEF_EPISODES
    return Order("mrq", config, full_id(task), f"{steps}steps", evaluate_steps=min(every, steps), episodes=episodes)


def curves(study: Study, name: str, what: Order, seeds: int) -> list[dict[str, Any]]:
    """The cell of every seed; on an accelerator all seeds that are missing are trained in one program first."""
    name = name.replace("/", "-").replace("_", "-")
    if study.preset == "gpu":
        missing = [seed for seed in range(seeds) if not study.has(f"{name}-seed{seed}")]
        training.train_together(f"{name}-{study.preset}", what, missing, training.library(), study.say)
    return [study.cell(f"{name}-seed{seed}", partial(curve, study, name, what, seed)) for seed in range(seeds)]


def curve(study: Study, name: str, what: Order, seed: int) -> dict[str, Any]:
    """The evaluations of one seed."""
    kept = training.library()
    run = Run.open(kept, training.trained(f"{name}-{study.preset}", what, seed, kept, study.say).parent.name)
    seen = run.metrics()
    greedy = {"greedily": greedily(run, what)} if registry.is_atari(what.env) else {}
    evaluations = [{"steps": row["env_steps"], "return": row["score/return"]} for row in seen if "score/return" in row]
    return {"curve": evaluations, "wall_s": run.manifest.wall_s, **greedy}


def greedily(run: Run, what: Order) -> float:
    """The return in the end by the policy's best actions, which is another protocol than the published one."""
    policy = load(run.path / "policy").policy
    best = dataclasses.replace(policy, config=dataclasses.replace(policy.config, eval_discrete="greedy"))
    return session.evaluation(what, made_for(what))(best, 0, jax.random.key(1_000))["score/return"]


def mean_at(cells: list[dict[str, Any]], steps: int) -> Interval:
    """Over seeds, at the evaluation after so many steps."""
    return bootstrap(np.array([[p["return"] for p in cell["curve"] if p["steps"] == steps] for cell in cells]))


def gates(task: str, milestone: Milestone, cells: list[dict[str, Any]]) -> list[Bar]:
    """Whether the mean over seeds is what the published one lets expect; of the mean, not of its interval."""
    if (least := milestone.gate(len(cells))) is None:
        return []
    found = mean_at(cells, milestone.steps)
    return [value_at_least(f"{task}.at-{milestone.steps}", *found, least)]


def rows(cells: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of all evaluations, with the published mean beside them, and its worst and best seed, where they are known."""
    found = []
    for task, of in cells.items():
        known = {milestone.steps: milestone for milestone in published.MILESTONES.get(task, ())}
        everywhere = set.intersection(*({point["steps"] for point in cell["curve"]} for cell in of))
        for steps in sorted(everywhere):
            mean, there = mean_at(of, steps), known.get(steps)
            low, high = (mean.low, mean.high) if len(of) > 1 else (None, None)
            found.append({"task": task, "steps": steps, "return": mean.value, "return_low": low, "return_high": high,
                           "published": there and there.mean,
                          "published_low": there and there.low, "published_high": there and there.high,
                          "its sd over seeds": there and there.sd, "seeds": len(of)})  # fmt: skip
    return found


def protocols(cells: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of the last policies, by drawing from them and by their best actions."""
    return [{"task": task, "drawn, as published": float(np.mean([cell["curve"][-1]["return"] for cell in of])),
             "greedy": float(np.mean([cell["greedily"] for cell in of])), "seeds": len(of)}
            for task, of in cells.items()]  # fmt: skip


def costs(cells: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What training took with its evaluations; of seeds that were trained in one program, all of them together."""
    table = []
    for task, of in cells.items():
        steps, seconds = of[0]["curve"][-1]["steps"], float(np.mean([cell["wall_s"] for cell in of]))
        table.append({"task": task, "steps": steps, "wall_s": seconds, "steps/s": steps / seconds})
    return table


def taught(study: Study, size: Preset) -> tuple[dict[str, Any], list[Bar], int]:
    """Students of a stored agent, beside the curves of the part `small`."""
    settings = {**mrq.PRESETS["small"], **size.settings}
    alone = order(reuse.TASK, size.small_steps, settings)
    scratch = partial(curves, study, f"small-{reuse.TASK}", alone, size.small_seeds)
    return *reuse.run(study, settings, scratch, *size.reuse, size.small_seeds), size.small_seeds


def design(study: Study, size: Preset) -> tuple[dict[str, Any], list[Bar], int]:
    """Rows of the paper's design study, with the reduced agent."""
    settings = {**mrq.PRESETS["small"], **size.settings}
    return ablations.run(study, settings, size.small_steps, size.small_seeds)


def fast(study: Study, size: Preset) -> tuple[dict[str, Any], list[Bar], int]:
    """Updates per second, by what the machine's matrix products allow."""
    brief, small = study.preset == "smoke", {**mrq.PRESETS["small"], **size.settings}
    reduced = study.cell("speed-small", partial(speed.measure, small, brief=brief))
    found = study.cell("speed", partial(speed.measure, size.settings, brief=brief))
    accelerated = study.preset == "gpu"
    name, bar = ("steps_per_s", 490.0) if accelerated else ("share_of_matmul", 0.5)
    at = found[name]
    bars = [at_least(f"speed.{name}", at["value"], at["low"], at["high"], bar)] if study.preset != "smoke" else []
    measured = {"mrq": found, "mrq:small": reduced}
    table = [{"agent": agent, "quantity": quantity, **value} for agent, of in measured.items()
             for quantity, value in of.items()]  # fmt: skip
    return {"measured": table}, bars, 1


def beside(study: Study, size: Preset) -> tuple[dict[str, Any], list[Bar], int]:
    """Others' agents."""
    tables, seeds = compare(study, size.settings)
    return tables, [], seeds


Part = Callable[[Study, Preset], tuple[dict[str, Any], list[Bar], int]]
PARTS: dict[str, Part] = {
    "gym": partial(full, "gym"),
    "dmc": partial(full, "dmc"),
    "dmc-visual": partial(full, "dmc-visual"),
    "atari": partial(full, "atari"),
    "peers": beside,
    "small": small,
    "reuse": taught,
    "ablations": design,
    "speed": fast,
}

if __name__ == "__main__":
    main()
