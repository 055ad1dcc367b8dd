"""Worlds of other libraries: ends kept apart, rows that do not meddle, and a way back to where they stood."""

from importlib.util import find_spec
from typing import ClassVar

import jax
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gymnasium")

import ale_py
import gymnasium
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rekindle.core.errors import ConfigError, DivergedError, WorldError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec
from rekindle.envs import registry
from rekindle.envs.gymnasium import from_gymnasium
from rekindle.envs.host import foreign
from rekindle.envs.host import worlds as host
from rekindle.envs.host.worlds import HostState, HostWorlds

NO_MUJOCO = pytest.mark.skipif(find_spec("dm_control") is None, reason="the extra dmc is not installed")
BODIES = ("gymnasium/HalfCheetah-v5", "gymnasium/Hopper-v4", "dmc/finger-spin", "dmc/reacher-easy")
GAMES = ("gymnasium/CartPole-v1", "gymnasium/Taxi-v4", "gymnasium/Pendulum-v1", "ALE/Breakout-v5",
         *(pytest.param(id, marks=NO_MUJOCO) for id in BODIES))  # fmt: skip
SHORT = {"ALE": {"longest": 30}, "gymnasium": {"max_episode_steps": 60}, "dmc": {}}


def opened(id, rows=3, reseed=40, **options):
    """Worlds whose episodes end, and which take new seeds, within the steps of a test."""
    worlds = registry.host(id, **SHORT[id.partition("/")[0]], **options).open(rows)
    if id.startswith("dmc"):
        worlds._longest = 60
    worlds._reseed = reseed
    return worlds


def play(worlds, steps, seed=0):
    """What random actions show."""
    rng, action = np.random.default_rng(seed), worlds.spec.action
    drawn = rng.uniform(-1, 1, (steps, worlds.rows, *action.shape)).astype(np.float32)
    if isinstance(action, Discrete):
        drawn = rng.integers(action.n, size=(steps, worlds.rows))
    return [worlds.step(actions) for actions in drawn]


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        jax.tree.map(np.testing.assert_array_equal, mine, other)


@pytest.mark.parametrize("id", GAMES)
def test_it_conforms(id):
    worlds = opened(id)
    first, steps = worlds.reset(5), play(worlds, 150)
    for name, space in worlds.spec.obs.items():
        for obs in (first, *(step.obs for step in steps)):
            assert obs[name].shape == (3, *space.shape) and obs[name].dtype == space.dtype
    assert all(np.isfinite(step.reward).all() for step in steps)
    other = opened(id)
    np.testing.assert_array_equal(next(iter(first.values())), next(iter(other.reset(5).values())))
    assert_same(steps, play(other, 150))
    assert any((step.terminated | step.truncated).any() for step in steps)
    assert len({*worlds.save().seeds}) == 3


@pytest.mark.parametrize("id", GAMES)
def test_it_comes_back_to_where_it_stood(id):
    """Over ends of episodes, and over the seeds that follow from those."""
    worlds = opened(id)
    worlds.reset(1)
    play(worlds, 130, seed=2)
    state, after = worlds.save(), play(worlds, 130, seed=3)
    play(worlds, 7, seed=4)
    for elsewhere in (worlds, opened(id)):
        shown = elsewhere.restore(state)
        assert_same(play(elsewhere, 130, seed=3), after)
        assert {name: x.shape for name, x in shown.items()} == {name: x.shape for name, x in after[0].obs.items()}
    assert tuple(state.seeds) != tuple(worlds.save().seeds)


@pytest.mark.parametrize("id", GAMES)
def test_every_world_has_a_fate_of_its_own(id):
    """The same actions in all rows, and from another seed, come to something else."""
    worlds, seen = opened(id), []
    for seed in (0, 1):
        worlds.reset(seed)
        like = np.zeros((3, *worlds.spec.action.shape), worlds.spec.action.dtype)
        seen += [np.stack([worlds.step(np.full_like(like, t % 2)).obs["obs"] for t in range(25)])]
    assert all((seen[0][:, 0] != seen[0][:, row]).any() for row in (1, 2)) and (seen[0] != seen[1]).any()


