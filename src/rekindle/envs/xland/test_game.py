"""The rulebook by example: small rooms drawn before and after."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.envs.xland import game
from rekindle.envs.xland.ascii import world_to_ascii
from rekindle.envs.xland.game import View
from rekindle.envs.xland.level import ACTIONS, FLOOR, GATE, Task, line_of_sight, type_name
from rekindle.envs.xland.test_oracle import clear, random_terrain
from rekindle.envs.xland.text import parse_task

SIDE = 6
"""Rooms are drawn from their upper left corner; what is not drawn is wall."""
GOAL = "hold yellow pyramid"


def room(*rows: str) -> str:
    inside = [row.ljust(SIDE, "#") for row in rows] + ["#" * SIDE] * (SIDE - len(rows))
    return "\n".join(["#" * (SIDE + 2), *(f"#{row}#" for row in inside), "#" * (SIDE + 2)])


def make(rows: str | tuple[str, ...], objects: str = "nothing", rules: tuple[str, ...] = (), *, goal: str = GOAL,
         players: int = 1) -> Task:  # fmt: skip
    drawn = room(*((rows,) if isinstance(rows, str) else rows))
    lines = [f"goal: {goal}", *(f"rule: {rule}" for rule in rules), f"objects: {objects}", "world:", drawn]
    return parse_task("\n".join(lines), players=players, max_rules=3, max_objects=6)


@jax.jit
def jit_advance(scene: game.Scene, task: Task, actions: jax.Array) -> tuple[game.Scene, jax.Array]:
    return game.advance(scene, task.world, task.game, actions, View(5, "bottom"), (1, 2, 3, 4))


class Play:
    """A task in progress; `goals` has one entry per step."""

    def __init__(self, task: Task):
        self.task, self.goals = task, []
        self.scene = game.opening(task.world, task.game, jnp.int32(0), jnp.asarray(task.world.heading))

    def do(self, *steps: str) -> "Play":
        """Steps by name; for two players `me/partner`."""
        for step in steps:
            actions = jnp.array([ACTIONS.index(name) for name in step.split("/")], jnp.int32)
            self.scene, goal = jit_advance(self.scene, self.task, actions)
            self.goals.append(bool(goal))
        return self

    @property
    def drawn(self) -> str:
        scene = self.scene
        places = np.maximum(np.stack([scene.y, scene.x], axis=1), 0)[None]
        start = np.stack([scene.player_y, scene.player_x], axis=1)[None]
        return world_to_ascii(self.task.world._replace(places=places, start=start, heading=np.asarray(scene.heading),
                                                       gate_open=np.asarray(scene.gate_open)))  # fmt: skip

    @property
    def kinds(self) -> str:
        return ", ".join(type_name(kind) if kind else "-" for kind in np.trim_zeros(np.asarray(self.scene.kind), "b"))

    @property
    def hand(self) -> int:
        return int(self.scene.hand[0])


def shows(play: Play, *rows: str) -> bool:
    """Whether the room looks like this now."""
    assert play.drawn == room(*rows), f"\n{play.drawn}\nis not\n{room(*rows)}"
    return True


@pytest.mark.parametrize(
    ("before", "action", "after", "hand"),
    [
        ("..^..", "noop", "..^..", -1),
        ("..^..", "left", "..<..", -1),
        ("..<..", "left", "..v..", -1),
        ("..^..", "right", "..>..", -1),
        ("..<..", "right", "..^..", -1),
        ("..>..", "forward", "...>.", -1),
        ("..<..", "forward", ".<...", -1),
        ("....>", "forward", "....>", -1),
        (".> ..", "forward", ".> ..", -1),
        (".>+..", "forward", ".>+..", -1),
        (".>0..", "forward", "..>0.", -1),
        (".>0#.", "forward", ".>0#.", -1),
        (".>0 .", "forward", ".>0 .", -1),
        (".>01.", "forward", ".>01.", -1),
        (".>0+.", "forward", ".>0+.", -1),
        (".>0/.", "forward", ".>0/.", -1),
        (".>0..", "pick", ".>...", 0),
        (".>.0.", "pick", ".>.0.", -1),
        (".>#..", "pick", ".>#..", -1),
        (".>0..", "put", ".>0..", -1),
        (".>+..", "toggle", ".>/..", -1),
        (".>/..", "toggle", ".>+..", -1),
        (".>.+.", "toggle", ".>.+.", -1),
        (".>#..", "toggle", ".>#..", -1),
    ],
)
def test_action(before, action, after, hand):
    play = Play(
        make(before, "black cube, black cube" if "1" in before else "black cube" if "0" in before else "nothing")
    )
    play.do(action)
    assert shows(play, after) and play.hand == hand


@pytest.mark.parametrize(("heading", "dy", "dx"), [("^", -1, 0), (">", 0, 1), ("v", 1, 0), ("<", 0, -1)])
def test_forward_goes_where_the_heading_points(heading, dy, dx):
    play = Play(make(("...", f".{heading}.", "..."))).do("forward")
    assert (int(play.scene.player_y[0]), int(play.scene.player_x[0])) == (2 + dy, 2 + dx)


@pytest.mark.parametrize("action", ["forward", "pick"])
def test_frozen_objects_stay(action):
    assert shows(Play(make(".>0..", "black cube [frozen]")).do(action), ".>0..")


def test_a_full_hand_takes_no_more():
    play = Play(make(".>01.", "black cube, black wall")).do("pick", "forward", "pick")
    assert play.hand == 0 and shows(play, "..>1.")


@pytest.mark.parametrize("after", [".>...", ".>#..", ".>+..", ".>/..", ".> .."])
def test_put_wants_free_floor(after):
    """Turn from an object picked up above to whatever is on the right."""
    play = Play(make((".0...", f".^{after[2:]}"), "black cube")).do("pick", "right", "put")
    assert shows(play, ".....", after.replace(">.", ">0")) and play.hand == (-1 if ">." in after else 0)


def test_put_onto_an_object_does_nothing():
    play = Play(make((".0...", ".^1.."), "black cube, black wall")).do("pick", "right", "put")
    assert play.hand == 0 and shows(play, ".....", ".>1..")


def test_player_walks_through_an_open_gate_but_no_object_rests_there():
    play = Play(make(">/0..", "black cube")).do("forward", "toggle", "forward", "forward")
    assert shows(play, "./.>0")


def test_me_acts_first():
    play = Play(make(">.W..", players=2)).do("forward/forward")
    assert shows(play, ".>W..")


def test_players_block_each_other_and_what_they_push():
    blocked = Play(make(">W...", players=2)).do("forward/forward")
    assert shows(blocked, ">W...")
    assert shows(Play(make(">0W..", "black cube", players=2)).do("forward/forward"), ">0W..")


def test_nothing_is_put_on_a_player_and_no_gate_shut_on_one():
    play = Play(make(("0....", "^W..."), "black cube", players=2)).do("pick/noop", "right/noop", "put/noop")
    assert play.hand == 0
    play = Play(make(">/W..", players=2)).do("noop/forward", "toggle/noop")
    assert bool(play.scene.gate_open[0])
    assert not bool(play.do("noop/right", "noop/right", "noop/forward", "toggle/noop").scene.gate_open[0])


def test_first_spawn_goes_into_the_hand_that_held_the_input():
    rule = "hold black cube -> yellow wall, yellow cube, yellow sphere"
    play = Play(make(("...", "0<.", "..."), "black cube", (rule,))).do("pick")
    assert play.hand == 0 and play.kinds == "yellow wall, yellow cube, yellow sphere"
    assert shows(play, "12.", ".<.", "...")


def test_spawns_spill_to_input_cells_then_by_distance_row_and_column():
    rule = "touching(black cube, purple cube) -> yellow wall, yellow cube, yellow sphere"
    play = Play(make(("....", ".01.", "....", "...^"), "purple cube, black cube", (rule,))).do("noop")
    assert shows(play, ".2..", ".10.", "....", "...^")


def test_a_player_is_no_site_and_stays():
    play = Play(make(("^", "0"), "black cube", ("near(me, black cube) -> yellow wall, yellow cube",))).do("noop")
    assert shows(play, "^", "0") and play.kinds == "yellow wall" and int(play.scene.dropped) == 1


def test_rules_about_players_alone_spill_around_me():
    play = Play(make(("...", ".^.", "..S"), rules=("near(partner, me) -> yellow wall",), players=2)).do("noop/noop")
    assert shows(play, "0..", ".^.", "..S")


def test_spawns_without_a_slot_are_dropped_and_counted():
    rule = "touching(black cube, purple cube) -> yellow wall, yellow cube, yellow sphere"
    things = "black cube, purple cube" + ", black wall [frozen]" * 4
    play = Play(make(("012345", "...^.."), things, (rule,))).do("noop")
    assert play.kinds == "yellow wall, yellow cube" + ", black wall" * 4 and int(play.scene.dropped) == 1
    assert not play.scene.frozen[:2].any() and play.scene.frozen[2:].all()


def test_spawns_take_the_lowest_empty_slots():
    rule = "touching(black cube, purple cube) -> yellow wall, yellow cube, yellow sphere"
    play = Play(make(("0132", "...^"), "black cube, black wall, black sphere, purple cube", (rule,)))
    assert shows(play.do("noop"), "0132", "...^") and play.kinds.startswith("black cube")
    play = Play(make(("0312", "...^"), "black cube, black wall, black sphere, purple cube", (rule,))).do("noop")
    assert play.kinds == "yellow wall, black wall, black sphere, yellow cube, yellow sphere"


def test_rules_see_what_earlier_rules_left():
    one, two = "see(me, black cube) -> black wall", "see(me, black wall) -> black sphere"
    map_ = ("0", ".", "^")
    assert Play(make(map_, "black cube", (one, two))).do("noop").kinds == "black sphere"
    play = Play(make(map_, "black cube", (two, one))).do("noop")
    assert play.kinds == "black wall" and play.do("noop").kinds == "black sphere"


def test_a_rule_fires_once_a_step_and_again_in_the_next():
    play = Play(make(("0...", "^..."), "black cube", ("see(me, black cube) -> black cube, black wall",)))
    counts = [play.do("noop").kinds.count("wall") for _ in range(5)]
    assert counts == [1, 2, 3, 4, 5] and play.kinds.startswith("black cube")


def test_lowest_slots_are_taken():
    task = make((".10.", "..^."), "black cube, black cube", ("near(me, black cube) -> nothing",))
    assert shows(Play(task).do("noop"), ".1..", "..^.")
    pair = make(
        ("2.01", "..^."), "black cube, black cube, black cube", ("touching(black cube, black cube) -> nothing",)
    )
    assert shows(Play(pair).do("noop"), "2...", "..^.")


def test_objects_come_before_players_in_a_rule_about_either():
    play = Play(make(("0.1", "..^"), "black cube, black cube", ("not hold(me, black cube) -> nothing",))).do("noop")
    assert play.kinds == "-, black cube"


def test_negated_rules_need_their_inputs_and_find_them_in_hands():
    rule = "not touching(black cube, purple cube) -> yellow cube"
    assert Play(make("0..^", "black cube", (rule,))).do("noop").kinds == "black cube"
    assert Play(make("01.^", "black cube, purple cube", (rule,))).do("noop").kinds == "black cube, purple cube"
    play = Play(make(("0.1..", "..^.."), "black cube, purple cube", (rule,))).do("noop")
    assert play.kinds == "yellow cube" and shows(play, "0....", "..^..")
    held = Play(make(("01...", ".^..."), "black cube, purple cube", (rule,))).do("pick")
    assert held.kinds == "yellow cube" and held.hand == 0
    twins = "not touching(black cube, black cube) -> yellow cube"
    assert Play(make("0..^", "black cube", (twins,))).do("noop").kinds == "black cube"


def test_held_objects_take_part_in_hold_only():
    rules = tuple(f"{relation}(me, black cube) -> nothing" for relation in ("touching", "near", "see"))
    play = Play(make((".0.", ".^."), "black cube"))
    assert play.do("pick").hand == 0
    play.task = make((".0.", ".^."), "black cube", rules)
    assert play.do("noop").kinds == "black cube"
    assert play.do("put").kinds == ""


@pytest.mark.parametrize(
    ("relation", "rows", "holds"),
    [
        ("touching", ("0..", "^.."), True),
        ("touching", (".0.", "^.."), False),
        ("near", (".0.", "^.."), True),
        ("near", ("0..", "...", "^.."), False),
        ("see", ("0..", "...", "^.."), True),
        ("see", ("0..", "...", "v.."), False),
        ("see", ("0..", "#..", "^.."), False),
        ("see", ("0..", "+..", "^.."), True),
        ("see", (".0.", ".#.", "^.."), False),
        ("see", (".0.", "^#."), True),
        ("see", ("#0.", "^#."), False),
        ("see", ("..0", "..>"), True),
        ("see", ("...", "..>", "0.."), False),
        ("see", ("....0", ">...."), True),
        ("see", ("0....", "....<"), True),
        ("see", ("....0", "^...."), False),
    ],
)
def test_relation_of_me_and_an_object(relation, rows, holds):
    for negated in ("", "not "):
        task = make(rows, "black cube", goal=f"{negated}{relation}(me, black cube)")
        assert Play(task).do("noop").goals == [holds != bool(negated)]


def test_goal_is_tested_after_the_rules_on_every_step():
    rule = "hold black cube -> yellow cube"
    play = Play(make((".0.", ".^."), "black cube", (rule,), goal="hold yellow cube"))
    assert play.do("noop", "pick", "noop", "put", "pick").goals == [False, True, True, False, True]


def test_a_negated_goal_about_nothing_holds():
    assert Play(make("^", goal="not near(me, black cube)")).do("noop").goals == [True]


def test_opening_uses_the_layout_and_ignores_flags_of_empty_slots():
    task = make(".0.^", "black cube")
    world = task.world._replace(places=np.concatenate([task.world.places, task.world.places[:, ::-1]]),
                                start=np.concatenate([task.world.start, task.world.start[:, :, ::-1]]))  # fmt: skip
    frozen = task.game._replace(frozen=np.array([False, True, False, False, False, False]))
    scene = game.opening(world, frozen, jnp.int32(1), jnp.array([2], jnp.int8))
    assert (int(scene.player_y[0]), int(scene.player_x[0])) == tuple(task.world.start[0, 0, ::-1])
    assert not scene.frozen.any() and scene.heading.tolist() == [2] and scene.hand.tolist() == [-1]


def test_line_of_sight_table_is_symmetric_and_geometric():
    rng = np.random.default_rng(0)
    for _ in range(5):
        terrain = random_terrain(rng, walled=True)
        table = np.unpackbits(line_of_sight(terrain), axis=1, bitorder="little")[:, : terrain.size]
        opaque = frozenset(map(tuple, np.argwhere((terrain != FLOOR) & (terrain != GATE)).tolist()))
        cells = np.argwhere((terrain == FLOOR) | (terrain == GATE)).tolist()
        index = np.ravel_multi_index(np.transpose(cells), terrain.shape)
        wanted = [[clear(opaque, tuple(a), tuple(b)) for b in cells] for a in cells]
        assert (table[np.ix_(index, index)] == wanted).all() and (np.transpose(wanted) == wanted).all()


def test_a_convex_room_needs_no_table():
    assert line_of_sight(random_terrain(np.random.default_rng(0), walled=False)).size == 0
