"""Records XLand-MiniGrid: `python tests/golden/make_minigrid.py [TRACE ...]`, with `pip install xminigrid==0.9.3`.

Every trace is 200 worlds x 50 random steps of the peer's own `step`, without resets: one trace for every kind of rule,
one for every kind of goal, one of doors and keys, two of everything at once. Rooms are 9 x 9, half of them one room,
half of them four; they are packed with things of five types, so that much happens. Among the doors, half of the agents
start with a key. `layouts.npz` holds, for every registered layout, the walls and how often each cell was a door in
2,000 resets.
"""

import re
import sys
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xminigrid
from xminigrid.types import RuleSet

FOLDER = Path(__file__).parent / "minigrid"
WORLDS, STEPS, RULES, THINGS, SIZE = 200, 50, 9, 22, 9
TYPES = np.array([[3, 1], [7, 3], [4, 2], [6, 4], [11, 9]], np.uint8)
"""Red ball, blue key, green square, purple goal, white hex."""
OFTEN = (0.4, 0.4, 0.04, 0.12, 0.04)
"""Their shares: mostly two, so that a condition finds its things."""
ACTIONS = (0.2, 0.1, 0.1, 0.2, 0.3, 0.1)
"""Shares of forward, right, left, pick, put, toggle."""
FLOOR = np.array([1, 7], np.uint8)
RESETS = 2000


def main() -> None:
    """Write all traces, or those named, and the layouts."""
    FOLDER.mkdir(exist_ok=True)
    names = [f"rule{kind}" for kind in range(1, 12)] + [f"goal{kind}" for kind in range(1, 15)]
    for number, name in enumerate([*names, "doors", "mixed1", "mixed2"]):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        trace = record(name, np.random.default_rng([93, number]))
        np.savez_compressed(FOLDER / f"{name}.npz", **trace)
        sys.stderr.write(f"{name}: fired {trace['fired'].sum()}, reached {(trace['reward'] > 0).sum()}\n")
    np.savez_compressed(FOLDER / "layouts.npz", **layouts())


def draw_rule(rng: np.random.Generator, kind: int) -> list[int]:
    """A rule of a kind about the five types; now and then its product is nothing."""
    a, b, product = TYPES[rng.choice(5, 3, p=OFTEN)].tolist()
    product = FLOOR.tolist() if rng.random() < 0.15 else product
    return [kind, *a, *b, *product] if 3 <= kind <= 7 else [kind, *a, *product, 0, 0]


def draw_goal(rng: np.random.Generator, kind: int) -> list[int]:
    """A goal of a kind."""
    a, b = TYPES[rng.choice(5, 2, p=OFTEN)].tolist()
    place = rng.integers(1, 8, size=2).tolist()
    if kind == 2 and rng.random() < 0.5:
        a = FLOOR.tolist()  # what one can stand on
    match kind:
        case 5:
            return [kind, *(a if rng.random() < 0.5 else FLOOR.tolist()), *place]
        case 6:
            return [kind, *place, 0, 0]
        case 4 | 7 | 8 | 9 | 10:
            return [kind, *a, *b]
        case _:
            return [kind, *a, 0, 0]