def test_worlds_that_stand_there_already_play_nothing_again():
    worlds = opened("gymnasium/CartPole-v1")
    worlds.reset(0)
    step = play(worlds, 30)[-1]
    worlds._vector = None  # any use of it would raise
    np.testing.assert_array_equal(worlds.restore(worlds.save())["obs"], step.obs["obs"])


def test_a_time_limit_is_a_truncation_and_a_fall_is_none():
    worlds = from_gymnasium("CartPole-v1", 2, max_episode_steps=3)
    worlds.reset(0)
    assert [step.truncated.tolist() for step in play(worlds, 3)] == [[False] * 2, [False] * 2, [True] * 2]
    worlds = from_gymnasium("CartPole-v1", 2)
    worlds.reset(0)
    steps = [worlds.step(np.ones(2, int)) for _ in range(20)]
    assert any(step.terminated.any() for step in steps) and not any(step.truncated.any() for step in steps)


def test_an_endless_episode_is_cut(monkeypatch):
    monkeypatch.setattr(host, "LONGEST", 25)
    worlds = from_gymnasium("Taxi-v4", 2, max_episode_steps=1000)
    worlds.reset(0)
    assert [i for i, step in enumerate(play(worlds, 60)) if step.truncated.any()] == [24, 49]


def test_atari_is_what_dopamine_plays():
    """Four frames that follow each other, from blank; the game's own actions, or all."""
    made = registry.host("ALE/Breakout-v5")
    spec = made.spec
    assert spec.stack == 4 and spec.obs["obs"].shape == (84, 84, 4) and spec.action.n == 4
    assert type(spec).from_json(spec.to_json()) == spec and spec.to_json()["stack"] == 4
    assert registry.host("ALE/Breakout-v5", full_actions=1).spec.action.n == 18
    short = registry.host("ALE/Breakout-v5", longest=12).open(2)
    short.reset(0)
    assert [i for i, step in enumerate(play(short, 25)) if step.truncated.all()] == [11, 23]
    worlds = made.open(2)
    first = worlds.reset(0)["obs"]
    assert (first[..., :3] == 0).all() and (first[..., 3] > 0).any()
    before = first
    for step in play(worlds, 60):
        alive = ~(step.terminated | step.truncated)
        np.testing.assert_array_equal(step.obs["obs"][alive][..., :3], before[alive][..., 1:])
        before = step.obs["obs"]


def test_atari_is_asked_for_by_the_published_rules(monkeypatch):
    """2.8: actions stick, no no-ops, no fire, no clipping, four frames of which two are joined; and what is changed."""
    asked = []

    class Noted(ale_py.AtariVectorEnv):
        def __init__(self, *given, **named):
            asked.append(named)
            super().__init__(*given, **named)

    monkeypatch.setattr(ale_py, "AtariVectorEnv", Noted)
    usual = {"repeat_action_probability": 0.25, "noop_max": 0, "use_fire_reset": False, "reward_clipping": False,
             "frameskip": 4, "maxpool": True, "episodic_life": False, "full_action_space": False,
             "max_num_frames_per_episode": 108_000, "autoreset_mode": AutoresetMode.NEXT_STEP, "grayscale": True,
             "stack_num": 4, "img_height": 84, "img_width": 84}  # fmt: skip
    registry.host("ALE/Pong-v5").open(1).close()
    registry.host("ALE/Pong-v5", sticky=0.0, life_loss=1, longest=100).open(1).close()
    changed = usual | {"repeat_action_probability": 0.0, "episodic_life": True, "max_num_frames_per_episode": 400}
    for found, wanted in ((asked[1], usual), (asked[-1], changed)):
        assert {name: found[name] for name in wanted} == wanted
    assert registry.defaults("ALE/Pong-v5") == {"sticky": 0.25, "life_loss": 0, "full_actions": 0, "longest": 27_000}


