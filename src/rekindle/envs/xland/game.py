"""The rules of the world, without any word of reinforcement learning. Read beside docs/xland.md: same order and names.

Everything is written for one world and vmapped by the caller. Objects are a list, not a grid: a step touches a few
dozen bytes whatever the size of the room. For each thing and relation the types of its partners become one word of
bits, so that one pass checks all rules. Rules see each other's results in list order; instead of one evaluation per
rule, all are evaluated at once, and again only after one has fired and only in the worlds where one has.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int8, Int16, Int32, UInt32

from rekindle.envs.rarely import rarely
from rekindle.envs.xland.level import (
    FLOOR,
    FORWARD,
    GATE,
    HOLD,
    LEFT,
    ME,
    NEAR,
    PICK,
    PUT,
    RIGHT,
    SEE,
    TOGGLE,
    TOUCHING,
    Game,
    World,
)  # fmt: skip

AWAY = -64
"""Coordinate of whatever is not on the floor (a held object, an empty slot): farther off than any view reaches."""
ROW = 128
"""Length of a row when a cell is one number: more than any room's width."""


class Scene(NamedTuple):
    """Where everything is now. A slot with kind 0 is empty; a held object has cell (AWAY, AWAY)."""

    kind: Int8[Array, " N"]
    y: Int8[Array, " N"]
    x: Int8[Array, " N"]
    frozen: Bool[Array, " N"]
    player_y: Int8[Array, " P"]
    player_x: Int8[Array, " P"]
    heading: Int8[Array, " P"]
    hand: Int8[Array, " P"]
    """Slot of the held object, -1 if the hand is empty."""
    gate_open: Bool[Array, " G"]
    dropped: Int32[Array, ""]
    """Spawns that found no slot or no site."""


class View(NamedTuple):
    """Static shape of the egocentric crop: `size` cells a side, the player at its `centre` or `bottom`."""

    size: int
    anchor: str

    @property
    def ahead(self) -> int:
        """Rows in front of the player's own row."""
        return self.size // 2 if self.anchor == "centre" else self.size - 1


def opening(world: World, game: Game, layout: Int32[Array, ""], heading: Int8[Array, " P"]) -> Scene:
    """The initial scene of a trial in one of the world's layouts."""
    places, start = jnp.asarray(world.places)[layout], jnp.asarray(world.start)[layout]
    there = jnp.asarray(game.objects) > 0
    return Scene(
        kind=jnp.asarray(game.objects),
        y=jnp.where(there, places[:, 0], jnp.int8(AWAY)),
        x=jnp.where(there, places[:, 1], jnp.int8(AWAY)),
        frozen=jnp.asarray(game.frozen) & there,
        player_y=start[:, 0],
        player_x=start[:, 1],
        heading=heading,
        hand=jnp.full_like(heading, -1),
        gate_open=jnp.asarray(world.gate_open),
        dropped=jnp.int32(0),
    )


def advance(scene: Scene, world: World, game: Game, actions: Int32[Array, " P"], view: View,
            relations: tuple[int, ...], second_first: bool | Bool[Array, ""] = False
            ) -> tuple[Scene, Bool[Array, ""]]:  # fmt: skip
    """One step: act, fire rules, test the goal.

    Args:
        scene: before the step.
        world: its terrain and gates.
        game: its rules and goal.
        actions: one per player.
        view: the crop, which bounds what a player sees.
        relations: lists (statically) the relation codes tasks may use.
        second_first: player 2 acts before player 1; without effect where there is one player.
    """
    scene = act_all(scene, world, actions, second_first)
    return apply_rules(scene, world, game, view, relations)


def act_all(scene: Scene, world: World, actions: Int32[Array, " P"], second_first: bool | Bool[Array, ""]) -> Scene:
    """Every player acts, one after the other. Where player 2 comes first, the two change places for that long."""
    if scene.heading.shape[0] == 1:
        return act(scene, world, actions[0], 0)
    scene = _change_places(scene, second_first)
    first, second = jnp.where(second_first, actions[::-1], actions)
    scene = act(act(scene, world, first, 0), world, second, 1)
    return _change_places(scene, second_first)


