"""XLand-MiniGrid as an environment: what is seen, what is paid, when it ends. The rules themselves are in game.py."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int16, Int32, Key, UInt8

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, Space
from rekindle.core.types import EnvSpec, Obs, TimeStep
from rekindle.envs.minigrid import codes, game
from rekindle.envs.minigrid.game import Scene
from rekindle.envs.minigrid.layouts import Layout, draw_grid, layout

ArrayLike = Array | np.ndarray


class Task(NamedTuple):
    """A goal, rules and the things that lie about at the start. Rows of zeros are padding."""

    goal: UInt8[ArrayLike, "5"]
    """Kind, then two of: tile and colour, or y and x."""
    rules: UInt8[ArrayLike, "R 7"]
    """In the order in which they are applied. Kind, then tiles and colours of a, perhaps b, and the product."""
    tiles: UInt8[ArrayLike, "I 2"]
    """Tile and colour of each thing."""
    trials: Int16[ArrayLike, ""]
    trial_length: Int16[ArrayLike, ""]


class State(NamedTuple):
    """The scene and the number of steps taken in it."""

    scene: Scene
    time: Int32[Array, ""]


@dataclass(frozen=True)
class MiniGrid:
    """One trial of a task, ended by success or time-out. It makes the transitions of XLand-MiniGrid 0.9.3.

    Observation: `tiles` uint8[V, V, 2], the egocentric crop, the agent in the middle of the last row looking up: tile
    and colour of every cell, walls hide nothing, zeros outside; the agent itself and its pocket are not shown. With
    `heading`, `heading` 0..3: up, right, down, left. With `show_task`, `goal` uint8[5] and `rules` uint8[R, 7].
    Action: forward, right, left, pick, put, toggle. Reward: 1 - 0.9 t / T at success, else 0.
    Ends: terminated at success, truncated after T steps. State: the scene and the clock. Params: a `Task`.
    A reset draws doors, places of things, the agent's place and its heading anew.
    """

    id: str = "minigrid/custom"
    version: int = 1
    rooms: str = "R1"
    """One, two, four, six or nine: R1, R2, R4, R6, R9."""
    size: int = 9
    """Side of the square, in cells, walls included."""
    view: int = 5
    """Side of the crop, in cells."""
    heading: bool = True
    """Show the heading."""
    show_task: bool = False
    """Show the goal and the rules."""
    max_rules: int = 1
    """Rows of the tasks' rules."""

    def __post_init__(self) -> None:
        """Refuse views and layouts that do not exist.

        Raises:
            ConfigError: an even view, or a layout that is not registered.
        """
        if self.view < 1 or self.view % 2 == 0:
            raise ConfigError(f"a view has an odd side, so that the agent is in the middle; got {self.view}.")
        layout(self.rooms, self.size)

    @cached_property
    def layout(self) -> Layout:
        """Walls and places of doors."""
        return layout(self.rooms, self.size)

    @property
    def spec(self) -> EnvSpec:
        """Sizes depend on the view and the number of rules only, never on the size of the rooms."""
        obs: dict[str, Space] = {"tiles": Box((self.view, self.view, 2), 0, len(codes.TILES) - 1, "uint8")}
        if self.heading:
            obs["heading"] = Discrete(4, "int8")
        if self.show_task:
            obs["goal"] = Box((codes.GOAL_WIDTH,), 0, 255, "uint8")
            obs["rules"] = Box((self.max_rules, codes.RULE_WIDTH), 0, 255, "uint8", set_axis=True)
        return EnvSpec(self.id, self.version, obs, Discrete(len(codes.ACTIONS)))

    def reset(self, key: Key[Array, ""], params: Task) -> tuple[State, TimeStep]:
        """Draw the doors, then different free cells for all things and the agent, and the agent's heading."""
        grid_key, place_key, heading_key = jax.random.split(key, 3)
        grid = draw_grid(grid_key, self.layout).reshape(-1)
        free = grid == codes.FLOOR_CELL
        lots = jnp.where(free, jax.random.uniform(place_key, grid.shape), -1.0)
        things = codes.pack(jnp.asarray(params.tiles))
        drawn = jax.lax.top_k(lots, things.shape[0] + 1)[1]
        at = drawn[1:]
        grid = grid.at[at].set(jnp.where(things > 0, things, grid[at])).reshape(self.size, self.size)
        heading = jax.random.randint(heading_key, (), 0, 4)
        scene = Scene(grid, drawn[0] // self.size, drawn[0] % self.size, heading, jnp.uint8(0))
        obs = self.observe(scene, params)
        no = jnp.zeros((), bool)
        return State(scene, jnp.int32(0)), TimeStep(obs, jnp.float32(0), no, no, no, obs, {})

    def step(self, key: Key[Array, ""], state: State, action: Array, params: Task) -> tuple[State, TimeStep]:
        """Act, apply the rules, test the goal, look at the clock. Deterministic: the key is not used."""
        del key
        goal, rules = jnp.asarray(params.goal), jnp.asarray(params.rules)
        scene, reached = game.advance(state.scene, goal, rules, action.astype(jnp.int32))
        time, limit = state.time + 1, jnp.asarray(params.trial_length).astype(jnp.int32)
        paid = 1.0 - 0.9 * (time.astype(jnp.float32) / limit.astype(jnp.float32))
        truncated = (time >= limit) & ~reached
        obs = self.observe(scene, params)
        reward = jnp.where(reached, paid, 0.0)
        return State(scene, time), TimeStep(obs, reward, reached, truncated, reached | truncated, obs, {})

    def observe(self, scene: Scene, params: Task) -> Obs:
        """What the agent is shown."""
        obs: Obs = {"tiles": self.look(scene)}
        if self.heading:
            obs["heading"] = scene.heading.astype(jnp.int8)
        if self.show_task:
            obs |= {"goal": jnp.asarray(params.goal), "rules": jnp.asarray(params.rules)}
        return obs

    def look(self, scene: Scene) -> UInt8[Array, "V V 2"]:
        """The crop before the agent."""
        ahead = (self.view - 1) - jnp.arange(self.view)[:, None]
        aside = jnp.arange(self.view)[None, :] - self.view // 2
        dy, dx = game.direction(scene.heading)
        y, x = scene.y + ahead * dy + aside * dx, scene.x + ahead * dx - aside * dy
        inside = (y >= 0) & (y < self.size) & (x >= 0) & (x < self.size)
        seen = scene.grid.at[y, x].get(mode="clip")
        return codes.unpack(jnp.where(inside, seen, jnp.uint8(0)))