def test_actions_stick_in_atari_unless_they_are_told_not_to():
    """Of two worlds with one seed, the frames of the one in which actions stick differ."""
    shown = []
    for sticky in (0.25, 0.0, 0.0):
        worlds = registry.host("ALE/Breakout-v5", sticky=sticky).open(1)
        worlds.reset(0)
        actions = np.random.default_rng(0).integers(0, 4, (40, 1))
        shown.append([worlds.step(action).obs["obs"] for action in actions])
        worlds.close()
    assert all((a == b).all() for a, b in zip(*shown[1:], strict=True))
    assert any((a != b).any() for a, b in zip(*shown[:2], strict=True))


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("ALE/Brakeout-v5", {}, "no Atari game 'ALE/Brakeout-v5'.*ALE/Breakout-v5"),
        ("ALE/Breakout-v5", {"colour": 0.1}, "no option 'colour'"),
        (
            "ALE/Breakout-v5",
            {"sticky": 1.5},
            "the option sticky of ALE/Breakout-v5 takes a number from 0 to 1; got 1.5",
        ),
        ("gymnasium/CartPole-v1", {"colour": 1}, "Gymnasium cannot make 'CartPole-v1'"),
        ("gymnasium/FrozenLake-v1", {"map_name": "5x5"}, "Gymnasium cannot make 'FrozenLake-v1': KeyError"),
    ],
)
def test_what_cannot_be_made_is_said(id, options, message):
    with pytest.raises(ConfigError, match=message):
        registry.host(id, **options)


def test_vectors_of_actions_are_scaled_to_the_worlds_bounds():
    """Pendulum takes torques in [-2, 2] and shows no action; what it pays is -(... + 0.001 torque^2)."""
    ours, theirs = from_gymnasium("Pendulum-v1"), gymnasium.make("Pendulum-v1")
    assert ours.spec.action == Box((1,), -1.0, 1.0)
    ours.reset(0)
    seed = int(ours.save().seeds[0])
    for share in (-1.0, 0.25, 1.0):
        ours.restore(HostState(np.array([seed]), np.array([0]), np.zeros_like(ours.save().actions)))
        theirs.reset(seed=seed)
        step = ours.step(np.array([[share]], np.float32))
        obs, reward, *_ = theirs.step(np.array([2 * share], np.float32))
        np.testing.assert_allclose(step.obs["obs"][0], obs, atol=1e-6)
        np.testing.assert_allclose(step.reward[0], reward, rtol=1e-5)


def test_whole_numbers_are_rounded_to_and_reach_both_ends():
    space = spaces.Box(0, 255, (5,), np.uint8)
    scaled = foreign.bounded(np.array([-1.0, -0.5, 0.0, 0.5, 1.0], np.float32), space)
    np.testing.assert_array_equal(scaled, np.array([0, 64, 128, 191, 255], np.uint8))


def test_the_last_observation_of_an_episode_is_shown_beside_the_first_of_the_next():
    worlds = from_gymnasium("Pendulum-v1", 2, max_episode_steps=3)
    worlds.reset(0)
    steps = play(worlds, 4)
    for step in (*steps[:2], steps[3]):
        np.testing.assert_array_equal(step.final_obs["obs"], step.obs["obs"])
    assert steps[2].truncated.all() and (steps[2].final_obs["obs"] != steps[2].obs["obs"]).any()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"action_space": spaces.MultiDiscrete([2, 3])}, r"takes actions in MultiDiscrete.*TransformAction"),
        ({"action_space": spaces.Box(-1, 1, (2, 2))}, r"takes actions in Box.*\(2, 2\).*TransformAction"),
        ({"action_space": spaces.Dict(a=spaces.Discrete(2))}, r"takes actions in Dict.*TransformAction"),
        ({"action_space": spaces.Discrete(2, start=1)}, r"takes actions in Discrete.*TransformAction"),
        (
            {"action_space": spaces.Box(-np.inf, np.inf, (2,))},
            r"takes actions in Box\(-inf.*within bounds.*TransformAction",
        ),
        ({"observation_space": spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2)))}, "shows Dict.*FlattenObservation"),
        ({"observation_space": spaces.Tuple([spaces.Discrete(2)])}, "shows Tuple.*FlattenObservation"),
        ({"observation_space": spaces.Graph(spaces.Box(0, 1), None)}, "shows Graph.*TransformObservation"),
    ],
)
def test_what_our_spaces_cannot_say_is_refused(space, message, monkeypatch):
    for name, one in space.items():
        monkeypatch.setattr(Lamp, name, one)
    gymnasium.register("Odd-v0", Lamp)
    try:
        with pytest.raises(ConfigError, match=message):
            from_gymnasium("Odd-v0")
    finally:
        gymnasium.registry.pop("Odd-v0")


