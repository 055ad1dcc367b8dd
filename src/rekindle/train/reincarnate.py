"""From a teacher to a student: the phases of a method, one after the other.

Agarwal et al. 2022 (2206.01626). A method (reincarnation/methods) says what its phases add; `off_policy` runs each.
What a student is given before it begins is in `prepare.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key, PyTree

from rekindle.core.budget import Budget
from rekindle.core.errors import ConfigError
from rekindle.core.stats import Interval, bootstrap
from rekindle.core.tree import own
from rekindle.core.types import Agent, Policy
from rekindle.envs.host.worlds import HostWorlds
from rekindle.evaluate.policies import as_evaluated
from rekindle.evaluate.returns import play
from rekindle.library.run import Run, reached
from rekindle.reincarnation.methods.registry import Method
from rekindle.reincarnation.phases import OutputKinds, Phase, Scale
from rekindle.reincarnation.weaning import normalised
from rekindle.replay import ring as rings
from rekindle.replay.ring import Ring
from rekindle.train.agreement import Reference
from rekindle.train.loop import FIRST, Before, Plan, Progress, Stop, Trained, train
from rekindle.train.off_policy import Given, LoopState, Worlds, act_on, begin, read_on, ticks_before
from rekindle.train.prepare import Marks, played_in
from rekindle.train.replay_engine import OffPolicy
from rekindle.train.sequence_engine import OnSequences

CHUNK = {"transition": 500, "sequence": 100}
"""Ticks in one jitted call at most, by the data that the student needs; updates on sequences are large."""
Student = OffPolicy | OnSequences
"""The engine of a phase."""


@dataclass(frozen=True)
class Course:
    """A student, and what there is to learn from."""

    agent: Agent
    worlds: Worlds | HostWorlds
    source: PyTree
    teacher: Policy
    data: Ring
    """Steps of the teacher, labelled."""
    marks: Marks
    kinds: OutputKinds
    episodes: int = 64
    """Of an evaluation."""
    prepared: int = 0
    """Environment steps that marks and data took."""
    folder: Path | None = None
    """Where worlds that are not compiled keep the student's replay; without one, in a temporary folder."""


class Point(NamedTuple):
    """An evaluation of the student."""

    phase: str
    steps: int
    """Of the phase: environment steps, or updates where it is offline."""
    score: float
    """Normalised by the marks."""
    multiplier: float
    """Of the added loss, in the steps before it."""
    returned: float
    """The score before it is normalised."""


class Taught(NamedTuple):
    """What came of it."""

    state: Any
    curve: list[Point]
    status: str
    env_steps: int
    engine: Student
    """Of the last phase."""
    loop: Any
    """Where that stands."""


def reincarnate(
    course: Course,
    method: Method,
    scale: Scale,
    key: Key[Array, ""],
    *,
    run: Run | None = None,
    state: Any = None,
    show: Callable[[str, Progress], None] | None = None,
    checkpoint_seconds: float = 60.0,
    stop: Stop | None = None,
) -> Taught:
    """Carry out the phases of a method; with a run, from where it stopped.

    Args:
        course: who learns what from whom.
        method: what is added, and when.
        scale: sizes.
        key: of everything random.
        run: where metrics and checkpoints go.
        state: of the student, to go on from instead of fresh weights.
        show: is told the phase and how it goes.
        checkpoint_seconds: between checkpoints.
        stop: from the metrics of a chunk to whether that is enough; the phases that are left are then left out.
    """
    phases = method.phases(scale, course.kinds)
    refuse_short(course, phases)
    if state is None and any(phase.needs_state for phase in phases):
        raise ConfigError("fine-tuning goes on from the teacher's weights; give `state`.")
    saved = None if run is None else run.latest_checkpoint()
    stopped_in = 0 if saved is None else [tag_of(i, phase) for i, phase in enumerate(phases)].index(saved[2]["tag"])
    curve = [] if saved is None else recorded(run, phases, upto=saved[0])
    before, trained, engine = FIRST, None, None
    for number, phase in enumerate(phases):
        engine = engine_of(course, phase)
        if number >= stopped_in:
            if number > 0 and state is not None:
                state = course.agent.restart(state, optimiser=phase.fresh_optimiser)
            stream = jax.random.fold_in(key, number)
            trained, points = carry_out(course, engine, phase, number, before, stream, run, state, show,
                                        checkpoint_seconds, stop)  # fmt: skip
            state = trained.state
            known = {(point.phase, point.steps) for point in curve}
            curve += [point for point in points if (point.phase, point.steps) not in known]
            if trained.status != "done":
                break
        before = after(before, engine, phase)
    assert trained is not None and engine is not None
    acted = trained.env_steps if trained.status != "done" else 0
    return Taught(state, curve, trained.status, before.env_steps + acted, engine, trained.loop)


