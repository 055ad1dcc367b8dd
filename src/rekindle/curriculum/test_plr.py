import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.core.types import Extras, Rollout
from rekindle.curriculum.plr import PLR, Archive, Moments, centre, jensen_shannon, roll

POOL = jnp.arange(100)


def plr(**changes):
    return PLR(**{
        "task": lambda pool, number, trials: {"id": pool[number], "k": trials}, "size": lambda pool: pool.shape[0],
        "batch": 4, "gamma": 1.0, "reward_scale": 1.0, "min_trials": 1, "max_trials": 2, "capacity": 10, "fill": 0.5,
        "train_trials": 3, **changes,
    })  # fmt: skip


def episodes(number, reward, learn=False, trials=1, length=2, value=0.0):
    """A rollout in which every row plays one episode; `reward[row]` is paid at the last step of the last trial."""
    number, n, steps = jnp.asarray(number, jnp.int32), len(number), trials * length
    t = jnp.arange(steps)[:, None]
    pays = jnp.where(t == steps - 1, jnp.asarray(reward, jnp.float32)[None], 0.0)
    ends = jnp.broadcast_to(t == steps - 1, (steps, n))
    no = jnp.zeros((steps, n), bool)
    whole = jnp.broadcast_to(number[None], (steps, n))
    extras = Extras(value=jnp.full((steps, n), value), logits=jnp.zeros((steps, n, 3)))
    learns = jnp.broadcast_to(jnp.asarray(learn), (steps, n))
    return Rollout({}, whole, pays, jnp.broadcast_to(t == 0, (steps, n)), ends, no,
                   jnp.broadcast_to((t + 1) % length == 0, (steps, n)), jnp.zeros((steps, n)), extras, (),
                   jnp.zeros(n), whole, learns, jnp.full_like(whole, -1))  # fmt: skip


report = jax.jit(lambda curriculum, state, rollout: curriculum.report(state, rollout), static_argnums=0)
propose = jax.jit(lambda curriculum, key, state: curriculum.propose(key, state, POOL), static_argnums=0)


def test_probabilities_match_the_formula_and_sum_to_one():
    curriculum = plr(staleness=0.3, temperature=0.5, capacity=4)
    fitness = jnp.array([1.0, -jnp.inf, 3.0, 2.0])
    archive = Archive(jnp.array([7, -1, 8, 9]), fitness, jnp.array([10.0, 0, 4, 9]), fitness)
    p = curriculum.probabilities(archive, jnp.array(10.0))
    score = np.array([3.0**-2, 0, 1.0, 2.0**-2])
    age = np.array([0.0, 0, 6, 1])
    np.testing.assert_allclose(p, 0.7 * score / score.sum() + 0.3 * age / age.sum(), rtol=1e-5)
    assert float(p.sum()) == pytest.approx(1)


def test_the_archive_keeps_the_fittest_and_its_least_never_falls():
    curriculum = plr(capacity=8, fill=0.25)
    state, least, rng = curriculum.init(POOL), -np.inf, np.random.default_rng(0)
    for turn in range(12):
        number = np.arange(8) + 8 * turn
        state = report(curriculum, state, episodes(number, rng.random(8)))
        kept = np.asarray(state.archive.fitness)
        assert kept.min() >= least
        least = kept.min()
    assert len(set(state.archive.number.tolist())) == 8
    assert float(state.evaluated) == 96 and 8 < float(state.inserted) < 96


def test_a_task_that_is_known_is_entered_once_and_training_refreshes_it():
    curriculum = plr()
    state = report(curriculum, curriculum.init(POOL), episodes(range(8), [1.0] * 8))
    before = state.archive
    state = report(curriculum, state, episodes(range(8), [5.0] + [1.0] * 7, learn=[True] * 4 + [False] * 4))
    assert sorted(state.archive.number.tolist()) == sorted(before.number.tolist())
    at = state.archive.number.tolist().index(0)
    assert float(state.archive.fitness[at]) > float(before.fitness[at])
    assert float(state.evaluated) == 12


