import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.envs import registry
from rekindle.envs.probe.probe import LUCK, PROBLEMS, SAFE
from rekindle.envs.probe.spec import ENVS


def play(name: str, answer, *, episodes: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Rewards [steps, episodes] of `answer(cue, trial)`, and the secrets."""
    made = registry.make(f"probe/{name}")
    draw_key, reset_key, key = jax.random.split(jax.random.key(0), 3)
    pool = made.pool(split="train", seed=0)
    tasks = jax.vmap(lambda k: made.draw(k, pool, min_trials=made.trials, max_trials=made.trials))(
        jax.random.split(draw_key, episodes)
    )
    state, now = jax.vmap(made.env.reset)(jax.random.split(reset_key, episodes), tasks)
    step, rewards = jax.jit(jax.vmap(made.env.step)), []
    for t in range(made.trials * int(pool.trial_length)):
        action = np.broadcast_to(answer(np.asarray(now.obs["cue"]), t), (episodes,)).astype(np.int32)
        keys = jax.random.split(jax.random.fold_in(key, t), episodes)
        state, now = step(keys, state, jnp.asarray(action), tasks)
        rewards.append(np.asarray(now.reward))
    assert now.terminated.all()
    return np.stack(rewards), np.asarray(tasks.secret)


def test_every_listed_probe_exists_and_every_probe_is_listed():
    assert set(ENVS) == set(PROBLEMS)


@pytest.mark.parametrize(
    ("name", "answer", "paid"),
    [
        ("constant", lambda cue, t: 0, lambda cue: [1]),
        ("discount", lambda cue, t: 1, lambda cue: [0, 0, 1]),
        ("action", lambda cue, t: 1, lambda cue: [1]),
        ("action", lambda cue, t: 0, lambda cue: [-1]),
        ("both", lambda cue, t: cue, lambda cue: [1]),
        ("both", lambda cue, t: 1 - cue, lambda cue: [-1]),
        ("identity", lambda cue, t: cue, lambda cue: [1, 1, 1, 1]),
        ("identity", lambda cue, t: (cue + 1) % 4, lambda cue: [0, 0, 0, 0]),
    ],
)
def test_what_probes_pay(name, answer, paid):
    rewards, _ = play(name, answer)
    np.testing.assert_array_equal(rewards, np.broadcast_to(np.array(paid(None))[:, None], rewards.shape))


def test_the_observation_probe_pays_what_it_shows():
    shown = []
    rewards, _ = play("observation", lambda cue, t: shown.append(cue) or 0)
    np.testing.assert_array_equal(rewards[0], 2 * shown[0] - 1)
    assert 0 < shown[0].sum() < 64


def test_exploring_the_bandit_costs_in_the_first_trial_and_pays_over_four():
    tried, secret = play("bandit-trials", lambda cue, t: 1, episodes=512)
    np.testing.assert_array_equal(tried, np.broadcast_to(secret, (4, 512)))
    safe, _ = play("bandit-trials", lambda cue, t: 0)
    np.testing.assert_allclose(safe, SAFE)
    assert abs(tried[0].mean() - LUCK) < 4 * (LUCK * (1 - LUCK) / 512) ** 0.5
    assert LUCK < SAFE
    explorer = np.where(secret, 4.0, 3 * SAFE).mean()
    assert explorer > 4 * SAFE + 0.1