def after(before: Before, engine: Student, phase: Phase) -> Before:
    """What a phase and those before it took."""
    steps = iteration_of(phase, engine) * phase.iterations
    env_steps, updates = before
    return Before(env_steps, updates + steps) if phase.offline else Before(env_steps + steps, updates)


def tag_of(number: int, phase: Phase) -> str:
    """Under which a phase's checkpoints and metrics are kept."""
    return f"{number}-{phase.name}"


def carry_out(
    course: Course, engine: Student, phase: Phase, number: int, before: Before, key: Key[Array, ""], run: Run | None,
    state: Any, show: Callable[[str, Progress], None] | None, checkpoint_seconds: float, stop: Stop | None,
) -> tuple[Trained, list[Point]]:  # fmt: skip
    """One phase, evaluated after every iteration."""
    points: list[Point] = []

    def evaluate(policy: Policy, steps: int, stream: Key[Array, ""]) -> Mapping[str, float]:
        score, env_steps = evaluated(course, policy, stream)
        scored = normalised(score.value, random=course.marks.random, teacher=course.marks.teacher)
        before = course.prepared if number == 0 and steps <= every else 0
        return {"score/return": score.value, "score/low": score.low, "score/high": score.high,
                "score/normalised": float(scored), "score/env_steps": before + env_steps}  # fmt: skip

    def watch(now: Progress) -> None:
        if "score/normalised" in now.metrics:
            points.append(point(phase.name, now.metrics))
        if show is not None:
            show(phase.name, now)

    every = iteration_of(phase, engine)
    plan = Plan(Budget(env_steps=every * phase.iterations), chunk_updates=CHUNK[course.agent.needs.kind],
                evaluate_steps=every, checkpoint_seconds=checkpoint_seconds)  # fmt: skip
    trained = train(engine, key, plan, run=run, state=state, evaluate=evaluate, show=watch, stop=stop,
                    tag=tag_of(number, phase), before=before, acts=not phase.offline)  # fmt: skip
    return trained, points


def point(phase: str, values: Mapping[str, Any]) -> Point:
    """The evaluation in a row of metrics."""
    return Point(phase, int(values["phase/steps"]), float(values["score/normalised"]),
                 float(values["phase/multiplier"]), float(values["score/return"]))  # fmt: skip


def iteration_of(phase: Phase, engine: Student) -> int:
    """Steps of an iteration: as many as go into a phase, in whole ticks.

    Raises:
        ConfigError: not even one.
    """
    step = engine.steps_per_update
    ticks = phase.steps // (phase.iterations * step)
    if ticks == 0:
        raise ConfigError(
            f"{phase.steps} steps are too few for {phase.iterations} iterations of at least {step}; give more."
        )
    return ticks * step


def engine_of(course: Course, phase: Phase) -> Student:
    """What runs a phase; the teacher is there where it is asked."""
    asks = phase.adds is not None or phase.roll_in > 0
    data = course.data if asks else rings.unlabelled(course.data)
    teacher = course.teacher if asks and not phase.offline else ()
    given, reference = Given(course.source, teacher, data), Reference(course.kinds, course.data)
    if course.agent.needs.kind == "sequence":
        return OnSequences(course.agent, course.worlds, given, phase.steps, phase, reference)
    return OffPolicy(course.agent, course.worlds, given, phase, reference, folder=course.folder)


def refuse_short(course: Course, phases: tuple[Phase, ...]) -> None:
    """ConfigError where the teacher's data are too short to make returns of."""
    needs = course.agent.needs
    if learns_from_data(phases) and needs.kind == "transition" and course.data.slots <= (least := needs.n_step + 1):
        raise ConfigError(
            f"the teacher's data are {course.data.slots} steps of {course.data.rows} worlds; returns of "
            f"{needs.n_step} steps take more than {least}. Take another replay, or a teacher without one."
        )


def learns_from_data(phases: tuple[Phase, ...]) -> bool:
    """Whether the teacher's steps are learnt from, and not only what it says of the student's."""
    return any(phase.offline or phase.rehearse or phase.keeps_replay for phase in phases)


