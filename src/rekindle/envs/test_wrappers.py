import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.spaces import Box
from rekindle.envs.probe import probe
from rekindle.envs.wrappers import AutoReset, Stream, Trials
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import ACTIONS, HOLD, NEAR, Task
from rekindle.envs.xland.text import parse_task

ROOM = "world:\n####\n#0.#\n#^.#\n####"
NO_ACTION = len(ACTIONS)


def make(text: str = "", goal: str = "hold black cube", world: str = ROOM, **sizes: int) -> Task:
    task = parse_task(f"goal: {goal}\nobjects: black cube\n{text}\n{world}", max_rules=2, max_objects=4, **sizes)
    return jax.tree.map(jnp.asarray, task)


jit_reset, jit_step = jax.jit(Trials.reset, static_argnums=0), jax.jit(Trials.step, static_argnums=0)


def walk(task: Task, *steps: str, **settings) -> list:
    """The time steps of a reset and of steps by name, each with its own key."""
    env = Trials(XLand(max_rules=2, **settings))
    state, now = jit_reset(env, jax.random.key(0), task)
    history = [now]
    for t, name in enumerate(steps):
        actions = jnp.array([ACTIONS.index(a) for a in name.split("/")], jnp.int32)
        key = jax.random.key(1 + t)
        state, now = jit_step(env, key, state, actions if env.spec.players > 1 else actions[0], task)
        history.append(now)
    return history


def flags(history: list, name: str) -> list[int]:
    return [int(getattr(now, name)) for now in history]


def test_k_trials_make_an_episode():
    history = walk(make("trials: 3\nsteps: 2"), *["noop"] * 6)
    assert flags(history, "trial_end") == [0, 0, 1, 0, 1, 0, 1]
    assert flags(history, "terminated") == [0, 0, 0, 0, 0, 0, 1]
    assert flags(history, "truncated") == [0] * 7


def test_a_trial_starts_as_the_first_did():
    history = walk(make("trials: 2\nsteps: 3\nrandom heading: 0"), "pick", "right", "forward", "noop")
    first, again = history[0].obs, history[3].obs
    for name in ("view", "heading", "hand", "goal", "rules"):
        assert (first[name] == again[name]).all(), name
    assert (history[2].obs["hand"] != 0).any()


def test_the_last_observation_of_a_trial_is_kept_apart():
    history = walk(make("trials: 2\nsteps: 2"), "pick", "right", "noop", "right")
    end = history[2]
    assert end.final_obs["hand"].tolist() == [2, 1] and end.obs["hand"].tolist() == [0, 0]
    assert int(end.final_obs["heading"]) == 1 and int(end.obs["heading"]) == 0
    assert end.final_obs["trial"][-2:].tolist() == [0, 1] and end.obs["trial"][-2:].tolist() == [1, 0]
    for now in (history[1], history[3], history[4]):
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), now.obs, now.final_obs))


def test_previous_action_and_reward_cross_the_border_of_trials():
    history = walk(make("trials: 2\nsteps: 2"), "noop", "pick", "left", "pick")
    assert [float(now.reward) for now in history] == [0, 0, 1, 0, 0]
    assert [float(now.obs["prev_reward"]) for now in history] == [0, 0, 1, 0, 0]
    actions = [NO_ACTION, *(ACTIONS.index(name) for name in ("noop", "pick", "left", "pick"))]
    assert [int(now.obs["prev_action"]) for now in history] == actions


def test_inputs_about_time():
    history = walk(make("trials: 7\nsteps: 16"), *["noop"] * 17)

    def timing(left: list[int], remaining: int, until_last: int, first: int) -> list[float]:
        return [*left, remaining / 64, until_last / 64, 0.25, first, 1 - remaining / 16]

    six, five = [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1]
    wanted = [timing(six, 16, 96, 1), timing(six, 15, 95, 0), timing(five, 16, 80, 1), timing(five, 15, 79, 0)]
    for now, numbers in zip((history[0], history[1], history[16], history[17]), wanted, strict=True):
        np.testing.assert_allclose(now.obs["trial"], numbers, atol=1e-6)


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 5])
def test_trials_left_are_one_hot(trials):
    shown = walk(make(f"trials: {trials}\nsteps: 2"), *["noop"] * (2 * (trials - 1)))
    for played, now in enumerate(shown[::2]):
        left = trials - 1 - played
        assert now.obs["trial"][:6].tolist() == [float(i == left) for i in range(5)] + [0]
        assert float(now.obs["trial"][7]) == pytest.approx(2 * left / 64)


