"""Probe MDPs, an identity task, a chain, and a bandit that pays only who explores for the sake of later trials.

If `constant` fails, the value loss or the optimiser is wrong; `observation`: what the network sees; `discount`: the
returns; `action`: the policy loss; `both`: advantages that go to the wrong row; `identity`: the same at every step of
an episode; `chain`: values of states that are far from the reward. `delay` is `discount` where the cue is the step, so
that values need no clock; `wages` fails if a return goes on through an end, `limit` if it ends at a time limit,
`choice` if a value is continued by another action than the best. `bandit-trials` fails if returns are cut at trial
borders or if memory does not live through them.
The first five are those of Rejax's tests; the identity task is that of Stable-Baselines3's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int16, Int32, Key

from rekindle.core.spaces import Discrete
from rekindle.core.types import EnvSpec, TimeStep
from rekindle.envs.registry import Made, resolve
from rekindle.envs.wrappers import Trials

ArrayLike = Array | np.ndarray
SAFE, LUCK = 0.4, 0.3
"""What the safe arm of the bandit pays, and how probable it is that the other one pays 1, else 0, in all four trials.

To try it costs 0.1 on average, and 0.3 * 4 + 0.7 * 3 * 0.4 = 2.04 over the trials is more than 4 * 0.4 = 1.6.
"""


CHAIN = 5
"""States of the chain: action 1 leads to the last, where it pays 1 a step; action 0 leads back."""


class Task(NamedTuple):
    """An episode of a probe."""

    trials: Int16[ArrayLike, ""]
    trial_length: Int16[ArrayLike, ""]
    secret: Bool[ArrayLike, ""]
    """Whether the bandit's unknown arm pays; of no meaning elsewhere."""


class Moment(NamedTuple):
    """The state: what is shown, and the number of steps taken."""

    cue: Int32[Array, ""]
    time: Int32[Array, ""]


class Problem(NamedTuple):
    """What makes one probe differ from another."""

    pays: Callable[[Moment, Array, Task], Array]
    """Reward of an action in a state, as a number or a truth value."""
    moves: Callable[[Moment, Array], Array] | None = None
    """The next cue; drawn at random where this is not given, else the first is 0."""
    cues: int = 1
    actions: int = 2
    length: int = 1
    trials: int = 1
    limit: bool = False
    """Whether a time limit ends it, which the agent cannot see coming: it is truncated then, and no trial."""


def _at_last(now: Moment, action: Array, task: Task) -> Array:
    return now.time + 1 == jnp.asarray(task.trial_length).astype(jnp.int32)


def _bandit(now: Moment, action: Array, task: Task) -> Array:
    return jnp.where(action == 0, SAFE, jnp.asarray(task.secret).astype(jnp.float32))


def _on(now: Moment, action: Array) -> Array:
    return now.time + 1


def _walk(now: Moment, action: Array) -> Array:
    return jnp.clip(now.cue + 2 * action.astype(jnp.int32) - 1, 0, CHAIN - 1)


PROBLEMS: dict[str, Problem] = {
    "probe/constant-v1": Problem(lambda now, action, task: jnp.float32(1)),
    "probe/observation-v1": Problem(lambda now, action, task: 2 * now.cue - 1, cues=2),
    "probe/discount-v1": Problem(_at_last, length=3),
    "probe/action-v1": Problem(lambda now, action, task: 2 * action - 1),
    "probe/both-v1": Problem(lambda now, action, task: 2 * (action == now.cue).astype(jnp.int32) - 1, cues=2),
    "probe/identity-v1": Problem(lambda now, action, task: action == now.cue, cues=4, actions=4, length=4),
    "probe/chain-v1": Problem(
        lambda now, action, task: (now.cue == CHAIN - 1) & (action == 1), moves=_walk, cues=CHAIN, length=2 * CHAIN
    ),
    "probe/delay-v1": Problem(_at_last, moves=_on, cues=3, length=3),
    "probe/wages-v1": Problem(lambda now, action, task: jnp.float32(1), moves=_on, cues=4, length=4),
    "probe/choice-v1": Problem(lambda now, action, task: now.cue * (2 * action - 1), moves=_on, cues=2, length=2),
    "probe/limit-v1": Problem(lambda now, action, task: jnp.float32(1), length=4, limit=True),
    "probe/bandit-trials-v1": Problem(_bandit, trials=4),
}


@dataclass(frozen=True)
class Probe:
    """One trial of a probe, ended by time-out; of which `Trials` makes an end after which nothing follows.

    Observation: `cue`, an integer drawn uniformly at every step, or where one is. Action: an integer. Reward: the
    problem's; in `discount` it is 1 at the last step only. State: the cue and the clock. Params: a `Task`.
    """

    id: str
    version: int = 1

    @property
    def problem(self) -> Problem:
        """What is asked."""
        return PROBLEMS[self.id]

    @property
    def spec(self) -> EnvSpec:
        """One integer in, one integer out."""
        return EnvSpec(self.id, self.version, {"cue": Discrete(self.problem.cues)}, Discrete(self.problem.actions))

    def reset(self, key: Key[Array, ""], params: Task) -> tuple[Moment, TimeStep]:
        """The first cue."""
        del params
        now = Moment(self._cue(key) if self.problem.moves is None else jnp.int32(0), jnp.int32(0))
        no = jnp.zeros((), bool)
        return now, TimeStep({"cue": now.cue}, jnp.float32(0), no, no, no, {"cue": now.cue}, {})

    def step(self, key: Key[Array, ""], state: Moment, action: Array, params: Task) -> tuple[Moment, TimeStep]:
        """Pay, and show the next cue."""
        reward = jnp.asarray(self.problem.pays(state, action, params)).astype(jnp.float32)
        moves = self.problem.moves
        cue = self._cue(key) if moves is None else jnp.minimum(moves(state, action), self.problem.cues - 1)
        now = Moment(cue, state.time + 1)
        over = now.time >= jnp.asarray(params.trial_length).astype(jnp.int32)
        no, obs = jnp.zeros((), bool), {"cue": now.cue}
        return now, TimeStep(obs, reward, no, over, over, obs, {})

    def _cue(self, key: Key[Array, ""]) -> Int32[Array, ""]:
        return jax.random.randint(key, (), 0, self.problem.cues)


def make(id: str) -> Made:
    """The registry's factory."""
    id = resolve(id, PROBLEMS)
    problem = PROBLEMS[id]

    def pool(*, split: Literal["train", "test"] = "train", seed: int = 0) -> Task:
        """All there is: nothing is held out."""
        del split, seed
        return Task(np.asarray(problem.trials, np.int16), np.asarray(problem.length, np.int16), np.asarray(False))

    env = Probe(id) if problem.limit else Trials(Probe(id))
    return Made(env, pool, partial(draw, min_trials=1, max_trials=problem.trials), problem.trials)


def draw(key: Key[Array, ""], pool: Task, *, min_trials: int, max_trials: int) -> Task:
    """The problem with its number of trials and, in the bandit, its unknown arm drawn."""
    trials_key, secret_key = jax.random.split(key)
    trials = jax.random.randint(trials_key, (), min_trials, max_trials + 1)
    return Task(trials.astype(jnp.int16), jnp.asarray(pool.trial_length), jax.random.bernoulli(secret_key, LUCK))
