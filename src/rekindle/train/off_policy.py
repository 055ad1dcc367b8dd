"""The off-policy loop over JAX worlds: act, store, sample, update, in one jitted and donated chunk.

A tick is as many steps of all worlds as make a whole number of updates, and then those updates. `chunk` is pure: the
same state gives the same next state, so a run resumes exactly from a checkpoint of `LoopState`. What surrounds it
(progress, evaluation, checkpoints, Ctrl-C) is in `loop.py`.

What somebody else adds (a teacher that labels, guides or acts; data that exists already) comes as a `Phase`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.errors import ConfigError
from rekindle.core.types import Agent, Data, EnvSpec, Guidance, Obs, TimeStep, Transitions
from rekindle.envs.base import Env
from rekindle.envs.wrappers import AutoReset
from rekindle.reincarnation.phases import Dials, Phase, says
from rekindle.replay import prioritised, ring
from rekindle.replay.prioritised import Prioritised
from rekindle.replay.ring import Outline, Ring, Step, Window

L = TypeVar("L")
NO_TICK = 2**31 - 1
"""Number of a random stream that no tick has."""
Draw = Callable[[Key[Array, ""], PyTree], PyTree]
"""From a key and a source of tasks to one task."""


class Pace(NamedTuple):
    """How acting and learning take turns."""

    steps: int
    """Steps of all worlds in a tick."""
    updates: int
    """Updates after them."""


def pace(needs: Data) -> Pace:
    """The shortest tick with a whole number of updates.

    Raises:
        ConfigError: worlds side by side and steps per update of which none is a multiple of the other.
    """
    ratio = Fraction(needs.rows * needs.updates_per_step).limit_denominator(10**6)
    if 1 not in (ratio.numerator, ratio.denominator):
        raise ConfigError(
            f"{needs.rows} worlds side by side and an update every {1 / needs.updates_per_step:g} steps do not go "
            "together: one has to be a multiple of the other."
        )
    return Pace(ratio.denominator, ratio.numerator)


class EpisodeCounts(NamedTuple):
    """Episodes that ended since the last report, and sums over those that run."""

    running: Float[Array, " B"]
    length: Int32[Array, " B"]
    ended: Float[Array, ""]
    total: Float[Array, ""]
    steps: Float[Array, ""]


class Given(NamedTuple):
    """What exists already, handed to every chunk and never changed."""

    source: PyTree
    """What tasks are drawn from."""
    teacher: Any = ()
    """A policy, which labels what is seen."""
    data: Any = ()
    """A ring of its steps, with labels; of arrays on the host where worlds are not compiled."""


NOTHING_GIVEN = Given(())


class LoopState(NamedTuple):
    """Everything between two chunks. `ticks` numbers the random streams."""

    agent: Any
    worlds: Any
    obs: Obs
    start: Bool[Array, " B"]
    carry: PyTree
    roll_in: Int32[Array, " B"]
    """First steps of this episode that are the teacher's."""
    beside: PyTree
    """The teacher's memory."""
    counts: EpisodeCounts
    replay: Ring | Outline | Prioritised
    """An outline where worlds are not compiled: the steps are on the host."""
    progress: Any
    """How far the phase has come; () without one."""
    ticks: Int32[Array, ""]
    key: Key[Array, ""]


@dataclass(frozen=True)
class Worlds:
    """Rows of an environment, each in an episode of a task that is drawn when the last one ends."""

    env: Env
    draw: Draw
    rows: int

    @property
    def spec(self) -> EnvSpec:
        """What is seen and done."""
        return self.env.spec

    def reset(self, key: Key[Array, ""], source: PyTree) -> tuple[Any, Obs]:
        """The first episodes."""
        state, first = jax.vmap(self._one().reset, in_axes=(0, None))(jax.random.split(key, self.rows), source)
        return state, first.obs

    def step(self, key: Key[Array, ""], state: Any, action: Array, source: PyTree) -> tuple[Any, TimeStep]:
        """One step of every row."""
        keys = jax.random.split(key, self.rows)
        return jax.vmap(self._one().step, in_axes=(0, 0, 0, None))(keys, state, action, source)

    def _one(self) -> AutoReset:
        return AutoReset(self.env, lambda key, source, _: self.draw(key, source))


