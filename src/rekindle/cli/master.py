"""`rekindle master "<goal>"` or `rekindle master --env E --reach RETURN`: the main job."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from rekindle.answer import tell
from rekindle.cli import io as cli
from rekindle.cli.live import Live
from rekindle.cli.reincarnate import Trust, Valued
from rekindle.cli.train import assigned
from rekindle.core.budget import parse_budget, quoted
from rekindle.core.errors import BudgetExceeded, ConfigError, ImpossibleGoal
from rekindle.envs.xland.goals import Hide
from rekindle.library import sinks
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.master import Outcome, Request, master, shown
from rekindle.reincarnation.teachers.load import settled

EXIT = {"mastered": 0, "improved": BudgetExceeded.exit_code, "not_mastered": BudgetExceeded.exit_code,
        "impossible": ImpossibleGoal.exit_code}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Give it a goal; get an agent that reaches it, with a number, an interval and a report.

    A goal is one relation: `hold yellow sphere`, `near(yellow sphere, black cube)`, `touching(me, purple wall)`,
    `not hold black cube`. Colours: black purple yellow; shapes: wall cube sphere pyramid. Or it is a return in an
    environment: `--env minatar/breakout --reach 10`.
    """

    goal: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="GOAL")] = ""
    """The goal, in quotes."""
    env: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Instead of words: an environment, such as minatar/breakout, gymnax/CartPole-v1 or gymnax/Catch-bsuite."""
    reach: Annotated[float | None, tyro.conf.arg(metavar="RETURN")] = None
    """The mean undiscounted return of an episode in it that the 95 % interval's lower end must reach."""
    pool: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """An option of the environment, such as sticky=0.25; repeat the option for more."""
    student: Annotated[str | None, tyro.conf.arg(metavar="AGENT")] = None
    """Who learns in it from scratch: dqn, rainbow or mrq, perhaps with a size, as mrq:small. By default dqn for choices
    in worlds written in JAX or shown as pictures, and mrq for all else, which is reduced (mrq:small) without a GPU."""
    rule: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="RULE")] = ()
    """A production rule, such as "hold black cube -> yellow sphere"; repeat the option for more."""
    hide: Hide = "none"
    """What the agent is not told about the rules, and has to find out."""
    world: Annotated[str, tyro.conf.arg(metavar="WORLD")] = "f0"
    """Where: f0 (7x7 room), f1 (9x9), f2 (four rooms with gates), or a file with an ASCII map."""
    trials: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Trials in an episode, k; the score is the last one's. Default 5 if anything is hidden, else 1."""
    budget: Annotated[str, tyro.conf.arg(metavar="TIME|STEPS")] = "5m"
    """Wall time (90s, 5m, 1h) or environment steps (2e6steps); looked at after every few thousand steps of practice."""
    target: float = 0.8
    """Of a goal in words: the score that the interval's lower end must reach; 1 is the best that the planner finds."""
    source: Annotated[str | None, tyro.conf.arg(name="from", metavar="AGENT")] = None
    """Reuse only this prior: an id in the library or a folder with a policy (as ./name); for a return also the folder
    of a run, a zip of Stable-Baselines3, an ONNX file or a function as module:name."""
    trust: Trust = False
    valued: Valued = False
    no_reuse: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Use nothing from the library: learn from scratch."""
    seed: int = 0
    """Of worlds, starts and weights."""
    log: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="TRACKER")] = ()
    """Send the curves of practice to a tracker, too: tensorboard, wandb or mlflow; repeat the option for more."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def run(argv: list[str]) -> int:
    """Read the options and do it."""
    options = cli.parse(Options, argv, "rekindle master")
    sinks.check(options.log)
    budget = parse_budget(options.budget)
    if budget.learnt_steps is not None:
        raise ConfigError(f"master's --budget is a time like 5m or steps like 2e6steps; got {quoted(options.budget)}.")
    library = Library.open()
    request = Request(
        goal=options.goal,
        rules=options.rule,
        hide=options.hide,
        world=options.world,
        trials=options.trials,
        seed=options.seed,
        budget=budget,
        target=options.target,
        source=options.source and settled(options.source, library.runs_folder),
        trust=options.trust,
        valued=options.valued,
        reuse=not options.no_reuse,
        log=options.log,
        env=options.env,
        reach=options.reach,
        pool=assigned("--pool", "sticky=0.25", options.pool),
        student=options.student,
    )
    return carry_out(request, library, json=options.json)


def carry_out(request: Request, library: Library, *, json: bool, run: Run | None = None) -> int:
    """Do it, write the report, say what came of it."""
    live = Live("validation/score" if request.env is None else "score/return")
    outcome = master(request, library, live, run=run)
    live.stage("report", "plots and page")
    report = tell(outcome, library)
    for problem in outcome.run.problems:
        live.stage("tracker", problem)
    say(outcome, live)
    live.stage("done", f"report: {report}")
    if json:
        cli.emit_json(outcome.to_json(report))
    return EXIT[outcome.verdict]


def say(outcome: Outcome, live: Live) -> None:
    """The verdict in a line."""
    parts = [outcome.reason]
    if outcome.proof:
        parts.insert(0, f"{shown(outcome.proof.score)} {outcome.task.unit} by {outcome.strategy}")
    live.stage(outcome.verdict.replace("_", " "), f"{outcome.task.text}: {'; '.join(parts)}")
