"""`rekindle train ALGORITHM --env ID`: an agent from scratch, or on from another."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from rekindle.agents.registry import config_from_json, config_to_json, make_agent, module_of, variant_of
from rekindle.cli import io as cli
from rekindle.cli.live import Live, last_words
from rekindle.core.budget import parse_budget, quoted
from rekindle.core.errors import ConfigError, did_you_mean, within
from rekindle.envs import registry
from rekindle.library import sinks
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.train import session, together
from rekindle.train.forecast import Forecast, forecast
from rekindle.train.loop import Trained
from rekindle.train.order import Order, episodes_of, in_world, made_for, order_of

MAX_TRIALS = 32_767
"""Tasks keep their number of trials in 16 bits."""
EVALUATE_STEPS, ATARI_STEPS = 5_000, 100_000
"""Between two evaluations of MR.Q, as published; of Atari games, which are long."""
MAX_SETTING = 80
"""Characters of a value of --set."""


@dataclass(frozen=True)
class Options:
    """Train an agent on an environment. Ctrl-C stops it cleanly; `rekindle resume` goes on."""

    algorithm: tyro.conf.Positional[str]
    """The agent: ppo, muesli, dqn, rainbow or mrq; perhaps with a network, a size or published settings, as
    rainbow:impala, mrq:small or dqn:atari."""
    env: str
    """The environment's id, such as xland/doors-4 or xland/f0."""
    budget: str = "5m"
    """Wall time (90s, 5m, 1h) or environment steps (2e6steps; 2e6learnt of which it learns); each seed has it."""
    seeds: int = 1
    """How many runs, with seeds from --seed on."""
    seed: int = 0
    """The first seed."""
    together: bool = False
    """Train all seeds in one program, which an accelerator does in less time than one after the other. Not for dqn and
    rainbow; each seed is still a run of its own, which resumes and repeats alone, up to rounding."""
    curriculum: Literal["none", "doors", "foundation", "ramp", "plr", "no-op", "regret"] = "none"
    """What to practise on: the environment's own tasks as they come; a mixture that leads there (doors, foundation);
    its tasks with headings that are fixed at first (ramp); or those among them that are worth it: by prioritised level
    replay, AdA's no-op filter, or the planner's regret."""
    choose: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting of the curriculum plr, no-op or regret, such as capacity=500; repeat the option for more."""
    pool: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """An option of the environment's pool of tasks, such as worlds=64, hidden=none or (for two players)
    alone=0.5, the share of tasks for one; repeat the option for more."""
    init: Annotated[str | None, tyro.conf.arg(name="from", metavar="AGENT")] = None
    """Go on from the weights of this agent of the library, with its settings unless --set says otherwise; optimiser and
    replay begin anew."""
    partner: Annotated[str | None, tyro.conf.arg(metavar="AGENT")] = None
    """In worlds for two: an agent of the library that is among the co-players from the beginning."""
    trials: str | None = None
    """Trials per episode, a number or a range such as 1-4; by default 1 up to the environment's own number."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting of the agent, such as gamma=0.97; repeat the option for more. `--set x=1` lists them all."""
    evaluate_every: int | None = None
    """Environment steps between two evaluations of whole episodes without exploration; 0: none. By default 5000 for mrq
    (Atari: 100000), none for others."""
    episodes: int = 10
    """Of an evaluation."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints, looked at every few updates; a crash loses what came after the last."""
    log: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="TRACKER")] = ()
    """Send the curves to a tracker, too: tensorboard, wandb or mlflow; repeat the option for more."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def run(argv: list[str]) -> int:
    """Train every seed, one after the other or all together."""
    options = cli.parse(Options, argv, "rekindle train")
    library = Library.open()
    parse_budget(options.budget)
    within("--seed", options.seed, 0)
    within("--seeds", options.seeds, 1)
    sinks.check(options.log)
    env = registry.resolve(options.env, registry.ids())
    low, high = trial_range(options.trials)
    algorithm, variant = variant_of(options.algorithm)
    inherited = {} if options.init is None else settings_of(options.init, algorithm, library)
    kind = make_agent(algorithm, module_of(algorithm).Config()).needs.kind
    world = in_world(env) if kind == "transition" else {}
    chosen = world | inherited | variant | settings(algorithm, options.set)
    config = config_from_json(algorithm, chosen)
    order = Order(
        agent=algorithm,
        settings=config_to_json(config),
        env=env,
        budget=options.budget,
        curriculum=options.curriculum,
        pool=assigned("--pool", "worlds=64", options.pool),
        choice=assigned("--choose", "capacity=500", options.choose),
        init=options.init,
        min_trials=low,
        max_trials=high,
        checkpoint_seconds=checkpoint_seconds(options.checkpoint_every),
        log=options.log,
        partners=partners(options.partner, env),
        evaluate_steps=evaluate_steps(options, kind),
        episodes=options.episodes,
    )
    session.check(order, library)
    name, seeds = (
        f"{algorithm}-{registry.last_of(env)}",
        range(options.seed, options.seed + options.seeds),
    )
    if options.together:
        together.refuse(order)
        return carry_out_together([session.begin(order, library, name=name, seed=seed) for seed in seeds], library,
                                  json=options.json)  # fmt: skip
    return max(carry_out(session.begin(order, library, name=name, seed=seed), library, json=options.json)
               for seed in seeds)  # fmt: skip


def evaluate_steps(options: Options, kind: str) -> int:
    """Between two evaluations."""
    within("--episodes", options.episodes, 1)
    if options.evaluate_every is None:
        steps = ATARI_STEPS if registry.is_atari(options.env) else EVALUATE_STEPS
        return steps if kind == "sequence" else 0
    within("--evaluate-every", options.evaluate_every, 0)
    if options.evaluate_every and kind == "rollout":
        raise ConfigError(
            "--evaluate-every is for agents that learn from a replay; `rekindle evaluate --env` scores others."
        )
    return options.evaluate_every


def checkpoint_seconds(given: float) -> float:
    """Between two checkpoints.

    Raises:
        ConfigError: no such span.
    """
    if not 0 <= given < 1e9:
        raise ConfigError(f"--checkpoint-every takes seconds, 0 or more; got {given!r}.")
    return given


def assigned(option: str, example: str, assignments: tuple[str, ...]) -> dict[str, object]:
    """`name=value` words of an option: whole numbers, numbers, or words.

    Raises:
        ConfigError: a word of another form.
    """
    found: dict[str, object] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name.isidentifier() or not text.isprintable() or len(text) > MAX_SETTING:
            raise ConfigError(f"{option} takes name=value, such as {example}; got {quoted(assignment)}.")
        found[name] = next(read for kind in (_whole, float, str) if (read := _tried(kind, text)) is not None)
    return found


def _tried(kind: Callable[[str], object], text: str) -> object | None:
    try:
        return kind(text)
    except ValueError:
        return None


def partners(which: str | None, env: str) -> dict[str, str]:
    """Settings of the pool of co-players."""
    if which is None:
        return {}
    if registry.make(env).spec.players < 2:
        raise ConfigError(f"--partner is for worlds for two, such as xland/c2; {env} has one player.")
    return {"begin_with": which}


def carry_out(run: Run, library: Library, *, json: bool) -> int:
    """Train one run to its end or to Ctrl-C, and say where it is."""
    live = Live(shown_by(run.manifest.config))
    announce(live, [run], library)
    trained = session.carry_out(run, library, show=lambda now: live.progress("training", now))
    facts = tell(run, library, trained, live)
    if run.manifest.status == "interrupted":
        raise KeyboardInterrupt(run.how_to_go_on(), facts)
    if json:
        cli.emit_json(facts)
    return 0


def shown_by(config: Mapping[str, Any]) -> str:
    """The score that is shown while an order is carried out."""
    if config.get("teacher"):
        return "score/normalised"
    return "score/return" if config.get("evaluate_steps") else "trial/reward"


def announce(live: Live, runs: list[Run], library: Library) -> None:
    """What is trained, and how long that will take, where it can be told."""
    order = order_of(runs[0].manifest.config)
    saved = runs[0].latest_checkpoint()
    begun = saved is not None
    if not begun and (expected := foreseen(order, runs, library)) is not None:
        live.stage("forecast", spoken(expected, order) + (", for one seed alone" if len(runs) > 1 else ""))
    live.stage("train", ", ".join(run.id for run in runs))
    if not begun and order.evaluate_steps:
        live.stage("evaluate", f"{order.episodes} episodes before the first step, every {order.evaluate_steps:,} and "
                               "at the end; their steps are not of the budget")  # fmt: skip
    if saved is not None:
        live.stage("resume", f"from the checkpoint of step {saved[2].get('env_steps', 0):,}")
    if order.teacher is not None and not begun:
        number = session.MARKED * episodes_of(made_for(order), order.student_episodes)
        live.stage("prepare", f"the teacher and chance play {number} episodes each, and the steps of its replay are "
                              "labelled (it plays some where it kept none); then it is learnt from")  # fmt: skip


def foreseen(order: Order, runs: list[Run], library: Library) -> Forecast | None:
    """What is expected; Ctrl-C while that is measured leaves runs that can be gone on with."""
    try:
        return forecast(order, made_for(order), library)
    except KeyboardInterrupt:
        for run in runs:
            with run.held():
                run.finish("interrupted")
        raise KeyboardInterrupt(" ".join(run.how_to_go_on() for run in runs)) from None


def spoken(expected: Forecast, order: Order) -> str:
    """A forecast in words."""
    warmup, whole = order.settings.get("warmup", 0), ""
    if (seconds := parse_budget(order.budget).seconds) is not None:
        whole = f", after {warmup:,} that fill the replay"
        if expected.steps_per_s * seconds < warmup:
            whole += f", which is much for {order.budget}: give more, or a shorter --set warmup=..."
    if expected.seconds is not None and order.teacher is None:  # a teacher's data take time, too
        whole = f", {order.budget} in about {duration(expected.seconds)}"
    return f"{expected.steps_per_s:,.3g} steps/s{whole}, {expected.source}"


def duration(seconds: float) -> str:
    """As a person says it."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def carry_out_together(runs: list[Run], library: Library, *, json: bool) -> int:
    """The same for several seeds in one program; shown is how the first one goes."""
    live = Live(shown_by(runs[0].manifest.config))
    announce(live, runs, library)
    trained = together.carry_out(
        runs, library, show=lambda run, now: live.progress("training", now) if run is runs[0] else None
    )
    facts = [tell(run, library, one, live) for run, one in zip(runs, trained, strict=True)]
    if any(run.manifest.status == "interrupted" for run in runs):
        go_on = " ".join(run.how_to_go_on() for run in runs if run.manifest.status != "done")
        raise KeyboardInterrupt(go_on, {"runs": facts})
    if json:
        for one in facts:
            cli.emit_json(one)
    return 0


