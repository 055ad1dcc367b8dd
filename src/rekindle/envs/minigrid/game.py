"""The rules of the game: what an action does, which rules fire, when the goal is reached.

Everything that a step can read or change lies in eight cells around the agent, its pocket aside:

```
      5
    7 1 6      0 the agent's own cell, 1 the one it faces,
    4 0 2      5 6 7 the other neighbours of the faced one
      3
```

So a step takes these eight out of the grid, lets all rules work on them one after another, and puts them back. Which
cells a kind of rule looks at is arithmetic on its number: no branches, hence nothing that `vmap` would compute for all
kinds at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8

from rekindle.envs.minigrid import codes
from rekindle.envs.minigrid.codes import (
    CLOSED,
    EMPTY,
    FLOOR_CELL,
    FORWARD,
    GOAL_AS_RULE,
    GOAL_AT,
    GOAL_BE_AT,
    GOAL_ON,
    KEY,
    LOCKED,
    OPEN,
    PICK,
    PUT,
    TOGGLE,
    TURN_LEFT,
    TURN_RIGHT,
)

OFFSETS = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [2, 0], [1, 1], [1, -1]], np.int32)
"""Of the eight cells: steps ahead, steps to the right."""
AROUND_AGENT = np.array([-1, 0, 1, 2, 3, -1, -1, -1], np.int32)
AROUND_FACED = np.array([2, -1, -1, -1, -1, 0, 1, 3], np.int32)
"""Direction of each cell from the agent or the faced cell, counted from the heading; -1 where it is no neighbour."""


class Scene(NamedTuple):
    """Everything that changes. A cell is `16 * tile + colour`."""

    grid: UInt8[Array, "H W"]
    y: Int32[Array, ""]
    x: Int32[Array, ""]
    heading: Int32[Array, ""]
    """0 up, 1 right, 2 down, 3 left."""
    pocket: UInt8[Array, ""]


class Conditions(NamedTuple):
    """What each of n rules asks for in this step; masks are over the eight cells, all False where a kind must wait."""

    held: Bool[Array, " n"]
    """Becomes the product: what is in the pocket, if it is a."""
    agent: Bool[Array, "n 8"]
    """Becomes the product: such a cell, if it is a."""
    ab: Bool[Array, "n 8"]
    """Becomes the product: such a cell, if it is b and the faced one is a."""
    ba: Bool[Array, "n 8"]
    """The reverse: it is a and the faced one is b."""
    a: UInt8[Array, " n"]
    b: UInt8[Array, " n"]


def advance(
    scene: Scene, goal: UInt8[Array, "5"], rules: UInt8[Array, "R 7"], action: Int32[Array, ""]
) -> tuple[Scene, Bool[Array, ""]]:
    """One step: act, apply the rules in their order, test the goal."""
    scene, changed = act(scene, action)
    cells = _eight_cells(scene)
    patch = _read(scene.grid, cells)
    patch = patch.at[1].set(jnp.where(action >= PICK, changed, patch[1]))
    as_rule = jnp.asarray(GOAL_AS_RULE, jnp.uint8)[goal[0]]
    kinds = jnp.concatenate([rules[:, 0], as_rule[None]])
    inputs = jnp.concatenate([rules[:, 1:5], goal[None, 1:5]])
    asked = conditions(kinds, inputs, action, scene.heading)
    together = (rules[:, 0] >= codes.NEAR) & (rules[:, 0] < codes.AGENT_TOWARDS)
    product = jnp.where(together, codes.pack(rules[:, 5:7]), asked.b[:-1])

    def fire(now: tuple[Array, Array], rule: tuple[Conditions, Array]) -> tuple[tuple[Array, Array], None]:
        (patch, pocket), (want, product) = now, rule
        near, put, held = _matches(want, patch, pocket)
        patch = jnp.where(near | put, product, patch)
        patch = patch.at[1].set(jnp.where(jnp.any(put), jnp.uint8(FLOOR_CELL), patch[1]))
        return (patch, jnp.where(held, product, pocket)), None

    rows: Conditions = jax.tree.map(lambda x: x[:-1], asked)
    (patch, pocket), _ = jax.lax.scan(fire, (patch, scene.pocket), (rows, product), unroll=min(len(rules), 4))
    scene = scene._replace(grid=_write(scene.grid, cells, patch), pocket=pocket)
    near, put, held = _matches(jax.tree.map(lambda x: x[-1], asked), patch, pocket)
    there = _read(scene.grid, goal[None, 3:5].astype(jnp.int32))[0]
    reached = jnp.any(near | put) | held
    reached |= (goal[0] == GOAL_ON) & (action == FORWARD) & (patch[0] == asked.a[-1])
    reached |= (goal[0] == GOAL_AT) & (there == asked.a[-1])
    reached |= (goal[0] == GOAL_BE_AT) & (scene.y == goal[1].astype(jnp.int32)) & (scene.x == goal[2].astype(jnp.int32))
    return scene, reached


def act(scene: Scene, action: Int32[Array, ""]) -> tuple[Scene, UInt8[Array, ""]]:
    """Move the agent and its pocket; the grid still lacks what the cell that was faced now holds: the second result."""
    dy, dx = direction(scene.heading)
    at = jnp.stack([scene.y + dy, scene.x + dx])
    faced = _read(scene.grid, at[None])[0]
    tile, colour = faced >> jnp.uint8(4), faced & jnp.uint8(15)

    step = (action == FORWARD) & _one_of(tile, codes.WALKABLE)
    y, x = jnp.where(step, at[0], scene.y), jnp.where(step, at[1], scene.x)
    turn = (action == TURN_RIGHT).astype(jnp.int32) - (action == TURN_LEFT).astype(jnp.int32)
    heading = (scene.heading + turn) & 3

    full = scene.pocket >> jnp.uint8(4) != EMPTY
    picks = (action == PICK) & ~full & _one_of(tile, codes.PICKABLE)
    puts = (action == PUT) & full & (tile == codes.FLOOR)
    opens = (tile == CLOSED) | ((tile == LOCKED) & (scene.pocket == jnp.uint8(16 * KEY) + colour))
    pocket = jnp.where(picks, faced, jnp.where(puts, jnp.uint8(0), scene.pocket))
    toggled = jnp.where(opens, jnp.uint8(16 * OPEN), jnp.uint8(16 * CLOSED)) + colour
    toggles = (action == TOGGLE) & (opens | (tile == OPEN))
    changed = jnp.where(picks, jnp.uint8(FLOOR_CELL), jnp.where(puts, scene.pocket, jnp.where(toggles, toggled, faced)))
    return Scene(scene.grid, y, x, heading, pocket), changed


def conditions(kinds: UInt8[Array, " n"], inputs: UInt8[Array, "n 4"], action: Int32[Array, ""],
               heading: Int32[Array, ""]) -> Conditions:  # fmt: skip
    """Which cells each rule looks at after this action. Kinds: see codes.py."""
    kind = kinds.astype(jnp.int32)[:, None]
    # Kinds 2 and 3 look up, right, down and left; 4 to 7 and 8 to 11 in one of these directions.
    ways = jnp.where(kind < codes.NEAR_TOWARDS, 15, 1 << (kind & 3))

    def looks(around: np.ndarray, back: int) -> Bool[Array, "n 8"]:
        towards = (jnp.asarray(around) + heading + back) & 3
        return (ways >> towards[None] & 1 == 1) & jnp.asarray(around >= 0)[None]

    forward, put = action == FORWARD, action == PUT
    agent = (kind == codes.AGENT_NEAR) & forward | (kind >= codes.AGENT_TOWARDS) & (forward | put)
    together = (kind >= codes.NEAR) & (kind < codes.AGENT_TOWARDS) & put
    return Conditions(
        held=(kinds == codes.HELD) & (action == PICK),
        agent=looks(AROUND_AGENT, 0) & agent,
        ab=looks(AROUND_FACED, 0) & together,
        ba=looks(AROUND_FACED, 2) & together,
        a=codes.pack(inputs[:, 0:2]),
        b=codes.pack(inputs[:, 2:4]),
    )


def direction(heading: Int32[Array, ""]) -> tuple[Int32[Array, ""], Int32[Array, ""]]:
    """(dy, dx) of a heading: 0 up, 1 right, 2 down, 3 left."""
    sign = jnp.where((heading == 0) | (heading == 3), -1, 1)
    upright = heading & 1 == 0
    return jnp.where(upright, sign, 0), jnp.where(upright, 0, sign)


def _matches(want: Conditions, patch: UInt8[Array, "8"], pocket: UInt8[Array, ""]) -> tuple[Array, Array, Array]:
    """Cells beside the agent, cells beside the faced one, the pocket: where one rule's condition holds."""
    is_a, is_b = patch == want.a, patch == want.b
    return want.agent & is_a, want.ab & is_a[1] & is_b | want.ba & is_b[1] & is_a, want.held & (pocket == want.a)