def begin(agent: Agent, worlds: Worlds, phase: Phase | None, given: Given, key: Key[Array, ""], *, state: Any = None
          ) -> LoopState:  # fmt: skip
    """The state before the first step; `state` continues from a trained agent instead of fresh weights."""
    inside, obs = worlds.reset(jax.random.fold_in(key, 1), given.source)
    return begin_at(agent, worlds.spec, phase, given, inside, obs, key, state=state)


def begin_at(
    agent: Agent, spec: EnvSpec, phase: Phase | None, given: Given, inside: Any, obs: Obs, key: Key[Array, ""], *,
    state: Any = None,
) -> LoopState:  # fmt: skip
    """The same, where the worlds have begun: what is inside them, and what they show."""
    init_key, _, run_key, *unused = (jax.random.fold_in(key, number) for number in range(5))
    fresh = agent.init(init_key, spec) if state is None else state
    rows = jax.tree.leaves(obs)[0].shape[0]
    ones, zero = jnp.ones(rows, bool), jnp.zeros(())
    carry = agent.init_carry(fresh, rows)
    beside = () if given.teacher == () else given.teacher.init_carry(rows)

    def like() -> Step:
        action = agent.act(unused[0], fresh, carry, obs, ones, explore=True).action
        labels = ask(given.teacher, unused[1], beside, obs, ones)[1]
        return Step(ring.newest(obs, spec.stack), action, jnp.zeros(rows), ones, ones, labels)

    slots, keeps = agent.needs.capacity // rows, phase is not None and phase.keeps_replay
    if keeps:
        refuse_replay(agent.needs, given.data.rows)
    if spec.kind == "host":
        replay = Outline(jnp.int32(min(given.data.slots, slots) if keeps else 0), slots, rows)
    elif keeps:
        replay = ring.adopted(given.data, slots)
    else:
        replay = ring.empty(jax.eval_shape(like), 1 if phase is not None and phase.offline else slots)
    if agent.needs.prioritised and keeps:
        replay = prioritised.holding(replay, ring.cut_off(given.data, slots), n=agent.needs.n_step)
    elif agent.needs.prioritised:
        replay = prioritised.empty(replay)
    counts = EpisodeCounts(jnp.zeros(rows), jnp.zeros(rows, jnp.int32), zero, zero, zero)
    progress = () if phase is None else phase.begin()
    return LoopState(fresh, inside, obs, ones, carry, jnp.zeros(rows, jnp.int32), beside, counts, replay, progress,
                     jnp.int32(0), run_key)  # fmt: skip


def refuse_replay(needs: Data, rows: int) -> None:
    """ConfigError where a replay cannot begin with the teacher's data, of so many worlds side by side."""
    if rows != needs.rows:
        raise ConfigError(
            f"the teacher's replay is of {rows} worlds side by side, the student's of {needs.rows}; take --set "
            f"num_envs={rows}, or --choose keeps_replay=false."
        )


def ask(
    teacher: Any, key: Key[Array, ""], memory: PyTree, obs: Obs, start: Bool[Array, " B"]
) -> tuple[Array, PyTree, PyTree]:
    """A teacher's greedy action, what it says of every action, and its memory after that; nothing, if there is none."""
    if teacher == ():
        return jnp.zeros(start.shape, jnp.int32), (), ()
    out = teacher.act(key, memory, obs, start, explore=False)
    return out.action, says(out.extras), out.carry


class Decision(NamedTuple):
    """What is done in all worlds, and what goes with it."""

    action: Array
    carry: PyTree
    roll_in: Int32[Array, " B"]
    beside: PyTree
    labels: PyTree