def tell(run: Run, library: Library, trained: Trained, live: Live) -> dict[str, Any]:
    """What came of a training, to whoever watches; and the same as JSON data."""
    for problem in run.problems:
        live.stage("tracker", problem)
    if run.manifest.status == "done" and run.manifest.config.get("teacher"):
        from rekindle.report import reincarnation  # plots take a second to import

        live.stage("report", str(reincarnation.tell(run, library, executes=True)))
        ended = next((s.value for s in run.manifest.scores if s.name == "normalised return"), None)
        if ended is not None and round(ended, 2) < 1.0:
            live.stage("note", f"it ends below its teacher, whose score is 1, where chance has 0: {ended:.2f}; give a "
                               "larger budget, or keep the teacher")  # fmt: skip
    elif run.manifest.status == "done":
        order = order_of(run.manifest.config)
        trust = " --trust" if order.env.startswith("gymnasium/") else ""
        live.stage("report", f"`rekindle report {run.id}{trust}` draws its curves and films an episode")
        warmup = int(order.settings.get("warmup", 0))
        if trained.env_steps < 2 * warmup:
            live.stage("note", f"the first {warmup:,} steps filled the replay, and little was learnt after them; give "
                               "a larger budget, or a shorter --set warmup=...")  # fmt: skip
    last = run.metrics()[-1] if run.metrics() else {}
    took = f"{last_words(last)}{trained.env_steps:,} steps in {trained.wall_s:.0f} s"
    live.stage(run.manifest.status, f"{took}: {run.location}")
    return {"run": run.id, "status": run.manifest.status, "env_steps": trained.env_steps,
            "wall_s": round(trained.wall_s, 3), "agent": run.id, "path": run.location, "metrics": last}  # fmt: skip


