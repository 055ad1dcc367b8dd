"""`rekindle evaluate AGENT --tasks ID`: a score on tasks it has never seen, beside what it must be compared with."""

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from rich.table import Table

from rekindle.agents.registry import incompatible
from rekindle.cli import io as cli
from rekindle.cli.live import Live
from rekindle.core.errors import ConfigError, within
from rekindle.envs import registry
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.env import XLand
from rekindle.evaluate.adaptation import AGENT, FORGETFUL, GREEDY, NO_OP, PLANNER, RANDOM, Adaptation, adapt_curve
from rekindle.evaluate.exam import make_exam
from rekindle.evaluate.scores import Summary
from rekindle.library import files
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.report.plots import Curve, adaptation_plot
from rekindle.verbs import load


@dataclass(frozen=True)
class Options:
    """Score an agent on held-out tasks: the last trial's reward over the planner's, for several numbers of trials."""

    agent: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="AGENT")]
    """An id in the library (or its beginning), or a folder with a policy."""
    tasks: str
    """The task family, such as xland/doors-4 or xland/f0."""
    trials: str = "1,2,3,5,8,13"
    """Numbers of trials per episode, with commas between."""
    count: int = 256
    """Held-out tasks."""
    repetitions: int = 16
    """Episodes per task and number of trials."""
    seed: int = 0
    """Of tasks, starts and actions."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def run(argv: list[str]) -> int:
    """Evaluate and show a table; the run folder has the values and a plot."""
    options = cli.parse(Options, argv, "rekindle evaluate")
    trials = numbers(options.trials)
    for name, least in (("count", 1), ("repetitions", 1), ("seed", 0)):
        within(f"--{name}", getattr(options, name), least)
    made = registry.make(options.tasks)
    if not (isinstance(made.env, Trials) and isinstance(made.env.env, XLand)):
        raise ConfigError(f"the planner normalises scores of xland tasks only; got {options.tasks!r}.")
    library, live = Library.open(), Live("")
    loaded = load(options.agent, library=library)
    if reason := incompatible(loaded.spec, made.spec):
        raise ConfigError(f"{options.agent} cannot act in {made.spec.id}: {reason}.")
    live.stage("plan", f"{options.count} held-out tasks of {made.spec.id}")
    pool = made.pool(split="test", seed=options.seed)
    exam = make_exam(made.env, pool, tasks=options.count, cache=library.folder / "planned", seed=options.seed)
    kind = "success" if made.spec.id.startswith("xland/doors") else "return"
    kept = Run.create(library, "evaluate", name=f"on-{made.spec.id.split('/')[1]}", config=options.__dict__,
                      seed=options.seed, env_id=made.spec.id)  # fmt: skip
    try:
        result = adapt_curve(
            exam,
            loaded.policy,
            jax.random.key(options.seed),
            trials=trials,
            repetitions=options.repetitions,
            kind=kind,
            progress=lambda policy, k: live.stage("roll out", f"{policy}, {k} trials"),
        )
    except KeyboardInterrupt:
        kept.finish("failed", notes="interrupted")
        raise KeyboardInterrupt("interrupted; ask again, an evaluation starts over.") from None
    rows = result.summaries()
    save(kept, result, rows)
    show(
        rows, f"{made.spec.id}: {len(exam.optimum)} tasks, {options.repetitions} repetitions, {exam.left_out} left out"
    )
    live.stage("done", str(kept.path))
    if options.json:
        cli.emit_json({"run": kept.id, "tasks": made.spec.id, "kind": kind, "normaliser": "planner",
                       "left_out": exam.left_out, "env_steps": result.env_steps, "path": str(kept.path),
                       "rows": [row.to_json() for row in rows]})  # fmt: skip
    return 0


def numbers(text: str) -> list[int]:
    """`1,2,5` as integers."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= 64 for part in parts):
        raise ConfigError(f"--trials takes numbers from 1 to 64 with commas between, such as 1,2,3,5; got {text!r}.")
    return [int(part) for part in parts]


def save(run: Run, result: Adaptation, rows: list[Summary]) -> None:
    """Values, summaries and a plot into the run's folder."""
    values = {f"{policy}/{k}": record.values.astype(np.float32) for (policy, k), record in result.records.items()}
    run.save_checkpoint(0, values, {"rows": [row.to_json() for row in rows]})
    curves = {
        name: [row for row in rows if row.policy == name] for name in (AGENT, GREEDY, FORGETFUL, RANDOM, NO_OP, PLANNER)
    }
    drawn = {name: Curve(name, [r.trials for r in part], *zip(*[r.mean for r in part], strict=True))
             for name, part in curves.items()}  # fmt: skip
    plot = adaptation_plot(drawn[AGENT], [drawn[n] for n in others])
    files.write_bytes(run.path / "adaptation.svg", plot)
    scores: list[dict[str, Any]] = [{"name": f"{row.policy} k={row.trials}", **row.mean._asdict()} for row in rows]
    run.update(scores=scores)
    run.finish("done", env_steps=result.env_steps)


def show(rows: list[Summary], title: str) -> None:
    """The table."""
    table = Table(title=title)
    for column in ("policy", "k", "mean", "95 % interval", "median", "20th percentile", "share >= 0.8", "share > 0"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for row in rows:
        interval = f"{row.mean.low:.3f} to {row.mean.high:.3f}"
        table.add_row(row.policy, str(row.trials), f"{row.mean.value:.3f}", interval,
                      f"{row.median.value:.3f}", f"{row.percentile_20.value:.3f}", f"{row.share_mastered.value:.2f}",
                      f"{row.share_above_0.value:.2f}")  # fmt: skip
    cli.console().print(table)
