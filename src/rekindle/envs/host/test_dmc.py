"""The control suite as MR.Q plays it, and MuJoCo's bodies by Gymnasium's names."""

import os
import sys
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("dm_control")
pytest.importorskip("gymnasium")

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box
from rekindle.envs import registry
from rekindle.envs.host import dmc, mujoco

suite = dmc._suite("dmc")

SIZES = {
    "acrobot": (["swingup"], 6),
    "ball_in_cup": (["catch"], 8),
    "cartpole": (["balance", "balance_sparse", "swingup", "swingup_sparse"], 5),
    "cheetah": (["run"], 17),
    "dog": (["run", "stand", "trot", "walk"], 223),
    "finger": (["spin"], 9),
    "finger ": (["turn_easy", "turn_hard"], 12),
    "fish": (["swim"], 24),
    "hopper": (["hop", "stand"], 15),
    "humanoid": (["run", "stand", "walk"], 67),
    "pendulum": (["swingup"], 3),
    "quadruped": (["run", "walk"], 78),
    "reacher": (["easy", "hard"], 6),
    "walker": (["run", "stand", "walk"], 24),
}
TASKS = {f"dmc/{domain.strip()}-{task}": size for domain, (tasks, size) in SIZES.items() for task in tasks}
"""MR.Q's 28."""


def actions(steps, *shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *shape)).astype(np.float32)


def test_all_tasks_have_the_sizes_that_are_published():
    assert len(TASKS) == 28
    assert {id: registry.host(id).spec.obs["obs"].shape for id in TASKS} == {id: (n,) for id, n in TASKS.items()}


@pytest.mark.parametrize("id", ["HalfCheetah-v5", "Humanoid-v4", "dmc/quadruped-run", "dmc/fish-swim"])
def test_bodies_come_back_to_the_last_bit(id):
    """Between two steps of an episode, in worlds that went on and in others."""
    made = registry.host(id)
    worlds = made.open(2)
    worlds.reset(3)
    push = actions(60, 2, *made.spec.action.shape)
    for one in push[:20]:
        worlds.step(one)
    state = worlds.save()
    after = [worlds.step(one) for one in push[20:40]]
    assert all(np.isfinite(step.obs["obs"]).all() and step.obs["obs"].dtype == np.float32 for step in after)
    for elsewhere in (worlds, made.open(2)):
        elsewhere.restore(state)
        for step, one in zip(after, push[20:40], strict=True):
            again = elsewhere.step(one)
            np.testing.assert_array_equal(again.obs["obs"], step.obs["obs"])
            np.testing.assert_array_equal(again.reward, step.reward)


def test_an_action_is_two_steps_of_the_suite_and_an_episode_500_actions():
    """Against the suite itself; what is shown are its parts in its order."""
    worlds = registry.host("dmc/cartpole-swingup").open(2)
    first = worlds.reset(0)
    theirs = suite.load("cartpole", "swingup", task_kwargs={"random": int(worlds.save().seeds[1])})
    now, push = theirs.reset(), actions(501, 2, 1)
    np.testing.assert_array_equal(first["obs"][1], dmc._flat(now))
    for number, one in enumerate(push[:500], 1):
        step = worlds.step(one)
        reward = (now := theirs.step(one[1])).reward + (now := theirs.step(one[1])).reward
        np.testing.assert_allclose(step.reward[1], reward, rtol=1e-6)
        np.testing.assert_array_equal(step.final_obs["obs"][1], dmc._flat(now))
        assert not step.terminated.any() and step.truncated.all() == (number == 500)
    assert list(now.observation) == ["position", "velocity"]
    assert (step.final_obs["obs"] != step.obs["obs"]).any() and not worlds.step(push[500]).truncated.any()


def test_gymnasiums_bodies_have_short_names_and_time_limits_are_no_ends():
    assert registry.resolve("HalfCheetah", []) == "gymnasium/HalfCheetah-v5"
    assert registry.host("Humanoid-v5").spec.obs["obs"].shape == (348,)
    assert registry.host("Humanoid-v4").spec.obs["obs"].shape == (376,)
    worlds = registry.host("Hopper-v4").open(1)
    assert worlds.spec.action == Box((3,), -1.0, 1.0)
    worlds.reset(0)
    fall = next(step for one in actions(1000, 1, 3) if (step := worlds.step(one)).terminated[0] or step.truncated[0])
    assert fall.terminated[0] and not fall.truncated[0]
    worlds = registry.host("HalfCheetah-v5").open(1)
    worlds.reset(0)
    ends = [(step.terminated[0], step.truncated[0]) for one in actions(1000, 1, 6) for step in [worlds.step(one)]]
    assert ends == [(False, False)] * 999 + [(False, True)]


@pytest.mark.usefixtures("drawing")
def test_pictures_are_the_last_three_of_the_body():
    made = registry.host("dmc/ball_in_cup-catch-visual")
    assert (made.spec.stack, made.spec.obs["obs"]) == (3, Box((84, 84, 9), 0, 255, "uint8"))
    worlds = made.open(1)
    shown = [worlds.reset(0)["obs"], *(worlds.step(np.ones((1, 2), np.float32)).obs["obs"] for _ in range(4))]
    np.testing.assert_array_equal(shown[0][..., 3:], shown[0][..., :6])
    for before, after in pairwise(shown):
        np.testing.assert_array_equal(after[..., :6], before[..., 3:])
        assert (after[..., 6:] != before[..., 6:]).any() and after.std() > 10
    state, last = worlds.save(), shown[-1]
    worlds.step(-np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(worlds.restore(state)["obs"], last)
    worlds.close()


def test_what_cannot_be_made_is_said(monkeypatch):
    with pytest.raises(ConfigError, match="no task 'dmc/walker-stnd'; did you mean 'walker-stand'"):
        registry.host("dmc/walker-stnd")
    with pytest.raises(ConfigError, match="dmc/walker-stand has no option 'repeat'"):
        registry.host("dmc/walker-stand", repeat=4)
    with pytest.raises(ConfigError, match="dmc/lqr-lqr_2_1 takes actions without bounds"):
        registry.host("dmc/lqr-lqr_2_1")
    monkeypatch.setattr(dmc.Suite, "render", lambda self: 1 / 0)
    with pytest.raises(
        ConfigError, match=r"cannot be drawn here \(ZeroDivisionError.*\); install .*libegl1.*MUJOCO_GL"
    ):
        registry.host("dmc/cartpole-balance-visual").open(1)
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(ConfigError, match=r"HalfCheetah-v5 cannot be drawn here; install .*libegl1.*MUJOCO_GL"):
        registry.host("HalfCheetah-v5").open(1, seen=True)


@pytest.mark.parametrize(("id", "extra"), [("dmc/walker-stand", "dmc"), ("HalfCheetah-v5", "mujoco")])
def test_a_missing_extra_names_the_mend(id, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(ConfigError, match=rf"{id} takes mujoco, which is not installed; .*\.\[{extra}\]"):
        registry.host(id)


def test_what_draws_without_a_display_is_chosen(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for there, chosen in (({"EGL", "OSMesa"}, "egl"), ({"OSMesa"}, "osmesa"), (set(), "disabled")):
        monkeypatch.delenv("MUJOCO_GL", raising=False)
        monkeypatch.setattr(mujoco, "find_library", lambda name, there=there: name if name in there else None)
        monkeypatch.setattr(sys, "platform", "linux")
        mujoco.choose_renderer()
        assert os.environ["MUJOCO_GL"] == chosen
