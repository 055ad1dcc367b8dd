"""From a teacher to a student: what is prepared, and the phases of a method, one after the other.

Agarwal et al. 2022 (2206.01626). A method (reincarnation/methods) says what its phases add; `off_policy` runs each.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.budget import Budget
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Discrete, newest_of
from rekindle.core.stats import Interval, bootstrap
from rekindle.core.tree import own
from rekindle.core.types import Agent, EnvSpec, Obs, Policy
from rekindle.envs.host.worlds import HostWorlds
from rekindle.evaluate.policies import RandomPolicy, Wandering
from rekindle.evaluate.returns import Episodes, episodes, host_episodes, play
from rekindle.library.run import Run, reached
from rekindle.reincarnation.methods.registry import Method
from rekindle.reincarnation.phases import Phase, Scale, Told, says
from rekindle.reincarnation.weaning import normalised
from rekindle.replay import ring as rings
from rekindle.replay.mapped import Mapped, gathered, on_host
from rekindle.replay.ring import Ring, Step
from rekindle.train.loop import FIRST, Before, Plan, Progress, Stop, Trained, train
from rekindle.train.off_policy import Given, LoopState, Worlds, act_on, begin, read_on, ticks_before
from rekindle.train.replay_engine import OffPolicy, Reference

EVALUATED_AT = 0.001
"""Share of random actions in evaluations."""
BLOCK = 2_048
"""Observations on the host of which a teacher is asked at once."""
CHUNK = 500
"""Ticks in one jitted call, at most."""


class Marks(NamedTuple):
    """What returns are normalised by: 0 is `random`, 1 is `teacher`."""

    random: float
    teacher: float
    random_sd: float = 0.0
    """Standard deviation of single returns of acting at random."""
    teacher_sd: float = 0.0
    episodes: int = 0
    """That each was measured in."""
    env_steps: int = 0
    """That finding out took."""


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
    told: Told
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
    engine: OffPolicy
    """Of the last phase."""
    loop: LoopState
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
    phases = method.phases(scale, course.told)
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


def after(before: Before, engine: OffPolicy, phase: Phase) -> Before:
    """What a phase and those before it took."""
    steps = iteration_of(phase, engine) * phase.iterations
    env_steps, updates = before
    return Before(env_steps, updates + steps) if phase.offline else Before(env_steps + steps, updates)


def tag_of(number: int, phase: Phase) -> str:
    """Under which a phase's checkpoints and metrics are kept."""
    return f"{number}-{phase.name}"


def carry_out(
    course: Course, engine: OffPolicy, phase: Phase, number: int, before: Before, key: Key[Array, ""], run: Run | None,
    state: Any, show: Callable[[str, Progress], None] | None, checkpoint_seconds: float, stop: Stop | None,
) -> tuple[Trained, list[Point]]:  # fmt: skip
    """One phase, evaluated after every iteration."""
    points: list[Point] = []

    def evaluate(policy: Policy, steps: int, stream: Key[Array, ""]) -> Mapping[str, float]:
        score, env_steps = examine(course, policy, stream)
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
    plan = Plan(Budget(env_steps=every * phase.iterations), chunk_updates=CHUNK, evaluate_steps=every,
                checkpoint_seconds=checkpoint_seconds)  # fmt: skip
    trained = train(engine, key, plan, run=run, state=state, evaluate=evaluate, show=watch, stop=stop,
                    tag=tag_of(number, phase), before=before, acts=not phase.offline)  # fmt: skip
    return trained, points


def point(phase: str, values: Mapping[str, Any]) -> Point:
    """The evaluation in a row of metrics."""
    return Point(phase, int(values["phase/steps"]), float(values["score/normalised"]),
                 float(values["phase/multiplier"]), float(values["score/return"]))  # fmt: skip


def iteration_of(phase: Phase, engine: OffPolicy) -> int:
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


def engine_of(course: Course, phase: Phase) -> OffPolicy:
    """What runs a phase; the teacher is there where it is asked."""
    asks = phase.adds is not None or phase.roll_in > 0
    data = course.data if asks else rings.unlabelled(course.data)
    teacher = course.teacher if asks and not phase.offline else ()
    given, reference = Given(course.source, teacher, data), Reference(course.told, course.data)
    return OffPolicy(course.agent, course.worlds, given, phase, reference, folder=course.folder)


