"""Two seats: who sits where, who acts, and how the pool of co-players grows."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.ppo import ppo
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, MultiDiscrete
from rekindle.core.types import EnvSpec, TimeStep
from rekindle.curriculum.base import Uniform
from rekindle.envs import registry
from rekindle.train import on_policy
from rekindle.train.worlds import Pairs, Solo, sit


class Echo:
    """Two players see their own number and the other's last action; each is paid its own action. Four steps."""

    spec = EnvSpec("test/echo", 1, {"me": MultiDiscrete((2, 2)), "other": Box((2,), 0, 9, "int32")}, Discrete(9), 2)

    def reset(self, key, params):
        del key, params
        obs = self._obs(jnp.zeros(2, jnp.int32))
        no = jnp.zeros((), bool)
        return jnp.int32(0), TimeStep(obs, jnp.zeros(2), no, no, no, obs, {})

    def step(self, key, state, action, params):
        del key, params
        over = state + 1 >= 4
        obs, no = self._obs(action.astype(jnp.int32)), jnp.zeros((), bool)
        return state + 1, TimeStep(obs, action.astype(jnp.float32), over, no, over, obs, {})

    def _obs(self, action):
        return {"me": jnp.arange(2, dtype=jnp.int32), "other": action[::-1]}


AGENT = ppo.make(ppo.Config(num_envs=8, rollout_length=4, minibatches=2, epochs=1, hidden=8, width=8, memory="none"))
TASKS = Uniform(lambda key, source: {}, 8)
PAIRS = Pairs(Echo(), AGENT, slots=4, copy_every=0.1)


@pytest.fixture(scope="module")
def loop():
    return on_policy.make_start(AGENT, PAIRS, TASKS)({}, jax.random.key(0), None)


def test_each_seat_sees_and_earns_its_own(loop):
    proposal = TASKS.propose(jax.random.key(1), (), {})
    _, seen = jax.jit(partial(on_policy.collect, AGENT, PAIRS))(proposal, jax.random.key(2), loop)
    np.testing.assert_array_equal(seen.obs["me"][0], loop.worlds.seat)
    np.testing.assert_array_equal(seen.reward, seen.action)  # whatever the seat
    assert len(np.unique(loop.worlds.seat)) == 2
    assert (seen.obs["other"][1:] != seen.action[:-1]).any()  # it is the other's action that is seen
    assert PAIRS.spec.players == 1 and PAIRS.spec.obs["me"] == Discrete(2)


def test_the_seat_is_drawn_anew_with_every_episode(loop):
    seats = [loop.worlds.seat]
    chunk = jax.jit(partial(on_policy.chunk, AGENT, PAIRS, TASKS, 1))
    now = loop
    for _ in range(6):
        now, _ = chunk(now, {})
        seats.append(now.worlds.seat)
    assert (np.std(np.stack(seats), axis=0) > 0).mean() > 0.6


def test_the_pool_begins_with_a_random_player_and_gains_copies_in_turn(loop):
    assert (int(loop.partners.filled), int(loop.partners.copies)) == (1, 0)
    older = partners = loop.partners
    fill = []
    for learnt in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
        older = older if int(partners.copies) > 2 else partners
        partners = PAIRS.grow(AGENT, loop.agent, partners, jnp.float32(learnt))
        fill.append((int(partners.filled), int(partners.copies)))
    assert fill == [(1, 0), (2, 1), (2, 1), (3, 2), (4, 3), (4, 4)]
    moved = loop.agent._replace(net=eqx.tree_at(lambda n: n.policy.bias, loop.agent.net, jnp.arange(9.0)))
    after = PAIRS.grow(AGENT, moved, older, jnp.float32(9.0)).policies.net.policy.bias
    assert [i for i in range(4) if (after[i] != older.policies.net.policy.bias[i]).any()] == [3]


def test_of_more_copies_than_fit_the_pool_holds_a_uniform_sample(loop):
    """Copy n stays with probability 3 / n; who was there before goes with 1 / n, whichever of the three it is."""
    bias = jax.tree_util.Partial(lambda net, n: eqx.tree_at(lambda x: x.policy.bias, net, jnp.full(9, n)))

    def copy(partners, n):
        agent = loop.agent._replace(net=bias(loop.agent.net, n))
        partners = PAIRS.grow(AGENT, agent, partners, jnp.float32(1e9))
        return partners, partners.policies.net.policy.bias[:, 0]

    last, seen = jax.jit(partial(jax.lax.scan, copy))(loop.partners, jnp.arange(1.0, 401.0))
    assert (int(last.filled), int(last.copies)) == (4, 400)
    assert (seen[:, 0] == seen[0, 0]).all()  # slot 0 is never written
    kept = np.flatnonzero((np.diff(seen[:, 1:], axis=0) != 0).any(axis=1))[3:]
    expected = sum(3 / n for n in range(4, 401))
    assert abs(len(kept) - expected) < 3 * expected**0.5
    assert len({int(np.flatnonzero(step)[0]) for step in np.diff(seen[2:, 1:], axis=0) if step.any()}) == 3


