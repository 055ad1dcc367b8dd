"""What a student is given before it begins: two marks, its teacher's steps, and what the teacher says of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import newest_of
from rekindle.core.types import Agent, EnvSpec, Obs, Policy
from rekindle.envs.host.worlds import HostWorlds
from rekindle.evaluate.policies import as_evaluated, random_policy, straying
from rekindle.evaluate.returns import Episodes, episodes, host_episodes
from rekindle.reincarnation.phases import OutputKinds, kind_of, says
from rekindle.reincarnation.weaning import normalised
from rekindle.replay import ring as rings
from rekindle.replay.mapped import Mapped, gathered, on_host
from rekindle.replay.ring import Ring, Step
from rekindle.train.off_policy import Worlds

BLOCK = 2_048
"""Observations on the host of which a teacher is asked at once."""


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


def played_in(worlds: Worlds | HostWorlds, source: PyTree, policy: Any, key: Key[Array, ""], number: int) -> Episodes:
    """Whole episodes in worlds of either kind."""
    if isinstance(worlds, HostWorlds):  # a second set, so that those of training stand where they stood
        return host_episodes(worlds.beside(), policy, key, number=number, explore=False)
    return episodes(worlds.env, policy, worlds.draw, source, key, number=number, explore=False)


def marks(worlds: Worlds | HostWorlds, source: PyTree, teacher: Any, key: Key[Array, ""], *, number: int = 256
          ) -> Marks:  # fmt: skip
    """What acting at random and the teacher come to.

    Raises:
        ConfigError: the teacher is no better than random.
    """
    action = worlds.spec.action
    random_key, teacher_key = jax.random.split(key)
    chance = played_in(worlds, source, random_policy(action), random_key, number)
    taught = played_in(worlds, source, as_evaluated(teacher, action), teacher_key, number)
    means, spreads = ([float(of(played.returns)) for played in (chance, taught)] for of in (np.mean, np.std))
    found = Marks(*means, *spreads, episodes=len(taught.returns), env_steps=chance.env_steps + taught.env_steps)
    normalised(0.0, random=found.random, teacher=found.teacher)
    return found


def refuse_luck(marks: Marks) -> None:
    """ConfigError where a teacher is better than random by less than two standard errors.

    A score would be divided by what is nothing but chance.
    """
    error = ((marks.random_sd**2 + marks.teacher_sd**2) / marks.episodes) ** 0.5
    if marks.teacher - marks.random <= 2 * error:
        raise ConfigError(
            f"the teacher's return of {marks.teacher:g} in {marks.episodes} episodes is no better than that of acting "
            f"at random, {marks.random:g}, but by luck; take another teacher, or train without one."
        )


def roll_out(
    worlds: Worlds | HostWorlds, source: PyTree, teacher: Any, key: Key[Array, ""], *, steps: int, stray: float = 0.01,
    noise: float = 0.2, folder: Path | None = None,
) -> Ring:  # fmt: skip
    """The teacher's own steps, where it has left none: so many, a share of them random, or with noise in vectors.

    Those of worlds that are not compiled go to files in `folder`, or in a temporary one.
    """
    policy = straying(teacher, worlds.spec.action, share=stray, noise=noise)
    count, numbers = -(-steps // worlds.rows), worlds.spec.action.dtype  # pyright: ignore
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
            kept = Step(obs, out.action.astype(numbers), ts.reward, ts.terminated, ts.truncated)
            return (state, ts.obs, out.carry, ts.terminated | ts.truncated), kept

        begin = (state, obs, policy.init_carry(worlds.rows), jnp.ones(worlds.rows, bool))
        return jax.lax.scan(step, begin, jax.random.split(run_key, count))[1]

    kept = jax.jit(run)(teacher, source, key)
    return Ring(kept, jnp.int32(kept.reward.shape[0]))


def host_roll_out(worlds: HostWorlds, policy: Any, key: Key[Array, ""], count: int, folder: Path | None) -> Ring:
    """So many steps of every world that is not compiled; they are on the disk when this returns."""
    seed_key, act_key = jax.random.split(key)
    obs = worlds.reset(int(jax.random.randint(seed_key, (), 0, 2**31 - 1)))
    carry, start, steps = policy.init_carry(worlds.rows), np.ones(worlds.rows, bool), Mapped(folder, count)
    decide = jax.jit(lambda policy, *rest: policy.act(*rest, explore=True)._replace(extras=()))
    for time in range(count):
        out = decide(policy, jax.random.fold_in(act_key, time), carry, obs, start)
        action, carry = np.asarray(out.action), out.carry
        step = worlds.step(action)
        kept = on_host(rings.newest(obs, worlds.spec.stack), action, *step[1:4])
        if time == 0:
            steps.stand_at(0, kept)
        steps.write(kept)
        obs, start = step.obs, step.terminated | step.truncated
    steps.save()
    return steps.ring()


def labelled(data: Ring, teacher: Any, spec: EnvSpec, *, path: Path | None = None) -> Ring:
    """The same steps, each with what the teacher says of its observation.

    Where the steps are on the host they stay there: what is said is asked for in blocks, and goes to the file `path`.

    Raises:
        ConfigError: the data show something else than the environment, or the teacher says what is no number.
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
            if bool(jnp.any(jnp.isnan(labels))):
                raise ConfigError("the teacher says what is no number (NaN) of observations in its data; mend it.")
            yield labels

    if not is_here:
        return Ring(steps._replace(labels=next(said())), jnp.int32(count))
    return data._replace(steps=steps._replace(labels=gathered(path, (count, data.rows), said())))


def output_kinds(teacher: Policy, spec: EnvSpec, key: Key[Array, ""], student: Agent) -> OutputKinds:
    """What kind of things a teacher says, and its student."""
    obs = {name: jnp.zeros((1, *space.shape), space.dtype) for name, space in spec.obs.items()}  # pyright: ignore
    carry = teacher.init_carry(1)
    extras = jax.eval_shape(lambda: teacher.act(key, carry, obs, jnp.ones(1, bool), explore=False).extras)
    return OutputKinds(kind_of(extras), says_what(student))


def says_what(student: Agent) -> Literal["values", "policy"]:
    """What a teacher's loss is of."""
    return "policy" if student.needs.kind == "sequence" else "values"
