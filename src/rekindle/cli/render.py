"""`rekindle render`: a task as a picture, or an episode of it as a video."""

import io
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from PIL import Image

from rekindle.cli import io as cli
from rekindle.core.errors import ConfigError, within
from rekindle.core.spaces import Discrete
from rekindle.core.types import Policy
from rekindle.envs import registry
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import NOOP, Task
from rekindle.envs.xland.render import Moment, frames_of_episode
from rekindle.envs.xland.text import parse_task, players_in
from rekindle.evaluate.policies import ConstantPolicy, RandomPolicy
from rekindle.library import files
from rekindle.report.episode import record_episode
from rekindle.report.video import SUFFIXES, write_video

STILLS = (".png", ".jpg", ".webp")


@dataclass(frozen=True)
class Options:
    """Draw a task as a picture, or an episode of it as a video."""

    task: tyro.conf.Positional[str]
    """A file with a task as text (docs/xland.md), or an environment id such as xland/f0, of which one task is drawn."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("episode.mp4")
    """Where to: .png, .jpg or .webp for its first moment, .mp4 or .gif for an episode."""
    policy: Literal["random", "noop"] = "random"
    """What acts."""
    trials: int | None = None
    """Trials of the episode; by default the task's own."""
    seed: int = 0
    """Of the task that is drawn, the starts and the actions."""
    cell: int = 48
    """Pixels per cell."""
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
    if not options.fps > 0:
        raise ConfigError(f"--fps must be above 0; got {options.fps!r}.")
    task_key, play_key = jax.random.split(jax.random.key(options.seed))
    env, task = find_task(options.task, task_key, options.seed)
    if options.trials is not None:
        task = task._replace(trials=np.int16(options.trials))
    if suffix in STILLS:
        state, _ = jax.jit(env.env.reset)(play_key, task)
        moments = [Moment(jax.device_get(state.scene), task, 0, 0, 0.0)]
        files.write_bytes(options.out, _still(next(frames_of_episode(moments, cell=options.cell)), suffix))
    else:
        moments = record_episode(env, [_policy(options.policy, env)] * env.spec.players, task, play_key)
        write_video(frames_of_episode(moments, cell=options.cell), options.out, options.fps)
    rewards = np.zeros(int(task.trials))
    for moment in moments:
        rewards[moment.trial] += moment.reward
    return {"path": str(options.out), "frames": len(moments), "rewards": rewards.tolist()}


def find_task(name: str, key: Any, seed: int) -> tuple[Trials, Task]:
    """The task in a text file, or one drawn from the held-out tasks of an environment, and what to play it in."""
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
    made = registry.make(name)
    if not (isinstance(made.env, Trials) and isinstance(made.env.env, XLand)):
        raise ConfigError(f"render draws worlds of xland; {name!r} is another one.")
    one = jax.jit(partial(made.draw, min_trials=made.trials, max_trials=made.trials))
    return made.env, one(key, made.pool(split="test", seed=seed))


def _policy(name: str, env: Trials) -> Policy:
    action = env.spec.action
    assert isinstance(action, Discrete)
    return RandomPolicy(action.n) if name == "random" else ConstantPolicy(NOOP)


def _still(frame: np.ndarray, suffix: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, format={".jpg": "JPEG"}.get(suffix, suffix[1:].upper()), quality=92)
    return out.getvalue()
