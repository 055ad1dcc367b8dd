import jax
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import HOLD, NOOP, PICK
from rekindle.envs.xland.render import frames_of_episode
from rekindle.envs.xland.text import parse_task
from rekindle.evaluate.policies import ConstantPolicy
from rekindle.report.episode import record_episode

TASK = """
goal: hold yellow sphere
objects: yellow sphere
trials: 2
steps: 4
world:
#####
#.>0#
#####
"""


@pytest.fixture(scope="module")
def moments():
    return play(PICK)


def play(action: int, **options):
    env = Trials(XLand(relations=(HOLD,), **options))
    return record_episode(env, ConstantPolicy(action), parse_task(TASK), jax.random.key(0))


def test_each_trial_has_its_opening_and_one_moment_per_step(moments):
    assert [(m.trial, m.time) for m in moments] == [(k, t) for k in range(2) for t in range(5)]
    assert [m.reward for m in moments] == [0, 1, 1, 1, 1] * 2


def test_a_moment_shows_what_its_step_led_to(moments):
    assert [int(m.scene.hand[0]) for m in moments] == [-1, 0, 0, 0, 0] * 2
    still = play(NOOP)
    assert {int(m.scene.hand[0]) for m in still} == {-1} and all(isinstance(m.scene.hand, np.ndarray) for m in still)


def test_a_terminal_trial_ends_at_its_success():
    moments = play(PICK, reward="terminal")
    assert [(m.trial, m.time) for m in moments] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert moments[-1].reward == pytest.approx(1 - 0.9 / 4)


def test_two_policies_take_two_seats():
    text = (
        TASK.replace("hold yellow sphere", "hold(partner, yellow sphere)")
        .replace("#.>0#", "#>.0W#")
        .replace("####", "#####")
    )
    env = Trials(XLand(relations=(HOLD,), players=2))
    moments = record_episode(env, [ConstantPolicy(NOOP), ConstantPolicy(PICK)], parse_task(text, players=2),
                             jax.random.key(0))  # fmt: skip
    assert [m.reward for m in moments] == [0, 1, 1, 1, 1] * 2
    assert [m.scene.hand.tolist() for m in moments] == [[-1, -1], *[[-1, 0]] * 4] * 2
    frame = next(frames_of_episode(moments[1:2], cell=16))
    assert frame.dtype == np.uint8 and frame.shape[2] == 3
    with pytest.raises(ConfigError, match="needs a policy each"):
        record_episode(env, ConstantPolicy(NOOP), parse_task(text, players=2), jax.random.key(0))
