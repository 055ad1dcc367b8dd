"""Two policies in two seats, on tasks where it is known what each of them does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.core.types import ActOutput, Extras
from rekindle.envs import registry
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import pools
from rekindle.envs.xland.credit import TRIGGERED, with_credit
from rekindle.envs.xland.level import NOOP, PICK
from rekindle.envs.xland.presets import PAIR
from rekindle.envs.xland.text import parse_task
from rekindle.evaluate.cooperation import (
    RANDOM,
    RANDOM_PARTNER,
    SELF_PLAY,
    best_seat,
    cooperate,
    divide,
    make_pair_evaluation_set,
)
from rekindle.evaluate.policies import ConstantPolicy, RandomPolicy
from rekindle.evaluate.rollout import play, trial_rewards
from rekindle.evaluate.scores import Normaliser, ScoreRecord

ROOM = "world:\n######\n#0..1#\n#^..N#\n######"
BOTH = f"""goal: hold yellow cube
rule: hold(partner, purple cube) -> black wall
rule: hold black cube -> yellow cube
objects: black cube, purple cube
steps: 4
{ROOM}"""


def pool_of(*texts):
    tasks = [parse_task(text, players=2, max_rules=4, max_objects=12) for text in texts]
    pairs = np.stack([np.arange(len(tasks))] * 2, axis=1)
    length = np.full(len(tasks), 4)
    return pools.make_pool([t.world for t in tasks], [t.game for t in tasks], trial_length=length, pairs=pairs,
                           random_heading=0.0)  # fmt: skip


class Sees:
    """Acts as no-op or pick, by whether the goal is `me`'s to reach; counts its steps since `start`."""

    def init_carry(self, batch_size):
        return jnp.zeros(batch_size, jnp.int32)

    def act(self, key, carry, obs, start, *, explore):
        assert obs["view"].shape[1:] == (9, 9, 2) and obs["heading"].ndim == obs["prev_reward"].ndim == 1
        carry = jnp.where(start, 0, carry) + 1
        mine = obs["goal"][:, 2] == 5
        return ActOutput(jnp.where(mine & (carry > 1), PICK, NOOP), carry, Extras())


def test_each_seat_has_its_own_slice_and_memory():
    texts = (BOTH, BOTH.replace("hold yellow cube", "hold(partner, yellow cube)"))
    pool = pool_of(*texts)
    tasks = jax.vmap(lambda i: pools.task(pool, i, 1))(jnp.arange(2))
    tasks = jax.tree.map(np.asarray, tasks)
    idle, sees = ConstantPolicy(NOOP), Sees()
    for seats, earned in (([sees, idle], [3, 0]), ([idle, sees], [0, 0])):
        rewards = trial_rewards(Trials(PAIR), seats, tasks, jax.random.key(0), trials=2, repetitions=2)
        assert rewards[:, 0, 0].tolist() == earned, "it waits one step, picks in the second, and holds for three"
        assert rewards[:, 0, 1].tolist() == [earned[0] and 4, 0], "its memory lives on in the second trial"


def test_there_is_a_policy_per_seat():
    pool = pool_of(BOTH)
    tasks = jax.tree.map(lambda x: np.asarray(x)[None], pools.task(pool, 0, 1))
    with pytest.raises(ConfigError, match="2 players and needs a policy each; got 1"):
        play(Trials(PAIR), RandomPolicy(7), tasks, jax.random.key(0), trials=1, repetitions=1)


@pytest.fixture(scope="module")
def held_out():
    impossible = BOTH.replace("-> yellow cube", "-> yellow wall")
    alone = BOTH.replace("goal: hold", "goal: hold(partner,").replace("cube\nrule", "cube)\nrule", 1)
    assert "hold(partner, yellow cube)" in alone
    needs = BOTH.replace("goal: hold yellow cube", "goal: near(yellow cube, black wall)")
    return make_pair_evaluation_set(Trials(PAIR), pool_of(BOTH, impossible, alone, needs), tasks=4)


def test_the_evaluation_set_knows_what_one_can_do_alone(held_out):
    assert held_out.left_out == 1 and len(held_out.alone) == 3
    assert sorted(held_out.alone.tolist()) == [[0, 0], [0, 0], [4, 0]]
    assert held_out.needs_both.sum() == 2
    assert held_out.take(held_out.needs_both).tasks.trial_length.shape == (2,)


def test_self_play_beside_a_random_partner(held_out):
    held_out = held_out.take(~held_out.needs_both)
    result = cooperate(held_out, ConstantPolicy(PICK), jax.random.key(0), trials=[2], repetitions=8)
    assert set(result.records) == {(SELF_PLAY, 2), (RANDOM_PARTNER, 2), (RANDOM, 1)}
    means = {(row.policy, row.trials): row.mean.value for row in result.summaries()}
    assert means[SELF_PLAY, 2] == means[RANDOM_PARTNER, 2] == 1.0 > means[RANDOM, 1], "seat 1 does it alone"
    assert result.division[2].share == 1.0, "both pick at once, and each triggers its rule with the first reward"
    assert result.division[2].successes.tolist() == [16]
    assert result.env_steps == 4 * 8 * (3 * 2 + 1)


def test_labour_after_the_success_does_not_count():
    """Player 2 triggers its rule a step after the goal is reached: it had no part in it."""
    pool = pool_of(BOTH.replace("N", "W"))  # it has to turn right to face its object first
    tasks = jax.tree.map(lambda x: np.asarray(x)[None], pools.task(pool, 0, 1))

    class TurnsAndPicks(Sees):
        def act(self, key, carry, obs, start, *, explore):
            carry = jnp.where(start, 0, carry) + 1
            return ActOutput(jnp.where(carry == 1, 2, PICK), carry, Extras())

    seats = [ConstantPolicy(PICK), TurnsAndPicks()]
    played = play(with_credit(Trials(PAIR)), seats, tasks, jax.random.key(0), trials=1, repetitions=2,
                  metrics=(TRIGGERED,))  # fmt: skip
    assert played.metrics[TRIGGERED].shape == (1, 2, 1, 2)
    assert played.metrics[TRIGGERED][0, 0, 0].tolist() == [1, 0] and divide(played).share == 0.0


def test_the_better_seat_is_taken_per_task():
    normaliser = Normaliser(np.zeros(2), np.full(2, 4.0), "x")
    first, second = (np.asarray(v, float).reshape(2, 2, 1) for v in ([4, 2, 0, 0], [0, 4, 1, 0]))
    best = best_seat(*(ScoreRecord(v, "return", normaliser) for v in (first, second)))
    assert best.scores().tolist() == [0.75, 0.125]


def test_one_player_is_refused():
    made = registry.make("xland/doors-2", worlds=1, games=1)
    with pytest.raises(ConfigError, match="two players; got xland/doors-2-v1"):
        make_pair_evaluation_set(made.env, made.pool(split="test", seed=0), tasks=1)
