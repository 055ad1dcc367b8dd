"""The public verbs of the library, beside `master`: load an agent, make a goal's tasks, play."""

import os
from pathlib import Path
from typing import NamedTuple, get_args

import jax
import numpy as np
from jaxtyping import Float

from rekindle.agents.registry import Loaded, incompatible
from rekindle.agents.registry import load as load_folder
from rekindle.core.errors import ConfigError, within
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import goals, pools
from rekindle.envs.xland.goals import Hide
from rekindle.envs.xland.level import Task
from rekindle.evaluate.rollout import evaluation_key, trial_rewards
from rekindle.library.artefact import read_meta
from rekindle.library.library import Library


class Tasks(NamedTuple):
    """Tasks of one goal, stacked, and the environment that they are for."""

    env: Trials
    tasks: Task


def load(agent: str | Path, *, library: Library | None = None) -> Loaded:
    """The agent with this id (or the start of one) in the library, or in this folder.

    Raises:
        LibraryError, CheckpointError: there is none, or it cannot be used.
    """
    if not isinstance(agent, str | Path):
        raise ConfigError(f"load takes an id in the library or the folder of a policy; got {agent!r}.")
    folder = Path(agent)
    if os.path.isfile(folder / "policy.json"):
        return load_folder(folder)
    record = (library or Library.open()).find(str(agent))
    folder = record.fetch("policy")
    if record.policy is None and folder.is_dir():
        read_meta(folder)  # says what is wrong with it
    if record.policy is None:
        raise ConfigError(f"{record.id} kept no policy; `rekindle library ls` shows which runs did.")
    return load_folder(folder)


def tasks(goal: str, *rules: str, hide: Hide = "none", world: str = "f0", count: int = 64, seed: int = 0) -> Tasks:
    """`count` fresh tasks that ask for a goal, in the words of docs/xland.md.

    Raises:
        GoalError, ConfigError: words, a world or numbers that cannot be used.
    """
    if not all(isinstance(words, str) for words in (goal, *rules)):
        raise ConfigError(f"goal and rules are texts, each rule an argument of its own; got {(goal, *rules)!r}.")
    if hide not in get_args(Hide):
        raise ConfigError(f"hide is one of {', '.join(get_args(Hide))}; got {hide!r}.")
    within("count", count, 1)
    within("seed", seed, 0)
    asked = goals.parse(goal, rules, hide=hide, world=world)
    pool = goals.pool(asked, split="test", seed=seed, worlds=count)
    index = np.arange(pools.num_tasks(pool))
    stacked = jax.vmap(lambda i: pools.task(pool, i, asked.trials))(index)
    return Tasks(goals.env_of(asked), jax.tree.map(np.asarray, stacked))


def play(agent: Loaded, tasks: Tasks, *, trials: int = 1, repetitions: int = 4, seed: int = 0
         ) -> Float[np.ndarray, "n repetitions K"]:  # fmt: skip
    """Reward of every trial of `repetitions` episodes of each task.

    Raises:
        ConfigError: numbers that cannot be used, or an agent that was made for another environment.
    """
    within("trials", trials, 1, 16)
    within("repetitions", repetitions, 1)
    within("seed", seed, 0)
    if not isinstance(agent, Loaded):
        raise ConfigError(f"play takes an agent as rekindle.load gives it; got {agent!r}.")
    if reason := incompatible(agent.spec, tasks.env.spec):
        raise ConfigError(f"this agent cannot act in {tasks.env.spec.id}: {reason}.")
    return trial_rewards(tasks.env, agent.policy, tasks.tasks, evaluation_key(seed), trials=trials,
                         repetitions=repetitions)  # fmt: skip