class Shown(NamedTuple):
    """What came of it."""

    obs: Obs
    reward: Float[Array, " B"]
    terminated: Bool[Array, " B"]
    truncated: Bool[Array, " B"]
    final_obs: Obs | None = None
    """The last observation of the episodes that ended, where the replay keeps it."""


def live(
    agent: Agent, worlds: Worlds, given: Given, dials: Dials | None, key: Key[Array, ""], loop: LoopState
) -> LoopState:
    """One step of all worlds, into the replay."""
    act_key, env_key, *keys = jax.random.split(key, 4)
    decision = decide(agent, given, dials, (act_key, *keys), loop)
    state, ts = worlds.step(env_key, loop.worlds, decision.action, given.source)
    shown = Shown(ts.obs, ts.reward, ts.terminated, ts.truncated)
    return record(agent, worlds.spec.stack, loop._replace(worlds=state), decision, shown)


def decide(agent: Agent, given: Given, dials: Dials | None, keys: Sequence[Key[Array, ""]], loop: Any) -> Decision:
    """The agent's actions, or a teacher's where it rolls in."""
    act_key, teacher_key, depth_key = keys
    out = agent.act(act_key, loop.agent, loop.carry, loop.obs, loop.start, explore=True)
    theirs, labels, beside = ask(given.teacher, teacher_key, loop.beside, loop.obs, loop.start)
    action, depth = out.action, loop.roll_in
    if dials is not None and given.teacher != ():
        drawn = jax.random.randint(depth_key, depth.shape, 1, jnp.maximum(dials.roll_in, 1) + 1)
        depth = jnp.where(loop.start, jnp.where(dials.roll_in > 0, drawn, 0), depth)
        rolls_in = (loop.counts.length < depth).reshape(-1, *(1,) * (action.ndim - 1))
        action = jnp.where(rolls_in, theirs.astype(action.dtype), action)
    return Decision(action, out.carry, depth, beside, labels)


def record(agent: Agent, stack: int, loop: LoopState, decision: Decision, shown: Shown) -> LoopState:
    """The state after a step of all worlds, which is stored."""
    seen = ring.newest(loop.obs, stack)
    step = Step(seen, decision.action, shown.reward, shown.terminated, shown.truncated, decision.labels)
    return went_on(agent, loop, decision, shown)._replace(replay=store(agent.needs, loop.replay, step))


def went_on(agent: Agent, loop: LoopState, decision: Decision, shown: Shown) -> LoopState:
    """All of the state after a step of all worlds but the replay."""
    ended = shown.terminated | shown.truncated
    return loop._replace(
        agent=agent.lived(loop.agent, ended.shape[0]), obs=shown.obs, start=ended, carry=decision.carry,
        roll_in=decision.roll_in, beside=decision.beside, counts=count(loop.counts, shown.reward, ended),
    )  # fmt: skip


def count(counts: EpisodeCounts, reward: Float[Array, " B"], ended: Bool[Array, " B"]) -> EpisodeCounts:
    """Book the returns of episodes that ended."""
    running, length = counts.running + reward, counts.length + 1
    over = ended.astype(jnp.float32)
    return EpisodeCounts(
        running=jnp.where(ended, 0.0, running),
        length=jnp.where(ended, 0, length),
        ended=counts.ended + jnp.sum(over),
        total=counts.total + jnp.sum(over * running),
        steps=counts.steps + jnp.sum(over * length.astype(jnp.float32)),
    )


def store(needs: Data, replay: Ring | Outline | Prioritised, step: Step) -> Ring | Prioritised:
    """One more slice."""
    if isinstance(replay, Prioritised):
        return prioritised.add(replay, step, n=needs.n_step)
    assert isinstance(replay, Ring)
    return ring.add(replay, step)


def outgrown(needs: Data, replay: Ring | Outline | Prioritised, truncated: Bool[Array, " B"]) -> Outline | Prioritised:
    """The same where the slice is stored on the host; `truncated` is of the slice n before it."""
    old = replay.ring if isinstance(replay, Prioritised) else replay
    assert isinstance(old, Outline)
    new = Outline(old.added + 1, old.slots, old.rows)
    return prioritised.grown(replay, new, truncated, n=needs.n_step) if isinstance(replay, Prioritised) else new


