"""Our world makes exactly the transitions of XLand-MiniGrid 0.9.3, whose traces make_minigrid.py recorded."""

import json
import zlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.envs.minigrid import codes
from rekindle.envs.minigrid.env import MiniGrid, State, Task
from rekindle.envs.minigrid.game import Scene
from rekindle.envs.minigrid.layouts import SIZES, draw_grid, layout
from rekindle.envs.minigrid.rulesets import RECIPES, draw_rulesets

FOLDER = Path(__file__).parent / "minigrid"
RULES = [f"rule{kind}" for kind in range(1, 12)]
GOALS = [f"goal{kind}" for kind in range(1, 15)]
ENV = MiniGrid(size=9)


@jax.jit
def replay(trace):
    """Every field of the trace, made by our world; `fired` by comparing with a world without rules."""
    steps, worlds = trace["actions"].shape
    y, x, heading = (trace["start"][:, i].astype(jnp.int32) for i in range(3))
    scene = Scene(trace["grid"], y, x, heading, trace["start"][:, 3])
    times = jnp.full(worlds, 1, jnp.int16), jnp.full(worlds, steps, jnp.int16)
    tasks = Task(trace["goal"], trace["rules"], jnp.zeros((worlds, 1, 2), jnp.uint8), *times)
    key = jax.random.key(0)

    def step(state, action, task):
        after, ts = ENV.step(key, state, action, task)
        bare, _ = ENV.step(key, state, action, task._replace(rules=jnp.zeros_like(task.rules)))
        fired = jnp.any(after.scene.grid != bare.scene.grid) | (after.scene.pocket != bare.scene.pocket)
        return after, (after.scene, codes.unpack(after.scene.grid), ts, fired)

    begin = State(scene, jnp.zeros(worlds, jnp.int32))
    scan = partial(jax.lax.scan, lambda now, action: jax.vmap(step)(now, action, tasks))
    return scan(begin, trace["actions"])[1]


@pytest.mark.parametrize("name", [*RULES, *GOALS, "doors", "mixed1", "mixed2"])
def test_trace(name):
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        trace = dict(file)
    assert trace["actions"].size == 10_000
    scene, grid, ts, fired = jax.device_get(replay(trace))
    for field in ("y", "x", "heading", "pocket"):
        np.testing.assert_array_equal(getattr(scene, field), trace[field], err_msg=field)
    np.testing.assert_array_equal(fired, trace["fired"])
    assert ts.reward.dtype == trace["reward"].dtype == np.float32
    np.testing.assert_array_equal(ts.reward.view(np.uint32), trace["reward"].view(np.uint32))
    np.testing.assert_array_equal(ts.terminated, trace["terminated"])
    np.testing.assert_array_equal(ts.truncated, trace["last"] & ~trace["terminated"])
    np.testing.assert_array_equal(ts.trial_end, trace["last"])
    sums = [[zlib.crc32(g.tobytes() + o.tobytes()) for g, o in zip(*row, strict=True)]
            for row in zip(grid, ts.obs["tiles"], strict=True)]  # fmt: skip
    np.testing.assert_array_equal(np.array(sums, np.uint32), trace["crc"])
    paid = ts.reward > 0
    happened = {"rule": [fired], "goal": [paid], "mixed": [fired, paid], "doors": [toggled(trace, grid)]}
    assert all(found.sum() >= 50 for found in happened[name.rstrip("0123456789")])


def toggled(trace, grid):
    """Steps in which a door was opened, closed or unlocked."""
    before = np.concatenate([np.stack([trace["grid"] >> 4, trace["grid"] & 15], -1)[None], grid[:-1]])
    return np.any((before != grid).any(-1) & (grid[..., 0] >= codes.CLOSED) & (grid[..., 0] <= codes.OPEN), axis=(2, 3))


def test_doors_are_unlocked_only_with_their_key():
    with np.load(FOLDER / "doors.npz", allow_pickle=False) as file:
        trace = dict(file)
    _, grid, _, _ = jax.device_get(replay(trace))
    tile = np.concatenate([(trace["grid"] >> 4)[None], grid[..., 0]])
    unlocked = (tile[:-1] == codes.LOCKED) & (tile[1:] == codes.OPEN)
    assert unlocked.sum() >= 20
    steps, worlds, _, _ = np.nonzero(unlocked)
    assert (trace["pocket"][steps, worlds] >> 4 == codes.KEY).all()


