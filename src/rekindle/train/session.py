"""A training as a run: everything that decides it is in the manifest, so that it repeats and resumes from there."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from rekindle.agents.registry import Loaded, config_from_json, export, load, make_agent
from rekindle.core.budget import Budget, parse_budget
from rekindle.core.errors import ConfigError, LibraryError, WorldError
from rekindle.core.spaces import Discrete, Space
from rekindle.core.stats import bootstrap
from rekindle.core.types import Agent, EnvSpec, Policy
from rekindle.curriculum.make import make as make_curriculum
from rekindle.envs import registry
from rekindle.envs.host.worlds import HostWorlds
from rekindle.envs.seats import seat_spec
from rekindle.evaluate.returns import episodes, host_episodes
from rekindle.library import checkpoint, files
from rekindle.library.artefact import save_policy
from rekindle.library.checkpoint import FOLDER as CHECKPOINTS
from rekindle.library.dataset import FOLDER, Dataset, read_dataset, read_meta, save_dataset
from rekindle.library.library import Library
from rekindle.library.manifest import FILE as MANIFEST
from rekindle.library.manifest import Parent, read_manifest
from rekindle.library.records import Record
from rekindle.library.run import Run
from rekindle.reincarnation.methods.fine_tuning import FineTuning
from rekindle.reincarnation.methods.registry import BEGIN_TAUGHT, Method, make_method
from rekindle.reincarnation.phases import Scale, Told, scaled
from rekindle.reincarnation.teachers import load as teachers
from rekindle.replay import ring as rings
from rekindle.replay.ring import Ring
from rekindle.train import off_policy, prepare, prepared, reincarnate
from rekindle.train.loop import Engine, Evaluation, Plan, Progress, Stop, Trained, train
from rekindle.train.off_policy import Given, Worlds
from rekindle.train.on_policy import OnPolicy
from rekindle.train.replay_engine import OffPolicy
from rekindle.train.sequence_engine import OnSequences
from rekindle.train.worlds import Pairs, Solo

EPISODES, HOST_EPISODES = 64, 8
"""Of an evaluation of a student. Worlds that are not compiled are slow."""
MARKED = 4
"""Marks take so many times as many."""
AnyMade = registry.Made | registry.Hosted
OF_RANDOM, OF_TEACHER = "return of acting at random", "return of the teacher"
"""Names of the scores by which a student's are normalised."""
HOST_REPLAY = f"{CHECKPOINTS}/replay"
"""Where a run keeps, beside its checkpoints, the replay of worlds that are not written in JAX."""
CHUNK_STEPS = {"transition": 2_000, "sequence": 100}
"""Environment steps in one jitted call of an agent that learns from a replay, by the data that it needs; updates on
sequences are large."""
STEP_SIZES = {"transition": ("learning_rate", {}), "sequence": ("value_rate", {"guided": 1.0, "alone": 1.0})}
"""Which setting of a student is its step size, and what a phase of reincarnation makes of it: MR.Q has one set of
hyperparameters for everything."""
EXAM_ROWS = 10
"""Worlds side by side in which an exam is played where they are not written in JAX."""
EXPLORES = 50
"""One part in so many of its steps is over before a student explores as little as it ever will, or before one that
knows something already learns from its own sequences; learning from data counts, too, so that after that the former is
over at once."""


@dataclass(frozen=True)
class Order:
    """What is to be trained, as JSON data in the manifest's config."""

    agent: str
    settings: dict[str, Any]
    """The agent's whole config."""
    env: str
    budget: str
    curriculum: str = "none"
    """See curriculum/make.py."""
    pool: dict[str, Any] = field(default_factory=dict)
    """Options of the environment's pool, such as the number of games."""
    choice: dict[str, Any] = field(default_factory=dict)
    """Settings of the curriculum, such as the size of its archive."""
    partners: dict[str, Any] = field(default_factory=dict)
    """Settings of the pool of co-players, in worlds for two."""
    init: str | None = None
    """A run whose policy training goes on from."""
    min_trials: int = 1
    max_trials: int | None = None
    """Trials per episode are drawn from this range; by default up to the environment's own number."""
    chunk_updates: int = 8
    checkpoint_seconds: float = 60.0
    """Between checkpoints; a crash loses what came after the last."""
    log: tuple[str, ...] = ()
    """Trackers that the curves go to, too: `tensorboard`, `wandb`, `mlflow`."""
    teacher: str | None = None
    """What a student is reincarnated from."""
    data: str | None = None
    """A run whose replay it learns from in place of the teacher's own; of no meaning without a teacher."""
    method: str = "qdagger"
    """How, as in reincarnation/methods; of no meaning without a teacher."""
    method_settings: dict[str, Any] = field(default_factory=dict)
    trust: bool = False
    """Whether a foreign teacher may be loaded by its own library, which executes what is in its file."""
    valued: bool = False
    """Whether the numbers of a foreign teacher are action values; else they are logits."""
    evaluate_steps: int = 0
    """Environment steps between two exams of whole episodes without exploration; 0: there are none."""
    episodes: int = 10
    """Of an exam."""
    teacher_sha256: str | None = None
    """The fingerprint of a foreign teacher as it was at first; None for an agent of the library."""


