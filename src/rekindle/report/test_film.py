"""Episodes as pictures: the same start for both, rewards and ends where they belong, one film of two."""

import jax
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs import registry
from rekindle.evaluate.policies import ConstantPolicy
from rekindle.report.film import FPS, GAP, STRIP, Shot, fitted, shots, side_by_side
from rekindle.report.test_video import decoded


@pytest.fixture(scope="module")
def catch():
    """A ball falls for nine steps; the paddle goes to the left, or to the right, all the time."""
    made = registry.make("gymnax/Catch-bsuite")
    return [list(shots(made.env, ConstantPolicy(action), made.pool(), jax.random.key(3), cell=4)) for action in (0, 2)]


def test_both_play_the_same_world_each_in_its_own_way(catch):
    left, right = catch
    assert len(left) == len(right) == 10
    np.testing.assert_array_equal(left[0].picture, right[0].picture)
    balls = [[shot.picture[:36] for shot in episode] for episode in catch]  # all rows but the paddle's
    np.testing.assert_array_equal(*balls)
    assert (left[-1].picture[36:] != right[-1].picture[36:]).any()
    for episode in catch:
        assert [shot.over for shot in episode] == [False] * 9 + [True]
        assert [abs(shot.reward) for shot in episode] == [0.0] * 9 + [1.0]


def test_an_episode_can_be_left_before_it_is_over(catch):
    made = registry.make("gymnax/Catch-bsuite")
    part = list(shots(made.env, ConstantPolicy(0), made.pool(), jax.random.key(3), most=3, cell=4))
    assert len(part) == 4 and not part[-1].over


def test_who_is_done_first_stands_still_beside_the_other(tmp_path):
    def episode(length, reward):
        for step in range(length + 1):
            yield Shot(np.full((40, 60, 3), 20 * step, np.uint8), reward if step else 0.0, step == length)

    data, ended = side_by_side({"teacher": episode(3, 2.0), "student": episode(8, 0.5)})
    (tmp_path / "film.mp4").write_bytes(data)
    frames = decoded(tmp_path / "film.mp4").astype(int)
    height, width = fitted(np.zeros((40, 60, 3), np.uint8)).shape[:2]
    assert frames.shape == (9 + round(FPS), STRIP + height, 2 * width + GAP, 3)
    bodies = [frames[:, STRIP + 9 : -9, left + 9 : left + width - 9].mean((1, 2, 3)) for left in (0, width + GAP)]
    np.testing.assert_allclose(bodies[0][:9], [0, 20, 40, 60, 60, 60, 60, 60, 60], atol=3)
    np.testing.assert_allclose(bodies[1][:9], 20 * np.arange(9), atol=3)
    assert [(tally.returned, tally.steps, tally.shot.over) for tally in ended.values()] == [(6, 3, True), (4, 8, True)]


def test_a_world_outside_of_jax_shows_its_screen_until_the_game_is_over():
    world = registry.host("ALE/Breakout-v5", longest=12).open(1, seen=True)
    episode = list(shots(world, ConstantPolicy(1), (), jax.random.key(0)))
    assert len(episode) == 13 and [shot.over for shot in episode] == [False] * 12 + [True]
    assert {shot.picture.shape for shot in episode} == {(210, 160, 3)}
    assert (episode[1].picture != episode[8].picture).any()


def test_pictures_of_any_size_fit():
    sizes = [(210, 160), (400, 600), (360, 360), (2000, 100)]
    assert [fitted(np.zeros((*size, 3), np.uint8)).shape[:2] for size in sizes] == [
        (420, 320), (320, 480), (360, 360), (420, 21)]  # fmt: skip


def test_what_cannot_be_drawn_says_so():
    made = registry.make("gymnax/CartPole-v1")
    with pytest.raises(ConfigError, match="gymnax/CartPole-v1 cannot be drawn: it is neither XLand nor a board"):
        shots(made.env, ConstantPolicy(0), made.pool(), jax.random.key(0))