def test_rows_train_only_once_the_archive_is_filled_and_then_for_so_many_trials():
    curriculum = plr(fill=0.8)
    state = curriculum.init(POOL)
    assert curriculum.rows == 8 and not propose(curriculum, jax.random.key(0), state).learn.any()
    state = report(curriculum, state, episodes(range(8), np.arange(8.0)))
    proposal = propose(curriculum, jax.random.key(0), state)
    assert proposal.learn[:, 0].tolist() == [True] * 4 + [False] * 4
    assert set(proposal.number[:4, 0].tolist()) <= set(state.archive.number.tolist())
    np.testing.assert_array_equal(proposal.task["id"][:, 0], proposal.number[:, 0])
    before = None
    for played in (1, 2, 3):
        same = propose(curriculum, jax.random.key(played), state).number[:4, 0]
        if before is not None:
            np.testing.assert_array_equal(same, before)
        before = same
        number = jnp.concatenate([same, jnp.arange(50, 54)])
        state = report(curriculum, state, episodes(number, [1.0] * 8, learn=[True] * 4 + [False] * 4))
    assert state.left[:4].tolist() == [0] * 4
    many = [propose(curriculum, jax.random.key(i), state).number[0, 0] for i in range(30)]
    assert len(set(map(int, many))) > 1


def test_tasks_change_where_every_episode_is_proposed_one_episode_before():
    """As in rollouts of exactly one episode: what follows it was proposed before it began."""
    curriculum = plr(train_trials=4, staleness=1.0)
    state = report(curriculum, curriculum.init(POOL), episodes(range(8), np.arange(8.0)))
    playing = propose(curriculum, jax.random.key(0), state)
    seen = []
    for turn in range(1, 60):
        following = propose(curriculum, jax.random.key(turn), state)
        number, learn = playing.number[:, 0], playing.learn[:, 0]
        seen.append(int(number[0]))
        state, playing = report(curriculum, state, episodes(number, np.ones(8), learn=learn)), following
    changes = sum(a != b for a, b in pairwise(seen))
    assert len(set(seen)) >= 5 and changes < 30  # some four episodes of each, and one of the next in between