def recorded(run: Run | None, phases: tuple[Phase, ...], *, upto: int) -> list[Point]:
    """The evaluations that a run's metrics hold, up to a checkpoint."""
    names = {tag_of(number, phase): phase.name for number, phase in enumerate(phases)}
    found: dict[tuple[str, int], Point] = {}
    for row in [] if run is None else run.metrics():
        if "score/normalised" in row and reached(row) <= upto:
            one = point(names[str(row["tag"])], row)
            found[one.phase, one.steps] = one
    return list(found.values())


class Many(NamedTuple):
    """Several students at once; leaves have an axis of seeds first."""

    states: Any
    scores: Float[np.ndarray, "S N"]
    """Normalised, of every evaluation of all phases, one after the other."""
    multipliers: Float[np.ndarray, "S N"]
    """In the steps before each of them."""


def reincarnate_many(course: Course, method: Method, scale: Scale, keys: Key[Array, " S"]) -> Many:
    """The same for several seeds in one program, without checkpoints: for accelerators, and for small problems."""
    states, scores, multipliers, phases = None, [], [], method.phases(scale, course.kinds)
    refuse_short(course, phases)
    if any(phase.needs_state for phase in phases):
        raise ConfigError("fine-tuning goes on from the teacher's weights, one student at a time; use `reincarnate`.")
    worlds = course.worlds
    if course.agent.needs.kind != "transition":
        raise ConfigError(f"students of {course.agent.name} are taught one at a time; use `reincarnate`.")
    if not isinstance(worlds, Worlds):
        raise ConfigError(f"{worlds.spec.id} is not written in JAX: one student at a time; use `reincarnate`.")
    for number, phase in enumerate(phases):
        engine = engine_of(course, phase)
        assert isinstance(engine, OffPolicy)
        every = iteration_of(phase, engine)
        begins, evaluates = (jax.vmap(partial(jax.random.fold_in, data=2 * number + which))(keys) for which in range(2))
        if states is not None:
            states = jax.vmap(partial(course.agent.restart, optimiser=phase.fresh_optimiser))(states)
        begun = partial(begin, course.agent, worlds, phase, engine.given)
        loops = jax.jit(jax.vmap(lambda key, state, begun=begun: begun(key, state=state)))(begins, states)
        one = partial(iteration, course, engine)
        iterate = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None)), donate_argnums=0)
        waiting = 0 if phase.offline else ticks_before(course.agent.needs)
        for turn in range(phase.iterations):
            streams = jax.vmap(partial(jax.random.fold_in, data=turn))(evaluates)
            ticks = every // engine.steps_per_update
            before = min(waiting, ticks)
            waiting -= before
            multipliers.append(np.asarray(loops.progress.multiplier))
            loops, found = iterate(own(loops), streams, engine.given, before, ticks - before)
            scores.append(np.asarray(found))
        states = loops.agent
    return Many(states, np.stack(scores, axis=1), np.stack(multipliers, axis=1))


def iteration(
    course: Course, engine: OffPolicy, loop: LoopState, key: Key[Array, ""], given: Given, before: Int32[Array, ""],
    ticks: Int32[Array, ""],
) -> tuple[LoopState, Float[Array, ""]]:  # fmt: skip
    """Some ticks that fill the replay, some that learn, an evaluation, and what follows from it; for jit and vmap."""
    phase, worlds = engine.phase, course.worlds
    assert phase is not None and isinstance(worlds, Worlds)
    if phase.offline:
        loop, _ = read_on(course.agent, phase, loop, given, ticks)
    else:
        act = partial(act_on, course.agent, worlds, phase)
        loop, _ = act(False, loop, given, before)
        loop, _ = act(True, loop, given, ticks)
    policy = as_evaluated(course.agent.policy(loop.agent), worlds.spec.action)
    returns, _ = play(worlds.env, policy, worlds.draw, course.source, key, course.episodes, True)
    returned = jnp.mean(returns)
    scored = jnp.asarray(normalised(returned, random=course.marks.random, teacher=course.marks.teacher))
    progress = phase.after(loop.progress, scored, loop.ticks * engine.steps_per_update)
    return loop._replace(progress=progress), scored


def evaluated(course: Course, policy: Any, key: Key[Array, ""]) -> tuple[Interval, int]:
    """Mean undiscounted return of whole episodes, without exploration; and the steps they took."""
    acting = as_evaluated(policy, course.worlds.spec.action)
    played = played_in(course.worlds, course.source, acting, key, course.episodes)
    return bootstrap(played.returns[None]), played.env_steps
