import jax
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs.xland import presets
from rekindle.envs.xland.games import canonical, split_of
from rekindle.envs.xland.level import HOLD, ME, World
from rekindle.envs.xland.worlds import world_bytes


def rows(stacked):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(stacked[0].shape[0])]


@pytest.mark.parametrize(("n", "size", "distance"), [(2, 7, 2), (3, 7, 2), (4, 7, 2), (6, 11, 4), (8, 11, 4)])
def test_doors_have_the_geometry_of_the_family(n, size, distance):
    pool = presets.pool_for(f"xland/doors-{n}", split="train", seed=0, worlds=20, games=20)
    assert pool.worlds.terrain.shape[1:] == (size, size) and pool.trial_length.tolist() == [distance + 4]
    for world in rows(pool.worlds):
        cells = world.places[0, :n].astype(int)
        offsets = cells - world.start[0, 0]
        assert (np.abs(offsets).sum(1) == distance).all() and len({tuple(c) for c in cells}) == n
        apart = np.abs(cells[:, None] - cells[None]).max(-1) + 9 * np.eye(n, dtype=int)
        assert apart.min() >= 2, "doors must not be neighbours"
        if n <= 4:
            assert (offsets == 0).any(1).all()


def test_doors_hide_one_rule_from_one_object_to_the_goal_object():
    pool = presets.pool_for("xland/doors-4-v1", split="train", seed=0, worlds=2, games=200)
    chosen = []
    for game in rows(pool.games):
        objects = game.objects[:4].tolist()
        goal = int(game.goal[3])
        assert len(set(objects)) == 4 and goal not in objects and not game.objects[4:].any()
        assert game.goal.tolist() == [0, HOLD, ME, goal]
        rule = game.rules[0].tolist()
        assert rule[:3] == [0, HOLD, ME] and rule[4:] == [goal, 0, 0] and not game.rules[1:].any()
        assert game.mask[0].tolist() == [1, 0, 0, 0, 0, 0, 0]
        chosen.append(objects.index(rule[3]))
    assert np.bincount(chosen, minlength=4).min() > 25, "every object is as likely to be the right one"


def test_train_and_test_share_neither_worlds_nor_games():
    train, test = (
        presets.pool_for("xland/doors-4-v1", split=split, seed=7, worlds=60, games=400) for split in ("train", "test")
    )
    for part, encode in (("worlds", world_bytes), ("games", canonical)):
        seen, held_out = ({encode(row) for row in rows(getattr(pool, part))} for pool in (train, test))
        assert len(seen) > 20 and held_out and not seen & held_out
        assert {split_of(row) for row in held_out} == {"test"}


def test_a_pool_is_a_function_of_its_seed():
    one, same, other = (
        presets.pool_for("xland/doors-3-v1", split="train", seed=seed, worlds=4, games=9) for seed in (0, 0, 1)
    )
    assert np.array_equal(one.games.objects, same.games.objects)
    assert not np.array_equal(one.games.objects, other.games.objects)


def test_ids_resolve_to_the_newest_version_or_name_the_nearest():
    assert presets.env_for("xland/doors-4").spec.id == "xland/doors-4-v1"
    with pytest.raises(ConfigError, match="did you mean 'xland/doors-"):
        presets.env_for("xland/door-4")
    assert isinstance(presets.pool_for("xland/doors-2", split="test", seed=0, worlds=1, games=1).worlds, World)
