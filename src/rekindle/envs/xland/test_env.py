import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, MultiDiscrete
from rekindle.envs.seats import present
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.env import SEEN_PLAYER, XLand
from rekindle.envs.xland.game import View
from rekindle.envs.xland.level import ACTIONS, Task
from rekindle.envs.xland.test_oracle import random_case
from rekindle.envs.xland.text import parse_task
from rekindle.envs.xland.worlds import left_alone

MANY = 1200
reset, step = jax.jit(XLand.reset, static_argnums=0), jax.jit(XLand.step, static_argnums=0)
many_resets = jax.jit(jax.vmap(XLand(max_rules=2).reset, in_axes=(0, None)))
GLYPHS = {" ": (0, 0), ".": (1, 0), "#": (2, 0), "+": (3, 0), "/": (4, 0), "W": (9, 0),
          "c": (6, 1), "s": (7, 3), "w": (5, 2)}  # fmt: skip
"""How crops are drawn here: c black cube, s yellow sphere, w purple wall, W another player."""


def make(world: str, objects: str = "nothing", goal: str = "hold black pyramid", *, players: int = 1,
         **clock: float) -> Task:  # fmt: skip
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in clock.items()]
    text = "\n".join([f"goal: {goal}", f"objects: {objects}", *lines, "world:", world])
    return parse_task(text, players=players, max_rules=2, max_objects=4)


def walk(env: XLand, task: Task, *steps: str) -> list:
    """The time steps of a reset and of steps by name."""
    state, shown = reset(env, jax.random.key(0), task)
    history = [shown]
    for name in steps:
        actions = jnp.array([ACTIONS.index(a) for a in name.split("/")], jnp.int32)
        state, shown = step(env, jax.random.key(0), state, actions if env.players > 1 else actions[0], task)
        history.append(shown)
    return history


def assert_crop(view: jax.Array, *rows: str) -> None:
    drawn = {code: glyph for glyph, code in GLYPHS.items()}
    assert ["".join(drawn[tuple(cell)] for cell in row) for row in np.asarray(view).tolist()] == list(rows)


ROOM = ("#####", "#0.1#", "#.@.#", "#..2#", "##+##", "#####")
THINGS = "black cube, yellow sphere, purple wall"


@pytest.mark.parametrize(
    ("heading", "rows"),
    [
        ("^", ("#####", "#c.s#", "#...#", "#..w#", "##+##")),
        (">", ("#####", "#s.w#", "#...+", "#c..#", "#####")),
        ("v", ("##+##", "#w..#", "#...#", "#s.c#", "#####")),
        ("<", ("#####", "#..c#", "+...#", "#w.s#", "#####")),
    ],
)
def test_crop_around_the_player(heading, rows):
    task = make("\n".join(ROOM).replace("@", heading), THINGS)
    shown = walk(XLand(max_rules=2, view=View(5, "centre")), task)[0]
    assert_crop(shown.obs["view"], *rows)
    assert int(shown.obs["heading"]) == "^>v<".index(heading)


@pytest.mark.parametrize(
    ("heading", "rows"),
    [
        ("^", ("     ", "     ", "#####", "#c.s#", "#...#")),
        (">", ("     ", "     ", "#####", "#s.w#", "#...+")),
        ("v", ("     ", "#####", "##+##", "#w..#", "#...#")),
        ("<", ("     ", "     ", "#####", "#..c#", "+...#")),
    ],
)
def test_crop_in_front_of_the_player(heading, rows):
    task = make("\n".join(ROOM).replace("@", heading), THINGS)
    assert_crop(walk(XLand(max_rules=2, view=View(5, "bottom")), task)[0].obs["view"], *rows)


