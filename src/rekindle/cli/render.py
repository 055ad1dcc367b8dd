"""`rekindle render`: a task as a picture, or an episode of it as a video, in any world that can be drawn."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from PIL import Image

from rekindle.agents.registry import load
from rekindle.cli import io as cli
from rekindle.core.errors import ConfigError, within
from rekindle.core.spaces import Discrete
from rekindle.core.types import Policy
from rekindle.envs import registry
from rekindle.envs.base import Env
from rekindle.envs.host.worlds import HostWorlds, is_scaled
from rekindle.envs.seats import seat_spec
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import NOOP, Task
from rekindle.envs.xland.text import parse_task, players_in
from rekindle.evaluate.policies import ConstantPolicy, RandomPolicy, VectorPolicy, samples
from rekindle.library import files
from rekindle.library.library import Library
from rekindle.report.film import shots
from rekindle.report.video import SUFFIXES, Frame, write_video

STILLS = (".png", ".jpg", ".webp")


@dataclass(frozen=True)
class Options:
    """Draw a task as a picture, or an episode of it as a video."""

    task: tyro.conf.Positional[str]
    """A file with a task as text (docs/xland.md), or an environment id such as xland/f0, of which one task is drawn,
    minatar/breakout, ALE/Pong-v5, HalfCheetah-v5 or dmc/walker-stand."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("episode.mp4")
    """Where to: .png, .jpg or .webp for its first moment, .mp4 or .gif for an episode."""
    policy: str = "random"
    """What acts: random, noop, or an agent of the library. noop is action 0 where the world is not XLand, and a vector
    of zeros where actions are vectors."""
    trials: int | None = None
    """Trials of the episode, in XLand; by default the task's own."""
    seed: int = 0
    """Of the task that is drawn, the starts and the actions."""
    cell: int = 48
    """Pixels per cell, where a world has cells."""
    fps: float = 8.0
    """Frames per second."""
    json: bool = False
    """Print one JSON object as the last line of standard output: path, frames, rewards."""


def run(argv: list[str]) -> int:
    """Read the options, draw, and say where it is."""
    options = cli.parse(Options, argv, "rekindle render")
    drawn = draw(options)
    cli.console().print(f"wrote {drawn['path']}", highlight=False, markup=False)
    if options.json:
        cli.emit_json(drawn)
    return 0


def draw(options: Options) -> dict[str, Any]:
    """Write the file; what was drawn, for `--json`: path, frames, and the reward of each trial.

    Raises:
        RekindleError: what is wrong with the task, the suffix or a number.
    """
    if (suffix := options.out.suffix.lower()) not in (*STILLS, *SUFFIXES):
        known = ", ".join((*STILLS, *SUFFIXES))
        raise ConfigError(f"the file must end in one of {known}; got {str(options.out)!r}.")
    if options.trials is not None and options.trials < 1:
        raise ConfigError(f"--trials must be at least 1; got {options.trials!r}.")
    within("--seed", options.seed, 0)
    if not (folder := options.out.absolute().parent).is_dir():  # before anything is played
        raise ConfigError(f"there is no folder {str(folder)!r} to write {options.out.name} to; make it first.")
    if not options.fps > 0:
        raise ConfigError(f"--fps must be above 0; got {options.fps!r}.")
    task_key, play_key = jax.random.split(jax.random.key(options.seed))
    world, task = find_world(options.task, task_key, options.seed)
    if options.trials is not None:
        if not isinstance(task, Task):
            raise ConfigError(f"--trials is for worlds of xland; {options.task!r} is another one.")
        task = task._replace(trials=np.int16(options.trials))
    policy, explore = _policy(options.policy, world)
    policies = [policy] * world.spec.players
    still = suffix in STILLS
    episode = shots(world, policies if len(policies) > 1 else policy, task, play_key, explore=explore,
                    most=0 if still else None, cell=options.cell)  # fmt: skip
    rewards: dict[int, list[float]] = {}

    def frames() -> Iterator[Frame]:
        for shot in episode:
            rewards.setdefault(shot.trial, []).append(shot.reward)
            yield shot.picture

    if still:
        (frame,) = frames()
        files.write_bytes(options.out, _still(frame, suffix))
    else:
        write_video(frames(), options.out, options.fps)
    count = sum(map(len, rewards.values()))
    trials = max(int(task.trials), len(rewards)) if isinstance(task, Task) else 1
    return {"path": str(options.out), "frames": count, "rewards": [sum(rewards.get(k, [])) for k in range(trials)]}


def find_world(name: str, key: Any, seed: int) -> tuple[Env | HostWorlds, Any]:
    """What to play in, and the task: that in a text file, or one drawn from the held-out tasks of an environment."""
    path = Path(name)
    if os.path.isfile(path):
        text = path.read_text("utf-8")
        players = players_in(text)
        task = parse_task(text, players=players)
        used = {int(task.game.goal[1]), *(int(code) for code in task.game.rules[:, 1] if code)}
        rules = task.game.rules.shape[0]
        return Trials(XLand(max_rules=rules, relations=tuple(sorted(used)), players=players)), task
    if path.suffix in (".txt", ".task"):
        raise ConfigError(f"there is no file {name!r}; give a task as text, or an environment id such as xland/f0.")
    if registry.is_hosted(name):
        return registry.host(name).open(1, seen=True), ()
    made = registry.make(name)
    one = jax.jit(partial(made.draw, min_trials=made.trials, max_trials=made.trials))
    return made.env, one(key, made.pool(split="test", seed=seed))


def _policy(name: str, world: Env | HostWorlds) -> tuple[Policy, bool]:
    """What acts, and whether it explores."""
    if name not in ("random", "noop"):
        loaded = load(Library.open().find(name).fetch("policy"), env_spec=seat_spec(world.spec))
        return loaded.policy, samples(loaded.agent)
    action = world.spec.action
    if is_scaled(action):
        return VectorPolicy(action.shape[0], 1.0 if name == "random" else 0.0), True
    if not isinstance(action, Discrete):
        raise ConfigError(f"render draws worlds with numbered actions, or one vector; {world.spec.id} has {action!r}.")
    is_xland = isinstance(world, Trials) and isinstance(world.env, XLand)
    return RandomPolicy(action.n) if name == "random" else ConstantPolicy(NOOP if is_xland else 0), True


def _still(frame: np.ndarray, suffix: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, format={".jpg": "JPEG"}.get(suffix, suffix[1:].upper()), quality=92)
    return out.getvalue()
