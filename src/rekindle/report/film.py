"""Policies at play, in any world that can be drawn: an episode as shots, and several episodes side by side.

Drawn are XLand, worlds that show planes of zeros and ones (MinAtar), Atari's screens, and whatever Gymnasium itself has
pictures of.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree, UInt8
from PIL import Image, ImageDraw

from rekindle.core.errors import ConfigError
from rekindle.core.types import Policy
from rekindle.envs.base import Env
from rekindle.envs.gymnax import render as planes
from rekindle.envs.host.worlds import HostWorlds
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import sprites
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.render import frames_of_episode
from rekindle.evaluate.returns import decided
from rekindle.report.episode import record_episode
from rekindle.report.video import Frame, encode_video

CELL = 36
"""Pixels per cell of a board."""
WIDTH, HEIGHT, GAP, STRIP = 480, 420, 16, 34
"""Of a picture that stands beside others, at most; between two; and of the strip above, in pixels."""
FPS = 15.0
FILMED = 450
"""Steps of an episode that a page shows, at most: half a minute."""


class Shot(NamedTuple):
    """A picture of an episode."""

    picture: Frame
    reward: float = 0.0
    """Of the step that led here."""
    over: bool = False
    """Whether the episode ended with it."""
    trial: int = 0


def shots(
    world: Env | HostWorlds, policy: Policy | Sequence[Policy], task: PyTree, key: Key[Array, ""], *,
    explore: bool = True, most: int | None = None, cell: int = CELL,
) -> Iterator[Shot]:  # fmt: skip
    """An episode: a shot of its start and one after every step. Equal keys give equal starts and worlds.

    Args:
        world: what is played in; outside of JAX a single row of it, opened to be seen, which is closed in the end.
        policy: what acts; with several players one per seat.
        task: what is played; of no meaning outside of JAX.
        key: of the start, the world and the actions.
        explore: whether the policy explores, as it says; else it is greedy.
        most: steps after which it is left, whether or not it is over.
        cell: pixels per cell, where there are cells.

    Raises:
        ConfigError: the world cannot be drawn.
    """
    if isinstance(world, HostWorlds):
        assert isinstance(policy, Policy)
        return _on_host(world, policy, key, explore, most)
    if isinstance(world, Trials) and isinstance(world.env, XLand):
        moments = record_episode(world, policy, task, key, explore=explore, most=most)
        pictures = frames_of_episode(moments, cell=cell)
        whole = int(task.trials) * int(task.trial_length)
        last = len(moments) - 1 if most is None or most >= whole else None
        return (Shot(picture, moment.reward, number == last, moment.trial)
                for number, (picture, moment) in enumerate(zip(pictures, moments, strict=True)))  # fmt: skip
    if not planes.shows_planes(world.spec):
        raise ConfigError(
            f"{world.spec.id} cannot be drawn: it is neither XLand nor a board of zeros and ones such as MinAtar's."
        )
    assert isinstance(policy, Policy)
    steps = int(task.trials) * int(task.trial_length) if most is None else most
    return _on_board(world, policy, task, key, explore, steps, cell)


def _on_board(
    world: Env, policy: Policy, task: PyTree, key: Key[Array, ""], explore: bool, steps: int, cell: int
) -> Iterator[Shot]:
    first, *played = jax.device_get(_played(world, policy, jax.tree.map(jnp.asarray, task), key, explore, steps))
    yield Shot(planes.render(first, cell=cell))
    for board, reward, over in zip(*played, strict=True):
        yield Shot(planes.render(board, cell=cell), float(reward), bool(over))
        if over:
            return


@eqx.filter_jit
def _played(
    world: Env, policy: Policy, task: PyTree, key: Key[Array, ""], explore: bool, steps: int
) -> tuple[Array, Array, Array, Array]:
    """What is shown at first, and after every step; rewards, and ends, after the first of which nothing counts."""
    reset_key, run_key = jax.random.split(key)
    state, first = world.reset(reset_key, task)

    def step(now: tuple, key: Key[Array, ""]) -> tuple[tuple, tuple[Array, Array, Array]]:
        state, obs, start, carry = now
        act_key, env_key = jax.random.split(key)
        out = policy.act(act_key, carry, jax.tree.map(lambda x: x[None], obs), start, explore=explore)
        state, ts = world.step(env_key, state, out.action[0], task)
        (board,) = ts.obs.values()
        return (state, ts.obs, jnp.zeros_like(start), out.carry), (board, ts.reward, ts.terminated | ts.truncated)

    begin = (state, first.obs, jnp.ones(1, bool), policy.init_carry(1))
    (board,) = first.obs.values()
    return board, *jax.lax.scan(step, begin, jax.random.split(run_key, steps))[1]


def _on_host(
    worlds: HostWorlds, policy: Policy, key: Key[Array, ""], explore: bool, most: int | None
) -> Iterator[Shot]:
    """Where an episode ends the next begins at once, so that its last shot is of the step before."""
    seed_key, act_key = jax.random.split(key)
    try:
        obs = worlds.reset(int(jax.random.randint(seed_key, (), 0, 2**31 - 1)))
        carry, start, (picture,) = policy.init_carry(1), np.ones(1, bool), worlds.pictures()
        yield Shot(picture)
        for time in itertools.count() if most is None else range(most):
            action, carry = decided(policy, jax.random.fold_in(act_key, time), carry, obs, start, explore)
            obs, reward, terminated, truncated, _ = worlds.step(np.asarray(action))
            start = terminated | truncated
            if not start[0]:
                (picture,) = worlds.pictures()
            yield Shot(picture, float(reward[0]), bool(start[0]))
            if start[0]:
                return
    finally:
        worlds.close()


@dataclass
class Tally:
    """How an episode stands."""

    shot: Shot
    """The latest."""
    returned: float = 0.0
    steps: int = -1
    """The first shot is of none."""


def side_by_side(episodes: Mapping[str, Iterator[Shot]]) -> tuple[bytes, dict[str, Tally]]:
    """Episodes as one MP4, each under its name and its return so far, and how they ended.

    One that is over earlier stands still.
    """
    nothing = Shot(np.zeros((1, 1, 3), np.uint8))
    tallies = {name: Tally(nothing) for name in episodes}

    def frames() -> Iterator[Frame]:
        frame = nothing.picture
        for together in itertools.zip_longest(*episodes.values()):
            for tally, shot in zip(tallies.values(), together, strict=True):
                if shot is not None:
                    tally.shot, tally.steps = shot, tally.steps + 1
                    tally.returned += shot.reward
            frame = beside(tallies)
            yield frame
        yield from itertools.repeat(frame, round(FPS))

    return encode_video(frames(), ".mp4", FPS), tallies


def beside(tallies: Mapping[str, Tally]) -> Frame:
    """One frame of several pictures of the same size."""
    pictures = [fitted(tally.shot.picture) for tally in tallies.values()]
    height, width = pictures[0].shape[:2]
    whole = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, STRIP + height), sprites.PAPER)
    draw, font = ImageDraw.Draw(whole), sprites.font(18)
    for number, (name, tally) in enumerate(tallies.items()):
        left = number * (width + GAP)
        draw.text((left + 4, STRIP // 2), name, font=font, fill=sprites.MUTED, anchor="lm")
        at = (left + width - 4, STRIP // 2)
        draw.text(at, f"{tally.returned:.4g}", font=font, fill=sprites.INK, anchor="rm")
        whole.paste(Image.fromarray(pictures[number]), (left, STRIP))
    return np.asarray(whole)


def fitted(picture: Frame) -> UInt8[np.ndarray, "h w 3"]:
    """Larger by a whole number, or smaller, so that it fits beside others."""
    height, width = picture.shape[:2]
    if times := int(min(WIDTH / width, HEIGHT / height)):
        return picture.repeat(times, axis=0).repeat(times, axis=1)
    image = Image.fromarray(picture)
    image.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    return np.asarray(image)