def seen_grid(task: Task, state, me: int) -> np.ndarray:
    """The world as codes `[H, W, 2]`, north up, without player `me`: written cell by cell."""
    grid = {cell: (int(code), 0) for cell, code in np.ndenumerate(np.asarray(task.world.terrain))}
    for (y, x), is_open in zip(task.world.gates.tolist(), state.gate_open.tolist(), strict=True):
        grid[y, x] = (3 + is_open, 0)
    for kind, y, x in zip(state.kind.tolist(), state.y.tolist(), state.x.tolist(), strict=True):
        if kind and y >= 0:
            grid[y, x] = (5 + (kind - 1) % 4, 1 + (kind - 1) // 4)
    for p, cell in enumerate(zip(state.player_y.tolist(), state.player_x.tolist(), strict=True)):
        if p != me:
            grid[cell] = (9, 0)
    return np.array([grid[cell] for cell in sorted(grid)]).reshape(*np.shape(task.world.terrain), 2)


@pytest.mark.parametrize(("anchor", "players"), [("centre", 1), ("bottom", 2)])
def test_crop_is_the_world_turned_until_the_player_looks_up(anchor, players):
    env, rng, size = XLand(max_rules=5, view=View(5, anchor), players=players), np.random.default_rng(0), 5
    look = jax.jit(lambda scene, task: jnp.stack([env.look(scene, task, p) for p in range(players)]))
    for _ in range(40):
        world, game, scene = random_case(rng, players, True)
        task = Task(world, game, np.int16(9), np.int16(1), np.float32(0))
        crops = look(jax.tree.map(jnp.asarray, scene), task)
        for p in range(players):
            wide = np.pad(seen_grid(task, scene, p), ((size, size), (size, size), (0, 0)))
            y, x = int(scene.player_y[p]) + size, int(scene.player_x[p]) + size
            around = np.rot90(wide[y - size : y + size + 1, x - size : x + size + 1], int(scene.heading[p]))
            top = size - 2 if anchor == "centre" else 1
            assert (np.asarray(crops[p]) == around[top : top + size, 3:8]).all()


def test_gates_open_in_the_crop_and_partners_show():
    task = make("######\n#.>+.#\n#.E..#\n######", players=2)
    before, after = walk(XLand(max_rules=2, view=View(3, "centre"), players=2), task, "toggle/noop")
    assert_crop(before.obs["view"][0], "#+.", "#.W", "#..")
    assert_crop(after.obs["view"][0], "#/.", "#.W", "#..")
    assert_crop(after.obs["view"][1], "/.#", "W.#", "..#")


def test_a_held_object_shows_in_the_hand_and_never_on_the_grid():
    task = make("#####\n#.0.#\n#.^.#\n#####", "yellow sphere")
    env = XLand(max_rules=2, view=View(3, "centre"))
    shown = walk(env, task, "pick", "right", "put")
    assert [step.obs["hand"].tolist() for step in shown] == [[0, 0], [3, 3], [3, 3], [0, 0]]
    assert_crop(shown[0].obs["view"], ".s.", "...", "###")
    assert_crop(shown[1].obs["view"], "...", "...", "###")
    assert (7, 3) not in map(tuple, np.asarray(shown[2].obs["view"]).reshape(-1, 2).tolist())
    assert shown[3].obs["view"][0, 1].tolist() == [7, 3]


def test_occlusion_hides_what_walls_hide_and_shows_the_walls():
    world = "#######\n#0...1#\n#.###.#\n#..^..#\n#######"
    things = "black cube, yellow sphere"
    seen = walk(XLand(max_rules=2, view=View(7, "centre")), make(world, things))[0].obs["view"]
    assert_crop(seen, "#######", "#c...s#", "#.###.#", "#.....#", "#######", "       ", "       ")
    hidden = walk(XLand(max_rules=2, view=View(7, "centre"), occlusion=True), make(world, things))[0].obs["view"]
    assert_crop(hidden, "       ", "       ", "# ### #", "#.....#", "#######", "       ", "       ")


def test_occlusion_changes_nothing_in_a_convex_room():
    task = make("\n".join(ROOM).replace("@", "^"), THINGS)
    views = [walk(XLand(max_rules=2, occlusion=occlusion), task)[0].obs["view"] for occlusion in (False, True)]
    assert (views[0] == views[1]).all()


def test_gates_never_block_sight():
    task = make("#####\n#.0.#\n##+##\n#.^.#\n#####", "black cube")
    seen = walk(XLand(max_rules=2, view=View(5, "centre"), occlusion=True), task)[0].obs["view"]
    assert seen[0, 2].tolist() == [6, 1]


@pytest.mark.parametrize("players", [1, 2])
def test_everything_shown_lies_in_its_space(players):
    env = XLand(max_rules=5, players=players)
    world, game, _ = random_case(np.random.default_rng(1), players, True)
    task = Task(world, game, np.int16(20), np.int16(1), np.float32(0.5))
    actions = jax.random.randint(jax.random.key(1), (30, players), 0, env.spec.action.n)
    state, first = reset(env, jax.random.key(0), task)
    shown = [first]
    for action in actions if players > 1 else actions[:, 0]:
        state, now = step(env, jax.random.key(0), state, action, task)
        shown.append(now)
    for now in shown:
        assert now.obs.keys() == env.spec.obs.keys()
        assert now.reward.shape == (() if players == 1 else (players,))
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), now.obs, now.final_obs))
        for name, space in env.spec.obs.items():
            value = np.asarray(now.obs[name])
            assert value.shape == space.shape and value.dtype == space.dtype, name
            low, high = (space.low, space.high) if isinstance(space, Box) else (0, 3)
            assert low <= value.min() and value.max() <= high, name
            assert isinstance(space, Box) or space in (Discrete(4, "int8"), MultiDiscrete((4, 4), "int8"))


@pytest.mark.parametrize(("waits", "reverse", "winner"), [(0, False, 0), (1, False, 1), (0, True, 1), (3, True, 0)])
def test_players_take_turns_in_acting_first(waits, reverse, winner):
    """Both want the cell between them: player 1 gets it on even steps of the trial, player 2 on odd ones."""
    env, task = XLand(max_rules=2, players=2, reverse_order=reverse), make("#####\n#>.W#\n#####", players=2)
    state, _ = reset(env, jax.random.key(0), task)
    for name in [*["noop"] * waits, "forward"]:
        state, _ = step(env, jax.random.key(0), state, jnp.full(2, ACTIONS.index(name), jnp.int32), task)
    assert (state.scene.player_x == 2).tolist() == [winner == 0, winner == 1]