def _change_places(scene: Scene, change: bool | Bool[Array, ""]) -> Scene:
    """The same scene with the numbers of the two players exchanged, if so."""
    players = (scene.player_y, scene.player_x, scene.heading, scene.hand)
    y, x, heading, hand = (jnp.where(change, leaf[::-1], leaf) for leaf in players)
    return scene._replace(player_y=y, player_x=x, heading=heading, hand=hand)


def act(scene: Scene, world: World, action: Int32[Array, ""], p: int) -> Scene:
    """Player p acts."""
    heading, y, x, hand = scene.heading[p], scene.player_y[p], scene.player_x[p], scene.hand[p]
    dy, dx = direction(heading)
    front_y, front_x = y + dy, x + dx
    front = terrain_at(world, front_y, front_x)
    at_front = (scene.y == front_y) & (scene.x == front_x)
    gate_here = (front == GATE) & (jnp.asarray(world.gates)[:, 0] == front_y) & (world.gates[:, 1] == front_x)
    passable = (front == FLOOR) | jnp.any(gate_here & scene.gate_open)
    occupied, stuck = jnp.any(at_front), jnp.any(at_front & scene.frozen)
    player_ahead = player_at(scene, front_y, front_x)

    back_y, back_x = front_y + dy, front_x + dx
    push = (action == FORWARD) & occupied & ~stuck & is_free(scene, world, back_y, back_x) & ~player_ahead
    move = (action == FORWARD) & passable & (~occupied | push) & ~player_ahead
    pick = (action == PICK) & (hand < 0) & occupied & ~stuck
    put = (action == PUT) & (hand >= 0) & (front == FLOOR) & ~occupied & ~player_ahead
    toggle = (action == TOGGLE) & ~player_ahead

    pushed, picked = at_front & push, at_front & pick
    placed = put & (jnp.arange(scene.kind.shape[0], dtype=jnp.int8) == hand)
    away = jnp.int8(AWAY)
    turn = (action == RIGHT).astype(jnp.int8) - (action == LEFT).astype(jnp.int8)
    new_hand = jnp.where(pick, jnp.argmax(at_front).astype(jnp.int8), jnp.where(put, jnp.int8(-1), hand))
    return scene._replace(
        y=jnp.where(pushed, back_y, jnp.where(picked, away, jnp.where(placed, front_y, scene.y))),
        x=jnp.where(pushed, back_x, jnp.where(picked, away, jnp.where(placed, front_x, scene.x))),
        player_y=scene.player_y.at[p].set(jnp.where(move, front_y, y)),
        player_x=scene.player_x.at[p].set(jnp.where(move, front_x, x)),
        heading=scene.heading.at[p].set((heading + turn) & 3),
        hand=scene.hand.at[p].set(new_hand),
        gate_open=scene.gate_open ^ (gate_here & toggle),
    )


def direction(heading: Int8[Array, "*n"]) -> tuple[Int8[Array, "*n"], Int8[Array, "*n"]]:
    """The step (dy, dx) of a heading: 0 up, 1 right, 2 down, 3 left."""
    dy = (heading == 2).astype(jnp.int8) - (heading == 0).astype(jnp.int8)
    dx = (heading == 1).astype(jnp.int8) - (heading == 3).astype(jnp.int8)
    return dy, dx


def cell_number(y: Int8[Array, "*n"], x: Int8[Array, "*n"]) -> Int16[Array, "*n"]:
    """A cell as one number; neighbours differ by 1, ROW - 1, ROW or ROW + 1."""
    return y.astype(jnp.int16) * ROW + x.astype(jnp.int16)


def terrain_at(world: World, y: Array, x: Array) -> Int8[Array, "*n"]:
    """Terrain code of a cell inside the array; behind a border wall it repeats the border, which is never floor."""
    return jnp.asarray(world.terrain).at[y, x].get(mode="clip", wrap_negative_indices=False)


def player_at(scene: Scene, y: Array, x: Array) -> Bool[Array, ""]:
    """Whether any player stands on a cell."""
    return jnp.any((scene.player_y == y) & (scene.player_x == x))


