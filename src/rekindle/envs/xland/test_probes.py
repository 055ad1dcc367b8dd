"""Each probe asks for what docs/xland.md says that it asks for."""

import jax
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs import registry
from rekindle.envs.xland import presets, probes
from rekindle.envs.xland.level import ACTIONS, HOLD, ME, NOOP, PARTNER, PICK, Task, object_type
from rekindle.envs.xland.planner import plan
from rekindle.envs.xland.presets import PAIR, SMALL
from rekindle.envs.xland.text import parse_rule, print_task

ALL = (*probes.PROBES, *probes.PAIR_PROBES)
SAME = [name for name in probes.PROBES if name.startswith("same-signature")]


def probe(name: str) -> Task:
    """With the heading that its map says, which the planner searches alone."""
    return probes.probe(name)._replace(random_heading=np.float32(0))


def solve(task: Task, **options):
    found = plan(SMALL if task.world.heading.size == 1 else PAIR, task, **options)
    assert found.exact
    return found


def without(task: Task, *gone: str, more: tuple[str, ...] = ()) -> Task:
    """The situation after these objects have vanished for others: a dead end, if it cannot be solved."""
    objects = task.game.objects.copy()
    for name in gone:
        objects[objects == object_type(*name.split())] = 0
    for name in more:
        objects[np.flatnonzero(objects == 0)[0]] = object_type(*name.split())
    return task._replace(game=task.game._replace(objects=objects))


def with_rules(task: Task, *rules: str) -> Task:
    table = np.zeros_like(task.game.rules)
    for row, rule in zip(table, rules, strict=False):
        row[:] = parse_rule(rule, players=2)
    return task._replace(game=task.game._replace(rules=table))


def test_the_files_are_the_list_and_in_canonical_form():
    assert sorted(path.stem for path in probes.FOLDER.iterdir()) == sorted(ALL)
    for name in ALL:
        assert print_task(probes.probe(name)) == (probes.FOLDER / f"{name}.txt").read_text("utf-8"), name
        assert int(probes.probe(name).trials) == presets.trials_for(f"xland/probe-{name}") == 4
    assert (probes.MAX_RULES, probes.MAX_OBJECTS) == (presets.MAX_RULES, presets.MAX_OBJECTS)


def test_probes_are_environments():
    made = registry.make("xland/probe-pass-over-the-wall")
    task = made.draw(jax.random.key(0), made.pool(split="test", seed=0))
    assert made.spec.players == 2 and np.array_equal(task.game.rules, probes.probe("pass-over-the-wall").game.rules)
    with pytest.raises(ConfigError, match="did you mean 'two-doors'"):
        probes.probe("two-dors")


@pytest.mark.parametrize("name", ALL)
def test_every_probe_can_be_solved_and_its_best_reward_is_known(name):
    found = solve(probe(name))
    assert found.solvable and found.optimum_exact


def test_the_right_sphere_is_in_no_place_but_of_one_colour():
    task = probe("three-spheres-jumbled")
    cells = task.world.places[:, :3].tolist()
    assert len({str(layout) for layout in cells}) == 6 and len({str(layout[1]) for layout in cells}) == 3
    both = with_rules(task, "hold purple sphere -> purple wall", "near(black sphere, purple wall) -> yellow pyramid")
    assert not solve(both).solvable, "a trial has no time for two spheres"


def test_two_doors_have_to_be_opened_and_time_is_for_one():
    task = probe("two-doors")
    assert ACTIONS.index("toggle") in solve(task).actions
    assert not solve(with_rules(task, "near(black cube, purple cube) -> yellow pyramid")).solvable


def test_the_wrong_pair_is_a_dead_end():
    assert not solve(without(probe("wrong-pair-disappears"), "yellow pyramid", "black sphere")).solvable


def test_what_was_made_wrong_cannot_be_undone():
    task = probe("irreversible-production")
    assert not solve(without(task, "black pyramid", more=("yellow sphere",))).solvable
    assert solve(without(task, "black pyramid", more=("yellow cube",))).solvable


