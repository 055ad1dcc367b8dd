"""What is timed: an agent training on a world, ours compiled as a whole, theirs as they come."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from rekindle.agents.registry import config_from_json, make_agent
from rekindle.core.types import Agent
from rekindle.curriculum.base import Draw, Uniform
from rekindle.envs.base import Env
from rekindle.envs.minigrid.env import MiniGrid
from rekindle.envs.minigrid.env import Task as GridTask
from rekindle.envs.registry import Made
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import pools
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.game import View
from rekindle.envs.xland.level import HOLD, NEAR, TOUCHING, Game
from rekindle.envs.xland.worlds import make_world, walled_room
from rekindle.train import on_policy
from rekindle.train.worlds import Solo

SIZE, RULES, OBJECTS, VIEW = 9, 9, 12, 5
TRIAL_LENGTH = 3 * SIZE * SIZE
TASKS, SEED = 256, 0


class Arm(NamedTuple):
    """A row of the table."""

    name: str
    agent: str
    """Of this library, or `sb3` for sb3-contrib's RecurrentPPO."""
    world: str
    """`xland` and `minigrid` are ours; `xminigrid` is theirs through our adapter; `gymnasium` is xland through it."""
    settings: Mapping[str, Any]
    """Of the agent, beside the defaults."""


GRU = {"memory": "gru", "hidden": 64, "width": 64}
ARMS = (
    Arm("ppo-gru-on-xland", "ppo", "xland", GRU),
    Arm("ppo-gru-on-minigrid", "ppo", "minigrid", GRU),
    Arm("ppo-gru-on-xminigrid", "ppo", "xminigrid", GRU),
    Arm("sb3-lstm-on-gymnasium", "sb3", "gymnasium", {}),
    Arm("ppo-transformer-xl-on-xland", "ppo", "xland", {"memory": "transformer-xl"}),
    Arm("muesli-gru-on-xland", "muesli", "xland", {"memory": "gru"}),
    Arm("muesli-transformer-xl-on-xland", "muesli", "xland", {"memory": "transformer-xl"}),
)


class Timed(Protocol):
    """Something that can be timed again and again."""

    compile_s: float

    def run(self, seconds: float) -> float:
        """Environment steps per second of whole training over at least so long."""
        ...


@cache
def worlds() -> tuple[Made, GridTask]:
    """The same goals, rules and objects for all: 256 tasks in our encoding as an environment, and in theirs."""
    from benchmarks.xland_speed import work

    rng = np.random.default_rng(SEED)
    recipes = [work.draw_recipe(rng, RULES) for _ in range(TASKS)]
    rooms = [_room(rng) for _ in range(16)]
    games: list[Game] = [work.ours(recipe, rooms[0]).game for recipe in recipes]
    pairs = np.stack([np.arange(TASKS) % len(rooms), np.arange(TASKS)], axis=1)
    pool = pools.make_pool(rooms, games, trial_length=TRIAL_LENGTH, pairs=pairs)
    env = XLand(max_rules=RULES, view=View(VIEW, "bottom"), relations=(NEAR, HOLD, TOUCHING))
    made = Made(Trials(env), lambda *, split, seed: pool, partial(pools.draw, min_trials=1, max_trials=1), 1)
    theirs = [work.theirs(recipe) for recipe in recipes]
    goals, rules, tiles = (
        jnp.asarray(np.stack([getattr(t, n) for t in theirs])) for n in ("goal", "rules", "init_tiles")
    )
    ones = jnp.ones(TASKS, jnp.int16)
    return made, GridTask(goals, rules, tiles, ones, ones * TRIAL_LENGTH)


def _room(rng: np.random.Generator) -> Any:
    terrain = walled_room(SIZE)
    cells = 1 + rng.permutation((SIZE - 2) ** 2)[: OBJECTS + 1] - 1
    places = 1 + np.stack(np.divmod(cells, SIZE - 2), axis=1)
    return make_world(terrain, places[1:], tuple(places[0].tolist()), heading=0, max_objects=20)


def env_of(world: str) -> tuple[Env, Draw, Any]:
    """The environment, how its tasks are drawn, and from what: one trial per episode, then another task."""
    made, grid_tasks = worlds()
    if world == "xland":
        pool = jax.tree.map(jnp.asarray, made.pool(split="train", seed=0))
        return made.env, made.draw, pool
    ours = MiniGrid(size=SIZE, view=VIEW, max_rules=RULES)
    if world == "minigrid":
        return Trials(ours), pick, grid_tasks
    from benchmarks.peers.xminigrid_env import Peer

    return Trials(Peer(ours)), pick, grid_tasks


def pick(key: Key[Array, ""], tasks: GridTask) -> GridTask:
    """Any of the tasks."""
    return jax.tree.map(lambda leaf: leaf[jax.random.randint(key, (), 0, leaf.shape[0])], tasks)


def agent_of(arm: Arm, num_envs: int) -> Agent:
    """Its agent with so many worlds.

    Raises:
        ConfigError: this version of the library has no such agent or memory.
    """
    return make_agent(arm.agent, config_from_json(arm.agent, {**arm.settings, "num_envs": num_envs}))