def test_a_player_who_is_left_out_is_nowhere_whatever_it_does():
    """In the way of the first, beside the goal's object, and about to pick it up: gone, all three."""
    env = XLand(max_rules=2, view=View(7, "centre"), players=2)
    task = make("######\n#>W0.#\n#....#\n######", "black cube", "near(partner, black cube)", players=2)
    alone = task._replace(world=left_alone(task.world))
    assert present(Trials(env), task).tolist() == [True, True]
    assert present(Trials(env), alone).tolist() == [True, False]
    assert [float(ts.reward[0]) for ts in walk(env, task, "noop/noop")] == [0, 1]
    for theirs in ("pick", "forward", "toggle", "put", "left"):
        seen = walk(env, alone, f"forward/{theirs}", f"noop/{theirs}")
        assert [float(ts.reward[0]) for ts in seen] == [0, 0, 0]
        assert not any((ts.obs["view"][0, ..., 0] == SEEN_PLAYER).any() for ts in seen)
        assert (seen[1].obs["view"][0] != seen[0].obs["view"][0]).any()  # nobody was in the way
        np.testing.assert_array_equal(seen[2].obs["hand"], 0)


def test_reward_per_step_and_time_limit():
    task = make("####\n#0.#\n#^.#\n####", "black cube", "hold black cube", steps=4)
    shown = walk(XLand(max_rules=2), task, "noop", "pick", "noop", "put")
    assert [float(now.reward) for now in shown] == [0, 0, 1, 1, 0]
    assert [bool(now.truncated) for now in shown] == [False] * 4 + [True]
    assert [bool(now.trial_end) for now in shown] == [False] * 4 + [True]
    assert not any(bool(now.terminated) for now in shown)


@pytest.mark.parametrize(("waits", "reward"), [(0, 1 - 0.9 / 4), (1, 1 - 0.9 * 2 / 4), (3, 0.1)])
def test_reward_at_the_end_ends_the_trial_at_the_first_success(waits, reward):
    task = make("####\n#0.#\n#^.#\n####", "black cube", "hold black cube", steps=4)
    shown = walk(XLand(max_rules=2, reward="terminal"), task, *["noop"] * waits, "pick")
    assert [float(now.reward) for now in shown[:-1]] == [0] * (waits + 1)
    assert float(shown[-1].reward) == pytest.approx(reward)
    assert [bool(now.terminated) for now in shown] == [False] * (waits + 1) + [True]
    assert bool(shown[-1].trial_end) and not bool(shown[-1].truncated)


def test_failure_in_mode_terminal_is_a_time_limit():
    task = make("####\n#0.#\n#^.#\n####", "black cube", "hold black cube", steps=2)
    last = walk(XLand(max_rules=2, reward="terminal"), task, "noop", "noop")[-1]
    assert bool(last.truncated) and not bool(last.terminated) and float(last.reward) == 0


@pytest.mark.parametrize(("chance", "headings"), [(0.0, {1}), (1.0, {0, 1, 2, 3})])
def test_random_heading(chance, headings):
    task = make("####\n#.>#\n####", random_heading=chance)
    shown = many_resets(jax.random.split(jax.random.key(0), MANY), task)[1]
    assert set(shown.obs["heading"].tolist()) == headings


def test_heading_is_random_with_its_probability():
    task = make("####\n#.>#\n####", random_heading=0.4)
    shown = many_resets(jax.random.split(jax.random.key(0), MANY), task)[1]
    share, expected = float((shown.obs["heading"] == 1).mean()), 0.6 + 0.4 / 4
    assert abs(share - expected) < 4 * (expected * (1 - expected) / MANY) ** 0.5


def test_random_layouts_are_all_drawn_and_hold_together():
    task = parse_task("goal: hold black cube\nobjects: black cube, yellow wall\n"
                      "world:\n#####\n#0^1#\n#####\nworld:\n#####\n#^10#\n#####\nworld:\n#####\n#10^#\n#####",
                      max_rules=2, max_objects=4)  # fmt: skip
    state, _ = many_resets(jax.random.split(jax.random.key(0), MANY), task)
    scene = state.scene
    rows = np.stack([scene.player_x[:, 0], scene.x[:, 0], scene.x[:, 1]], axis=1)
    layouts, counts = np.unique(rows, axis=0, return_counts=True)
    assert layouts.tolist() == [[1, 3, 2], [2, 1, 3], [3, 2, 1]]
    assert (abs(counts - MANY / 3) < 4 * (MANY * 2 / 9) ** 0.5).all()


@pytest.mark.parametrize("view", [View(4, "centre"), View(-1, "bottom"), View(5, "top")])
def test_wrong_views_are_refused(view):
    with pytest.raises(ConfigError, match="odd size"):
        XLand(view=view)
