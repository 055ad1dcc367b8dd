"""`rekindle evaluate AGENT --tasks ID`: a score on tasks it has never seen, beside what it must be compared with.

With `--env ID` it is the return of whole episodes in that environment: evaluate_returns.py.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table

from rekindle.agents.registry import Loaded, incompatible
from rekindle.cli import evaluate_returns as returns
from rekindle.cli import io as cli
from rekindle.cli.live import Live
from rekindle.cli.train import assigned
from rekindle.core.budget import quoted
from rekindle.core.errors import ConfigError, within
from rekindle.core.types import given
from rekindle.envs import registry
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.env import XLand
from rekindle.evaluate.adaptation import AGENT, FORGETFUL, GREEDY, NO_OP, PLANNER, RANDOM, Adaptation, adapt_curve
from rekindle.evaluate.evaluation_set import make_evaluation_set
from rekindle.evaluate.rollout import evaluation_key
from rekindle.evaluate.scores import Kind, Summary
from rekindle.library import files
from rekindle.library.artefact import read_meta
from rekindle.library.library import Library
from rekindle.library.manifest import Parent
from rekindle.library.run import Run
from rekindle.report.plots import Curve, adaptation_plot
from rekindle.train import teaching
from rekindle.verbs import load


@dataclass(frozen=True)
class Options:
    """Score an agent: by the return of whole episodes in an environment (--env), or on held-out tasks (--tasks).

    Returns stand beside those of acting at random. On tasks of XLand it is the last trial's reward over the planner's,
    for several numbers of trials, beside random, idle and forgetful policies.
    """

    agent: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="AGENT")]
    """An id in the library (or its beginning, or a name that one run has), or a folder with a policy."""
    env: str | None = None
    """An environment, such as minatar/breakout or HalfCheetah-v5: the return of whole episodes there."""
    episodes: int = 100
    """With --env: so many; where worlds are not written in JAX, rounded up to a multiple of eight."""
    pool: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """With --env: an option of the environment, such as sticky=0.25; repeat it for more. By default those that the
    agent was trained with."""
    tasks: str | None = None
    """A family of XLand's tasks, such as xland/doors-4 or xland/f0."""
    trials: str = "1,2,3,5,8,13"
    """With --tasks: numbers of trials per episode, with commas between."""
    count: int = 256
    """With --tasks: held-out tasks."""
    repetitions: int = 16
    """With --tasks: episodes per task and number of trials."""
    seed: int = 0
    """Of tasks, starts and actions."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def run(argv: list[str]) -> int:
    """Evaluate and show a table; the run folder has the values and a plot."""
    options = cli.parse(Options, argv, "rekindle evaluate")
    numbers(options.trials)
    for name, least in (("count", 1), ("repetitions", 1), ("episodes", 1), ("seed", 0)):
        within(f"--{name}", getattr(options, name), least)
    if (options.env is None) == (options.tasks is None):
        raise ConfigError("evaluate takes --env ENVIRONMENT for returns, or --tasks FAMILY of XLand; give one of them.")
    return carry_out(by_return(options) if options.env is not None else on_tasks(options), Library.open(),
                     json=options.json)  # fmt: skip


def by_return(options: Options) -> Run:
    """A run that is to measure returns in an environment."""
    assert options.env is not None
    library = Library.open()
    loaded = load(options.agent, library=library)
    id, home = (registry.resolve(env, registry.ids()) for env in (options.env, loaded.spec.id))
    usual = options_of(options.agent, library) if id == home else {}
    pool = assigned("--pool", "sticky=0.25", options.pool) if options.pool else usual
    made = registry.world(id, **pool)
    returns.refuse_other(loaded, options.agent, made)
    return Run.create(library, "evaluate", name=f"in-{made.spec.id.split('/')[-1]}",
                      config={**options.__dict__, "env": id, "pool": pool}, seed=options.seed, env_id=made.spec.id,
                      parents=judged(options.agent, library))  # fmt: skip


def options_of(agent: str, library: Library) -> Any:
    """Of the environment that an agent was trained in."""
    folder = Path(agent)
    if os.path.isfile(folder / "policy.json"):
        return read_meta(folder).provenance.get("options", {})
    return teaching.pool_of_run(library.find(agent))


def on_tasks(options: Options) -> Run:
    """A run that is to score on held-out tasks."""
    assert options.tasks is not None
    made = registry.make(options.tasks)
    if not (isinstance(made.env, Trials) and isinstance(made.env.env, XLand)):
        raise ConfigError(
            f"the planner normalises scores of xland tasks only; got {options.tasks!r}. --env gives returns anywhere."
        )
    library = Library.open()
    if reason := incompatible(load(options.agent, library=library).spec, made.spec):
        raise ConfigError(f"{options.agent} cannot act in {made.spec.id}: {reason}.")
    return Run.create(library, "evaluate", name=f"on-{made.spec.id.split('/')[1]}", config=options.__dict__,
                      seed=options.seed, env_id=made.spec.id, parents=judged(options.agent, library))  # fmt: skip


def judged(agent: str, library: Library) -> list[Parent]:
    """The run whose policy is scored; none if that is a folder from elsewhere."""
    if os.path.isfile(Path(agent) / "policy.json"):
        return []
    record = library.find(agent)
    return [Parent(id=record.id, role="policy", sha256=record.row.weights)]


def carry_out(run: Run, library: Library, *, json: bool) -> int:
    """Score, or go on scoring, as the run's manifest says."""
    options, live = Options(**run.manifest.config), Live("")  # pyright: ignore[reportArgumentType]
    with run.held():
        try:
            if options.env is not None:
                loaded = unchanged(run, options.agent, library)
                returns.carry_out(run, loaded, options.env, options.episodes, options.seed, live, json=json)
                return 0
            left_out, result = score(run, library, options, live)
        except KeyboardInterrupt:
            run.finish("interrupted")
            raise KeyboardInterrupt(run.how_to_go_on()) from None
        except Exception as error:
            run.fail(str(error))
            raise
        rows = result.summaries()
        save(run, result, rows)
    most = trained_trials(options.agent, library)
    tasks = registry.make(given(options.tasks)).spec.id
    counted = f"{options.count - left_out} tasks, {options.repetitions} repetitions, {left_out} left out"
    show(rows, f"{tasks}: {counted}", most)
    live.stage("done", run.location)
    if json:
        cli.emit_json({"run": run.id, "tasks": tasks, "kind": kind_of(tasks), "normaliser": "planner",
                       "left_out": left_out, "env_steps": result.env_steps, "path": run.location,
                       "trained_trials": most,
                       "rows": [row.to_json() | {"extrapolated": is_beyond(row, most)} for row in rows]})  # fmt: skip
    return 0


