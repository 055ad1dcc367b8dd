"""`rekindle reincarnate --teacher T --student S --env ID`: any teacher into any student, then weaned."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from rekindle.agents.registry import config_from_json, config_to_json, kinds_of_data, variant_of
from rekindle.cli import io as cli
from rekindle.cli.train import assigned, carry_out, checkpoint_seconds, settings
from rekindle.core.budget import parse_budget
from rekindle.core.errors import ConfigError, within
from rekindle.envs import registry
from rekindle.library import sinks
from rekindle.library.library import Library
from rekindle.reincarnation.methods.registry import make_method
from rekindle.train import session, teaching
from rekindle.train.order import Order, as_student, in_world

Trust = Annotated[bool, tyro.conf.arg(help="Load a zip of Stable-Baselines3 by its own loader, which executes what is "
                                           "in it; needed for unusual networks.")]  # fmt: skip
Valued = Annotated[bool, tyro.conf.arg(help="The numbers of an ONNX file or a function are action values; else they "
                                            "are logits.")]  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Make a new agent from one that exists: another network, another algorithm, for a fraction of the steps.

    The student learns from the teacher's replay first (or from steps that the teacher is asked to play, where it kept
    none), then from its own, until it needs the teacher no more. Ctrl-C stops it cleanly; `rekindle resume` goes on.
    """

    teacher: Annotated[str, tyro.conf.arg(metavar="AGENT")]
    """An agent of the library, the folder of a run or a policy (as ./name), a zip of Stable-Baselines3, an ONNX file,
    or a function as module:name."""
    env: str
    """The environment's id, such as minatar/breakout; a teacher of the library has to come from it, others have to
    see and do the same."""
    data: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """A run whose replay is learnt from in place of the teacher's own, such as an imported dataset."""
    student: str = "rainbow"
    """The algorithm and perhaps its network, such as dqn, rainbow:residual, rainbow:impala, mrq or mrq:small, or
    published settings, such as dqn:atari."""
    method: str = "qdagger"
    """qdagger, kickstarting, pretraining, dqfd, rehearsal, jsrl, dagger, dagger+ql, fine-tuning or tabula-rasa."""
    budget: str = "1e5steps"
    """Environment steps of the student; it learns from the teacher's data for 0.4 times as many updates first."""
    seeds: int = 1
    """How many runs, with seeds from --seed on."""
    seed: int = 0
    """The first seed."""
    choose: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting of the method, such as weight=1.0 or tau=0.3; repeat the option for more."""
    pool: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """An option of the environment, such as sticky=0.25; repeat the option for more."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting of the student, such as width=256; repeat the option for more. `--set x=1` lists them all."""
    episodes: int | None = None
    """Of each evaluation, whose mean decides how much of the teacher the student still needs; by default 64, or 8 where
    worlds are not written in JAX. With few, a lucky evaluation can silence the teacher for good."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints."""
    log: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="TRACKER")] = ()
    """Send the curves to a tracker, too: tensorboard, wandb or mlflow; repeat the option for more."""
    trust: Trust = False
    valued: Valued = False
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def run(argv: list[str]) -> int:
    """Reincarnate every seed, one after the other."""
    options = cli.parse(Options, argv, "rekindle reincarnate")
    library = Library.open()
    within("--seed", options.seed, 0)
    within("--seeds", options.seeds, 1)
    if options.episodes is not None:
        within("--episodes", options.episodes, 1)
    sinks.check(options.log)
    steps = parse_budget(options.budget).env_steps
    if steps is None:
        raise ConfigError(f"--budget is in environment steps here, such as 1e5steps; got {options.budget}.")
    env = registry.resolve(options.env, registry.ids())
    kinds = kinds_of_data()
    students = [name for name, kind in kinds.items() if kind != "rollout"]
    algorithm, variant = variant_of(options.student)
    if algorithm not in students:
        raise ConfigError(f"--student takes {', '.join(students)}; {algorithm} keeps no replay and cannot be taught.")
    method_settings = assigned("--choose", "weight=1.0", options.choose)
    make_method(options.method, method_settings)
    taught = as_student(steps, kind=kinds[algorithm], method=options.method)
    world = in_world(env) if kinds[algorithm] == "transition" else {}
    inherited = teaching.settings_of(options.teacher, algorithm, library) if options.method == "fine-tuning" else {}
    chosen = world | inherited | variant | taught | settings(algorithm, options.set)
    order = Order(
        agent=algorithm,
        settings=config_to_json(config_from_json(algorithm, chosen)),
        env=env,
        budget=options.budget,
        pool=assigned("--pool", "sticky=0.25", options.pool),
        teacher=options.teacher,
        data=options.data,
        method=options.method,
        method_settings=method_settings,
        trust=options.trust,
        valued=options.valued,
        student_episodes=options.episodes,
        checkpoint_seconds=checkpoint_seconds(options.checkpoint_every),
        log=options.log,
    )
    session.check(order, library)
    code = 0
    for seed in range(options.seed, options.seed + options.seeds):
        name = f"{options.method}-{algorithm}-{registry.last_of(env)}"
        code = max(code, carry_out(session.begin(order, library, name=name, seed=seed), library, json=options.json))
    return code