def is_free(scene: Scene, world: World, y: Array, x: Array) -> Bool[Array, ""]:
    """Whether an object may come to rest on a cell: floor, without objects and players."""
    taken = jnp.any((scene.y == y) & (scene.x == x)) | player_at(scene, y, x)
    return (terrain_at(world, y, x) == FLOOR) & ~taken


def apply_rules(scene: Scene, world: World, game: Game, view: View,
                relations: tuple[int, ...]) -> tuple[Scene, Bool[Array, ""]]:  # fmt: skip
    """Scan the rules in list order, each on what its predecessors left; then say whether the goal holds."""

    def evaluate(scene: Scene, world: World, game: Game, scanned: Array) -> tuple[Array, Array]:
        holds, fires = check(scene, world, game, view, relations)
        order = jnp.arange(fires.shape[0], dtype=jnp.int32)
        return jnp.min(jnp.where(fires & (order >= scanned), order, order.size), initial=order.size), holds[-1]

    def fire_all(scan: tuple, world: World, game: Game) -> tuple:
        def step(scan: tuple) -> tuple:
            scene, rule, _ = scan
            scene = fire(scene, world, rules[rule], view, relations)
            return (scene, *evaluate(scene, world, game, rule + 1))

        rules = jnp.asarray(game.rules)
        return jax.lax.while_loop(lambda scan: scan[1] < rules.shape[0], step, scan)

    first, goal = evaluate(scene, world, game, jnp.int32(0))
    if game.rules.shape[0] > 0:
        scene, _, goal = rarely(first < game.rules.shape[0], fire_all, (scene, first, goal), world, game)
    return scene, goal


def things(scene: Scene) -> Int8[Array, " E"]:
    """Codes of all things that a relation can be about: the object slots, then the players."""
    players = jnp.arange(ME, ME + scene.heading.shape[0], dtype=jnp.int8)
    return computed(jnp.concatenate([scene.kind, players]))


def check(scene: Scene, world: World, game: Game, view: View,
          relations: tuple[int, ...]) -> tuple[Bool[Array, " C"], Bool[Array, " R"]]:  # fmt: skip
    """For each rule and the goal: is its condition true; for each rule: may it fire. An empty one does neither."""
    conditions = computed(jnp.concatenate([jnp.asarray(game.rules)[:, :4], jnp.asarray(game.goal)[None]]))
    negated, relation, a, b = (conditions[:, i] for i in range(4))
    codes = things(scene)
    is_a, wanted = codes[None] == a[:, None], bit(b)
    found = jnp.zeros_like(wanted)
    for code, types in partner_types(scene, world, view, relations).items():
        found = jnp.where(relation == code, any_bits(jnp.where(is_a, types[None], 0)), found)
    pair = (found & wanted) > 0
    slots = any_bits(jnp.where(is_a, bit(jnp.arange(codes.shape[0]))[None], 0))
    has_inputs = (jnp.where(a == b, slots & (slots - 1), slots) > 0) & ((any_bits(bit(codes)) & wanted) > 0)
    used, not_ = relation > 0, negated > 0
    return used & (pair ^ not_), (used & jnp.where(not_, ~pair & has_inputs, pair))[:-1]


def bit(i: Array) -> UInt32[Array, "*n"]:
    """A word with bit i set."""
    return jnp.uint32(1) << i.astype(jnp.uint32)


def any_bits(words: UInt32[Array, "*n E"]) -> UInt32[Array, "*n"]:
    """The bits that are set in any word of the last axis."""
    return jax.lax.reduce(words, np.uint32(0), jax.lax.bitwise_or, (words.ndim - 1,))


def computed(value: Array) -> Array:
    """`value`, stored once: XLA would compute a small concatenation again for every pair of things that reads it."""
    return jax.lax.optimization_barrier(value)