class Half(Echo):
    """The second player is missing where the task says so."""

    def present(self, params):
        return jnp.stack([jnp.ones((), bool), params["together"]])


def test_the_learner_sits_where_somebody_is():
    worlds, tasks = Pairs(Half(), AGENT, slots=4), Uniform(lambda key, source: source, 8)
    start = on_policy.make_start(AGENT, worlds, tasks)
    seats = [
        start({"together": jnp.asarray(together)}, jax.random.key(0), None).worlds.seat for together in (False, True)
    ]
    assert (seats[0] == 0).all() and set(seats[1].tolist()) == {0, 1}


def test_rows_play_beside_the_copy_of_their_group(loop):
    """Four copies that always do one thing each; slot 0 acts at random."""
    bias = jnp.stack([jnp.zeros(9).at[i].set(1e6) for i in range(4)])
    partners = loop.partners._replace(filled=jnp.int32(4))
    policies = eqx.tree_at(lambda p: p.net.policy.bias, partners.policies, bias)
    partners = partners._replace(policies=policies)
    proposal = TASKS.propose(jax.random.key(1), (), {})
    step = jax.jit(PAIRS.step)
    seen = []
    for i in range(3):
        _, ts = step(jax.random.key(i), loop.worlds, jnp.full(8, 7, jnp.int32), proposal, partners)
        seen.append(np.asarray(ts.obs["other"]))
    for row in range(8):
        if row % 4:
            assert {int(s[row]) for s in seen} == {row % 4}
    assert len({int(s[row]) for s in seen for row in (0, 4)}) > 1


def test_a_co_player_that_takes_anothers_place_remembers_nothing():
    config = ppo.Config(num_envs=8, rollout_length=4, minibatches=2, epochs=1, hidden=8, width=8, memory="gru")
    worlds = Pairs(Echo(), ppo.make(config), slots=4)
    loop = on_policy.make_start(worlds.agent, worlds, TASKS)({}, jax.random.key(0), None)
    partners = loop.partners._replace(filled=jnp.int32(4), numbers=jnp.arange(4, dtype=jnp.int32))
    proposal, step = TASKS.propose(jax.random.key(1), (), {}), jax.jit(worlds.step)
    full = jax.tree.map(jnp.ones_like, loop.worlds.carry)

    def memory(beside, start=False):
        state = loop.worlds._replace(carry=full, start=jnp.full(8, start), beside=jnp.asarray(beside, jnp.int32))
        after, _ = step(jax.random.key(2), state, jnp.zeros(8, jnp.int32), proposal, partners)
        return np.stack([np.asarray(leaf).reshape(4, -1).sum(1) for leaf in jax.tree.leaves(after.carry)])

    kept, replaced, emptied = memory([0, 1, 2, 3]), memory([0, 1, 9, 3]), memory([0, 1, 2, 3], start=True)
    np.testing.assert_array_equal(replaced[:, [0, 1, 3]], kept[:, [0, 1, 3]])
    np.testing.assert_array_equal(replaced[:, 2], emptied[:, 2])
    assert (kept[:, 2] != emptied[:, 2]).any()


def test_a_row_takes_what_its_seat_has():
    leaves = {"x": jnp.array([[1, 2], [3, 4], [5, 6]])}
    assert sit(leaves, jnp.array([1, 0, 1]))["x"].tolist() == [2, 3, 6]


def test_pools_and_worlds_that_do_not_fit_are_refused():
    solo = registry.make("xland/doors-2").env
    with pytest.raises(ConfigError, match="co-players need a world for two; the players of xland/doors-2-v1 are 1"):
        Pairs(solo, AGENT)
    with pytest.raises(ConfigError, match="test/echo has 2 players and needs co-players"):
        Solo(Echo())
    with pytest.raises(ConfigError, match="at least 2 slots"):
        Pairs(Echo(), AGENT, slots=1)
    with pytest.raises(ConfigError, match="multiple of the pool's 3 co-players; got 8"):
        on_policy.start(AGENT, Pairs(Echo(), AGENT, slots=3), TASKS, {}, jax.random.key(0))


def test_it_runs_in_the_world_for_two():
    made = registry.make("xland/c2")
    worlds = Pairs(made.env, AGENT, slots=2, copy_every=0.01)
    tasks = Uniform(partial(made.draw, min_trials=1, max_trials=2), 8)
    pool = jax.tree.map(jnp.asarray, made.pool(split="train", seed=0, worlds=4, games=8, pairs=8))
    loop = on_policy.make_start(AGENT, worlds, tasks)(pool, jax.random.key(0), None)
    loop, metrics = on_policy.make_chunk(AGENT, worlds, tasks, updates=2)(loop, pool)
    assert np.isfinite(float(metrics.value_loss)) and int(loop.partners.filled) == 2