def test_entries_of_an_archive_belong_to_their_co_player():
    """With two co-players an entry is a task beside one of them, and only rows beside that one train on it."""
    curriculum = plr(groups=2, fill=0.5, train_trials=1)
    state = curriculum.init(POOL)
    first = propose(curriculum, jax.random.key(0), state)
    assert (first.number[:, 0] % 2).tolist() == [0, 1] * 4
    np.testing.assert_array_equal(first.task["id"][:, 0], first.number[:, 0] // 2)
    state = report(curriculum, state, episodes(first.number[:, 0], np.arange(8.0)))
    for i in range(5):
        number = propose(curriculum, jax.random.key(i), state).number[:4, 0]
        assert (number % 2).tolist() == [0, 1, 0, 1] and set(number.tolist()) <= set(state.archive.number.tolist())


def test_stale_tasks_come_back_within_a_bound():
    """With N tasks and a share s for staleness, each is drawn soon: its weight grows by s / (sum of ages) each draw."""
    curriculum = plr(capacity=10, staleness=0.2, temperature=0.1, train_trials=1, fill=1.0)
    state = curriculum.init(POOL)
    for turn in range(2):
        state = report(curriculum, state, episodes(np.arange(8) + 8 * turn, np.arange(8.0)))
    seen, last = np.full(100, -1), 0
    for turn in range(150):
        number = propose(curriculum, jax.random.key(turn), state).number[:, 0]
        state = report(curriculum, state, episodes(number, [0.0] * 8, learn=[True] * 4 + [False] * 4))
        there = np.asarray(state.archive.number)
        gone = np.setdiff1d(np.arange(100), there)
        seen[there] = np.where(seen[there] < 0, turn, seen[there])
        seen[gone] = -1
        seen[np.asarray(number[:4])] = turn
        last = max(last, (turn - seen[there]).max())
    assert last < 60


def test_fitness_is_normalised_by_the_number_of_trials():
    """A stationary stream: mean 0 and deviation 1 for every k, whatever the scale of its fitness."""
    moments = Moments(*(jnp.zeros(16) for _ in range(3)))
    rng = np.random.default_rng(0)
    for _ in range(200):
        k = rng.integers(3, size=64)
        x = np.array([1.0, 10.0, -5.0])[k] + np.array([0.1, 3.0, 1.0])[k] * rng.normal(size=64)
        x, k = jnp.asarray(x, jnp.float32), jnp.asarray(k, jnp.int32)
        moments = roll(moments, x, k, jnp.ones(64, bool), 0.999)
    mean, spread = centre(moments)
    np.testing.assert_allclose(mean[:3], [1, 10, -5], atol=0.3)
    np.testing.assert_allclose(spread[:3], [0.1, 3, 1], rtol=0.15)
    assert spread[5] == 1


@pytest.mark.parametrize(("which", "want"), [("last", 1.0), ("first", 0.25), ("mean", 0.625)])
def test_fitness_is_the_mean_step_of_the_chosen_trial(which, want):
    """Two trials of four steps: one step of the first is off by 1, every step of the last."""
    curriculum = plr(which=which, batch=1, capacity=3, fill=1.0)
    rollout = episodes([3, 4], [0.0, 0.0], trials=2, length=4)
    reward = jnp.zeros((8, 2)).at[1, 0].set(1.0).at[4:, 0].set(1.0)
    per_step = curriculum.per_step(rollout._replace(reward=reward))
    assert per_step[:, 0].tolist() == [0, 1, 0, 0, 1, 1, 1, 1]
    state = report(curriculum, curriculum.init(POOL), rollout._replace(reward=reward))
    k = 1  # two trials
    mean, _ = centre(state.moments)
    assert float(mean[k]) == pytest.approx(want / 2, abs=1e-4)  # the other row's is 0


def test_episodes_are_counted_across_rollouts():
    curriculum = plr(batch=1, capacity=3)
    whole = episodes([3, 4], [2.0, 0.0], trials=2, length=4)
    one = report(curriculum, curriculum.init(POOL), whole)
    two = curriculum.init(POOL)
    for part in (slice(3), slice(3, 8)):
        some = jax.tree.map(lambda x, part=part: x[part], whole._replace(last_value=()))
        two = report(curriculum, two, some._replace(last_value=jnp.zeros(2)))
    np.testing.assert_allclose(one.archive.fitness, two.archive.fitness, rtol=1e-5)
    assert one.archive.number.tolist() == two.archive.number.tolist()


def test_kinds_of_fitness():
    rollout = episodes([0, 1], [3.0, 0.0], length=2, value=1.0)
    td = plr(gamma=0.5).per_step(rollout)
    np.testing.assert_allclose(td[:, 0], [0.5, 2.0])  # |0 + 0.5 - 1|, |3 - 1|
    for kind, trace, want in [("positive-value-loss", 0.0, [0, 2]), ("positive-value-loss", 0.9, [0.4, 2]),
                              ("l1-value-loss", 0.0, [0.5, 2]), ("l1-value-loss", 0.2, [0.3, 2])]:  # fmt: skip
        found = plr(gamma=0.5, kind=kind, gae_lambda=trace).per_step(rollout)
        np.testing.assert_allclose(found[:, 0], want, rtol=1e-5)
    model = rollout._replace(extras=rollout.extras._replace(next_value=jnp.full((2, 2), 0.25)))
    np.testing.assert_allclose(plr(kind="value-model").per_step(model)[:, 0], [0.75, 0.25])
    regret = plr(kind="regret", optimum=tuple([4.0] * 100), batch=1, capacity=2)
    mean, _ = centre(report(regret, regret.init(POOL), rollout).moments)
    assert float(mean[0]) == pytest.approx((1 + 4) / 2)
    same = jnp.array([0.0, 1.0])
    assert float(jensen_shannon(same, same)) == pytest.approx(0, abs=1e-6)
    assert float(jensen_shannon(jnp.array([50.0, 0]), jnp.array([0, 50.0]))) == pytest.approx(np.log(2), abs=1e-4)


def test_the_best_reward_of_a_trial_is_remembered_with_the_task():
    """MaxMC: the best reward of a trial of this task so far, less the values that the policy gave."""
    curriculum = plr(kind="max-mc", batch=1, share=0.9, capacity=2, reward_scale=0.5, decay=1e-6)
    state, means = curriculum.init(POOL), []
    for reward in (3.0, 1.0, 5.0):
        state = report(curriculum, state, episodes([7, 8], [reward, reward], value=1.0))
        means.append(float(centre(state.moments)[0][0]))
    np.testing.assert_allclose(means, [0.5 * 3 - 1, 0.5 * 3 - 1, 0.5 * 5 - 1], atol=1e-4)
    assert state.archive.best.tolist() == [5.0, 5.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "luck"}, "no kind of fitness 'luck'"),
        ({"kind": "regret"}, "takes the planner's best reward"),
        ({"share": 1.0}, r"share of rows that train must lie in \[0\.01, 1\); got 1\.0"),
        ({"capacity": 0}, "must be above 0"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        plr(**changes)


def test_a_pool_that_is_too_small_and_an_agent_without_a_model_are_refused():
    with pytest.raises(ConfigError, match="once 900 tasks are in its archive; the pool has 100"):
        plr(capacity=1000, fill=0.9).init(POOL)
    with pytest.raises(ConfigError, match="needs an agent with a model"):
        plr(kind="value-model").per_step(episodes([0], [1.0]))
    assert dataclasses.replace(plr(), share=0.2).rows == 20
