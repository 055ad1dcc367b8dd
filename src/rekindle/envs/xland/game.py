"""The rules of the world, without any word of reinforcement learning. Read beside docs/xland.md: same order, same names.

Everything is written for one world and vmapped by the caller. Objects are a list, not a grid: a step touches a few dozen
bytes whatever the size of the room, and relations between things become bit masks (bit j of row i: thing i relates to
thing j), so that one pass checks all rules. Rules see each other's results in list order; instead of one evaluation
per rule, all are evaluated at once and again only after one has fired.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int8, Int32, UInt32

from rekindle.envs.rarely import rarely
from rekindle.envs.xland.level import (
    FLOOR, FORWARD, GATE, HOLD, LEFT, ME, NEAR, PICK, PUT, RIGHT, SEE, TOGGLE, TOUCHING, Game, World,
)  # fmt: skip

AWAY = -64
"""Coordinate of whatever is not on the floor (a held object, an empty slot): farther off than any view reaches."""


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
            relations: tuple[int, ...]) -> tuple[Scene, Bool[Array, ""]]:  # fmt: skip
    """One step: act, fire rules, test the goal. `relations` lists (statically) the relation codes tasks may use."""
    for p in range(scene.heading.shape[0]):
        scene = act(scene, world, actions[p], p)
    return apply_rules(scene, world, game, view, relations)


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
        heading=scene.heading.at[p].set((heading + turn) % 4),
        hand=scene.hand.at[p].set(new_hand),
        gate_open=scene.gate_open ^ (gate_here & toggle),
    )


def direction(heading: Int8[Array, "*n"]) -> tuple[Int8[Array, "*n"], Int8[Array, "*n"]]:
    """The step (dy, dx) of a heading: 0 up, 1 right, 2 down, 3 left."""
    dy = (heading == 2).astype(jnp.int8) - (heading == 0).astype(jnp.int8)
    dx = (heading == 1).astype(jnp.int8) - (heading == 3).astype(jnp.int8)
    return dy, dx


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
    return jnp.concatenate([scene.kind, players])


def check(scene: Scene, world: World, game: Game, view: View,
          relations: tuple[int, ...]) -> tuple[Bool[Array, " R+1"], Bool[Array, " R"]]:  # fmt: skip
    """For each rule and the goal: is its condition true; for each rule: may it fire. An empty one does neither."""
    conditions = jnp.concatenate([jnp.asarray(game.rules)[:, :4], jnp.asarray(game.goal)[None]])
    codes, masks = things(scene), relate(scene, world, view, relations)
    negated, relation, a, b = (conditions[:, i, None] for i in range(4))
    is_a, bits_b = codes == a, pack(codes == b)[:, None]
    row = jnp.zeros((), jnp.uint32)
    for code in relations:
        row = jnp.where(relation == code, masks[code], row)
    pair = jnp.any(is_a & ((row & bits_b) != 0), axis=1)
    used = relation[:, 0] > 0
    has_inputs = jnp.any(is_a & ((bits_b & ~own_bit(codes.shape[0])) != 0), axis=1)
    not_ = negated[:, 0] > 0
    return used & (pair ^ not_), (used & jnp.where(not_, ~pair & has_inputs, pair))[:-1]


def pack(flags: Bool[Array, "*n E"]) -> UInt32[Array, "*n"]:
    """Flags as bits of one word, flag 0 the lowest."""
    return jnp.sum(jnp.where(flags, own_bit(flags.shape[-1]), jnp.uint32(0)), axis=-1, dtype=jnp.uint32)


def own_bit(n: int) -> UInt32[Array, " n"]:
    """Bit i at position i."""
    return jnp.uint32(1) << jnp.arange(n, dtype=jnp.uint32)


def relate(scene: Scene, world: World, view: View, relations: tuple[int, ...]) -> dict[int, UInt32[Array, " E"]]:
    """For each relation a mask per thing: bit j of row i is set if thing i stands in it to thing j (i != j)."""
    y = jnp.concatenate([scene.y, scene.player_y])
    x = jnp.concatenate([scene.x, scene.player_x])
    placed = y != AWAY
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    both = placed[:, None] & placed[None, :] & ~jnp.eye(y.shape[0], dtype=bool)
    far = jnp.maximum(jnp.abs(dy), jnp.abs(dx))
    masks = {}
    if TOUCHING in relations:
        masks[TOUCHING] = pack(both & (jnp.abs(dy) + jnp.abs(dx) == 1))
    if NEAR in relations:
        masks[NEAR] = pack(both & (far <= 1))
    if HOLD in relations:
        held = jnp.where(scene.hand >= 0, jnp.uint32(1) << jnp.maximum(scene.hand, 0).astype(jnp.uint32), jnp.uint32(0))
        masks[HOLD] = jnp.concatenate([jnp.zeros(scene.kind.shape[0], jnp.uint32), held])
    if SEE in relations:
        masks[SEE] = pack(both & sees(scene, world, view, y, x, dy, dx))
    return masks


def sees(scene: Scene, world: World, view: View, y: Array, x: Array, dy: Array, dx: Array) -> Bool[Array, "E E"]:
    """Line of sight between all pairs; a player also needs the other inside the view."""
    n = scene.kind.shape[0]
    ahead, aside = egocentric(scene.heading[:, None], -dy[n:], -dx[n:])
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
    codes, masks = things(scene), relate(scene, world, view, relations)
    others = jnp.uint32(0xFFFFFFFF) & ~own_bit(codes.shape[0])
    row = jnp.where(rule[0] > 0, others, jnp.zeros_like(others))
    for code in relations:
        row = jnp.where((rule[0] == 0) & (rule[1] == code), masks[code], row)
    partners = row & pack(codes == rule[3])
    i = jnp.argmax((codes == rule[2]) & (partners != 0))
    j = jnp.argmax((partners[i] & own_bit(codes.shape[0])) != 0)
    return i, j


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
