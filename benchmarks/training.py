"""What studies share that train and score agents: a library of their own, and scores as cells."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rekindle.agents.registry import config_from_json, config_to_json, load
from rekindle.core.stats import Interval, bootstrap, median, percentile_20
from rekindle.envs import registry
from rekindle.evaluate.adaptation import AGENT, FORGETFUL, GREEDY, NO_OP, RANDOM, adapt_curve
from rekindle.evaluate.evaluation_set import make_evaluation_set
from rekindle.evaluate.rollout import evaluation_key
from rekindle.evaluate.scores import SHARE_MASTERED, ScoreRecord
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.train import session, together
from rekindle.train.order import Order, order_of

HOME = Path(__file__).parent / ".library"
"""Runs of studies; ignored by git, so that a study resumes but its by-products stay out of the repository."""


def library() -> Library:
    """The studies' own library, with compiled programs kept beside it."""
    from rekindle.core.platform import enable_compilation_cache

    enable_compilation_cache(HOME)
    return Library.open(HOME)


def order(
    env: str, budget: str, *, curriculum: str, trials: tuple[int, int], agent: str = "ppo",
    pool: dict[str, Any] | None = None, choice: dict[str, Any] | None = None, **settings: Any,
) -> Order:  # fmt: skip
    """An order for an agent with some settings changed; `pool` and `choice` as in Order."""
    config = config_to_json(config_from_json(agent, settings))
    return Order(agent, config, env, budget, curriculum, pool or {}, choice or {}, {}, None, *trials)


def trained(name: str, what: Order, seed: int, kept: Library, say: Any) -> Path:
    """The policy folder of a finished training of this name and seed; trains, or goes on training, if need be."""
    run = opened(name, what, seed, kept)
    if run.manifest.status != "done":
        session.carry_out(
            run,
            kept,
            show=lambda now: say(f"{name} seed {seed}: {now.share:.0%} {now.metrics.get('trial/reward', 0):.2f}"),
        )
    refuse_unfinished([run])
    return run.path / "policy"


def refuse_unfinished(runs: Sequence[Run]) -> None:
    """A training that was interrupted is not scored."""
    for run in runs:
        if run.manifest.status != "done":
            raise KeyboardInterrupt(run.how_to_go_on())


def opened(name: str, what: Order, seed: int, kept: Library) -> Run:
    """The run of this name and seed; it begins here, if there is none."""
    same = [r for r in kept.runs(name=name) if r.manifest.seed == seed and order_of(r.manifest.config) == what]
    return Run.open(kept, same[-1].id) if same else session.begin(what, kept, name=name, seed=seed)


def train_together(name: str, what: Order, seeds: Sequence[int], kept: Library, say: Any) -> None:
    """What `trained` would train seed by seed, in one program: several seeds fill an accelerator better than one."""
    runs = [run for run in (opened(name, what, seed, kept) for seed in seeds) if run.manifest.status != "done"]
    if runs:
        together.carry_out(runs, kept, show=lambda run, now: say(f"{name} seed {run.manifest.seed}: {now.share:.0%}"))
        refuse_unfinished(runs)


def scores(folder: Path, tasks: str, *, trials: list[int], count: int, repetitions: int, seed: int, kind: Any,
           options: dict[str, Any] | None = None, split: str = "test",
           greedy: bool = True) -> dict[str, Any]:  # fmt: skip
    """Per-task scores of an agent and its baselines on held-out tasks, by policy and number of trials."""
    made = registry.make(tasks)
    pool = made.pool(split=split, seed=seed, **(options or {}))
    held_out = make_evaluation_set(made.env, pool, tasks=count, cache=HOME / "planned", seed=seed)
    policy = load(folder, env_spec=made.spec).policy
    result = adapt_curve(held_out, policy, evaluation_key(seed), trials=trials, repetitions=repetitions, kind=kind,
                         greedy=greedy)  # fmt: skip
    table = {f"{who}|{k}": record.scores().tolist() for (who, k), record in result.records.items()}
    first = {str(k): first_trial(result.records[AGENT, k]) for k in trials}
    return {"scores": table, "first_trial": first, "left_out": held_out.left_out, "env_steps": result.env_steps}


def first_trial(record: ScoreRecord) -> list[float]:
    """Score of the first trial of each task's episodes, whatever their number of trials."""
    return dataclasses.replace(record, values=record.values[:, :, :1]).scores().tolist()


def interval(cells: list[dict[str, Any]], who: str, k: int) -> Interval:
    """Mean over seeds (one cell each) and tasks, with its 95 % interval."""
    return bootstrap(np.asarray([cell["scores"][f"{who}|{k}"] for cell in cells]))


def excess(cells: list[dict[str, Any]], who: str, control: str, k: int, other: int, times: float) -> Interval:
    """Mean of the gain from `other` to k trials, less `times` the control's, task by task; its 95 % interval."""
    gains = [[np.subtract(c["scores"][f"{w}|{k}"], c["scores"][f"{w}|{other}"]) for w in (who, control)] for c in cells]
    return bootstrap(np.asarray([gain - times * reference for gain, reference in gains]))


def difference(cells: list[dict[str, Any]], who: str, k: int, other: int) -> Interval:
    """Mean of score(k) - score(other), task by task, with its 95 % interval."""
    rows = [np.subtract(cell["scores"][f"{who}|{k}"], cell["scores"][f"{who}|{other}"]) for cell in cells]
    return bootstrap(np.asarray(rows))


def table(cells: list[dict[str, Any]], trials: list[int]) -> list[dict[str, Any]]:
    """One row per policy and number of trials."""
    rows = []
    for who, ks in ((AGENT, trials), (GREEDY, trials), (FORGETFUL, trials), (RANDOM, [1]), (NO_OP, [1])):
        for k in ks:
            values = np.asarray([cell["scores"][f"{who}|{k}"] for cell in cells])
            columns = {
                "mean": bootstrap(values),
                "median": bootstrap(values, median),
                "percentile_20": bootstrap(values, percentile_20),
                f"share_{SHARE_MASTERED}": bootstrap((values >= SHARE_MASTERED).astype(float)),
                "share_above_0": bootstrap((values > 0).astype(float)),
            }
            ends = {f"{name}_{end}": value for name, i in columns.items() for end, value in i._asdict().items()}
            rows.append({"policy": who, "k": k, **{n.removesuffix("_value"): value for n, value in ends.items()}})
    return rows
