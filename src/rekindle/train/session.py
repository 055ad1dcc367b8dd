"""A training as a run: everything that decides it is in the manifest, so that it repeats and resumes from there."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array, Key

from rekindle.agents.registry import Loaded, config_from_json, export, incompatible, load, make_agent, of_kind
from rekindle.core.budget import Budget, parse_budget
from rekindle.core.errors import CheckpointError, ConfigError, LibraryError, WorldError
from rekindle.core.spaces import is_picture
from rekindle.core.stats import bootstrap
from rekindle.core.types import Agent, EnvSpec, Policy
from rekindle.curriculum.make import make as make_curriculum
from rekindle.envs import registry
from rekindle.envs.seats import seat_spec
from rekindle.evaluate.policies import as_evaluated
from rekindle.evaluate.returns import episodes, host_episodes
from rekindle.library import artefact, checkpoint, files
from rekindle.library.artefact import save_policy
from rekindle.library.checkpoint import FOLDER as CHECKPOINTS
from rekindle.library.dataset import FOLDER, read_meta, save_dataset
from rekindle.library.library import Library
from rekindle.library.manifest import Parent
from rekindle.library.run import Run
from rekindle.reincarnation.methods.fine_tuning import FineTuning
from rekindle.reincarnation.methods.registry import Method, make_method
from rekindle.reincarnation.phases import ALONE, GUIDED, ON_ATARI, OutputKinds, Scale, scaled
from rekindle.reincarnation.teachers import load as teachers
from rekindle.train import off_policy, prepare, prepared, reincarnate, teaching
from rekindle.train.loop import Engine, Evaluation, Plan, Progress, Stop, Trained, spent, train
from rekindle.train.off_policy import Given
from rekindle.train.on_policy import OnPolicy
from rekindle.train.order import (
    AnyMade,
    Order,
    episodes_of,
    made_by_options,
    made_for,
    order_of,
    pool_of,
    refuse_tasks,
    rows_of,
)
from rekindle.train.replay_engine import OffPolicy
from rekindle.train.sequence_engine import OnSequences
from rekindle.train.worlds import Pairs, Solo

COMPARED_STEPS = 2_000
"""That a teacher without a replay plays where nothing is learnt from them: a student is compared with it by these."""
MARKED = 4
"""Marks take so many times as many."""
OF_RANDOM, OF_TEACHER = "return of acting at random", "return of the teacher"
"""Names of the scores by which a student's are normalised."""
HOST_REPLAY = f"{CHECKPOINTS}/replay"
"""Where a run keeps, beside its checkpoints, the replay of worlds that are not written in JAX."""
CHUNK_STEPS = {"transition": 2_000, "sequence": 100}
"""Environment steps in one jitted call of an agent that learns from a replay, by the data that it needs; updates on
sequences are large."""
STEP_SIZES = {
    "transition": ("learning_rate", {"guided": GUIDED, "alone": ALONE}),
    "sequence": ("value_rate", {"guided": 1.0, "alone": 1.0}),
}
"""Which setting of a student is its step size, and what a phase of reincarnation makes of it: MR.Q has one set of
hyperparameters for everything."""
FASTEST, FASTEST_SEEING = 500.0, 50.0
"""Steps per second that a learner from sequences is expected to take at most, with an update for each: ten times the
published rate; and that rate where a processor looks at pictures."""
EVALUATION_ROWS = 10
"""Worlds side by side in which an evaluation is played where they are not written in JAX."""


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
        teaching.refuse_mere_data(records["teacher"])
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
    order, saved = order_of(run.manifest.config), checkpoint.steps(run.path)
    kept = "Nothing was learnt by then"
    if error.state is not None and int(getattr(error.state, "updates", 1)):
        agent = make_agent(order.agent, config_from_json(order.agent, order.settings))
        save_policy(run.path / "policy", **export(agent, error.state, seat_spec(error.spec)),
                    provenance=provenance_of(run, order))  # fmt: skip
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
    order = order_of(run.manifest.config)
    run.log_to(order.log)
    made = made_for(order)
    agent = make_agent(order.agent, config_from_json(order.agent, order.settings))
    key = jax.random.key(run.manifest.seed or 0)
    if order.teacher is not None:
        return reincarnated(order, made, agent, run, library, key, show, stop)
    refuse(order, made, agent)
    refuse_changed(run, made.spec)
    state = None
    if order.init is not None:
        parent = load(library.find(order.init).fetch("policy"), env_spec=seat_spec(made.spec))
        state = parent.state_for(agent, jax.random.fold_in(key, 4))  # 1 is that of evaluations, 2 and 3 are taken
    budget: Budget = parse_budget(order.budget)
    if agent.needs.kind in CHUNK_STEPS:
        engine: Engine = from_replay(
            order,
            made,
            agent,
            folder=run.path / HOST_REPLAY,
            steps=most_steps(budget, agent.needs.warmup, pictures=any(map(is_picture, made.spec.obs.values()))),
        )
        updates = max(CHUNK_STEPS[agent.needs.kind] // engine.steps_per_update, 1)
    else:
        assert isinstance(made, registry.Made)
        engine, updates = from_rollouts(order, made, agent, library, run.manifest.seed or 0, key), order.chunk_updates
    if budget.env_steps is not None:  # a small budget is not overrun by a whole chunk
        updates = min(updates, math.ceil(budget.env_steps / engine.steps_per_update))
    evaluated = evaluate is None and order.evaluate_steps > 0
    if evaluated:
        evaluate, evaluate_steps = evaluation(order, made), order.evaluate_steps
    plan = Plan(budget, chunk_updates=updates, checkpoint_seconds=order.checkpoint_seconds,
                evaluate_steps=evaluate_steps, evaluate_first=evaluated)  # fmt: skip
    engine = engine if join is None else join(engine)
    trained = train(engine, key, plan, run=run, state=state, show=show, evaluate=evaluate, stop=stop, asked=asked)
    keep(run, agent, trained.state, seat_spec(made.spec), engine, trained.loop, order)
    left = spent(budget, trained.env_steps, trained.wall_s, engine.learnt(trained.loop)) < 1.0
    status = "interrupted" if trained.status == "interrupted" and left else "done"  # perhaps in the last evaluation
    run.finish(status, env_steps=trained.env_steps, wall_s=trained.wall_s)
    clear(run)
    return trained


def check(order: Order, library: Library) -> None:
    """ConfigError, CheckpointError, LibraryError for what can be told to go wrong before there is a run."""
    agent, made = make_agent(order.agent, config_from_json(order.agent, order.settings)), made_for(order)
    if order.teacher is None:
        refuse(order, made, agent)
        if order.init is not None:
            load(library.find(order.init).fetch("policy"), env_spec=seat_spec(made.spec))
        return
    refuse_student(order, made, agent)
    teacher = teachers.settled(order.teacher, library.runs_folder)
    method, _ = taught(order, agent)
    if teachers.is_foreign(teacher):
        loaded = teaching.foreign(teacher, order, made)[1]
        refuse_tuning(method, agent, loaded, teaching.rows_kept(order, library))
        return
    teachers.refuse_path(teacher)
    record = library.find(teacher)
    teaching.refuse_mere_data(record)
    loaded = load(record.fetch("policy"), env_spec=made.spec)
    teaching.refuse_other_world(loaded.spec, teaching.pool_of_run(record), order, made, "the teacher")
    refuse_tuning(method, agent, loaded, teaching.rows_kept(order, library, record))


def most_steps(budget: Budget, warmup: int, *, pictures: bool) -> int | None:
    """For which a replay of sequences makes room, those before learning twice over; the oldest are forgotten beyond."""
    fastest = FASTEST_SEEING if pictures and jax.default_backend() == "cpu" else FASTEST
    by_time = None if budget.seconds is None else math.ceil(fastest * budget.seconds) + 2 * warmup
    learnt = None if budget.learnt_steps is None else budget.learnt_steps + 2 * warmup
    return min((steps for steps in (budget.env_steps, by_time, learnt) if steps is not None), default=None)


def refuse_student(order: Order, made: AnyMade, agent: Agent) -> None:
    """ConfigError where a method does not suit a student, or the student not its world or its budget."""
    method, scale = taught(order, agent)
    phases = method.phases(scale, OutputKinds("values", prepare.says_what(agent)))
    jax.eval_shape(lambda key: agent.init(key, made.spec), jax.random.key(0))  # spaces that it does not take
    if not phases[-1].keeps_replay:
        refuse_warmup(agent, scale.online_steps, once_of(agent))


def refuse_tuning(method: Method, agent: Agent, loaded: Loaded | None, rows: int | None) -> None:
    """ConfigError where fine-tuning has no network to go on with, or no replay, or one of other `rows` of worlds.

    `loaded` is the teacher, if it is one of ours.
    """
    if not isinstance(method, FineTuning):
        return
    if loaded is None or loaded.agent.name != agent.name:
        own = "which is not one of ours" if loaded is None else f"of {loaded.agent.name}"
        raise ConfigError(
            f"fine-tuning goes on with the teacher's own network, {own}; got a student of {agent.name}. Take another "
            "student, or another method."
        )
    try:
        loaded.refuse_other_network(agent)
    except CheckpointError as error:
        raise ConfigError(
            "fine-tuning goes on with the teacher's own network, and the student's settings make another; leave out "
            f"what --set says of the network, or take another method. ({error})"
        ) from None
    if method.keeps_replay and rows is None:
        raise ConfigError(
            "fine-tuning goes on with the teacher's replay, and it kept none; give one by --data, or begin with an "
            "empty one by --choose keeps_replay=false."
        )
    if method.keeps_replay and rows is not None:
        off_policy.refuse_replay(agent.needs, rows)


def refuse(order: Order, made: AnyMade, agent: Agent) -> None:
    """ConfigError where an agent cannot learn in a world, or not within its budget."""
    kind, steps = agent.needs.kind, parse_budget(order.budget).env_steps
    if kind == "rollout":
        if isinstance(made, registry.Hosted):
            raise ConfigError(
                f"{order.agent} learns from rollouts, in worlds that are written in JAX; {order.env} is not."
            )
        return
    refuse_tasks(order, made)
    jax.eval_shape(lambda key: agent.init(key, made.spec), jax.random.key(0))  # spaces that it does not take
    if steps is not None:
        refuse_warmup(agent, steps, once_of(agent))


def refuse_changed(run: Run, spec: EnvSpec) -> None:
    """CheckpointError where a run is gone on with in a world that shows or takes something else than it did."""
    policy = run.path / "policy"
    if not policy.exists():
        return
    if reason := incompatible(EnvSpec.from_json(artefact.read_meta(policy).spec), seat_spec(spec)):
        raise CheckpointError(f"{run.id} cannot be gone on with, since {spec.id} has changed: {reason}.")


def clear(run: Run) -> None:
    """Once a training is done, what it learnt from lies beside its policy; the files that it was learnt from go."""
    if run.manifest.status == "done":
        for name in (HOST_REPLAY, prepared.TAUGHT, prepared.LABELS, prepared.NOTES):
            if (run.path / name).exists():
                files.remove(run.path / name)


def keep(run: Run, agent: Agent, state: Any, spec: EnvSpec, engine: Engine, loop: Any, order: Order) -> None:
    """The policy, and what it learnt from, if that is there."""
    save_policy(run.path / "policy", **export(agent, state, spec), provenance=provenance_of(run, order))
    if isinstance(engine, OffPolicy | OnSequences):
        with engine.unrolled(loop) as arrays:
            if arrays:
                recipe = {"run": run.id, "options": order.pool}
                save_dataset(run.path / "replay", spec=spec.to_json(), arrays=arrays, recipe=recipe)


def provenance_of(run: Run, order: Order) -> dict[str, Any]:
    """What a policy says of where it comes from, wherever it is taken."""
    return {"run": run.id} | ({"options": order.pool} if made_by_options(order.env) else {})


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


def evaluation(order: Order, made: AnyMade) -> Evaluation:
    """Whole episodes of their own without exploration, with the interval of their mean.

    In Atari one action in a thousand is random, as published (Castro et al. 2018; Fujimoto et al. 2025).
    """
    rows = max(n for n in range(1, EVALUATION_ROWS + 1) if order.episodes % n == 0)
    worlds = made.open(rows) if isinstance(made, registry.Hosted) else None
    source = None if isinstance(made, registry.Hosted) else pool_of(order)

    def evaluate(policy: Policy, env_steps: int, key: Key[Array, ""]) -> dict[str, float]:
        del env_steps
        policy = as_evaluated(policy, made.spec.action) if registry.is_atari(order.env) else policy
        if worlds is not None:
            played = host_episodes(worlds, policy, key, number=order.episodes, explore=False)
        else:
            assert isinstance(made, registry.Made)
            played = episodes(made.env, policy, made.draw, source, key, number=order.episodes, explore=False)
        score = bootstrap(played.returns[None])
        return {"score/return": score.value, "score/low": score.low, "score/high": score.high,
                "score/env_steps": played.env_steps}  # fmt: skip

    return evaluate


def reincarnated(
    order: Order, made: AnyMade, agent: Agent, run: Run, library: Library, key: Key[Array, ""],
    show: Callable[[Progress], None] | None, stop: Stop | None,
) -> Trained:  # fmt: skip
    """A student from a teacher, by a method."""
    refuse_student(order, made, agent)
    method, scale = taught(order, agent)
    worlds, source = rows_of(order, made, agent)
    keys = jax.random.split(jax.random.fold_in(key, 3), 4)
    teacher, kept, loaded = teaching.taught_by(order, made, library, run)
    refuse_tuning(method, agent, loaded, None if kept is None else kept.rows)
    number = episodes_of(made, order.student_episodes)
    known = prepared.noted(run.path).marks
    marks = known or prepare.marks(worlds, source, teacher, keys[0], number=MARKED * number)
    run.update(scores=scored(marks))
    prepare.refuse_luck(marks)
    if known is None:
        prepared.note(run.path, marks=marks)
    kinds = prepare.output_kinds(teacher, made.spec, keys[2], agent)
    learns = reincarnate.learns_from_data(method.phases(scale, kinds))
    steps = scale.online_steps if learns else min(COMPARED_STEPS, scale.online_steps)
    data = prepared.data_of(run.path, worlds, source, teacher, keys[1], steps=steps, kept=kept)
    taken = marks.env_steps + (0 if kept else data.slots * data.rows)
    course = reincarnate.Course(agent, worlds, source, teacher, data, marks, kinds, number, taken,
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
        raise ConfigError(f"{agent.name} keeps no replay and cannot be taught; take {of_kind(*STEP_SIZES)}.")
    rate, share = STEP_SIZES[agent.needs.kind]
    if agent.needs.kind == "transition" and registry.is_atari(order.env):
        share = ON_ATARI
    scale = scaled(steps, scratch=getattr(agent.config, rate), step=once_of(agent),
                   guided=share["guided"], alone=share["alone"])  # fmt: skip
    return make_method(order.method, order.method_settings, student=order.agent), scale


def scored(marks: prepare.Marks) -> list[dict[str, Any]]:
    """What acting at random and the teacher come to, as a manifest has it."""
    measured = {OF_RANDOM: (marks.random, marks.random_sd), OF_TEACHER: (marks.teacher, marks.teacher_sd)}
    return [{"name": name, "value": mean, "sd": sd, "episodes": marks.episodes}
            for name, (mean, sd) in measured.items()]  # fmt: skip


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