def trained_trials(agent: str, library: Library) -> int | None:
    """Most trials per episode that an agent was trained with; None if that is not known."""
    if os.path.isfile(Path(agent) / "policy.json"):
        return None
    manifest = library.find(agent).manifest
    most = manifest.config.get("max_trials")
    if most is None and manifest.kind == "train" and manifest.env_id in registry.ids():
        most = registry.make(manifest.env_id).trials
    return most if isinstance(most, int) else None


def score(run: Run, library: Library, options: Options, live: Live) -> tuple[int, Adaptation]:
    """Tasks that the planner leaves out, and the records; what an interrupted run had is not played again."""
    made = registry.make(given(options.tasks))
    loaded = unchanged(run, options.agent, library)
    live.stage("plan", f"{options.count} held-out tasks of {made.spec.id}")
    pool = made.pool(split="test", seed=options.seed)
    assert isinstance(made.env, Trials)
    held_out = make_evaluation_set(
        made.env, pool, tasks=options.count, cache=library.folder / "planned", seed=options.seed
    )
    saved = run.latest_checkpoint()
    weights = loaded.artefact.meta.weights.sha256
    if saved is not None and saved[2].get("weights", weights) != weights:
        raise ConfigError(f"{options.agent} has other weights than when {run.id} began; evaluate it anew.")
    arrays = {} if saved is None else saved[1]
    kept = {(name.rpartition("/")[0], int(name.rpartition("/")[2])): values for name, values in arrays.items()}

    def keep(values: dict[tuple[str, int], np.ndarray]) -> None:
        run.save_checkpoint(len(values), {f"{policy}/{k}": rewards for (policy, k), rewards in values.items()},
                            {"weights": weights})  # fmt: skip

    result = adapt_curve(
        held_out,
        loaded.policy,
        evaluation_key(options.seed),
        trials=numbers(options.trials),
        repetitions=options.repetitions,
        kind=kind_of(made.spec.id),
        progress=lambda policy, k: live.stage("roll out", f"{policy}, {k} trials"),
        kept=kept,
        keep=keep,
    )
    return held_out.left_out, result