def exploration(steps: int, *, kind: str = "transition", method: str = "qdagger") -> dict[str, Any]:
    """The settings of a student's exploration; it is examined as its teacher is, by its best actions.

    Args:
        steps: that it has.
        kind: of the data that it needs.
        method: by which it is taught; one that begins with weights which know something is not begun at random.
    """
    brief = max(steps // EXPLORES, 1)
    if kind == "transition":
        return {"epsilon_steps": brief, "epsilon_warmup": 0}
    return {"eval_discrete": "greedy"} | ({"warmup": brief} if method in BEGIN_TAUGHT else {})


def told(config: Mapping[str, Any]) -> Order:
    """The order in a manifest's config; what an older version did not know has its default."""
    return Order(**{**config, "log": tuple(config.get("log", ()))})


def begin(order: Order, library: Library, *, name: str, seed: int, command: list[str] | None = None) -> Run:
    """Open a run folder for an order."""
    named = {"init": order.init, "partner": order.partners.get("begin_with")}
    if order.teacher is not None:
        teacher = teachers.settled(order.teacher, library.runs_folder)
        if teachers.is_foreign(teacher):
            order = replace(order, teacher=teacher, teacher_sha256=teachers.fingerprint(teacher))
        else:
            named["teacher"] = teacher
    records = {role: library.find(which) for role, which in named.items() if which is not None}
    parents = [Parent(id=record.id, role=role, sha256=record.row.weights) for role, record in records.items()]
    if "teacher" in records:  # names may come to mean another
        refuse_mere_data(records["teacher"])
        order = replace(order, teacher=records["teacher"].id)
    if order.data is not None:
        given = library.find(order.data)
        parents.append(Parent(id=given.id, role="replay", sha256=read_meta(given.fetch(FOLDER)).steps.sha256))
        order = replace(order, data=given.id)
    return Run.create(library, "train", name=name, config=order.__dict__, seed=seed, parents=parents, env_id=order.env,
                      command=command)  # fmt: skip


def carry_out(
    run: Run,
    library: Library,
    *,
    show: Callable[[Progress], None] | None = None,
    evaluate: Evaluation | None = None,
    evaluate_steps: int | None = None,
    stop: Stop | None = None,
    join: Callable[[Engine], Engine] | None = None,
    asked: Callable[[], bool] | None = None,
) -> Trained:
    """Train, or go on training, as the run's manifest says; the policy is kept whenever it stops.

    Args:
        run: which.
        library: where its parents are.
        show: is told how it goes.
        evaluate: what else is to be known of the policy now and then; a reincarnation asks on its own.
        evaluate_steps: environment steps between evaluations; by default a tenth of the budget.
        stop: from the metrics of a chunk to whether that is enough.
        join: from the engine to one whose chunks are computed with those of others (train/together.py).
        asked: whether to stop, where somebody else listens to signals.

    Raises:
        LibraryError: another process is at work on it, or the disk refuses.
        ConfigError, CheckpointError, DivergedError: an order or a parent that cannot be used, or a loss that is no
            longer a number; the run is then marked as failed.
        WorldError: a world failed; so is the run then, and what was learnt before is kept.
    """
    with run.held():
        try:
            return _carry_out(run, library, show, evaluate, evaluate_steps, stop, join, asked)
        except KeyboardInterrupt:
            run.finish("interrupted")
            raise KeyboardInterrupt(run.how_to_go_on()) from None
        except Exception as error:
            run.fail(str(error))
            if isinstance(error, LibraryError):
                raise LibraryError(f"{error} Then `rekindle resume {run.id}` goes on.") from None
            if isinstance(error, WorldError):
                raise rescued(run, error) from error
            raise


def rescued(run: Run, error: WorldError) -> WorldError:
    """Keep the policy that was learnt before a world failed; the error with how to go on."""
    order, saved = told(run.manifest.config), checkpoint.steps(run.path)
    kept = "Nothing was learnt by then"
    if error.state is not None and error.env_steps:
        agent = make_agent(order.agent, config_from_json(order.agent, order.settings))
        save_policy(run.path / "policy", **export(agent, error.state, seat_spec(error.spec)),
                    provenance={"run": run.id})  # fmt: skip
        kept = f"The policy of {error.env_steps:,} steps is kept"
    there = f"goes on from the checkpoint at step {saved[-1]:,}" if saved else "begins anew"
    return WorldError(f"{error} {kept}; mend the world, then `rekindle resume {run.id}` {there}.", error.spec)


def _carry_out(
    run: Run,
    library: Library,
    show: Callable[[Progress], None] | None,
    evaluate: Evaluation | None,
    evaluate_steps: int | None,
    stop: Stop | None,
    join: Callable[[Engine], Engine] | None,
    asked: Callable[[], bool] | None,
) -> Trained:
    order = told(run.manifest.config)
    run.log_to(order.log)
    made = made_for(order)
    agent = make_agent(order.agent, config_from_json(order.agent, order.settings))
    key = jax.random.key(run.manifest.seed or 0)
    if order.teacher is not None:
        return reincarnated(order, made, agent, run, library, key, show, stop)
    refuse(order, made, agent)
    state = None
    if order.init is not None:
        parent = load(library.find(order.init).fetch("policy"), env_spec=seat_spec(made.spec))
        state = parent.state_for(agent, jax.random.fold_in(key, 1))
    budget: Budget = parse_budget(order.budget)
    if agent.needs.kind in CHUNK_STEPS:
        engine: Engine = from_replay(order, made, agent, folder=run.path / HOST_REPLAY, steps=budget.env_steps)
        updates = max(CHUNK_STEPS[agent.needs.kind] // engine.steps_per_update, 1)
    else:
        assert isinstance(made, registry.Made)
        engine, updates = from_rollouts(order, made, agent, library, run.manifest.seed or 0, key), order.chunk_updates
    if budget.env_steps is not None:  # a small budget is not overrun by a whole chunk
        updates = min(updates, math.ceil(budget.env_steps / engine.steps_per_update))
    examined = evaluate is None and order.evaluate_steps > 0
    if examined:
        evaluate, evaluate_steps = exam(order, made), order.evaluate_steps
    plan = Plan(budget, chunk_updates=updates, checkpoint_seconds=order.checkpoint_seconds,
                evaluate_steps=evaluate_steps, evaluate_first=examined)  # fmt: skip
    engine = engine if join is None else join(engine)
    trained = train(engine, key, plan, run=run, state=state, show=show, evaluate=evaluate, stop=stop, asked=asked)
    keep(run, agent, trained.state, seat_spec(made.spec), engine, trained.loop, order)
    status = "interrupted" if trained.status == "interrupted" else "done"
    run.finish(status, env_steps=trained.env_steps, wall_s=trained.wall_s)
    clear(run)
    return trained


def check(order: Order, library: Library) -> None:
    """ConfigError, CheckpointError, LibraryError for what can be told to go wrong before there is a run."""
    agent, made = make_agent(order.agent, config_from_json(order.agent, order.settings)), made_for(order)
    if order.teacher is None:
        refuse(order, made, agent)
        return
    refuse_student(order, made, agent)
    teacher = teachers.settled(order.teacher, library.runs_folder)
    if teachers.is_foreign(teacher):
        foreign(teacher, order, made)
        return
    teachers.refuse_path(teacher)
    record = library.find(teacher)
    refuse_mere_data(record)
    refuse_other_world(load(record.fetch("policy"), env_spec=made.spec).spec, pool_of_run(record), order, made,
                       "the teacher")  # fmt: skip


def pool_of_run(record: Record) -> Any:
    """The options that a run's environment was made with."""
    return record.manifest.config.get("pool", {})


def refuse_student(order: Order, made: AnyMade, agent: Agent) -> None:
    """ConfigError where a method does not suit a student, or the student not its world or its budget."""
    method, scale = taught(order, agent)
    phases = method.phases(scale, Told("values", prepare.says_what(agent)))
    jax.eval_shape(lambda key: agent.init(key, made.spec), jax.random.key(0))  # spaces that it does not take
    if not phases[-1].keeps_replay:
        refuse_warmup(agent, scale.online_steps, once_of(agent))


def refuse(order: Order, made: AnyMade, agent: Agent) -> None:
    """ConfigError where an agent cannot learn in a world, or not within its budget."""
    kind, steps = agent.needs.kind, parse_budget(order.budget).env_steps
    if kind == "rollout":
        if isinstance(made, registry.Hosted):
            raise ConfigError(
                f"{order.agent} learns from rollouts, in worlds that are written in JAX; {order.env} is not."
            )
        return
    jax.eval_shape(lambda key: agent.init(key, made.spec), jax.random.key(0))  # spaces that it does not take
    if steps is not None:
        refuse_warmup(agent, steps, once_of(agent))


def clear(run: Run) -> None:
    """Once a training is done, what it learnt from lies beside its policy; the files that it was learnt from go."""
    if run.manifest.status == "done":
        for name in (HOST_REPLAY, prepared.TAUGHT, prepared.LABELS, prepared.NOTES):
            if (run.path / name).exists():
                files.remove(run.path / name)


def keep(run: Run, agent: Agent, state: Any, spec: EnvSpec, engine: Engine, loop: Any, order: Order) -> None:
    """The policy, and what it learnt from, if that is there."""
    save_policy(run.path / "policy", **export(agent, state, spec), provenance={"run": run.id})
    if isinstance(engine, OffPolicy | OnSequences):
        with engine.unrolled(loop) as arrays:
            if arrays:
                recipe = {"run": run.id, "options": order.pool}
                save_dataset(run.path / "replay", spec=spec.to_json(), arrays=arrays, recipe=recipe)


def made_for(order: Order) -> AnyMade:
    """The environment of an order."""
    if registry.is_hosted(order.env):
        return registry.host(order.env, **order.pool)
    return registry.make(order.env, **(order.pool if made_by_options(order.env) else {}))


def episodes_of(made: AnyMade) -> int:
    """Of an evaluation of a student."""
    return HOST_EPISODES if isinstance(made, registry.Hosted) else EPISODES


def made_by_options(env: str) -> bool:
    """Whether the options of `--pool` go to the environment itself, as its worlds have no pool of tasks."""
    return env.startswith(("minatar/", "gymnax/")) or registry.is_hosted(env)


def from_rollouts(order: Order, made: registry.Made, agent: Agent, library: Library, seed: int, key: Key[Array, ""]
              ) -> OnPolicy:  # fmt: skip
    """For agents that learn from rollouts."""
    most = order.max_trials or made.trials
    worlds = Solo(made.env) if made.spec.players == 1 else pairs(made, agent, order, library, key)
    groups = worlds.slots if isinstance(worlds, Pairs) else 1
    tasks, source = make_curriculum(order.curriculum, order.env, agent, seed=seed, groups=groups, pool=order.pool,
                                    trials=(min(order.min_trials, most), most), settings=order.choice,
                                    cache=library.folder / "planned")  # fmt: skip
    return OnPolicy(agent, worlds, tasks, source)


def from_replay(
    order: Order, made: AnyMade, agent: Agent, *, folder: Path | None = None, steps: int | None = None
) -> OffPolicy | OnSequences:
    """For agents that learn from a replay.

    Args:
        order: what is to be trained.
        made: where.
        agent: who.
        folder: where single steps of worlds that are not written in JAX are kept.
        steps: of the environment that will be taken at most; a replay of sequences makes room for no more.

    Raises:
        ConfigError: a curriculum, or worlds for two.
    """
    worlds, source = rows_of(order, made, agent)
    if agent.needs.kind == "sequence":
        return OnSequences(agent, worlds, Given(source), steps)
    return OffPolicy(agent, worlds, Given(source), folder=folder)


def exam(order: Order, made: AnyMade) -> Evaluation:
    """Whole episodes of their own without exploration, with the interval of their mean."""
    rows = max(n for n in range(1, EXAM_ROWS + 1) if order.episodes % n == 0)
    worlds = made.open(rows) if isinstance(made, registry.Hosted) else None
    source = None if isinstance(made, registry.Hosted) else pool_of(order)

    def evaluate(policy: Policy, env_steps: int, key: Key[Array, ""]) -> dict[str, float]:
        del env_steps
        if worlds is not None:
            played = host_episodes(worlds, policy, key, number=order.episodes, explore=False)
        else:
            assert isinstance(made, registry.Made)
            played = episodes(made.env, policy, made.draw, source, key, number=order.episodes, explore=False)
        score = bootstrap(played.returns[None])
        return {"score/return": score.value, "score/low": score.low, "score/high": score.high,
                "score/env_steps": played.env_steps}  # fmt: skip

    return evaluate


def rows_of(order: Order, made: AnyMade, agent: Agent) -> tuple[Worlds | HostWorlds, Any]:
    """Worlds side by side, and what their tasks are drawn from."""
    if order.curriculum != "none":
        raise ConfigError(f"{order.agent} learns from a replay and takes tasks as they come; leave --curriculum out.")
    if made.spec.players != 1:
        raise ConfigError(f"{order.agent} plays alone; {made.spec.id} has {made.spec.players} players.")
    if isinstance(made, registry.Hosted):
        return made.open(agent.needs.rows), ()
    most = order.max_trials or made.trials
    draw = partial(made.draw, min_trials=min(order.min_trials, most), max_trials=most)
    return Worlds(made.env, draw, agent.needs.rows), pool_of(order)


def pool_of(order: Order) -> Any:
    """What tasks for training are drawn from."""
    options = {} if made_by_options(order.env) else order.pool
    return jax.tree.map(jnp.asarray, registry.make(order.env, **options).pool(split="train", seed=0))


def reincarnated(
    order: Order, made: AnyMade, agent: Agent, run: Run, library: Library, key: Key[Array, ""],
    show: Callable[[Progress], None] | None, stop: Stop | None,
) -> Trained:  # fmt: skip
    """A student from a teacher, by a method."""
    refuse_student(order, made, agent)
    method, scale = taught(order, agent)
    worlds, source = rows_of(order, made, agent)
    keys = jax.random.split(jax.random.fold_in(key, 3), 4)
    teacher, kept, loaded = taught_by(order, made, library, run)
    if isinstance(method, FineTuning) and (loaded is None or loaded.agent.name != order.agent):
        own = "which is not one of ours" if loaded is None else f"of {loaded.agent.name}"
        raise ConfigError(
            f"fine-tuning goes on with the teacher's own network, {own}; got a student of {order.agent}. Take another "
            "student, or another method."
        )
    number = episodes_of(made)
    known = prepared.noted(run.path).marks
    marks = known or prepare.marks(worlds, source, teacher, keys[0], number=MARKED * number)
    run.update(scores=scored(marks))
    prepare.refuse_luck(marks)
    if known is None:
        prepared.note(run.path, marks=marks)
    data = prepared.data_of(run.path, worlds, source, teacher, keys[1], steps=scale.online_steps, kept=kept)
    told = prepare.told_by(teacher, made.spec, keys[2], agent)
    taken = marks.env_steps + (0 if kept else data.slots * data.rows)
    course = reincarnate.Course(agent, worlds, source, teacher, data, marks, told, number, taken,
                                folder=run.path / HOST_REPLAY)  # fmt: skip
    state = loaded.state_for(agent, keys[3]) if loaded is not None and isinstance(method, FineTuning) else None
    done = reincarnate.reincarnate(course, method, scale, key, run=run, state=state,
                                   show=None if show is None else lambda phase, now: show(now),
                                   checkpoint_seconds=order.checkpoint_seconds, stop=stop)  # fmt: skip
    keep(run, agent, done.state, made.spec, done.engine, done.loop, order)
    status = "interrupted" if done.status == "interrupted" else "done"
    scores = scored(marks)
    if done.curve:
        last = {"return": done.curve[-1].returned, "normalised return": done.curve[-1].score}
        scores += [{"name": name, "value": value, "episodes": course.episodes} for name, value in last.items()]
    run.finish(status, env_steps=done.env_steps, wall_s=round(run.wall_s(), 3), scores=scores)
    clear(run)
    return Trained(done.state, done.env_steps, run.wall_s(), status, None)


def taught(order: Order, agent: Agent) -> tuple[Method, Scale]:
    """The method of a reincarnation, and its sizes.

    Raises:
        ConfigError: a budget that is not in steps, or a method that there is not.
    """
    steps = parse_budget(order.budget).env_steps
    if steps is None:
        raise ConfigError(f"a reincarnation's budget is in environment steps, such as 1e5steps; got {order.budget}.")
    if agent.needs.kind not in STEP_SIZES:
        raise ConfigError(f"{agent.name} keeps no replay and cannot be taught; take dqn, rainbow or mrq.")
    rate, share = STEP_SIZES[agent.needs.kind]
    scale = scaled(steps, scratch=getattr(agent.config, rate), step=once_of(agent), **share)
    return make_method(order.method, order.method_settings, student=order.agent), scale


def scored(marks: prepare.Marks) -> list[dict[str, Any]]:
    """What acting at random and the teacher come to, as a manifest has it."""
    measured = {OF_RANDOM: (marks.random, marks.random_sd), OF_TEACHER: (marks.teacher, marks.teacher_sd)}
    return [{"name": name, "value": mean, "sd": sd, "episodes": marks.episodes}
            for name, (mean, sd) in measured.items()]  # fmt: skip


def taught_by(order: Order, made: AnyMade, library: Library, run: Run) -> tuple[Any, Ring | None, Loaded | None]:
    """The teacher, its replay if it kept one, and what it is in the library if it is from there.

    Raises:
        ConfigError, CheckpointError: it was made for another environment, or cannot be read.
    """
    given = None if order.data is None else kept_steps(library.find(order.data), order, made, run)
    policy, loaded, record = teacher_of(order, made, library, run)
    if given is None and record is not None and (record.path / FOLDER).is_dir():
        given = kept_steps(record, order, made, run)
    folder = None if record is not None else teachers.folder_of(str(order.teacher))
    if given is None and folder is not None and (beside := teachers.replay_of(folder)) is not None:
        given = fitting(read_dataset(beside), order, made, whose=f"the replay in {beside}")
    return policy, given, loaded


def teacher_of(order: Order, made: AnyMade, library: Library, run: Run) -> tuple[Any, Loaded | None, Record | None]:
    """The teacher; what it is in the library, and where, if it is from there.

    Raises:
        ConfigError, CheckpointError: it was made for another environment, or cannot be read.
    """
    assert order.teacher is not None
    if teachers.is_foreign(order.teacher):
        if order.teacher_sha256 not in (None, teachers.fingerprint(order.teacher)):
            raise ConfigError(f"the teacher {order.teacher} is another one than when this began; begin anew.")
        return *foreign(order.teacher, order, made), None
    teachers.refuse_path(order.teacher)
    record = library.find(order.teacher)
    refuse_mere_data(record)
    refuse_replaced(run, "teacher", record.id, record.row.weights)
    loaded = load(record.fetch("policy"), env_spec=made.spec)
    refuse_other_world(loaded.spec, pool_of_run(record), order, made, "the teacher")
    return loaded.policy, loaded, record


def foreign(which: str, order: Order, made: AnyMade) -> tuple[Any, Loaded | None]:
    """A teacher that is not in the library; and what it is, if it is of our own making.

    Raises:
        ConfigError, CheckpointError: it was made for another environment, or cannot be read.
    """
    folder = teachers.folder_of(which)
    if folder is None:
        return teachers.load(which, made.spec, trust=order.trust, valued=order.valued), None
    loaded = load(folder, env_spec=made.spec)
    whole = (folder.parent / MANIFEST).is_file()  # a policy alone does not say with which options
    pool = read_manifest(folder.parent).config.get("pool", {}) if whole else order.pool
    refuse_other_world(loaded.spec, pool, order, made, "the teacher")
    return loaded.policy, loaded


def kept_steps(record: Record, order: Order, made: AnyMade, run: Run) -> Ring:
    """The replay of a run; see `fitting`.

    Raises:
        ConfigError: it is of another world, or shows or takes something else, or was replaced.
        CheckpointError: there is none, or it cannot be read.
    """
    data = read_dataset(record.fetch(FOLDER))
    refuse_replaced(run, "replay", record.id, data.meta.steps.sha256)
    return fitting(data, order, made, whose=f"the replay of {record.id}")


def fitting(data: Dataset, order: Order, made: AnyMade, *, whose: str) -> Ring:
    """Steps for a world; one that is not written in JAX reads them in their own file.

    Raises:
        ConfigError: they are of another world, or show or take something else.
    """
    there = EnvSpec.from_json(data.meta.spec)
    if there.kind == "jax" or (isinstance(made, registry.Hosted) and registry.is_hosted(there.id)):
        refuse_other_world(there, data.meta.recipe.get("options", order.pool), order, made, whose)
    here = {f"obs.{name}": space for name, space in made.spec.obs.items()} | {"action": made.spec.action}
    seen = {f"obs.{name}": space for name, space in there.obs.items()} | {"action": there.action}
    for name in sorted(here | seen):
        if _form(seen.get(name)) != _form(here.get(name)):
            raise ConfigError(
                f"{whose} has {seen.get(name)!r} for {name!r}, {made.spec.id} has {here.get(name)!r}; take another."
            )
    if there.stack != made.spec.stack:
        raise ConfigError(f"{whose} has pictures of {there.stack} frames, {made.spec.id} of {made.spec.stack}.")
    typed = {name: data.arrays[name].astype(_type(space), copy=False) for name, space in here.items()}
    arrays = data.arrays | typed
    return rings.in_place(arrays) if isinstance(made, registry.Hosted) else rings.from_arrays(arrays)


def _form(space: Space | None) -> tuple[Any, ...]:
    """By which steps of other worlds fit: what there is to choose from, the shape, and the sort of number."""
    if isinstance(space, Discrete):
        return (space.n,)
    return () if space is None else (getattr(space, "shape", None), _type(space).kind)


def _type(space: Space) -> np.dtype:
    return np.dtype(getattr(space, "dtype", "object"))


def refuse_mere_data(record: Record) -> None:
    """ConfigError where a run that is to teach holds no policy."""
    if record.policy is None and not record.fetch("policy").is_dir():
        mend = "give it as --data beside a teacher that does" if record.manifest.kind == "dataset" else "take another"
        raise ConfigError(f"{record.id} holds no policy, so it cannot teach; {mend}.")


def refuse_replaced(run: Run, role: str, id: str, sha256: str | None) -> None:
    """ConfigError where a parent is not what it was when the run began."""
    for parent in run.manifest.parents:
        if parent.role == role and parent.sha256 != sha256:
            raise ConfigError(f"the {role} {id} was replaced since this began; begin anew.")


def refuse_other_world(there: EnvSpec, pool: Any, order: Order, made: AnyMade, what: str) -> None:
    """ConfigError, with both values, where a teacher or data are of another world, or of other options of it."""
    was, here = (f"{spec.id}, version {spec.version}" for spec in (there, made.spec))
    if was != here:
        raise ConfigError(f"{what} was made for {was}; the student is to act in {here}.")
    if made_by_options(order.env) and dict(pool) != order.pool:
        shown = [", ".join(f"{n}={v}" for n, v in o.items()) or "no options" for o in (dict(pool), order.pool)]
        raise ConfigError(f"{what} was made with {shown[0]} of {made.spec.id}, the student with {shown[1]}.")


def once_of(agent: Agent) -> int:
    """Environment steps that are taken at once."""
    return agent.needs.rows * (1 if agent.needs.kind == "sequence" else off_policy.pace(agent.needs).steps)


def refuse_warmup(agent: Agent, steps: int, once: int) -> None:
    """ConfigError where a budget ends before the first update."""
    sequences = agent.needs.kind == "sequence"
    before = agent.needs.warmup if sequences else off_policy.ticks_before(agent.needs) * once
    if steps <= before:
        raise ConfigError(
            f"the budget of {steps:,} steps ends with the {before:,} that fill the replay, before anything is learnt; "
            "give more, or a shorter --set warmup=..."
        )


def pairs(made: registry.Made, agent: Agent, order: Order, library: Library, key: Key[Array, ""]) -> Pairs:
    """Worlds for two; the pool of co-players may begin with an agent of the library.

    Raises:
        CheckpointError: that agent was made for another world, or has another network than the learner.
    """
    settings = dict(order.partners)
    which = settings.pop("begin_with", None)
    if which is None:
        return Pairs(made.env, agent, **settings)
    partner = load(library.find(which).fetch("policy"), env_spec=seat_spec(made.spec))
    state = partner.state_for(agent, jax.random.fold_in(key, 2))
    return Pairs(made.env, agent, first=agent.policy(state), **settings)