def record(name: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A trace as arrays, worlds first in the initial state, time first in what follows."""
    goal, rules = np.zeros((WORLDS, 5), np.uint8), np.zeros((WORLDS, RULES, 7), np.uint8)
    kind = int(re.sub(r"\D", "", name) or 0)
    for i in range(WORLDS):
        if name.startswith("goal"):
            goal[i] = draw_goal(rng, kind)
        if name.startswith("mixed"):
            goal[i] = draw_goal(rng, int(rng.integers(1, 15)))
        for r in range(RULES):
            if name.startswith("rule"):
                rules[i, r] = draw_rule(rng, kind)
            if name.startswith("mixed") or (name.startswith("goal") and i % 2):
                rules[i, r] = draw_rule(rng, int(rng.integers(12)))
    tiles = TYPES[rng.choice(5, (WORLDS, THINGS), p=OFTEN)]
    grid, agent = starts(rng, tiles)
    pocket = np.zeros((WORLDS, 2), np.uint8)
    if name == "doors":
        pocket[::2] = (7, 1)
    if name in ("doors", "mixed1", "mixed2"):
        with_doors(rng, grid, agent)
    actions = rng.choice(6, (STEPS, WORLDS), p=ACTIONS).astype(np.uint8)
    shown = jax.device_get(run(*map(jnp.asarray, (grid, *agent, pocket, goal, rules, actions))))
    sums = [
        [zlib.crc32(shown["grid"][t, i].tobytes() + shown["obs"][t, i].tobytes()) for i in range(WORLDS)]
        for t in range(STEPS)
    ]
    kept = ("reward", "terminated", "last", "fired", "y", "x", "heading", "pocket")
    begin = {"grid": coded(grid), "start": np.stack([*agent, coded(pocket)], -1).astype(np.uint8)}
    then = {"actions": actions, "crc": np.array(sums, np.uint32), **{name: shown[name] for name in kept}}
    return {**begin, "goal": goal, "rules": rules, **then}


def coded(cells: np.ndarray) -> np.ndarray:
    """16 * tile + colour."""
    return (16 * cells[..., 0] + cells[..., 1]).astype(np.uint8)


def starts(rng: np.random.Generator, tiles: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Grids and agents (y, x, heading) after the peer's own reset."""
    halves = []
    for rooms, half in (("R1", tiles[: WORLDS // 2]), ("R4", tiles[WORLDS // 2 :])):
        env, params = xminigrid.make(f"XLand-MiniGrid-{rooms}-{SIZE}x{SIZE}")
        empty = params.ruleset

        def reset(key, tiles, env=env, params=params, empty=empty):
            ruleset = RuleSet(goal=empty.goal, rules=empty.rules, init_tiles=tiles)
            return env.reset(params.replace(ruleset=ruleset), key).state

        keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), len(half))
        halves.append(jax.device_get(jax.jit(jax.vmap(reset))(keys, jnp.asarray(half))))
    grid = np.concatenate([h.grid for h in halves])
    place = np.concatenate([h.agent.position for h in halves])
    return grid, [place[:, 0], place[:, 1], np.concatenate([h.agent.direction for h in halves])]


def with_doors(rng: np.random.Generator, grid: np.ndarray, agent: list[np.ndarray]) -> None:
    """Turn things into keys and doors, open, closed and locked, of two colours."""
    for i in range(WORLDS):
        things = np.argwhere((grid[i, ..., 0] > 2) & (grid[i, ..., 0] != 9))
        for y, x in things[rng.permutation(len(things))[:18]]:
            grid[i, y, x] = (int(rng.choice([7, 7, 8, 8, 8, 9, 10])), int(rng.choice([1, 1, 1, 3])))


@jax.jit
def run(grid, y, x, heading, pocket, goal, rules, actions):
    """All worlds, step by step."""
    env, params = xminigrid.make(f"XLand-MiniGrid-R1-{SIZE}x{SIZE}")
    params = params.replace(max_steps=STEPS)

    def begin(grid, y, x, heading, pocket, goal, rules):
        first = env.reset(params, jax.random.key(0))
        agent = first.state.agent.replace(position=jnp.stack([y, x]), direction=heading, pocket=pocket)
        state = first.state.replace(grid=grid, agent=agent, goal_encoding=goal, rule_encoding=rules)
        return first.replace(state=state)

    def step(now, action):
        after = env.step(params, now, action)
        bare = now.replace(state=now.state.replace(rule_encoding=jnp.zeros_like(now.state.rule_encoding)))
        without = env.step(params, bare, action).state
        state = after.state
        pocket = state.agent.pocket
        fired = jnp.any(state.grid != without.grid) | jnp.any(pocket != without.agent.pocket)
        return after, {
            "grid": state.grid,
            "obs": after.observation,
            "reward": after.reward,
            "terminated": after.discount == 0,
            "last": after.last(),
            "fired": fired,
            "y": state.agent.position[0].astype(jnp.uint8),
            "x": state.agent.position[1].astype(jnp.uint8),
            "heading": state.agent.direction.astype(jnp.uint8),
            "pocket": pocket[0] * 16 + pocket[1],
        }

    first = jax.vmap(begin)(grid, y, x, heading, pocket, goal, rules)
    return jax.lax.scan(lambda now, action: jax.vmap(step)(now, action), first, actions)[1]


def layouts() -> dict[str, np.ndarray]:
    """Per registered layout, a table of counts: -1 for walls, else how many resets had a closed door there."""
    tables = {}
    for id in xminigrid.registered_environments():
        if id.startswith("XLand-MiniGrid-R"):
            env, params = xminigrid.make(id)
            keys = jax.random.split(jax.random.key(0), RESETS)
            reset = jax.jit(jax.vmap(lambda key, env=env, params=params: env.reset(params, key).state.grid))
            tile = np.asarray(reset(keys))[..., 0]
            tables[id.removeprefix("XLand-MiniGrid-")] = np.where((tile == 2).all(0), -1, (tile == 9).sum(0))
    return {name: table.astype(np.int16) for name, table in tables.items()}


if __name__ == "__main__":
    main()