def refuse_short(course: Course, phases: tuple[Phase, ...]) -> None:
    """ConfigError where the teacher's data are too short to make returns of."""
    reads = any(phase.offline or phase.rehearse or phase.keeps_replay for phase in phases)
    if reads and course.data.slots <= (least := course.agent.needs.n_step + 1):
        raise ConfigError(
            f"the teacher's data are {course.data.slots} steps of {course.data.rows} worlds; returns of "
            f"{course.agent.needs.n_step} steps take more than {least}. Take another replay, or a teacher without one."
        )


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
    states, scores, multipliers, phases = None, [], [], method.phases(scale, course.told)
    refuse_short(course, phases)
    if any(phase.needs_state for phase in phases):
        raise ConfigError("fine-tuning goes on from the teacher's weights, one student at a time; use `reincarnate`.")
    worlds = course.worlds
    if not isinstance(worlds, Worlds):
        raise ConfigError(f"{worlds.spec.id} is not written in JAX: one student at a time; use `reincarnate`.")
    for number, phase in enumerate(phases):
        engine = engine_of(course, phase)
        every = iteration_of(phase, engine)
        begins, examines = (jax.vmap(partial(jax.random.fold_in, data=2 * number + which))(keys) for which in range(2))
        if states is not None:
            states = jax.vmap(partial(course.agent.restart, optimiser=phase.fresh_optimiser))(states)
        begun = partial(begin, course.agent, worlds, phase, engine.given)
        loops = jax.jit(jax.vmap(lambda key, state, begun=begun: begun(key, state=state)))(begins, states)
        one = partial(iteration, course, engine)
        iterate = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None)), donate_argnums=0)
        waiting = 0 if phase.offline else ticks_before(course.agent.needs)
        for turn in range(phase.iterations):
            streams = jax.vmap(partial(jax.random.fold_in, data=turn))(examines)
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
    policy = wandering(course, course.agent.policy(loop.agent))
    returns, _ = play(worlds.env, policy, worlds.draw, course.source, key, course.episodes, True)
    returned = jnp.mean(returns)
    scored = jnp.asarray(normalised(returned, random=course.marks.random, teacher=course.marks.teacher))
    progress = phase.after(loop.progress, scored, loop.ticks * engine.steps_per_update)
    return loop._replace(progress=progress), scored


def wandering(course: Course, policy: Any) -> Wandering:
    """As it is evaluated."""
    action = course.worlds.spec.action
    assert isinstance(action, Discrete)
    return Wandering(policy, EVALUATED_AT, action.n)


def examine(course: Course, policy: Any, key: Key[Array, ""]) -> tuple[Interval, int]:
    """Mean undiscounted return of whole episodes, greedy but for one action in a thousand; and the steps they took."""
    played = played_in(course.worlds, course.source, wandering(course, policy), key, course.episodes)
    return bootstrap(played.returns[None]), played.env_steps


def played_in(worlds: Worlds | HostWorlds, source: PyTree, policy: Any, key: Key[Array, ""], number: int) -> Episodes:
    """Whole episodes in worlds of either kind."""
    if isinstance(worlds, HostWorlds):  # a second set, so that those of training stand where they stood
        return host_episodes(worlds.beside(), policy, key, number=number)
    return episodes(worlds.env, policy, worlds.draw, source, key, number=number)


def marks(worlds: Worlds | HostWorlds, source: PyTree, teacher: Any, key: Key[Array, ""], *, number: int = 256
          ) -> Marks:  # fmt: skip
    """What acting at random and the teacher come to.

    Raises:
        ConfigError: the teacher is no better than random.
    """
    action = worlds.spec.action
    assert isinstance(action, Discrete)
    random_key, teacher_key = jax.random.split(key)
    chance = played_in(worlds, source, RandomPolicy(action.n), random_key, number)
    taught = played_in(worlds, source, Wandering(teacher, EVALUATED_AT, action.n), teacher_key, number)
    means, spreads = ([float(of(played.returns)) for played in (chance, taught)] for of in (np.mean, np.std))
    found = Marks(*means, *spreads, episodes=len(taught.returns), env_steps=chance.env_steps + taught.env_steps)
    normalised(0.0, random=found.random, teacher=found.teacher)
    return found