class Drawn(NamedTuple):
    """Which steps a batch is made of."""

    place: Int32[Array, " B"]
    """`slot * B + row`."""
    weight: Float[Array, " B"]
    """Of importance."""


def choose(needs: Data, key: Key[Array, ""], replay: Ring | Outline | Prioritised) -> Drawn:
    """Steps for a batch, uniformly or in proportion to priorities."""
    if isinstance(replay, Prioritised):
        return Drawn(*prioritised.places(key, replay, needs.batch))
    return Drawn(ring.places(key, replay, needs.batch, n=needs.n_step), jnp.ones(needs.batch))


def draw(needs: Data, key: Key[Array, ""], replay: Ring | Outline | Prioritised, shown: Obs) -> Transitions:
    """A batch as the agent needs it: returns of n steps, and observations such as are shown."""
    drawn, kept = choose(needs, key, replay), replay.ring if isinstance(replay, Prioritised) else replay
    assert isinstance(kept, Ring)
    stack = ring.stack_of(shown, kept.steps.obs)
    batch = ring.gather(kept, drawn.place, n=needs.n_step, gamma=needs.gamma, clip=needs.reward_clip, stack=stack)
    return batch._replace(weight=batch.weight * drawn.weight)


def made_of(needs: Data, drawn: Drawn, window: Window, shown: Obs) -> Transitions:
    """The same of steps whose slices come from the host."""
    stack = ring.stack_of(shown, window.ring.steps.obs)
    batch = ring.made_of(window, n=needs.n_step, gamma=needs.gamma, clip=needs.reward_clip, stack=stack)
    return batch._replace(weight=batch.weight * drawn.weight, place=drawn.place)


def rehearse(
    key: Key[Array, ""], batch: Transitions, other: Transitions, share: Float[Array, ""]
) -> tuple[Transitions, Bool[Array, " B"]]:
    """The batch with every sample replaced by one of the other, of weight 1, with this probability; and which were."""
    swap = jax.random.bernoulli(key, share, batch.reward.shape)

    def pick(theirs: Array, mine: Array) -> Array:
        return jnp.where(swap.reshape(-1, *(1,) * (mine.ndim - 1)), theirs, mine)

    return jax.tree.map(pick, other._replace(place=batch.place), batch), swap


class LearnKeys(NamedTuple):
    """Of the random choices in an update."""

    draw: Key[Array, ""]
    update: Key[Array, ""]
    coin: Key[Array, ""]
    other: Key[Array, ""]


def learn_keys(key: Key[Array, ""]) -> LearnKeys:
    """From that of the update."""
    draw_key, update_key, other_key = jax.random.split(key, 3)
    return LearnKeys(draw_key, update_key, *jax.random.split(other_key))


def learn(
    agent: Agent, phase: Phase | None, given: Given, dials: Dials | None, key: Key[Array, ""], loop: LoopState
) -> tuple[LoopState, Any]:
    """One update on a batch of the replay, or of the data that exists."""
    keys, other = learn_keys(key), None
    batch = draw(agent.needs, keys.draw, given.data if phase is not None and phase.offline else loop.replay, loop.obs)
    if phase is not None and phase.rehearse:
        other = draw(agent.needs, keys.other, given.data, loop.obs)
    return improve(agent, phase, dials, keys, loop, batch, other)