def test_the_same_signature_hides_four_games():
    reset = jax.jit(SMALL.reset)
    shown = [reset(jax.random.key(0), probe(name))[1].obs for name in SAME]
    for obs in shown[1:]:
        assert all(np.array_equal(obs[key], shown[0][key]) for key in obs)
    assert len({probe(name).game.rules.tobytes() for name in SAME}) == 4
    lengths = [
        solve(probe(f"same-signature-{name}")).steps for name in ("match-colours", "two-dead-ends", "three-steps")
    ]
    assert lengths[:2] == [7, 7] and lengths[2] == 12


def test_two_dead_ends_are_two():
    task = probe("same-signature-two-dead-ends")
    for pair in (("purple cube", "purple sphere"), ("yellow cube", "yellow sphere")):
        assert not solve(without(task, *pair)).solvable


def test_the_destroyer_has_to_be_destroyed():
    task = probe("same-signature-destroy-to-protect")
    kept = task.game.rules.copy()
    kept[2] = 0
    assert not solve(task._replace(game=task.game._replace(rules=kept), trial_length=np.int16(17))).solvable
    assert solve(task).steps <= 17


def test_what_is_lifted_is_lost_so_it_is_pushed():
    task = probe("push-dont-lift")
    assert PICK not in solve(task).actions
    assert not solve(without(task, "black cube")).solvable


def test_doing_nothing_pays_most():
    task = probes.probe("dont-act")

    def reward(key, actions):
        state, _ = SMALL.reset(key, task)

        def step(state, action):
            state, now = SMALL.step(key, state, action, task)
            return state, now.reward

        return jax.lax.scan(step, state, actions)[1].sum()

    run = jax.jit(jax.vmap(reward))
    wild = jax.random.randint(jax.random.key(1), (64, 30), 0, len(ACTIONS))
    nothing, something = (
        run(jax.random.split(jax.random.key(seed), 64), actions)
        for seed, actions in ((2, np.full((64, 30), NOOP, np.int32)), (3, wild))
    )
    assert (nothing == 30).all() and solve(probe("dont-act")).optimum == 30 and something.mean() < 25


def test_the_tree_takes_all_its_rules():
    task = probe("crafting-tree")
    for row in range(3):
        rules = task.game.rules.copy()
        rules[row] = 0
        assert not solve(task._replace(game=task.game._replace(rules=rules))).solvable


def test_the_sphere_is_out_of_sight_when_it_is_wanted():
    """It is seen at first, and not from where the cube is taken."""
    env, task = SMALL, probe("object-permanence")
    state, first = env.reset(jax.random.key(0), task)
    step, sphere = jax.jit(env.step), (7, 3)

    def sees(obs):
        return sphere in map(tuple, np.asarray(obs["view"]).reshape(-1, 2).tolist())

    assert sees(first.obs)
    for action in solve(task).actions:
        state, now = step(jax.random.key(0), state, np.int32(action), task)
        if action == PICK:
            break
    assert int(state.scene.hand[0]) >= 0 and not sees(now.obs)


def test_coordinated_production_takes_both():
    assert not any(solve(probe("coordinated-production"), acting=(p,)).solvable for p in (0, 1))


def test_player_1_knows_and_player_2_can():
    task = probe("information-asymmetry")
    rules = np.asarray(PAIR.reset(jax.random.key(0), task)[1].obs["rules"])
    assert (rules[0, :3, 1] == HOLD).all() and (rules[0, :3, 2] == 6).all(), "hold(partner, ...)"
    assert rules[1, :3].tolist() == [[2] + [0] * 11] * 3
    assert not solve(task, acting=(0,)).solvable and solve(task, acting=(1,)).solvable
    assert (task.game.rules[:3, 2] == PARTNER).all() and not (task.game.rules == ME).any()


def test_what_is_passed_over_the_wall_takes_both():
    task = probe("pass-over-the-wall")
    assert not any(solve(task, acting=(p,)).solvable for p in (0, 1))
    assert solve(task).steps == 3