class Ours:
    """An agent of this library: roll out and update in one compiled chunk."""

    def __init__(self, arm: Arm, num_envs: int):
        self.agent = agent_of(arm, num_envs)
        env, draw, self.params = env_of(arm.world)
        self.worlds, self.tasks = Solo(env), Uniform(draw, num_envs)
        self.per_update = self.agent.needs.batch * self.agent.needs.length
        start = on_policy.make_start(self.agent, self.worlds, self.tasks)
        begin = time.perf_counter()
        self.loop = start(self.params, jax.random.key(SEED), None)
        chunk = on_policy.make_chunk(self.agent, self.worlds, self.tasks, updates=1)
        self.chunk = chunk.lower(self.loop, self.params).compile()
        self.compile_s = time.perf_counter() - begin

    def run(self, seconds: float) -> float:
        begin, updates, passed = time.perf_counter(), 0, 0.0
        while passed < seconds:
            self.loop, metrics = self.chunk(self.loop, self.params)
            jax.block_until_ready(metrics)
            updates, passed = updates + 1, time.perf_counter() - begin
        return updates * self.per_update / passed

    def profile(self, seconds: float) -> dict[str, float]:
        """Microseconds per environment step: of the environment alone, of acting, of the update."""
        agent, worlds, rows, length = self.agent, self.worlds, self.agent.needs.batch, self.agent.needs.length
        proposal = self.tasks.propose(jax.random.key(2), (), self.params)

        def walk(state: Any, key: Key[Array, ""]) -> tuple[Any, Array]:
            def step(state: Any, key: Key[Array, ""]) -> tuple[Any, Array]:
                act_key, env_key = jax.random.split(key)
                action = jax.random.randint(act_key, (rows,), 0, worlds.spec.action.n)
                state, ts = worlds.step(env_key, state, action, proposal, ())
                shown = sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves((ts.obs, ts.reward)))
                return state, shown

            return jax.lax.scan(step, state, jax.random.split(key, length))

        collect = jax.jit(lambda loop, key: on_policy.collect(agent, worlds, proposal, key, loop))
        key = jax.random.key(1)
        loop, rollout = collect(self.loop, key)
        update = jax.jit(lambda key, state, rollout: agent.update(key, state, rollout).state)
        cost = {
            "environment": _clock(partial(jax.jit(walk), loop.worlds, key), seconds),
            "rollout": _clock(partial(collect, loop, key), seconds),
            "update": _clock(partial(update, key, loop.agent, rollout), seconds),
        }
        micro = {name: 1e6 * value / self.per_update for name, value in cost.items()}
        return {
            "environment": micro["environment"],
            "acting": micro["rollout"] - micro["environment"],
            "update": micro["update"],
        }


def _clock(call: Callable[[], Any], seconds: float) -> float:
    """Seconds per call, the first one (which compiles) aside."""
    jax.block_until_ready(call())
    begin, calls, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        jax.block_until_ready(call())
        calls, passed = calls + 1, time.perf_counter() - begin
    return passed / calls


@dataclass
class Sb3:
    """RecurrentPPO of sb3-contrib, LSTM and heads of width 64, on 16 worlds of ours as Gymnasium environments."""

    num_envs: int = 16
    length: int = 64

    def __post_init__(self) -> None:
        import torch
        from gymnasium.wrappers import FlattenObservation
        from sb3_contrib import RecurrentPPO
        from stable_baselines3.common.vec_env import DummyVecEnv

        from rekindle.envs.gymnasium import GymnasiumEnv

        torch.set_num_threads(
            1
        )  # its matrices are small; with more threads beside JAX's it takes up to 20 times as long
        begin = time.perf_counter()
        made, _ = worlds()
        flat = [
            partial(lambda seed: FlattenObservation(GymnasiumEnv(made, seed)), seed) for seed in range(self.num_envs)
        ]
        envs = DummyVecEnv(flat)
        steps = self.num_envs * self.length
        self.model = RecurrentPPO(
            "MlpLstmPolicy",
            envs,
            n_steps=self.length,
            batch_size=steps // 4,
            n_epochs=2,
            learning_rate=1e-3,
            ent_coef=0.05,
            device="cuda" if torch.cuda.is_available() else "cpu",
            policy_kwargs={"net_arch": [64], "lstm_hidden_size": 64, "shared_lstm": True, "enable_critic_lstm": False},
        )
        self.model.learn(steps)
        self.compile_s = time.perf_counter() - begin

    def run(self, seconds: float) -> float:
        begin, before, passed = time.perf_counter(), self.model.num_timesteps, 0.0
        while passed < seconds:
            self.model.learn(self.num_envs * self.length, reset_num_timesteps=False)
            passed = time.perf_counter() - begin
        return (self.model.num_timesteps - before) / passed


def timed(arm: Arm, num_envs: int) -> Timed:
    """An arm ready to be timed.

    Raises:
        ConfigError: this version of the library has no such agent or memory.
        ImportError: what it compares with is not installed.
    """
    return Sb3() if arm.agent == "sb3" else Ours(arm, num_envs)