def test_success_ends_a_trial_early_in_mode_terminal():
    history = walk(make("trials: 2\nsteps: 4"), "pick", "noop", "pick", reward="terminal")
    assert flags(history, "trial_end") == [0, 1, 0, 1] and flags(history, "terminated") == [0, 0, 0, 1]
    np.testing.assert_allclose([float(now.reward) for now in history], [0, 1 - 0.9 / 4, 0, 1 - 0.9 * 2 / 4], rtol=1e-6)
    assert history[1].obs["hand"].tolist() == [0, 0] and history[1].obs["trial"][9] == 1


def test_every_trial_draws_its_layout_and_heading():
    layouts = "world:\n####\n#0^#\n####\nworld:\n####\n#^0#\n####"
    history = walk(make("trials: 60\nsteps: 1\nrandom heading: 1", world=layouts), *["noop"] * 59)
    assert {int(now.obs["heading"]) for now in history} == {0, 1, 2, 3}
    up = [now.obs["view"][-1] for now in history if int(now.obs["heading"]) == 0]
    assert {int(jnp.argmax(row[:, 0] == 6)) for row in up} == {2, 4}


def test_two_players_have_an_axis_everywhere():
    task = make("trials: 2\nsteps: 2", world="world:\n#####\n#0.N#\n#^..#\n#####", players=2)
    env = Trials(XLand(max_rules=2, players=2))
    history = walk(task, "pick/left", "noop/noop", players=2)
    for now in history:
        assert now.obs.keys() == env.spec.obs.keys() and now.reward.shape == (2,)
        for name, space in env.spec.obs.items():
            assert now.obs[name].shape == space.shape and now.obs[name].dtype == space.dtype, name
    assert history[1].obs["prev_action"].tolist() == [3, 1] and history[2].obs["prev_action"].tolist() == [6, 6]


def test_spec_of_one_player():
    shown = walk(make("trials: 1\nsteps: 1"), "noop")
    spec = Trials(XLand(max_rules=2)).spec
    for now in shown:
        for name, space in spec.obs.items():
            value = np.asarray(now.obs[name])
            assert value.shape == space.shape and value.dtype == space.dtype, name
            low, high = (space.low, space.high) if isinstance(space, Box) else (0, space.n - 1)
            assert low <= value.min() and value.max() <= high, name


GOALS = ("hold black cube", "near(me, black cube)", "not near(me, black cube)")
TASKS = [make(f"trials: {k + 1}\nsteps: {k + 2}", goal) for k, goal in enumerate(GOALS)]
SOURCE = jax.tree.map(lambda *leaves: jnp.stack(leaves), *TASKS)


def draw(key, source, ended):
    """Any of the tasks, or the one that ended if the source says so."""
    tasks, keep = source
    index = jax.random.randint(key, (), 0, len(GOALS))
    drawn = jax.tree.map(lambda leaf: leaf[index], tasks)
    return drawn if ended is None else jax.tree.map(lambda old, new: jnp.where(keep, old, new), ended, drawn)


ENV = Trials(XLand(max_rules=2, relations=(NEAR, HOLD)))
AUTO = AutoReset(ENV, draw)
ROWS, STEPS = 64, 40


def step_keys():
    return jax.random.split(jax.random.key(2), (STEPS, ROWS))


