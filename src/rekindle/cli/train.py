"""`rekindle train ALGORITHM --env ID`: an agent from scratch, or on from another."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from rekindle.agents.registry import config_from_json, config_to_json, module_of
from rekindle.cli import io as cli
from rekindle.cli.live import Live
from rekindle.core.budget import parse_budget
from rekindle.core.errors import ConfigError, within
from rekindle.envs import registry
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.train import session


@dataclass(frozen=True)
class Options:
    """Train an agent on an environment. Ctrl-C stops it cleanly; `rekindle resume` goes on."""

    algorithm: tyro.conf.Positional[str]
    """The agent: ppo."""
    env: str
    """The environment's id, such as xland/doors-4 or xland/f0."""
    budget: str = "5m"
    """Wall time (90s, 5m, 1h) or environment steps (2e6steps); each seed has it."""
    seeds: int = 1
    """How many runs, with seeds from --seed on."""
    seed: int = 0
    """The first seed."""
    curriculum: Literal["none", "doors", "foundation"] = "none"
    """What to practise on: the environment's own tasks, or a mixture that leads there."""
    init: Annotated[str | None, tyro.conf.arg(name="from", metavar="AGENT")] = None
    """Go on from this agent of the library, with its settings unless --set says otherwise."""
    trials: str | None = None
    """Trials per episode, a number or a range such as 1-4; by default 1 up to the environment's own number."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting of the agent, such as learning_rate=5e-4; repeat the option for more. An unknown one lists them all."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def run(argv: list[str]) -> int:
    """Train every seed, one after the other."""
    options = cli.parse(Options, argv, "rekindle train")
    library = Library.open()
    parse_budget(options.budget)
    within("--seed", options.seed, 0)
    within("--seeds", options.seeds, 1)
    env = registry.resolve(options.env, registry.ids())
    low, high = trial_range(options.trials)
    inherited = {} if options.init is None else settings_of(options.init, options.algorithm, library)
    chosen = inherited | settings(options.algorithm, options.set)
    order = session.Order(
        agent=options.algorithm,
        settings=config_to_json(config_from_json(options.algorithm, chosen)),
        env=env,
        budget=options.budget,
        curriculum=options.curriculum,
        init=options.init,
        min_trials=low,
        max_trials=high,
    )
    code = 0
    for seed in range(options.seed, options.seed + options.seeds):
        name = f"{options.algorithm}-{env.split('/')[1]}"
        code = max(code, carry_out(session.begin(order, library, name=name, seed=seed), library, json=options.json))
    return code


def carry_out(run: Run, library: Library, *, json: bool) -> int:
    """Train one run to its end or to Ctrl-C, and say where it is."""
    live = Live("trial/reward")
    live.stage("train", f"{run.id}")
    trained = session.carry_out(run, library, show=lambda now: live.progress("training", now))
    live.stage(run.manifest.status, f"{trained.env_steps:,} steps in {trained.wall_s:.0f} s: {run.path}")
    if json:
        last = run.metrics()[-1] if run.metrics() else {}
        cli.emit_json({"run": run.id, "status": run.manifest.status, "env_steps": trained.env_steps,
                       "wall_s": round(trained.wall_s, 3), "agent": run.id, "path": str(run.path),
                       "metrics": last})  # fmt: skip
    if trained.status == "interrupted":
        raise KeyboardInterrupt(run.how_to_go_on())
    return 0


def settings(algorithm: str, assignments: tuple[str, ...]) -> dict[str, object]:
    """`name=value` words as the agent's config fields, in the types of their defaults."""
    defaults = config_to_json(module_of(algorithm).Config())
    values: dict[str, object] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--set takes name=value, such as learning_rate=5e-4; got {assignment!r}.")
        kind = type(defaults.get(name, ""))
        try:
            values[name] = kind(text)
        except ValueError:
            number = {int: "a whole number", float: "a number"}.get(kind, kind.__name__)
            raise ConfigError(f"--set {name} takes {number}; got {text!r}.") from None
    return values


def settings_of(which: str, algorithm: str, library: Library) -> dict[str, object]:
    """The settings that an agent of the library was trained with."""
    record = library.find(which)
    if record.policy is None or record.policy["agent"] != algorithm:
        kept = "kept no policy" if record.policy is None else f"kept a policy of {record.policy['agent']}"
        raise ConfigError(f"--from takes a run with a policy of {algorithm}; {record.id} {kept}.")
    return dict(record.policy["config"])


def trial_range(text: str | None) -> tuple[int, int | None]:
    """`4` or `1-4`; nothing is from one to the environment's own number."""
    if text is None:
        return 1, None
    first, _, last = text.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()) or int(first) < 1 or int(last or first) < int(first):
        raise ConfigError(f"--trials takes a number or a range such as 1-4; got {text!r}.")
    return int(first), int(last or first)