def partner_types(scene: Scene, world: World, view: View, relations: tuple[int, ...]) -> dict[int, UInt32[Array, " E"]]:
    """For each relation and thing the set of types that it is related to: bit t for type t."""
    types, n = bit(things(scene)), scene.kind.shape[0]
    related = relate(scene, world, view, relations)
    sets = {code: any_bits(jnp.where(pairs, types[None], 0)) for code, pairs in related.items() if code != HOLD}
    if HOLD in relations:
        held = any_bits(jnp.where(related[HOLD][n:, :n], types[None, :n], 0))
        sets[HOLD] = jnp.concatenate([jnp.zeros_like(types[:n]), held])
    return sets


def relate(scene: Scene, world: World, view: View, relations: tuple[int, ...]) -> dict[int, Bool[Array, "E E"]]:
    """For each relation: does thing i stand in it to thing j (i != j)."""
    y = jnp.concatenate([scene.y, scene.player_y])
    x = jnp.concatenate([scene.x, scene.player_x])
    placed, slot = y != AWAY, jnp.arange(y.shape[0], dtype=jnp.int16)
    cell = computed(jnp.where(placed, cell_number(y, x), -4 * ROW * (slot + 1)))
    apart = jnp.abs(cell[:, None] - cell[None])
    hand = jnp.concatenate([jnp.full_like(scene.kind, -1), scene.hand]).astype(jnp.int16)
    truth = {
        TOUCHING: lambda: (apart == 1) | (apart == ROW),
        NEAR: lambda: (apart == 1) | ((apart >= ROW - 1) & (apart <= ROW + 1)),
        HOLD: lambda: hand[:, None] == slot[None],
        SEE: lambda: sees(scene, world, view, y, x) & placed[:, None] & placed[None] & (apart > 0),
    }
    return {code: truth[code]() for code in relations}


