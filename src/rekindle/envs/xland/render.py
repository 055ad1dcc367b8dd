"""Pictures of XLand: the grid, and beside it the goal, the rules as the player is told them, and the clock."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFilter

from rekindle.core.errors import ConfigError
from rekindle.envs.xland import panel, sprites
from rekindle.envs.xland.encode import shown_goal, shown_rules
from rekindle.envs.xland.game import AWAY, Scene
from rekindle.envs.xland.level import FLOOR, GATE, VOID, WALL, Game, Task

MARGIN = 22
"""Paper around everything, in units of 1/48 of a cell."""
RAISED = 0.3
"""Height of a wall's front, in cells."""
MIN_CELL, MAX_CELL = 12, 192
AHEAD = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""The cell (y, x) in front, by heading."""


class Moment(NamedTuple):
    """One picture's worth of an episode: after `reward` was earned by the step that led here (0 at a trial's start)."""

    scene: Scene
    task: Task
    trial: int
    """Counted from 0."""
    time: int
    """Steps taken in this trial."""
    reward: float


def frames_of_episode(moments: Sequence[Moment], *, cell: int = 48) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """One picture per moment, with the reward of each trial summed up."""
    sums: dict[int, float] = {}
    for moment in moments:
        sums[moment.trial] = sums.get(moment.trial, 0.0) + moment.reward
    best = max([*sums.values(), 1.0])
    totals: list[float] = []
    for moment in moments:
        totals.extend([0.0] * (moment.trial + 1 - len(totals)))
        totals[-1] += moment.reward
        yield render(moment.scene, moment.task, trial=moment.trial, time=moment.time, reward=moment.reward,
                     totals=totals, best=best, cell=cell)  # fmt: skip


def render(scene: Scene, task: Task, *, trial: int = 0, trials: int | None = None, time: int = 0, reward: float = 0.0,
           totals: Sequence[float] = (), best: float | None = None,
           cell: int = 48) -> UInt8[np.ndarray, "H W 3"]:  # fmt: skip
    """A picture of one moment; the same arguments give the same bytes, both sides are even.

    Args:
        scene: where everything is.
        task: its terrain, goal, rules, and how long a trial is.
        trial: the trial that this is, from 0.
        trials: trials of the episode; by default the task's.
        time: steps taken in this trial.
        reward: of the step that led here; the lamp is lit if it is positive.
        totals: reward of each trial so far, this one included.
        best: reward that fills a trial's bar; by default one per step.
        cell: pixels per cell, 12..192.

    Raises:
        ConfigError: a cell size out of range.
    """
    if not MIN_CELL <= cell <= MAX_CELL:
        raise ConfigError(f"cell must be {MIN_CELL} to {MAX_CELL} pixels; got {cell!r}.")
    scene, terrain, length, k = jax.device_get((scene, task.world.terrain, task.trial_length, task.trials))
    unit, shown = cell / 48, _told(task.game)
    height, width = terrain.shape
    size = panel.Size.fit(unit, len(shown.rules), height * cell)
    margin, gap = size.px(MARGIN), size.px(panel.PAD)
    inner = max(height * cell, size.height)
    whole = (_even(2 * margin + width * cell + gap + size.width), _even(2 * margin + inner))
    picture = Image.new("RGB", whole, sprites.PAPER)
    left, top = margin, margin + (inner - height * cell) // 2
    beside, above = margin + width * cell + gap, margin + (inner - size.height) // 2
    edge = size.px(10)
    picture.paste(panel.board(shown, size, edge), (beside - edge, above - edge))
    picture.paste(_ground(np.asarray(terrain, np.int8).tobytes(), (height, width), cell), (left - edge, top - edge))
    _draw_scene(picture, scene, task, terrain, left, top, cell)
    _draw_lamp(picture, size, reward > 0, beside, above)
    shown_trials = max(int(k) if trials is None else trials, trial + 1)
    best = float(length) if best is None else best
    clock = panel.Clock(trial, shown_trials, time, int(length), tuple(map(float, totals)), best)
    panel.draw_clock(picture, size, clock, beside, above + size.height - size.px(panel.CLOCK_HEIGHT))
    return np.asarray(picture)


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def _told(game: Game) -> panel.Shown:
    """What the player (of two, player 1) is told, from the same function that makes its observation."""
    goal, rules, mask = (np.asarray(v, np.int8) for v in (game.goal, game.rules, game.mask))
    mask = mask[0] if mask.ndim == 3 else mask
    return _told_bytes(goal.tobytes(), rules.tobytes(), mask.tobytes(), rules.shape)


@lru_cache(maxsize=64)
def _told_bytes(goal: bytes, rules: bytes, mask: bytes, shape: tuple[int, int]) -> panel.Shown:
    told = Game(
        goal=np.frombuffer(goal, np.int8),
        rules=np.frombuffer(rules, np.int8).reshape(shape),
        objects=np.zeros(0, np.int8),
        frozen=np.zeros(0, bool),
        mask=np.frombuffer(mask, np.int8).reshape(shape),
    )
    return panel.Shown.of(np.asarray(shown_goal(told)), np.asarray(shown_rules(told)))


@lru_cache(maxsize=32)
def _ground(terrain: bytes, shape: tuple[int, int], cell: int) -> Image.Image:
    """Floor, walls and their shadows, with a margin of 10 units of paper around."""
    grid, over = np.frombuffer(terrain, np.int8).reshape(shape), 2
    c, edge = cell * over, round(10 * cell / 48) * over
    size = (shape[1] * c + 2 * edge, shape[0] * c + 2 * edge)
    picture = Image.new("RGB", size, sprites.PAPER)
    draw = ImageDraw.Draw(picture)
    solid = Image.new("L", size, 0)
    shade = ImageDraw.Draw(solid)
    for y, x in np.argwhere(grid != VOID).tolist():
        shade.rectangle([edge + x * c, edge + y * c, edge + (x + 1) * c, edge + (y + 1) * c], fill=70)
    picture.paste((70, 60, 46), (0, 0), solid.filter(ImageFilter.GaussianBlur(edge / 2.6)))
    for y, x in np.argwhere((grid == FLOOR) | (grid == GATE)).tolist():
        _draw_floor(draw, edge + x * c, edge + y * c, c, sprites.FLOORS[(y + x) % 2])
    _draw_shadows(picture, grid, c, edge)
    for y, x in np.argwhere(grid == WALL).tolist():
        _draw_block(draw, grid, y, x, c, edge)
    return picture.resize((size[0] // over, size[1] // over), Image.Resampling.LANCZOS)


def _draw_floor(draw: ImageDraw.ImageDraw, x: int, y: int, c: int, tile: sprites.Colour) -> None:
    draw.rectangle([x, y, x + c - 1, y + c - 1], fill=sprites.darker(tile, 0.045))
    rim = max(c // 48, 1)
    draw.rounded_rectangle([x + rim, y + rim, x + c - 1 - rim, y + c - 1 - rim], c // 9, fill=tile)


def _draw_shadows(picture: Image.Image, grid: np.ndarray, c: int, edge: int) -> None:
    """What walls cast on the floor to their right and below, softly."""
    cast = Image.new("L", picture.size, 0)
    draw = ImageDraw.Draw(cast)
    for y, x in np.argwhere(grid == WALL).tolist():
        left, top = edge + x * c, edge + y * c
        draw.rectangle([left + c // 12, top + c // 8, left + c + c // 9, top + c + c // 6], fill=95)
    walkable = np.kron(((grid == FLOOR) | (grid == GATE)).astype(np.uint8) * 255, np.ones((c, c), np.uint8))
    mask = Image.new("L", picture.size, 0)
    mask.paste(Image.fromarray(walkable), (edge, edge))
    soft = np.asarray(cast.filter(ImageFilter.GaussianBlur(c / 14))) * (np.asarray(mask) > 0)
    picture.paste((50, 42, 40), (0, 0), Image.fromarray(soft.astype(np.uint8)))


def _draw_block(draw: ImageDraw.ImageDraw, grid: np.ndarray, y: int, x: int, c: int, edge: int) -> None:
    """One cell of wall: its top, and its front where nothing stands before it."""

    def walled(dy: int, dx: int) -> bool:
        inside = 0 <= y + dy < grid.shape[0] and 0 <= x + dx < grid.shape[1]
        return inside and bool(grid[y + dy, x + dx] == WALL)

    left, top, radius = edge + x * c, edge + y * c, c // 7
    up, down, west, east = walled(-1, 0), walled(1, 0), walled(0, -1), walled(0, 1)
    front = 0 if down else round(c * RAISED)
    if front:
        corners = (False, False, not east, not west)
        face = [left, top + c // 2, left + c - 1, top + c - 1]
        draw.rounded_rectangle(face, radius, sprites.WALL_FRONT, corners=corners)
    roof = [left, top, left + c - 1, top + c - 1 - front]
    corners = (not (up or west), not (up or east), not (down or east), not (down or west))
    draw.rounded_rectangle(roof, radius, sprites.WALL_TOP, corners=corners)
    light, line = sprites.lighter(sprites.WALL_TOP, 0.22), max(c // 24, 1)
    if not up:
        ends = left + (0 if west else radius), left + c - (0 if east else radius)
        draw.line([ends[0], top + line // 2, ends[1], top + line // 2], light, line)
    if front:
        draw.line([left, roof[3], left + c - 1, roof[3]], sprites.lighter(sprites.WALL_TOP, 0.12), line)


def _draw_scene(
    picture: Image.Image, scene: Any, task: Task, terrain: np.ndarray, left: int, top: int, cell: int
) -> None:
    def put(sprite: Image.Image, y: float, x: float) -> None:
        picture.paste(sprite, (left + round(x * cell), top + round(y * cell)), sprite)

    gates = np.asarray(task.world.gates, int)
    for (y, x), is_open in zip(gates.tolist(), np.asarray(scene.gate_open), strict=True):
        if terrain[y, x] == GATE:
            beside = terrain[y, x - 1], terrain[y, x + 1]
            put(sprites.gate(bool(is_open), WALL not in beside, cell), y, x)
    players = [p for p in range(len(scene.heading)) if int(scene.player_y[p]) != AWAY]
    for p in players:
        y, x, heading = int(scene.player_y[p]), int(scene.player_x[p]), int(scene.heading[p])
        ahead = AHEAD[heading]
        if terrain[y + ahead[0], x + ahead[1]] in (FLOOR, GATE):
            put(sprites.gaze(p, heading, cell), y - 1, x - 1)
    for i in np.flatnonzero((np.asarray(scene.kind) > 0) & (np.asarray(scene.y) != AWAY)).tolist():
        y, x, size = int(scene.y[i]), int(scene.x[i]), round(cell * 0.82)
        inset = (cell - size) / 2 / cell
        if scene.frozen[i]:
            put(sprites.frost(cell), y, x)
        put(sprites.thing(int(scene.kind[i]), size), y + inset, x + inset)
        if scene.frozen[i]:
            put(sprites.snowflake(round(cell * 0.34)), y + 0.04, x + 0.62)
    for p in players:
        y, x, heading = int(scene.player_y[p]), int(scene.player_x[p]), int(scene.heading[p])
        size = round(cell * 0.9)
        put(sprites.player(p, heading, size), y + 0.05, x + 0.05)
        if scene.hand[p] >= 0:
            held = sprites.carried(int(scene.kind[scene.hand[p]]), cell)
            ahead, aside = AHEAD[heading], AHEAD[(heading + 1) % 4]
            dy, dx = (0.22 * a + 0.34 * b for a, b in zip(ahead, aside, strict=True))
            put(held, y + 0.5 + dy - held.height / cell / 2, x + 0.5 + dx - held.width / cell / 2)


def _draw_lamp(picture: Image.Image, size: panel.Size, on: bool, x: int, y: int) -> None:
    bulb = sprites.lamp(on, size.px(48))
    right, middle = x + size.width - size.px(8), y + size.px(22)
    picture.paste(bulb, (right - bulb.width, middle - bulb.height // 2), bulb)
    words, colour = ("reached", sprites.GOOD) if on else ("not yet", sprites.MUTED)
    at = (right - bulb.width + size.px(2), middle)
    ImageDraw.Draw(picture).text(at, words, font=sprites.font(size.px(13)), fill=colour, anchor="rm")