def settings(algorithm: str, assignments: tuple[str, ...]) -> dict[str, object]:
    """`name=value` words as the agent's config fields, in the types of their defaults.

    Raises:
        ConfigError: a word of another form, a name that the agent does not have, or a value of another type.
    """
    defaults = config_to_json(module_of(algorithm).Config())
    values: dict[str, object] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--set takes name=value, such as gamma=0.97; got {quoted(assignment)}.")
        if name not in defaults:
            raise ConfigError(f"{algorithm} has no setting {quoted(name)}; {did_you_mean(name[:80], defaults)}")
        values[name] = _setting(name, text, type(defaults[name]))
    return values


def _setting(name: str, text: str, kind: type) -> object:
    """A value of --set in the type of its default."""
    if kind not in _KINDS:
        raise ConfigError(f"--set cannot change {name}, which is a {kind.__name__}.")
    wanted, read = _KINDS[kind]
    try:
        if len(text) <= MAX_SETTING and text.isprintable() and (text.isascii() or kind is str):
            return read(text)
    except (ValueError, KeyError):
        pass
    raise ConfigError(f"--set {name} takes {wanted}; got {quoted(text)}.")


def _whole(text: str) -> int:
    """An integer that fits the arrays."""
    number = int(text)
    if abs(number) >= 2**31:
        raise ValueError(f"{text} is too large")
    return number


_KINDS: dict[type, tuple[str, Callable[[str], object]]] = {
    bool: ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    int: (f"a whole number below {2**31}", _whole),
    float: ("a number", float),
    str: (f"at most {MAX_SETTING} printable characters", str),
}
"""What --set says that it takes, and how it is read, by the type of the default."""


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
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high <= MAX_TRIALS:
        raise ConfigError(f"--trials takes a number or a range such as 1-4, up to {MAX_TRIALS}; got {quoted(text)}.")
    return low, high