def unchanged(run: Run, agent: str, library: Library) -> Loaded:
    """The agent, as it was when the run began.

    Raises:
        ConfigError: its weights have been replaced since.
    """
    loaded = load(agent, library=library)
    for parent in run.manifest.parents:
        if parent.sha256 not in (None, loaded.artefact.meta.weights.sha256):
            raise ConfigError(f"{parent.id} has other weights than when {run.id} began; evaluate it anew.")
    return loaded


def kind_of(tasks: str) -> Kind:
    """What a score on these tasks is."""
    return "success" if tasks.startswith("xland/doors") else "return"


def numbers(text: str) -> list[int]:
    """`1,2,5` as integers."""
    parts = [part.strip() for part in text.split(",")]
    found = [int(part) for part in parts if re.fullmatch("[0-9]{1,4}", part)]
    if len(set(found)) < len(parts) or not all(1 <= number <= 64 for number in found):
        raise ConfigError(
            f"--trials takes different numbers from 1 to 64 with commas between, such as 1,2,3,5; got {quoted(text)}."
        )
    return found


def save(run: Run, result: Adaptation, rows: list[Summary]) -> None:
    """Values, summaries and a plot into the run's folder."""
    values = {f"{policy}/{k}": record.values for (policy, k), record in result.records.items()}
    run.save_checkpoint(len(values), values, {"rows": [row.to_json() for row in rows]})
    others = (GREEDY, FORGETFUL, RANDOM, NO_OP, PLANNER)
    curves = {name: [row for row in rows if row.policy == name] for name in (AGENT, *others)}
    drawn = {name: Curve(name, [r.trials for r in part], *zip(*[r.mean for r in part], strict=True))
             for name, part in curves.items()}  # fmt: skip
    plot = adaptation_plot(drawn[AGENT], [drawn[n] for n in others])
    files.write_bytes(run.path / "adaptation.svg", plot)
    scores: list[dict[str, Any]] = [{"name": f"{row.policy} k={row.trials}", **row.mean._asdict()} for row in rows]
    run.update(scores=scores)
    run.finish("done", env_steps=result.env_steps)


def is_beyond(row: Summary, most: int | None) -> bool:
    """Whether a score is an extrapolation: with more trials than were trained."""
    return most is not None and row.trials > most


def show(rows: list[Summary], title: str, most: int | None) -> None:
    """The table; numbers of trials beyond what was trained are marked."""
    beyond = most is not None and any(is_beyond(row, most) for row in rows)
    note = f"* more trials than the {most} it was trained with: extrapolation" if beyond else None
    table = Table(title=title, caption=note)
    for column in ("policy", "k", "mean", "95 % interval", "median", "20th percentile", "share >= 0.8", "share > 0"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for row in rows:
        interval = f"{row.mean.low:.3f} to {row.mean.high:.3f}"
        table.add_row(row.policy, f"{row.trials}{'*' * is_beyond(row, most)}", f"{row.mean.value:.3f}", interval,
                      f"{row.median.value:.3f}", f"{row.percentile_20.value:.3f}", f"{row.share_mastered.value:.2f}",
                      f"{row.share_above_0.value:.2f}")  # fmt: skip
    cli.console().print(table)