LAYOUTS = [(rooms, size) for rooms, sizes in SIZES.items() for size in sizes]


@pytest.mark.parametrize(("rooms", "size"), LAYOUTS)
def test_layout(rooms, size):
    with np.load(FOLDER / "layouts.npz", allow_pickle=False) as file:
        theirs = file[f"{rooms}-{size}x{size}"]
        assert set(file) == {f"{r}-{s}x{s}" for r, s in LAYOUTS}
    where = layout(rooms, size)
    expected = np.where(where.walls, -1, 0)
    for cells in where.doors:
        for cell in cells:
            expected[cell] = 1
    np.testing.assert_array_equal(np.sign(theirs), expected)
    for cells in where.doors:  # both draw each cell equally often
        share, resets = 1 / len(cells), 2000
        margin = 4.5 * np.sqrt(resets * share * (1 - share))
        assert all(abs(theirs[cell] - resets * share) <= margin for cell in cells)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: draw_grid(key, where)))(jax.random.split(jax.random.key(0), 2000)))
    ours = (drawn >> 4 == codes.CLOSED).sum(0)
    np.testing.assert_array_equal(ours > 0, theirs > 0)
    assert np.abs(ours - np.maximum(theirs, 0)).max() <= 4.5 * np.sqrt(2 * 2000 * 0.25)
    colours = np.bincount((drawn & 15)[drawn >> 4 == codes.CLOSED], minlength=12) / max(ours.sum(), 1)
    if where.doors:
        np.testing.assert_allclose(colours[[1, 2, 3, 4, 5, 6]], 1 / 6, atol=0.04)


def counts(values):
    return dict(zip(*np.unique(np.asarray(values), return_counts=True), strict=True))


@pytest.mark.parametrize("name", ["trivial-21k", "small-1m", "medium-1m", "high-1m"])
def test_rulesets_are_drawn_as_one_by_one(name):
    """Means and shares differ by at most three standard errors from those of make_minigrid_rulesets.py."""
    stored = json.loads((FOLDER / "rulesets.json").read_text())
    theirs, number = stored["benchmarks"][name], stored["rulesets"]
    drawn = draw_rulesets(np.random.default_rng(2), RECIPES[name], number)
    rules, tiles = drawn.rules[drawn.rules[..., 0] > 0], drawn.tiles[drawn.tiles[..., 0] > 0]
    alone = (rules[:, 0] < codes.NEAR) | (rules[:, 0] >= codes.AGENT_TOWARDS)
    ours = {
        "goal_kinds": counts(drawn.goals[:, 0]),
        "num_rules": counts(drawn.num_rules),
        "num_tiles": counts((drawn.tiles[..., 0] > 0).sum(1)),
        "rule_kinds": counts(rules[:, 0]),
        "tiles": counts(tiles[:, 0]),
        "products": counts(np.where(alone, rules[:, 3], rules[:, 5])),
    }
    for stat, expected in theirs.items():
        expected = {int(k): v for k, v in expected.items()}
        found, kinds = ours[stat], sorted(set(expected) | set(ours[stat]))
        a, b = (np.array([table.get(kind, 0) for kind in kinds], float) for table in (found, expected))
        if not kinds:
            continue
        if stat in ("num_rules", "num_tiles"):
            means, squares = ([(n * np.array(kinds) ** p).sum() / n.sum() for n in (a, b)] for p in (1, 2))
            error = np.sqrt(sum((s - m**2) / number for m, s in zip(means, squares, strict=True)))
            assert abs(means[0] - means[1]) <= 3 * error + 1e-12, stat
        share = (a + b) / (a.sum() + b.sum())
        error = np.sqrt(share * (1 - share) * (1 / a.sum() + 1 / b.sum()))
        off = np.abs(a / a.sum() - b / b.sum()) / np.maximum(error, 1e-12)
        assert off.max() <= 3, (stat, dict(zip(kinds, off, strict=True)))