def roll_out(
    worlds: Worlds | HostWorlds, source: PyTree, teacher: Any, key: Key[Array, ""], *, steps: int, stray: float = 0.01,
    folder: Path | None = None,
) -> Ring:  # fmt: skip
    """The teacher's own steps, where it has left none: so many, a share of them random.

    Those of worlds that are not compiled go to files in `folder`, or in a temporary one.
    """
    action = worlds.spec.action
    assert isinstance(action, Discrete)
    policy, count = Wandering(teacher, stray, action.n), -(-steps // worlds.rows)
    if isinstance(worlds, HostWorlds):
        return host_roll_out(worlds.beside(), policy, key, count, folder)

    def run(teacher: Any, source: PyTree, key: Key[Array, ""]) -> Step:
        del teacher
        reset_key, run_key = jax.random.split(key)
        state, obs = worlds.reset(reset_key, source)

        def step(now: tuple, key: Key[Array, ""]) -> tuple[tuple, Step]:
            state, obs, carry, start = now
            act_key, env_key = jax.random.split(key)
            out = policy.act(act_key, carry, obs, start, explore=True)
            state, ts = worlds.step(env_key, state, out.action, source)
            kept = Step(obs, out.action.astype(action.dtype), ts.reward, ts.terminated, ts.truncated)
            return (state, ts.obs, out.carry, ts.terminated | ts.truncated), kept

        begin = (state, obs, policy.init_carry(worlds.rows), jnp.ones(worlds.rows, bool))
        return jax.lax.scan(step, begin, jax.random.split(run_key, count))[1]

    kept = jax.jit(run)(teacher, source, key)
    return Ring(kept, jnp.int32(kept.reward.shape[0]))


def host_roll_out(worlds: HostWorlds, policy: Wandering, key: Key[Array, ""], count: int, folder: Path | None) -> Ring:
    """So many steps of every world that is not compiled."""
    seed_key, act_key = jax.random.split(key)
    obs = worlds.reset(int(jax.random.randint(seed_key, (), 0, 2**31 - 1)))
    carry, start, steps = policy.init_carry(worlds.rows), np.ones(worlds.rows, bool), Mapped(folder, count)
    decide = jax.jit(lambda policy, *rest: policy.act(*rest, explore=True)._replace(extras=()))
    for time in range(count):
        out = decide(policy, jax.random.fold_in(act_key, time), carry, obs, start)
        action, carry = np.asarray(out.action), out.carry
        step = worlds.step(action)
        kept = on_host(rings.newest(obs, worlds.spec.stack), action, *step[1:])
        if time == 0:
            steps.stand_at(0, kept)
        steps.write(kept)
        obs, start = step.obs, step.terminated | step.truncated
    return steps.ring()


def labelled(data: Ring, teacher: Any, spec: EnvSpec, *, path: Path | None = None) -> Ring:
    """The same steps, each with what the teacher says of its observation.

    Where the steps are on the host they stay there: what is said is asked for in blocks, and goes to the file `path`.

    Raises:
        ConfigError: the data show something else than the environment.
    """
    for name, space in spec.obs.items():
        there = data.steps.obs.get(name)
        if there is None or tuple(there.shape[2:]) != tuple(getattr(newest_of(space, spec.stack), "shape", ())):
            shown = "nothing" if there is None else list(there.shape[2:])
            raise ConfigError(f"the teacher's data have {shown} for observation {name!r}; {spec.id} shows {space!r}.")
    if not bool(jnp.all(jnp.isfinite(data.steps.reward))):
        raise ConfigError("the teacher's data have rewards that are no finite numbers; take another replay.")

    def run(teacher: Any, memory: Any, start: Bool[Array, "T B"], obs: Obs) -> tuple[Any, Float[Array, "T B A"]]:
        def step(memory: tuple[PyTree, list[Obs]], now: tuple[Obs, Bool[Array, " B"]]
                 ) -> tuple[tuple[PyTree, list[Obs]], Float[Array, "B A"]]:  # fmt: skip
            carry, before = memory
            before = jax.tree.map(lambda x: jnp.where(now[1].reshape(-1, *(1,) * (x.ndim - 1)), 0, x), before)
            seen = rings.joined([*before, now[0]])
            out = teacher.act(jax.random.key(0), carry, seen, now[1], explore=False)
            return (out.carry, [*before, now[0]][1:]), says(out.extras)

        return jax.lax.scan(step, memory, (obs, start))

    is_here = isinstance(data.steps.reward, np.ndarray)
    steps = data.steps if is_here else rings.unrolled(data)
    count, ask = len(steps.reward), jax.jit(run)
    size = max(BLOCK // data.rows, 1) if is_here else count
    over = np.asarray(steps.terminated) | np.asarray(steps.truncated)
    start = np.concatenate([np.ones_like(over[:1]), over[:-1]])
    none = [{name: jnp.zeros(x.shape[1:], x.dtype) for name, x in steps.obs.items()}] * (spec.stack - 1)

    def said() -> Iterator[Float[Array, "T B A"]]:
        memory = (teacher.init_carry(data.rows), none)
        for first in range(0, count, size):
            block = {name: x[first : first + size] for name, x in steps.obs.items()}
            memory, labels = ask(teacher, memory, start[first : first + size], block)
            yield labels

    if not is_here:
        return Ring(steps._replace(labels=next(said())), jnp.int32(count))
    return data._replace(steps=steps._replace(labels=gathered(path, (count, data.rows), said())))


def told_by(teacher: Policy, spec: EnvSpec, key: Key[Array, ""]) -> Told:
    """Whether a teacher says action values."""
    obs = {name: jnp.zeros((1, *space.shape), space.dtype) for name, space in spec.obs.items()}  # pyright: ignore
    carry = teacher.init_carry(1)
    extras = jax.eval_shape(lambda: teacher.act(key, carry, obs, jnp.ones(1, bool), explore=False).extras)
    return Told(extras.q is not None)
