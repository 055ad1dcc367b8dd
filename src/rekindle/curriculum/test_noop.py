import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.curriculum.noop import NoOpFilter, Thresholds, accept
from rekindle.curriculum.test_plr import episodes, report

POOL = jnp.arange(50)
NO = [0.0] * 10
propose = jax.jit(lambda it, key, state: it.propose(key, state, POOL), static_argnums=0)


@pytest.mark.parametrize(
    ("agent", "idle", "accepted"),
    [
        ([0.1, *NO[1:]], NO, True),
        (NO, NO, False),  # (3) and (4): never better than nothing, no spread
        ([0.4] * 5 + NO[5:], NO, True),  # (2): five good ones are still allowed
        ([0.4] * 6 + NO[6:], NO, False),  # (2)
        ([0.39] * 10, NO, False),  # (4): all alike
        ([0.3] * 9 + [0.3101], [0.3] * 10, True),  # (3) first half, at the threshold
        ([0.3] * 9 + [0.309], [0.3] * 10, False),
        ([0.1] * 3 + [0.3] * 7, [0.3] * 10, True),  # (3) second half: three worse ones
        ([0.1] * 2 + [0.3] * 8, [0.3] * 10, False),
        ([0.1] * 3 + [0.3] * 7, [1.0] * 10, True),  # (1): doing nothing always pays, which 1.1 does not forbid
    ],
)
def test_truth_table_of_the_four_criteria(agent, idle, accepted):
    assert bool(accept(jnp.array(agent), jnp.array(idle))) is accepted


def test_the_first_criterion_is_vacuous_only_at_its_published_threshold():
    agent, idle = jnp.array([0.1] * 3 + [0.3] * 7), jnp.ones(10)
    assert bool(accept(agent, idle)) and not bool(accept(agent, idle, Thresholds(idle=0.9)))


def curriculum(**changes):
    task = lambda pool, number, trials: {"id": pool[number], "k": trials}  # noqa: E731
    sizes = {"batch": 2, "min_trials": 2, "max_trials": 4, "share": 0.5, "episodes": 2, "repetitions": 2}
    return NoOpFilter(task=task, size=lambda pool: pool.shape[0], noop=6, **{**sizes, **changes})


def play(it, state, key, earn):
    """One episode of every row; `earn(number, forced)` per row is its reward."""
    proposal = propose(it, jax.random.key(key), state)
    number, learn, forced = (np.asarray(x[:, 0]) for x in (proposal.number, proposal.learn, proposal.forced))
    reward = [earn(int(n), int(f), row) for row, (n, f) in enumerate(zip(number, forced, strict=True))]
    rollout = episodes(number, reward, learn=learn)
    rollout = rollout._replace(forced=jnp.broadcast_to(forced[None], rollout.forced.shape))
    return report(it, state, rollout), proposal


def test_tasks_are_tried_with_the_agent_then_idle_and_accepted_ones_are_trained_on():
    """Odd tasks pay the agent now and then; even ones never do."""
    it, turn = curriculum(), 0

    def earn(number, forced, row):
        return float(forced < 0 and number % 2 == 1 and turn % 2 == 0)

    state, trained, tried = it.init(POOL), [], {}
    for turn in range(60):
        state, proposal = play(it, state, turn, earn)
        assert (proposal.task["k"][2:] == 1).all()
        for row in (2, 3):
            tried.setdefault(int(proposal.number[row, 0]), []).append(int(proposal.forced[row, 0]))
        trained += proposal.number[:2, 0][np.asarray(proposal.learn[:2, 0])].tolist()
    runs = [forced for forced in tried.values() if len(forced) == 4]
    assert runs and all(forced == [-1, -1, 6, 6] for forced in runs)
    assert trained and all(number % 2 == 1 for number in trained)
    assert 0 < float(state.accepted) < float(state.tried)
    assert len(set(trained)) > 3  # each is dropped after two episodes


def test_tasks_go_on_and_change_where_every_episode_is_proposed_one_episode_before():
    """As in rollouts of exactly one episode: what follows it was proposed before it began."""
    it = curriculum()
    state, proposals = it.init(POOL), [propose(it, jax.random.key(0), it.init(POOL))]
    for turn in range(1, 90):
        now = proposals[-1]
        number, learn, forced = (np.asarray(x[:, 0]) for x in (now.number, now.learn, now.forced))
        reward = [float(f < 0 and turn // 2 % 2 == 0) for f in forced]
        rollout = episodes(number, reward, learn=learn)
        proposals.append(propose(it, jax.random.key(turn), state))
        rollout = rollout._replace(forced=jnp.broadcast_to(forced[None], rollout.forced.shape))
        state = report(it, state, rollout)
    assert float(state.tried) > 2 * 89 / 8 and float(state.accepted) > 0.3 * float(state.tried)
    trained = [int(p.number[0, 0]) for p in proposals if bool(p.learn[0, 0])]
    assert len(set(trained)) > 5  # two episodes of each that count, and those that were proposed too early


def test_episodes_that_repeat_within_a_rollout_count_once_and_only_as_what_they_were():
    """Each row plays its proposal three times before it is asked again."""
    it = curriculum()
    state, seen = it.init(POOL), {}
    for turn in range(24):
        proposal = propose(it, jax.random.key(turn), state)
        number, forced = np.asarray(proposal.number[:, 0]), np.asarray(proposal.forced[:, 0])
        one = episodes(number, [float(f < 0) for f in forced], learn=np.asarray(proposal.learn[:, 0]))
        one = one._replace(forced=jnp.broadcast_to(forced[None], one.forced.shape))
        three = jax.tree.map(lambda x: jnp.concatenate([x] * 3), one._replace(last_value=()))
        state = report(it, state, three._replace(last_value=jnp.zeros(4)))
        for row in (2, 3):
            if int(state.left[row]) == 0:
                seen[int(number[row])] = np.asarray(state.rewards[row]).tolist()
    assert len(seen) > 4 and all(rewards == [0.5, 0.5, 0.0, 0.0] for rewards in seen.values())
    assert float(state.tried) >= len(seen)


def test_nothing_is_learnt_before_something_is_accepted_and_a_hopeless_pool_is_reported():
    it = curriculum(patience=8)
    state = it.init(POOL)
    for turn in range(20):
        state, proposal = play(it, state, turn, lambda *_: 0.0)
        assert not proposal.learn.any()
    assert float(state.accepted) == 0 and "accepted none of 8 tasks" in it.trouble(state)
    assert it.trouble(it.init(POOL)) == ""
