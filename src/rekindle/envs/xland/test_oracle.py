"""A second, slow implementation of docs/xland.md, and the proof that the fast one agrees with it.

The oracle is written from the rulebook alone and shares no code with game.py: cells are tuples, terrain is a
dictionary, conditions are searched pair by pair, sight is geometry.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from rekindle.envs.xland import game as fast
from rekindle.envs.xland.level import Game, World, line_of_sight, make_game

Cell = tuple[int, int]
HEADINGS = ((-1, 0), (0, 1), (1, 0), (0, -1))
FLOOR, GATE = 1, 3


@dataclass(eq=False)
class Thing:
    """An object on the floor (`cell`) or in a hand (no cell), or a player."""

    code: int
    cell: Cell | None
    frozen: bool = False
    heading: int = 0
    hand: int | None = None


class Oracle:
    """One world. `seen` counts what happened, so that a test can tell what it covered."""

    def __init__(self, world: World, game: Game, scene: fast.Scene, view: fast.View, seen: Counter):
        self.ground = {cell: int(code) for cell, code in np.ndenumerate(np.asarray(world.terrain))}
        self.opaque = frozenset(cell for cell, code in self.ground.items() if code not in (FLOOR, GATE))
        self.floor = tuple(cell for cell, code in self.ground.items() if code == FLOOR)
        self.rules = [[int(v) for v in row] for row in game.rules if row[1] > 0]
        self.goal = [int(v) for v in game.goal]
        self.view, self.seen = view, seen
        places = [(int(y), int(x)) for y, x in zip(scene.y, scene.x, strict=True)]
        held = {int(slot) for slot in scene.hand if slot >= 0}
        self.slots: list[Thing | None] = [
            Thing(int(kind), None if i in held else places[i], bool(scene.frozen[i])) if kind else None
            for i, kind in enumerate(scene.kind)
        ]
        starts = zip(scene.player_y, scene.player_x, scene.heading, scene.hand, strict=True)
        self.players = [
            Thing(13 + p, (int(y), int(x)), heading=int(heading), hand=int(hand) if hand >= 0 else None)
            for p, (y, x, heading, hand) in enumerate(starts)
        ]
        self.gates = [(int(y), int(x)) for y, x in world.gates]
        self.open = {gate for gate, is_open in zip(self.gates, scene.gate_open, strict=True) if is_open}
        self.dropped = int(scene.dropped)

    def step(self, actions: list[int], second_first: bool) -> bool:
        """Players act, rules fire, the goal is tested."""
        turns = list(zip(self.players, actions, strict=True))
        for player, action in reversed(turns) if second_first else turns:
            self.act(player, action)
        fired = 0
        for rule in self.rules:
            pair = self.inputs(rule)
            if pair is not None:
                self.seen["fired", rule[1], rule[0]] += 1
                self.fire(*pair, [kind for kind in rule[4:] if kind])
                fired += 1
        self.seen["chain"] += fired > 1
        negated, relation, a, b = self.goal
        reached = (self.pair(relation, a, b) is None) == bool(negated)
        self.seen["goal", relation, negated] += reached
        return reached

    def act(self, player: Thing, action: int) -> None:
        ahead, behind = self.front(player, 1), self.front(player, 2)
        found = self.object_at(ahead)
        if action == 0 and self.walkable(ahead) and not self.player_at(ahead):
            if found is None:
                player.cell = ahead
            elif not found.frozen and self.ground.get(behind) == FLOOR and self.empty(behind):
                found.cell, player.cell = behind, ahead
                self.seen["push"] += 1
        elif action in (1, 2):
            player.heading = (player.heading + (1 if action == 2 else -1)) % 4
        elif action == 3 and found is not None and not found.frozen and player.hand is None:
            player.hand, found.cell = self.slots.index(found), None
            self.seen["pick"] += 1
        elif action == 4 and player.hand is not None and self.ground.get(ahead) == FLOOR and self.empty(ahead):
            self.slots[player.hand].cell, player.hand = ahead, None
            self.seen["put"] += 1
        elif action == 5 and ahead in self.gates and not self.player_at(ahead):
            self.open ^= {ahead}
            self.seen["toggle"] += 1

    def front(self, player: Thing, steps: int) -> Cell:
        dy, dx = HEADINGS[player.heading]
        return player.cell[0] + steps * dy, player.cell[1] + steps * dx

    def walkable(self, cell: Cell) -> bool:
        return self.ground.get(cell) == FLOOR or cell in self.open

    def object_at(self, cell: Cell) -> Thing | None:
        return next((thing for thing in self.slots if thing is not None and thing.cell == cell), None)

    def player_at(self, cell: Cell) -> bool:
        return any(player.cell == cell for player in self.players)

    def empty(self, cell: Cell) -> bool:
        return self.object_at(cell) is None and not self.player_at(cell)

    def inputs(self, rule: list[int]) -> tuple[Thing, Thing] | None:
        """What a rule takes if it fires now: the pair, or for a negated rule any two things of its types."""
        negated, relation, a, b = rule[:4]
        pair = self.pair(relation, a, b)
        if not negated:
            return pair
        return None if pair is not None else self.pair(0, a, b)

    def pair(self, relation: int, a: int, b: int) -> tuple[Thing, Thing] | None:
        """The first two different things of types a and b in this relation (0: any); objects come before players."""
        things = [thing for thing in self.slots if thing is not None] + self.players
        seconds = [thing for thing in things if thing.code == b]
        for first in things:
            if first.code == a:
                for second in seconds:
                    if first is not second and self.related(relation, first, second):
                        return first, second
        return None

    def related(self, relation: int, a: Thing, b: Thing) -> bool:
        if relation == 0:
            return True
        if relation == 3:
            return a.hand is not None and self.slots[a.hand] is b
        if a.cell is None or b.cell is None:
            return False
        apart = abs(a.cell[0] - b.cell[0]), abs(a.cell[1] - b.cell[1])
        if relation == 1:
            return sum(apart) == 1
        if relation == 2:
            return max(apart) <= 1
        return (a.code < 13 or self.in_view(a, b.cell)) and clear(self.opaque, a.cell, b.cell)

    def in_view(self, player: Thing, cell: Cell) -> bool:
        """Whether a cell is in the crop: turn the world until the player looks up, then count rows and columns."""
        y, x = cell[0] - player.cell[0], cell[1] - player.cell[1]
        for _ in range(player.heading):
            y, x = -x, y
        reach = self.view.size // 2
        top, bottom = (-reach, reach) if self.view.anchor == "centre" else (1 - self.view.size, 0)
        return top <= y <= bottom and -reach <= x <= reach

    def fire(self, first: Thing, second: Thing, spawns: list[int]) -> None:
        cells: list[Cell] = []
        holders: list[Thing] = []
        for thing in (first, second):
            if thing.code < 13:
                slot = self.slots.index(thing)
                holders += [player for player in self.players if player.hand == slot]
                cells += [thing.cell] if thing.cell is not None else []
                self.slots[slot] = None
        holder = min(holders, key=lambda player: player.code, default=None)
        for player in holders:
            player.hand = None
        anchor = cells[0] if cells else (holder or self.players[0]).cell
        for number, kind in enumerate(spawns):
            if None not in self.slots:
                self.drop("no slot")
                continue
            slot = self.slots.index(None)
            if number == 0 and holder is not None:
                self.slots[slot], holder.hand = Thing(kind, None), slot
                self.seen["into hand"] += 1
                continue
            site = next((cell for cell in (*cells, *by_distance(self.floor, anchor)) if self.empty(cell)), None)
            if site is None:
                self.drop("no site")
                continue
            self.slots[slot] = Thing(kind, site)
            self.seen["spill"] += site not in cells

    def drop(self, why: str) -> None:
        self.dropped += 1
        self.seen[why] += 1

    def scene(self) -> list:
        """As the fields of a fast scene."""
        away = (fast.AWAY, fast.AWAY)
        cells = [thing.cell or away if thing else away for thing in self.slots]
        return [
            [thing.code if thing else 0 for thing in self.slots],
            [y for y, _ in cells],
            [x for _, x in cells],
            [bool(thing and thing.frozen) for thing in self.slots],
            [player.cell[0] for player in self.players],
            [player.cell[1] for player in self.players],
            [player.heading for player in self.players],
            [-1 if player.hand is None else player.hand for player in self.players],
            [gate in self.open for gate in self.gates],
            self.dropped,
        ]


@cache
def by_distance(cells: tuple[Cell, ...], anchor: Cell) -> list[Cell]:
    """Cells by Chebyshev distance, row, column."""
    return sorted(cells, key=lambda cell: (max(abs(cell[0] - anchor[0]), abs(cell[1] - anchor[1])), cell))


@cache
def clear(opaque: frozenset[Cell], start: Cell, end: Cell) -> bool:
    """Whether the open segment between two cell centres crosses no opaque cell and slips through no blocked corner."""
    dy, dx = end[0] - start[0], end[1] - start[1]

    def side(y2: int, x2: int) -> int:
        """Side of the line, and 0 on it, of a point in half cells."""
        return (y2 - 2 * start[0]) * dx - (x2 - 2 * start[1]) * dy

    rows = range(min(start[0], end[0]), max(start[0], end[0]) + 1)
    columns = range(min(start[1], end[1]), max(start[1], end[1]) + 1)
    for y, x in ((y, x) for y in rows for x in columns):
        corners = [side(2 * y + v, 2 * x + h) for v in (-1, 1) for h in (-1, 1)]
        crossed = min(corners) < 0 < max(corners)
        if crossed and (y, x) not in (start, end) and (y, x) in opaque:
            return False
        if dy and dx and y + 1 in rows and x + 1 in columns and corners[-1] == 0:
            beside = {(y + 1, x), (y, x + 1)} if dy * dx > 0 else {(y, x), (y + 1, x + 1)}
            if beside <= opaque:
                return False
    return True


SIDE, SLOTS, RULES, GATES = 8, 20, 5, 2
ROWS, STEPS = 512, 50
CASES = (
    (1, "bottom", False, False),
    (1, "centre", True, False),
    (2, "bottom", True, False),
    (2, "centre", False, True),
)
"""Players, anchor of the view, walls and gates inside, order of action reversed: 4 x 512 x 50 transitions."""


def random_terrain(rng: np.random.Generator, walled: bool) -> np.ndarray:
    """A room of random size; if walled, with walls, holes and gates strewn in it."""
    terrain = np.full((SIDE, SIDE), 2, np.int8)
    if not walled:
        height, width = rng.integers(3, SIDE - 1, 2)
        terrain[1 : 1 + height, 1 : 1 + width] = FLOOR
        return terrain
    inside = rng.choice([FLOOR, 2, 0], (SIDE - 2, SIDE - 2), p=[0.78, 0.18, 0.04])
    inside.flat[rng.choice(inside.size, GATES, replace=False)] = GATE
    terrain[1:-1, 1:-1] = inside
    return terrain


def random_case(rng: np.random.Generator, players: int, walled: bool) -> tuple[World, Game, fast.Scene]:
    """A world, a game of few types (so that much happens) and a scene, in half of which hands are full."""
    terrain = random_terrain(rng, walled)
    floor, gates = np.argwhere(terrain == FLOOR), np.argwhere(terrain == GATE)
    cells = rng.permutation(floor)[: SLOTS + players].astype(np.int8)
    count = len(cells) - players if rng.random() < 0.3 else rng.integers(1, min(9, len(cells) - players))
    places = np.zeros((SLOTS, 2), np.int8)
    places[:count] = cells[players:][:count]
    sight = line_of_sight(terrain)
    world = World(terrain, places[None], cells[None, :players], rng.integers(0, 4, players).astype(np.int8),
                  gates.astype(np.int8), rng.random(len(gates)) < 0.5, sight)  # fmt: skip
    palette = rng.choice(np.arange(1, 13), 3, replace=False)
    kinds = rng.choice(palette, count)
    frozen = np.flatnonzero(rng.random(count) < 0.15)
    rules = [random_rule(rng, palette, players) for _ in range(rng.integers(0, RULES + 1))]
    goal = random_rule(rng, palette, players)[:4]
    game = make_game(goal, rules, kinds.tolist(), max_rules=RULES, max_objects=SLOTS, frozen=frozen.tolist())
    y, x = np.where(game.objects[:, None] > 0, places, np.int8(fast.AWAY)).T.copy()
    hand = np.full(players, -1, np.int8)
    for p, slot in enumerate(rng.permutation(np.flatnonzero(~game.frozen[:count]))[:players]):
        if rng.random() < 0.5:
            hand[p], y[slot], x[slot] = slot, fast.AWAY, fast.AWAY
    starts = world.start[0].T
    scene = fast.Scene(game.objects, y, x, game.frozen, *starts, world.heading, hand, world.gate_open, np.int32(0))
    return world, game, scene


def random_rule(rng: np.random.Generator, palette: np.ndarray, players: int) -> list[int]:
    relation = rng.integers(1, 5)
    things = [13 + rng.integers(players) if rng.random() < 0.2 else rng.choice(palette) for _ in range(2)]
    if relation == 3 and rng.random() < 0.9:
        things = [13 + rng.integers(players), rng.choice(palette)]
    spawns = rng.choice(palette, rng.choice(4, p=[0.3, 0.35, 0.15, 0.2]))
    return [int(rng.random() < 0.25), int(relation), *map(int, things), *map(int, spawns)]


def compare(case: int, seen: Counter) -> None:
    """Run one case both ways, step by step; name the first difference."""
    players, anchor, walled, reverse = CASES[case]
    rng = np.random.default_rng(case)
    view = fast.View(5, anchor)
    rows = [random_case(rng, players, walled) for _ in range(ROWS)]
    actions = rng.choice(7, (ROWS, STEPS, players), p=[0.38, 0.12, 0.12, 0.15, 0.15, 0.06, 0.02])

    def run(world: World, game: Game, scene: fast.Scene, actions: jax.Array) -> tuple:
        def step(scene: fast.Scene, now: tuple) -> tuple:
            scene, goal = fast.advance(scene, world, game, now[0], view, (1, 2, 3, 4), (now[1] % 2 == 1) != reverse)
            return scene, (scene, goal)

        return jax.lax.scan(step, scene, (actions, jnp.arange(STEPS)))[1]

    worlds, games, scenes = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    after, goals = jax.device_get(jax.jit(jax.vmap(run))(worlds, games, scenes, jnp.asarray(actions, jnp.int32)))
    for row, (world, game, scene) in enumerate(rows):
        oracle = Oracle(world, game, scene, view, seen)
        turns = [(t % 2 == 1) != reverse for t in range(STEPS)]
        history = [
            (oracle.step(list(now), turn), *oracle.scene()) for now, turn in zip(actions[row], turns, strict=True)
        ]
        for name, ours, theirs in zip(("goal", *fast.Scene._fields), zip(*history, strict=True),
                                      (goals[row], *(leaf[row] for leaf in after)), strict=True):  # fmt: skip
            wrong = [t for t in range(STEPS) if not np.array_equal(ours[t], theirs[t])]
            assert not wrong, f"case {case} row {row} step {wrong[0]}: {name} {theirs[wrong[0]]}, not {ours[wrong[0]]}"


def test_game_agrees_with_the_oracle():
    seen = Counter()
    for case in range(len(CASES)):
        compare(case, seen)
    assert len(CASES) * ROWS * STEPS >= 100_000
    rare = [f"{relation} negated {negated}" for relation in (1, 2, 3, 4) for negated in (0, 1)
            if seen["fired", relation, negated] < 500 or seen["goal", relation, negated] < 500]  # fmt: skip
    rare += [what for what in ("push", "pick", "put", "spill", "into hand", "chain") if seen[what] < 500]
    rare += [what for what in ("toggle", "no slot", "no site") if seen[what] < 100]
    assert not rare, seen
