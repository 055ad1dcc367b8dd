"""The renderer: nothing hidden leaks, everything is told apart, sizes and determinism."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs.xland import game, sprites
from rekindle.envs.xland.level import (
    FLOOR,
    GATE,
    HOLD,
    ME,
    NEAR,
    SEE,
    TOUCHING,
    WALL,
    Task,
    World,
    make_game,
    object_type,
)
from rekindle.envs.xland.render import Moment, frames_of_episode, render

GOAL = [0, HOLD, ME, object_type("yellow", "sphere")]
CELL = 24


def a_task(*, rules=(), mask=None, height=7, width=9, gate=False, frozen=(), trials=2, goal=GOAL) -> Task:
    terrain = np.full((height, width), WALL, np.int8)
    terrain[1:-1, 1:-1] = FLOOR
    gates = np.asarray([[2, 4]] if gate else np.zeros((0, 2)), np.int8)
    for y, x in gates:
        terrain[y, x] = GATE
    places = np.zeros((1, 4, 2), np.int8)
    places[0, :3] = [[1, 1], [1, 3], [3, 1]]
    start = np.asarray([[[3, 3]]], np.int8)
    world = World(
        terrain, places, start, np.asarray([1], np.int8), gates, np.zeros(len(gates), bool), np.zeros((0, 0), np.uint8)
    )
    objects = [object_type("yellow", "sphere"), object_type("purple", "cube"), object_type("black", "wall")]
    made = make_game(
        goal, [list(r) for r in rules], objects, max_rules=16, max_objects=4, frozen=list(frozen), mask=mask
    )
    return Task(world, made, np.int16(20), np.int16(trials), np.float32(0))


def opening(task: Task) -> game.Scene:
    return jax.device_get(game.opening(task.world, task.game, jnp.int32(0), jnp.asarray(task.world.heading)))


def draw(task: Task, scene: game.Scene | None = None, **kwargs) -> np.ndarray:
    return render(opening(task) if scene is None else scene, task, cell=CELL, **kwargs)


def test_hidden_parts_never_leak():
    mask = np.zeros((16, 7), np.int8)
    mask[0, 0] = 1  # the whole of rule 0
    mask[1, 1] = 1  # the relation of rule 1
    mask[2, 2], mask[2, 4] = 1, 2  # two objects of rule 2
    one = a_task(rules=[[0, NEAR, 1, 2, 3], [0, NEAR, 3, 4, 5], [0, SEE, 6, 7, 8]], mask=mask)
    other = a_task(rules=[[1, SEE, 9, 4, 5, 6, 7], [1, TOUCHING, 3, 4, 5], [0, SEE, 11, 7, 12]], mask=mask)
    assert np.array_equal(draw(one), draw(other))
    shown = a_task(rules=[[0, NEAR, 1, 2, 3], [0, NEAR, 3, 4, 5], [0, SEE, 6, 7, 8]])
    assert not np.array_equal(draw(one), draw(shown))


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4, 5])
def test_every_shown_part_of_a_rule_is_drawn(place):
    rule, other = [0, NEAR, 1, 2, 3, 4], [1, SEE, 5, 6, 7, 0]
    changed = [*rule[:place], other[place], *rule[place + 1 :]]
    assert not np.array_equal(draw(a_task(rules=[rule])), draw(a_task(rules=[changed])))


def test_placeholders_are_told_apart_by_their_number():
    pictures = [sprites.unknown(n, 32).tobytes() for n in range(17)]
    assert len(set(pictures)) == 17


def test_every_type_has_a_sprite_of_its_own():
    pictures = [np.asarray(sprites.thing(code, 32).convert("RGB"), int) for code in range(1, 13)]
    for a, b in itertools.combinations(pictures, 2):
        assert np.abs(a - b).mean() > 3


def test_colours_differ_in_lightness():
    """So they stay apart without any sense of hue: relative luminances at least 0.12 apart."""
    luma = sorted(np.dot((0.2126, 0.7152, 0.0722), np.asarray(c) / 255) for c in sprites.BASES.values())
    assert min(np.diff(luma)) > 0.12


def test_heading_gates_frost_and_hand_change_the_picture():
    task = a_task(gate=True)
    scene = opening(task)
    headings = [draw(task, scene._replace(heading=np.asarray([h], np.int8))).tobytes() for h in range(4)]
    assert len(set(headings)) == 4
    opened = scene._replace(gate_open=np.asarray([True]))
    held = scene._replace(hand=np.asarray([0], np.int8), y=np.asarray([-64, 1, 3, -64]), x=np.asarray([-64, 3, 1, -64]))
    pictures = [
        draw(task, s) for s in (scene, opened, held, scene._replace(frozen=np.asarray([True, False, False, False])))
    ]
    assert len({p.tobytes() for p in pictures}) == 4


def test_lamp_time_trial_and_totals_change_the_picture():
    task = a_task()
    seen = [{"totals": [1.0]}, {"totals": [1.0], "reward": 1.0}, {"totals": [9.0]}, {"totals": [1.0], "time": 4}]
    seen.append({"totals": [1.0, 0.0], "trial": 1})
    pictures = [draw(task, **{"time": 3, **kwargs}) for kwargs in seen]
    assert len({p.tobytes() for p in pictures}) == 5


@pytest.mark.parametrize(("height", "width", "rules"), [(4, 5, 0), (9, 9, 16), (25, 12, 3), (5, 31, 9)])
def test_the_layout_takes_any_room_and_sixteen_rules(height, width, rules):
    task = a_task(
        height=max(height, 5), width=width, rules=[[0, NEAR, 1 + i % 12, 1 + (i + 3) % 12] for i in range(rules)]
    )
    picture = draw(task)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert picture.shape[0] % 2 == 0 and picture.shape[1] % 2 == 0
    assert picture.shape[0] >= max(height, 5) * CELL and picture.shape[1] > width * CELL


def test_the_cell_size_is_checked():
    with pytest.raises(ConfigError, match="got 3"):
        render(opening(a_task()), a_task(), cell=3)


def test_an_episode_sums_rewards_by_trial_and_is_deterministic():
    task, scene = a_task(), opening(a_task())
    moments = [Moment(scene, task, trial, time, float(time == 2)) for trial in range(2) for time in range(3)]
    frames = list(frames_of_episode(moments, cell=CELL))
    assert len(frames) == 6
    assert np.array_equal(frames[-1], draw(task, trial=1, time=2, reward=1.0, totals=[1.0, 1.0], best=1.0))
    assert all(np.array_equal(a, b) for a, b in zip(frames, frames_of_episode(moments, cell=CELL), strict=True))


def test_it_is_fast_enough_to_watch():
    """At least 20 frames per second of one core, at the default size."""
    task = a_task(height=11, width=11, rules=[[0, NEAR, 1, 2, 3]] * 6)
    scene = opening(task)
    render(scene, task)
    began = time.process_time()
    for step in range(10):
        render(scene, task, time=step, totals=[float(step)])
    assert 10 / (time.process_time() - began) > 20