@pytest.fixture(scope="module")
def rolled():
    """`ROWS` rows of random actions, tasks drawn anew and kept: the reset and all steps, and the actions."""
    actions = jax.random.randint(jax.random.key(3), (STEPS, ROWS), 0, len(ACTIONS))

    @jax.jit
    def roll(keep: jax.Array) -> tuple:
        source = (SOURCE, keep)

        def step(state, inputs):
            keys, actions = inputs
            state, now = jax.vmap(AUTO.step, in_axes=(0, 0, 0, None))(keys, state, actions, source)
            return state, (state, now)

        state, first = jax.vmap(AUTO.reset, in_axes=(0, None))(jax.random.split(jax.random.key(1), ROWS), source)
        rest = jax.lax.scan(step, state, (step_keys(), actions))[1]
        return jax.tree.map(lambda one, many: jnp.concatenate([one[None], many]), (state, first), rest)

    return {keep: jax.device_get(roll(jnp.array(keep))) for keep in (False, True)}, np.asarray(actions)


def test_an_episode_lasts_k_trials_of_its_task(rolled):
    states, shown = rolled[0][False]
    lengths = set()
    for row in range(ROWS):
        ends = np.flatnonzero(shown.terminated[:, row])
        starts = np.concatenate([[0], ends[:-1]])
        for start, end in zip(starts, ends, strict=True):
            trials = int(states.params.trials[start, row])
            assert end - start == trials * (trials + 1)
            assert (states.params.trials[start:end, row] == trials).all()
            lengths.add(trials)
    assert lengths == {1, 2, 3}


@pytest.mark.parametrize("keep", [False, True])
def test_the_next_task_is_drawn_or_kept(rolled, keep):
    states, shown = rolled[0][keep]
    ended, changed = shown.terminated[1:], states.params.trials[1:] != states.params.trials[:-1]
    assert not changed[~ended].any() and ended.sum() > 200
    expected = 0 if keep else 2 / 3
    assert abs(changed[ended].mean() - expected) <= 4 * (expected * (1 - expected) / ended.sum()) ** 0.5


def test_a_new_episode_is_a_fresh_one(rolled):
    """Nothing of the old episode is left: state and observation equal those of a reset of the new task."""
    states, shown = rolled[0][False]
    steps, rows = np.nonzero(shown.terminated)
    tasks, inner, obs, final = jax.tree.map(
        lambda leaf: leaf[steps, rows], (states.params, states.inner, shown.obs, shown.final_obs)
    )
    fresh, first = jax.jit(jax.vmap(ENV.reset, in_axes=(None, 0)))(jax.random.key(0), tasks)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), (inner, obs), (fresh, first.obs)))
    assert (final["trial"][:, -1] == 1).all() and (final["prev_action"] < NO_ACTION).all()


def test_rows_do_not_touch_each_other(rolled):
    """A row alone does what it did beside the others."""
    (states, shown), actions = rolled[0][False], rolled[1]
    step, keys, source = jax.jit(AUTO.step), step_keys(), (SOURCE, jnp.array(False))
    for row in (0, ROWS - 1):
        state = jax.tree.map(lambda leaf, row=row: jnp.asarray(leaf[0, row]), states)
        for t in range(STEPS):
            state, now = step(keys[t, row], state, jnp.asarray(actions[t, row]), source)
            then = jax.tree.map(lambda leaf, t=t, row=row: leaf[t + 1, row], (states, shown))
            assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), (state, now), then)), t


def test_a_stream_is_a_fixed_number_of_steps_whatever_ends_inside():
    env = Stream(probe.Probe("probe/discount-v1"), 7)  # trials of three steps
    params = probe.Task(np.int16(1), np.int16(3), np.asarray(False))
    state, first = env.reset(jax.random.key(0), params)
    assert first.obs["prev_action"] == 2 and first.obs["prev_reward"] == 0
    seen = []
    for t in range(7):
        state, now = jax.jit(env.step)(jax.random.key(t + 1), state, jnp.int32(1), params)
        seen.append(now)
    assert [bool(s.trial_end) for s in seen] == [False, False, True, False, False, True, True]
    assert [bool(s.truncated) for s in seen] == [False] * 6 + [True] and not any(s.terminated for s in seen)
    assert [float(s.obs["prev_reward"]) for s in seen] == [0, 0, 1, 0, 0, 1, 0]
    assert set(first.obs) == set(env.spec.obs) and seen[0].obs["prev_action"] == 1