def sees(scene: Scene, world: World, view: View, y: Array, x: Array) -> Bool[Array, "E E"]:
    """Line of sight between all pairs; a player also needs the other inside the view."""
    n = scene.kind.shape[0]
    ahead, aside = egocentric(scene.heading[:, None], y[None] - y[n:, None], x[None] - x[n:, None])
    inside = (ahead <= view.ahead) & (ahead > view.ahead - view.size) & (jnp.abs(aside) <= view.size // 2)
    clear = jnp.concatenate([jnp.ones((n, n + inside.shape[0]), bool), inside])
    table = jnp.asarray(world.sight)
    if table.size == 0:
        return clear
    width = jnp.asarray(world.terrain).shape[1]
    cell = jnp.maximum(y, 0).astype(jnp.int32) * width + jnp.maximum(x, 0).astype(jnp.int32)
    byte = table[cell[:, None], (cell >> 3)[None, :]]
    return clear & ((byte >> (cell & 7).astype(jnp.uint8)[None, :]) & 1 > 0)


def egocentric(heading: Array, dy: Array, dx: Array) -> tuple[Array, Array]:
    """How far ahead and how far to the right an offset (dy, dx) lies for someone with this heading."""
    up_y, up_x = direction(heading)
    return dy * up_y + dx * up_x, dy * up_x - dx * up_y


def fire(scene: Scene, world: World, rule: Int8[Array, " 7"], view: View, relations: tuple[int, ...]) -> Scene:
    """Remove the rule's inputs and place its spawns."""
    i, j = inputs(scene, world, rule, view, relations)
    n = scene.kind.shape[0]
    slot = jnp.arange(n, dtype=jnp.int32)
    taken = (slot == i) | (slot == j)
    held = jnp.any((jnp.arange(n, dtype=jnp.int8)[None] == scene.hand[:, None]) & taken[None], axis=1)
    holder = jnp.argmax(held)
    was_held = jnp.any(held)

    cell_i, cell_j = _cell(scene, i), _cell(scene, j)
    on_floor_i, on_floor_j = (i < n) & (cell_i[0] != AWAY), (j < n) & (cell_j[0] != AWAY)
    home = jnp.stack([scene.player_y[holder], scene.player_x[holder]])
    anchor = jnp.where(on_floor_i, cell_i, jnp.where(on_floor_j, cell_j, home))
    scene = scene._replace(
        kind=jnp.where(taken, jnp.int8(0), scene.kind),
        y=jnp.where(taken, jnp.int8(AWAY), scene.y),
        x=jnp.where(taken, jnp.int8(AWAY), scene.x),
        frozen=scene.frozen & ~taken,
        hand=jnp.where(held, jnp.int8(-1), scene.hand),
    )
    away = jnp.int8(AWAY)
    rank = _rank(world, anchor, jnp.where(on_floor_i, cell_i, away), jnp.where(on_floor_j, cell_j, away))
    for s in range(rule.shape[0] - 4):
        scene = _spawn(scene, world, rule[4 + s], rank, was_held & (s == 0), holder)
    return scene


def inputs(scene: Scene, world: World, rule: Int8[Array, " 7"], view: View,
           relations: tuple[int, ...]) -> tuple[Int32[Array, ""], Int32[Array, ""]]:  # fmt: skip
    """The pair that a firing rule takes: the lowest slot of a, then of b; negated rules take any a and b."""
    codes, related = things(scene), relate(scene, world, view, relations)
    pair = (rule[0] > 0) & ~jnp.eye(codes.shape[0], dtype=bool)
    for code, holds in related.items():
        pair = pair | ((rule[:2] == jnp.array([0, code], jnp.int8)).all() & holds)
    pair = pair & (codes[:, None] == rule[2]) & (codes[None] == rule[3])
    i = jnp.argmax(pair.any(axis=1))
    return i, jnp.argmax(pair[i])


def _cell(scene: Scene, thing: Array) -> Int8[Array, " 2"]:
    slot = jnp.minimum(thing, scene.kind.shape[0] - 1)
    return jnp.stack([scene.y[slot], scene.x[slot]])


def _rank(world: World, anchor: Array, first: Array, second: Array) -> Int32[Array, "H W"]:
    """The order in which cells are tried for spawns: input cells, then by distance, row, column; walls never."""
    terrain = jnp.asarray(world.terrain)
    height, width = terrain.shape
    y, x = jnp.arange(height, dtype=jnp.int32)[:, None], jnp.arange(width, dtype=jnp.int32)[None, :]
    anchor, first, second = (cell.astype(jnp.int32) for cell in (anchor, first, second))
    far = jnp.maximum(jnp.abs(y - anchor[0]), jnp.abs(x - anchor[1]))
    rank = 2 + (far * height + y) * width + x
    rank = jnp.where((y == second[0]) & (x == second[1]), 1, rank)
    rank = jnp.where((y == first[0]) & (x == first[1]), 0, rank)
    return jnp.where(terrain == FLOOR, rank, NOWHERE)


NOWHERE = 1 << 30


def _spawn(scene: Scene, world: World, kind: Array, rank: Int32[Array, "H W"], to_hand: Array, holder: Array) -> Scene:
    """Place one object of this kind (0: none) in the hand or on the best free cell, in the first empty slot."""
    n, width = scene.kind.shape[0], rank.shape[1]
    ys, xs = jnp.concatenate([scene.y, scene.player_y]), jnp.concatenate([scene.x, scene.player_x])
    index = jnp.where(ys >= 0, ys.astype(jnp.int32) * width + xs.astype(jnp.int32), rank.size)
    free = rank.ravel().at[index].set(NOWHERE, mode="drop")
    best = jnp.argmin(free)
    slot = jnp.argmax(scene.kind == 0)
    wanted = kind > 0
    fits = jnp.any(scene.kind == 0) & (to_hand | (free[best] < NOWHERE))
    mine = (jnp.arange(n) == slot) & wanted & fits
    y = jnp.where(to_hand, AWAY, best // width).astype(jnp.int8)
    x = jnp.where(to_hand, AWAY, best % width).astype(jnp.int8)
    holds = (jnp.arange(scene.hand.shape[0]) == holder) & to_hand & wanted & fits
    return scene._replace(
        kind=jnp.where(mine, kind, scene.kind),
        y=jnp.where(mine, y, scene.y),
        x=jnp.where(mine, x, scene.x),
        hand=jnp.where(holds, slot.astype(jnp.int8), scene.hand),
        dropped=scene.dropped + (wanted & ~fits).astype(jnp.int32),
    )