def _one_of(tile: UInt8[Array, ""], tiles: tuple[int, ...]) -> Bool[Array, ""]:
    return (jnp.uint32(sum(1 << t for t in tiles)) >> tile.astype(jnp.uint32)) & 1 == 1


def _eight_cells(scene: Scene) -> Int32[Array, "8 2"]:
    (dy, dx), offsets = direction(scene.heading), jnp.asarray(OFFSETS)
    ahead, right = offsets[:, 0], offsets[:, 1]
    return jnp.stack([scene.y + ahead * dy + right * dx, scene.x + ahead * dx - right * dy], axis=-1)


def _inside(grid: UInt8[Array, "H W"], at: Int32[Array, "n 2"]) -> tuple[Int32[Array, "n 2"], Bool[Array, " n"]]:
    """Beyond the upper and left edge the grid goes on from the other side, as in NumPy; beyond the others it ends."""
    size = jnp.asarray(grid.shape, jnp.int32)[None]
    at = jnp.where(at < 0, at + size, at)
    return at, jnp.all(at < size, axis=-1)


def _read(grid: UInt8[Array, "H W"], at: Int32[Array, "n 2"]) -> UInt8[Array, " n"]:
    at, inside = _inside(grid, at)
    return jnp.where(inside, grid[at[:, 0], at[:, 1]], jnp.uint8(EMPTY))


def _write(grid: UInt8[Array, "H W"], at: Int32[Array, "n 2"], values: UInt8[Array, " n"]) -> UInt8[Array, "H W"]:
    at, _ = _inside(grid, at)
    return grid.at[at[:, 0], at[:, 1]].set(values, mode="drop", unique_indices=True)
