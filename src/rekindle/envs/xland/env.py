"""XLand as an environment: what is seen, what is paid, when it ends. The rules themselves are in game.py."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int8, Int32, Key

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, MultiDiscrete
from rekindle.core.types import EnvSpec, Obs, TimeStep
from rekindle.envs.xland import encode, game
from rekindle.envs.xland.game import Scene, View
from rekindle.envs.xland.level import ACTIONS, COLOURS, GATE, HOLD, NEAR, SEE, SHAPES, TOUCHING, VOID, Task

SEEN_OPEN_GATE = GATE + 1
SEEN_SHAPE = SEEN_OPEN_GATE + 1
SEEN_PLAYER = SEEN_SHAPE + len(SHAPES)
SEEN_CODES = SEEN_PLAYER + 1


class State(NamedTuple):
    """The scene and the number of steps taken in it."""

    scene: Scene
    time: Int32[Array, ""]


DEFAULT_VIEW = View(7, "bottom")
"""The crop of XLand-MiniGrid's later worlds."""


@dataclass(frozen=True)
class XLand:
    """One trial of a task, ended by time-out.

    Observation: `view` int8[V, V, 2], the egocentric crop, player looking up; channel 0 is 0 unseen or outside, 1
    floor, 2 wall, 3 closed gate, 4 open gate, 5..8 shape, 9 player; channel 1 is 0 or the colour 1..3. `heading` 0..3.
    `hand` int8[2] shape and colour of what is held (0, 0 empty). `goal` int8[6] and `rules` int8[R, 12]: see encode.py.
    Action: forward, left, right, pick, put, toggle, no-op. With two players every one of these has a player axis.
    Reward: `per_step` 1 in every step in which the goal holds; `terminal` 1 - 0.9 t / T at the first success.
    Ends: truncated after T steps; in mode `terminal` terminated at the first success.
    State: the scene and the clock. Params: a `Task`.
    """

    id: str = "xland/custom"
    version: int = 1
    max_rules: int = 16
    view: View = DEFAULT_VIEW
    players: int = 1
    reward: Literal["per_step", "terminal"] = "per_step"
    occlusion: bool = False
    """Hide what walls hide from the player."""
    relations: tuple[int, ...] = (TOUCHING, NEAR, HOLD, SEE)
    """Relations that tasks may use; the others are compiled out."""
    reverse_order: bool = False
    """Of two players, the second acts first on even steps instead of odd ones; steps are counted in a trial from 0."""

    def __post_init__(self) -> None:
        """Refuse views that are not centred on a column.

        Raises:
            ConfigError: an even or negative view, or an unknown anchor.
        """
        if self.view.size < 1 or self.view.size % 2 == 0 or self.view.anchor not in ("centre", "bottom"):
            raise ConfigError(f"a view has an odd size and is anchored at 'centre' or 'bottom'; got {self.view}.")

    @property
    def spec(self) -> EnvSpec:
        """Sizes depend on the view and the number of rules only, never on the size of the room."""
        axis = () if self.players == 1 else (self.players,)
        size = self.view.size
        obs = {
            "view": Box((*axis, size, size, 2), 0, max(SEEN_CODES, len(COLOURS)), "int8"),
            "heading": Discrete(4, "int8") if self.players == 1 else MultiDiscrete((4,) * self.players, "int8"),
            "hand": Box((*axis, 2), 0, max(len(SHAPES), len(COLOURS)), "int8"),
            "goal": Box((*axis, encode.GOAL_WIDTH), 0, encode.SHAPE_CODES, "int8"),
            "rules": Box((*axis, self.max_rules, encode.RULE_WIDTH), 0, encode.SHAPE_CODES, "int8", set_axis=True),
        }
        return EnvSpec(self.id, self.version, obs, Discrete(len(ACTIONS)), self.players)

    def reset(self, key: Key[Array, ""], params: Task) -> tuple[State, TimeStep]:
        """Start a trial: the world's layout (a random one if it has several), a random heading if the task says so."""
        layout_key, turn_key, heading_key = jax.random.split(key, 3)
        heading = jnp.asarray(params.world.heading)
        turned = jax.random.uniform(turn_key) < params.random_heading
        drawn = jax.random.randint(heading_key, heading.shape, 0, 4).astype(jnp.int8)
        layout = jax.random.randint(layout_key, (), 0, params.world.places.shape[0])
        scene = game.opening(params.world, params.game, layout, jnp.where(turned, drawn, heading))
        state = State(scene, jnp.int32(0))
        obs = self.observe(state, params)
        no = jnp.zeros((), bool)
        reward = jnp.zeros(() if self.players == 1 else (self.players,))
        return state, TimeStep(obs, reward, no, no, no, obs, {"dropped": scene.dropped})

    def step(self, key: Key[Array, ""], state: State, action: Array, params: Task) -> tuple[State, TimeStep]:
        """Act, fire rules, test the goal, look at the clock. Deterministic: the key is not used."""
        del key
        actions = jnp.atleast_1d(action).astype(jnp.int32)
        scene, reached = game.advance(
            state.scene, params.world, params.game, actions, self.view, self.relations, self.second_first(state.time)
        )
        state = State(scene, state.time + 1)
        length = jnp.asarray(params.trial_length).astype(jnp.int32)
        reward = reached.astype(jnp.float32)
        terminated = jnp.zeros((), bool)
        if self.reward == "terminal":
            reward = reward * (1.0 - 0.9 * state.time.astype(jnp.float32) / length.astype(jnp.float32))
            terminated = reached
        truncated = (state.time >= length) & ~terminated
        reward = reward if self.players == 1 else jnp.full((self.players,), reward)
        obs = self.observe(state, params)
        return state, TimeStep(
            obs, reward, terminated, truncated, terminated | truncated, obs, {"dropped": scene.dropped}
        )

    def present(self, params: Task) -> Bool[Array, " P"]:
        """Which players a task has: a world may leave one of two out."""
        return jnp.asarray(params.world.start)[0, :, 0] != game.AWAY

    def second_first(self, time: int | Int32[Array, ""]) -> bool | Bool[Array, ""]:
        """Whether player 2 acts before player 1 in the step after `time` steps of the trial."""
        return (time % 2 == 1) ^ self.reverse_order

    def observe(self, state: State, params: Task) -> Obs:
        """What each player is shown; without a player axis if there is one player."""
        scene = state.scene
        hand = jnp.where(scene.hand >= 0, scene.kind[jnp.maximum(scene.hand, 0)], jnp.int8(0))
        views = jnp.stack([self.look(scene, params, p) for p in range(self.players)])
        obs = {"view": views, "heading": scene.heading, "hand": encode.thing_code(hand, jnp.zeros_like(hand))}
        if self.players == 1:
            told = {"goal": encode.shown_goal(params.game), "rules": encode.shown_rules(params.game)}
            return {**{name: value[0] for name, value in obs.items()}, **told}
        goals = jnp.stack([encode.shown_goal(params.game, p) for p in range(self.players)])
        rules = jnp.stack([encode.shown_rules(params.game, p) for p in range(self.players)])
        return {**obs, "goal": goals, "rules": rules}

    def look(self, scene: Scene, params: Task, p: int) -> Int8[Array, "V V 2"]:
        """The egocentric crop of player p."""
        size, terrain = self.view.size, jnp.asarray(params.world.terrain)
        heading, here_y, here_x = scene.heading[p], scene.player_y[p], scene.player_x[p]
        ahead = jnp.int8(self.view.ahead) - jnp.arange(size, dtype=jnp.int8)[:, None]
        aside = jnp.arange(size, dtype=jnp.int8)[None, :] - jnp.int8(size // 2)
        up_y, up_x = game.direction(heading)
        y, x = here_y + ahead * up_y + aside * up_x, here_x + ahead * up_x - aside * up_y
        inside = (y >= 0) & (y < terrain.shape[0]) & (x >= 0) & (x < terrain.shape[1])
        ground = jnp.where(inside, game.terrain_at(params.world, y, x), jnp.int8(VOID))
        cell, gates = game.cell_number(y, x)[..., None], jnp.asarray(params.world.gates)
        is_open = (cell == game.cell_number(gates[:, 0], gates[:, 1])[None, None]) & scene.gate_open[None, None]
        ground = ground + jnp.any(is_open, axis=-1).astype(jnp.int8)

        here = cell == game.cell_number(scene.y, scene.x)[None, None]
        kind = jnp.max(jnp.where(here, scene.kind.astype(jnp.int16)[None, None], 0), axis=-1).astype(jnp.int8)
        shape = jnp.where(kind > 0, SEEN_SHAPE + (kind - 1 & 3), ground)
        colour = jnp.where(kind > 0, 1 + (kind - 1 >> 2), jnp.int8(0))
        for other in range(self.players):
            if other != p:
                there = (y == scene.player_y[other]) & (x == scene.player_x[other])
                shape = jnp.where(there, jnp.int8(SEEN_PLAYER), shape)
        crop = jnp.stack([shape, colour], axis=-1)
        return jnp.where(self._visible(params, here_y, here_x, y, x)[..., None], crop, jnp.int8(0))

    def _visible(self, params: Task, here_y: Array, here_x: Array, y: Array, x: Array) -> Array:
        table = jnp.asarray(params.world.sight)
        if not self.occlusion or table.size == 0:
            return jnp.ones(y.shape, bool)
        width = jnp.asarray(params.world.terrain).shape[1]
        here_y, here_x, y, x = (at.astype(jnp.int32) for at in (here_y, here_x, y, x))
        row = table[here_y * width + here_x]
        cell = y * width + x
        byte = row.at[cell >> 3].get(mode="fill", fill_value=0)
        return (byte >> (cell & 7).astype(jnp.uint8)) & 1 > 0