def test_what_needs_compiled_worlds_says_so():
    with pytest.raises(ConfigError, match="not written in JAX"):
        registry.make("ALE/Breakout-v5")


def test_the_screen_beside_an_atari_game_is_of_that_game():
    """Over ends of episodes and new seeds: what the agent sees is the screen, small and grey."""
    made = registry.host("ALE/Breakout-v5", longest=30)
    seen, alone = made.open(2, seen=True), made.open(2)
    for worlds in (seen, alone):
        worlds._reseed = 40
        worlds.reset(3)
    rng = np.random.default_rng(0)
    for _ in range(100):
        action = rng.integers(4, size=2)
        assert_same([seen.step(action)], [step := alone.step(action)])
        for picture, obs in zip(seen.pictures(), step.obs["obs"], strict=True):
            small = Image.fromarray(picture).convert("L").resize((84, 84), Image.Resampling.BOX)
            assert np.abs(np.asarray(small).astype(int) - obs[..., -1]).mean() < 4


class Faulty:
    """Two rows that show how often they were stepped; in the fifth step something is wrong with the second."""

    num_envs = 2

    def __init__(self, fault):
        self.fault, self.steps = fault, 0

    def reset(self, *, seed, options):
        self.steps = 0
        return np.zeros((2, 1), np.float32), {}

    def step(self, action):
        self.steps += 1
        obs, reward, no = np.full((2, 1), self.steps, np.float32), np.zeros(2), np.zeros(2, bool)
        if self.steps == 5:
            match self.fault:
                case "raises":
                    raise OSError("the plug\nwas pulled.")
                case "leaves":
                    raise SystemExit(3)
                case "obs":
                    obs[1] = np.nan
                case "reward":
                    reward[1] = np.inf
                case "shape":
                    obs = np.zeros((2, 3), np.float32)
        return obs, reward, no, no, {}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", r"failed with OSError: the plug was pulled \(.*test_worlds.py, line \d+\), in one of its 2 worlds"),
        ("leaves", r"failed with SystemExit: 3 \("),
        ("obs", r"showed nan in its observation obs, 4 steps after world 2 of 2 began from the seed \d+\.$"),
        ("reward", r"showed inf in its reward, 4 steps after world 2 of 2"),
        ("shape", r"showed its observation obs in the shape \(3,\), not \(1,\)"),
    ],
)  # fmt: skip
def test_a_world_that_fails_is_named_and_can_be_restored(fault, message):
    spec = EnvSpec("test/faulty", 1, {"obs": Box((1,), 0, 9)}, Discrete(2), kind="host")
    worlds = HostWorlds(lambda: Faulty(fault), spec, lambda obs: {"obs": obs.copy()})
    worlds.reset(0)
    play(worlds, 2)
    state = worlds.save()
    with pytest.raises(WorldError, match=f"^test/faulty {message}"):
        play(worlds, 3)
    assert worlds.restore(state)["obs"].tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize("shown", [5, -1])
def test_a_choice_that_there_is_not_is_a_failure_of_the_world(shown):
    class Chooses(Faulty):
        def step(self, action):
            return np.array([0, shown]), np.zeros(2), *(np.zeros(2, bool) for _ in range(2)), {}

        def reset(self, *, seed, options):
            return np.zeros(2, int), {}

    spec = EnvSpec("test/chooses", 1, {"obs": Discrete(5)}, Discrete(2), kind="host")
    worlds = HostWorlds(lambda: Chooses(""), spec, lambda obs: {"obs": obs.copy()})
    worlds.reset(0)
    with pytest.raises(WorldError, match=rf"^test/chooses showed {shown} as its observation obs, of 5 from 0, 0 steps"):
        worlds.step(np.zeros(2, int))


def test_a_world_is_not_blamed_for_an_agent_that_diverged():
    spec = EnvSpec("test/faulty", 1, {"obs": Box((1,), 0, 9)}, Box((1,), -1.0, 1.0), kind="host")
    worlds = HostWorlds(lambda: Faulty(""), spec, lambda obs: {"obs": obs.copy()})
    worlds.reset(0)
    with pytest.raises(DivergedError, match="actions in test/faulty are no numbers any more"):
        worlds.step(np.array([[0.5], [np.nan]], np.float32))