def improve(
    agent: Agent, phase: Phase | None, dials: Dials | None, keys: LearnKeys, loop: LoopState, batch: Transitions,
    other: Transitions | None,
) -> tuple[LoopState, Any]:  # fmt: skip
    """One update on a batch, some of whose samples are replaced by those of the other, if there is one."""
    guide, swapped = None, jnp.zeros(agent.needs.batch, bool)
    if phase is not None and dials is not None:
        if other is not None:
            batch, swapped = rehearse(keys.coin, batch, other, dials.rehearse)
        guide = Guidance(phase.adds or nothing_added, dials.weight, dials.own, dials.learning_rate)
    result = agent.update(keys.update, loop.agent, batch, guide=guide)
    replay = loop.replay
    if isinstance(replay, Prioritised) and not (phase is not None and phase.offline):
        assert result.priorities is not None
        replay = prioritised.revise(replay, batch.place, result.priorities, ~swapped)
    return loop._replace(agent=result.state, replay=replay), result.metrics


def nothing_added(said: Float[Array, "B A"], batch: Any) -> Float[Array, " B"]:
    """The loss of a phase that adds none."""
    del batch
    return jnp.zeros(said.shape[:1])


class Nothing(NamedTuple):
    """Metrics of no update."""


def act_on(
    agent: Agent, worlds: Worlds, phase: Phase | None, learning: bool, loop: LoopState, given: Given,
    ticks: Int32[Array, ""] | int,
) -> tuple[LoopState, Any]:  # fmt: skip
    """So many ticks; metrics are means over their updates, of which there are none without `learning`."""
    turn = pace(agent.needs)
    dials = None if phase is None else phase.dials(loop.progress)
    # A number that XLA does not know: it would join a single step with the update, and copy the replay to do so. The
    # same for all seeds, or every step would choose between two replays.
    steps = jnp.where(jnp.asarray(ticks) < 0, 0, turn.steps)

    def tick(loop: LoopState) -> tuple[LoopState, Any]:
        live_key, learn_key = jax.random.split(jax.random.fold_in(loop.key, loop.ticks))
        keys = jax.random.key_data(jax.random.split(live_key, turn.steps))

        def acted(number: Int32[Array, ""], loop: LoopState) -> LoopState:
            key = jax.random.wrap_key_data(keys[number], impl=jax.random.key_impl(live_key))
            return live(agent, worlds, given, dials, key, loop)

        loop = jax.lax.fori_loop(0, steps, acted, loop)
        metrics: Any = Nothing()
        if learning:
            better = lambda loop, key: learn(agent, phase, given, dials, key, loop)  # noqa: E731
            loop, metrics = jax.lax.scan(better, loop, jax.random.split(learn_key, turn.updates))
        return loop._replace(ticks=loop.ticks + 1), jax.tree.map(jnp.mean, metrics)

    return again(tick, loop, ticks)


def read_on(
    agent: Agent, phase: Phase, loop: LoopState, given: Given, ticks: Int32[Array, ""] | int
) -> tuple[LoopState, Any]:
    """So many updates on data that exists; the agent's clock goes on with them."""
    dials = phase.dials(loop.progress)

    def tick(loop: LoopState) -> tuple[LoopState, Any]:
        loop, metrics = learn(agent, phase, given, dials, jax.random.fold_in(loop.key, loop.ticks), loop)
        return loop._replace(agent=agent.lived(loop.agent, 1), ticks=loop.ticks + 1), metrics

    return again(tick, loop, ticks)


def again(tick: Callable[[L], tuple[L, Any]], loop: L, times: Int32[Array, ""] | int) -> tuple[L, Any]:
    """A tick so many times, and the means of its metrics; one program for any number of times."""
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(tick, loop)[1])

    def once(_: Array, now: tuple[L, Any]) -> tuple[L, Any]:
        loop, metrics = tick(now[0])
        return loop, jax.tree.map(jnp.add, now[1], metrics)

    loop, total = jax.lax.fori_loop(0, times, once, (loop, nothing))
    return loop, jax.tree.map(lambda x: x / jnp.maximum(times, 1), total)


def ticks_before(needs: Data) -> int:
    """Ticks before the first update: the warm-up, and what an n-step return takes."""
    return -(-max(-(-needs.warmup // needs.rows), needs.n_step + 2) // pace(needs).steps)


Chunk = Callable[[LoopState, int], tuple[LoopState, Any]]
"""Carries out so many ticks; the loop's memory is taken over."""