class Lamp(gymnasium.Env):
    """Draws itself in the brightness of its last action; without power it cannot."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

    def __init__(self, render_mode=None, power=True):
        self.render_mode, self.power, self.light = render_mode, power, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.light = 0
        return 0, {}

    def step(self, action):
        self.light = int(action)
        return self.light, 0.0, False, False, {}

    def render(self):
        if not self.power:
            raise RuntimeError("no power")
        return np.full((8, 6, 3), 200 * self.light, np.uint8)


class Dark(Lamp):
    metadata: ClassVar = {"render_modes": []}


@pytest.fixture
def lamps():
    for name, kind in (("Lamp-v0", Lamp), ("Dark-v0", Dark)):
        gymnasium.register(name, kind)
    yield
    for name in ("Lamp-v0", "Dark-v0"):
        del gymnasium.registry[name]


@pytest.mark.filterwarnings("ignore:.*obs")
def test_an_observation_of_another_shape_is_told_as_such(lamps, monkeypatch):
    monkeypatch.setattr(Lamp, "step", lambda self, action: (np.zeros(2, int), 0.0, False, False, {}))
    worlds = from_gymnasium("Lamp-v0", 2)
    worlds.reset(0)
    with pytest.raises(WorldError, match=r"failed: it showed an observation obs of the shape \(2,\), not \(\)"):
        play(worlds, 1)


def test_gymnasium_draws_its_own_worlds_or_says_why_not(lamps):
    worlds = registry.host("gymnasium/Lamp-v0").open(2, seen=True)
    worlds.reset(0)
    worlds.step(np.array([0, 1]))
    assert [(picture.shape, picture.mean()) for picture in worlds.pictures()] == [((8, 6, 3), 0), ((8, 6, 3), 200)]
    with pytest.raises(ConfigError, match="Lamp-v0 cannot be drawn here: RuntimeError: no power"):
        worlds = registry.host("gymnasium/Lamp-v0", power=False).open(1, seen=True)
        worlds.reset(0)
        worlds.pictures()
    with pytest.raises(ConfigError, match="Dark-v0 cannot be drawn: it has no pictures of its own"):
        registry.host("gymnasium/Dark-v0").open(1, seen=True)


@pytest.mark.filterwarnings("ignore")  # Gymnasium's own, of the same
@pytest.mark.parametrize(
    ("stepped", "message"),
    [
        (lambda: (0, None, False, False, {}), "it returned the reward None, not one number"),
        (lambda: (0, [1.0, 2.0], False, False, {}), r"it returned the reward \[1.0, 2.0\], not one number"),
        (lambda: (0, 1e300, False, False, {}), "it returned the reward 1e[+]300, which is more than 32 bits hold"),
        (lambda: (0, 0.0, "no", False, {}), "it returned terminated, truncated = 'no', False, not True or False"),
        (lambda: (0, 0.0, False, None, {}), "it returned terminated, truncated = False, None, not True or False"),
        (lambda: ("red", 0.0, False, False, {}), "it showed 'red' as its observation obs, not numbers"),
    ],
)
def test_what_step_has_to_return_is_said(stepped, message, monkeypatch):
    monkeypatch.setattr(Lamp, "step", lambda self, action: stepped())
    gymnasium.register("Odd-v0", Lamp)
    try:
        worlds = from_gymnasium("Odd-v0")
        worlds.reset(0)
        with pytest.raises(WorldError, match=f"failed: {message}"):
            worlds.step(np.zeros(1, int))
    finally:
        gymnasium.registry.pop("Odd-v0")


@pytest.mark.filterwarnings("ignore")
def test_what_reset_has_to_return_is_said(monkeypatch):
    monkeypatch.setattr(Lamp, "reset", lambda self, **how: 0)
    gymnasium.register("Odd-v0", Lamp)
    try:
        with pytest.raises(WorldError, match=r"failed: reset\(\) returned something else than obs, info"):
            from_gymnasium("Odd-v0").reset(0)
    finally:
        gymnasium.registry.pop("Odd-v0")
