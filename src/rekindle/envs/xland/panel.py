"""The board beside the grid: the goal and the rules as the player is told them, and how far the episode is.

Everything here is drawn from what `encode.py` shows the player, never from the game itself, so nothing hidden can leak.
Lengths are in units of 1/48 of a cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from rekindle.envs.xland import sprites
from rekindle.envs.xland.encode import HIDDEN
from rekindle.envs.xland.level import COLOURS, HOLD, RELATIONS, SHAPES

ME_SHAPE, PARTNER_SHAPE = 5, 6
COLUMN, GAP, PAD = 328, 14, 16
GOAL_HEIGHT, CLOCK_HEIGHT, RULE_HEIGHT, HEAD = 122, 158, 38, 40


@dataclass(frozen=True)
class Shown:
    """What the player is told, hashable so that drawings can be kept."""

    goal: tuple[int, ...]
    rules: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(goal: np.ndarray, rules: np.ndarray) -> "Shown":
        """From the arrays of `encode.shown_goal` and `encode.shown_rules`; empty rows are left out."""
        rows = tuple(tuple(int(v) for v in row) for row in rules if np.any(row))
        return Shown(tuple(int(v) for v in goal), rows)


@dataclass(frozen=True)
class Size:
    """How the board is laid out for so many rules beside a grid of this height."""

    unit: float
    columns: int
    rows: int

    @staticmethod
    def fit(unit: float, rules: int, grid_height: float) -> "Size":
        """Two columns of rules where one would outgrow the grid by far."""
        room = grid_height / unit - GOAL_HEIGHT - CLOCK_HEIGHT - 2 * GAP - HEAD - PAD
        columns = 2 if rules > 4 and (rules - 3) * RULE_HEIGHT > room else 1
        return Size(unit, columns, max(-(-rules // columns), 1))

    def px(self, units: float) -> int:
        """Pixels."""
        return round(units * self.unit)

    @property
    def width(self) -> int:
        """Pixels of the whole board."""
        return self.px(self.columns * COLUMN + (self.columns - 1) * GAP + 2 * PAD)

    @property
    def rules_height(self) -> int:
        """Pixels of the card of rules."""
        return self.px(HEAD + self.rows * RULE_HEIGHT + PAD / 2)

    @property
    def height(self) -> int:
        """Pixels of the whole board."""
        return self.px(GOAL_HEIGHT) + self.rules_height + self.px(CLOCK_HEIGHT) + 2 * self.px(GAP)


def card(width: int, height: int, unit: float) -> Image.Image:
    """A white card with round corners and a soft shadow, in a margin of 10 units."""
    margin, over = round(10 * unit), 3
    size = (width + 2 * margin, height + 2 * margin)
    shade = Image.new("L", size, 0)
    box = [margin, margin + round(2 * unit), margin + width - 1, margin + height - 1 + round(2 * unit)]
    ImageDraw.Draw(shade).rounded_rectangle(box, 12 * unit, fill=46)
    shade = shade.filter(ImageFilter.GaussianBlur(4 * unit))
    mask = Image.new("L", (width * over, height * over), 0)
    ImageDraw.Draw(mask).rounded_rectangle([0, 0, width * over - 1, height * over - 1], 12 * unit * over, fill=255)
    picture = Image.new("RGBA", size, (60, 52, 40, 0))
    picture.putalpha(shade)
    face = Image.new("RGBA", (width, height), (*sprites.CARD, 255))
    picture.paste(face, (margin, margin), mask.resize((width, height), Image.Resampling.LANCZOS))
    return picture


def put_card(picture: Image.Image, x: int, y: int, width: int, height: int, unit: float) -> None:
    """Lay a card with its shadow on a picture."""
    margin = round(10 * unit)
    piece = card(width, height, unit)
    picture.paste(piece, (x - margin, y - margin), piece)


@lru_cache(maxsize=64)
def board(shown: Shown, size: Size, margin: int) -> Image.Image:
    """The unchanging part of the board on paper: goal, rules, and the empty clock card; `margin` pixels around it."""
    picture = Image.new("RGB", (size.width + 2 * margin, size.height + 2 * margin), sprites.PAPER)
    y = margin
    for height in (size.px(GOAL_HEIGHT), size.rules_height, size.px(CLOCK_HEIGHT)):
        put_card(picture, margin, y, size.width, height, size.unit)
        y += height + size.px(GAP)
    _draw_goal(picture, size, shown.goal, margin)
    _draw_rules(picture, size, shown.rules, margin, margin + size.px(GOAL_HEIGHT + GAP))
    return picture


def _label(picture: Image.Image, size: Size, x: int, y: int, words: str, note: str = "") -> None:
    draw, face = ImageDraw.Draw(picture), sprites.font(size.px(13))
    draw.text(
        (x, y), words, font=face, fill=sprites.MUTED, anchor="lm", stroke_width=size.px(0.4), stroke_fill=sprites.MUTED
    )
    if note:
        at = x + face.getlength(words) + size.px(10)
        draw.text((at, y), note, font=face, fill=sprites.MUTED, anchor="lm")


def _draw_goal(picture: Image.Image, size: Size, goal: tuple[int, ...], margin: int) -> None:
    x, y, icon = margin + size.px(PAD), margin, size.px(46)
    _label(picture, size, x, y + size.px(21), "GOAL")
    negated, code, *pair = goal
    icons = [sprites.negation(icon)] if negated else []
    if code == HOLD and tuple(pair[:2]) == (ME_SHAPE, 0):
        icons += [sprites.relation(code, icon), icon_of(pair[2], pair[3], icon)]
    else:
        icons += [icon_of(pair[0], pair[1], icon), sprites.relation(code, icon), icon_of(pair[2], pair[3], icon)]
    for sprite in icons:
        picture.paste(sprite, (x, y + size.px(36)), sprite)
        x += icon + size.px(10)
    at = (margin + size.px(PAD), y + size.px(101))
    face = sprites.font(size.px(17))
    ImageDraw.Draw(picture).text(at, goal_words(goal), font=face, fill=sprites.INK, anchor="lm",
                                 stroke_width=size.px(0.3), stroke_fill=sprites.INK)  # fmt: skip


def goal_words(goal: Sequence[int]) -> str:
    """The goal in the words of the grammar, without its brackets: `not touching purple cube and black wall`."""
    negated, code, *pair = goal
    a, b = (name_of(*pair[i : i + 2]) for i in (0, 2))
    middle = f"hold {b}" if code == HOLD and a == "me" else f"{a} {_VERBS[code - 1]} {b}"
    return f"not: {middle}" if negated else middle


_VERBS = ("touching", "near", "holds", "sees")
assert len(_VERBS) == len(RELATIONS)


def name_of(shape: int, colour: int) -> str:
    """The words of a shown thing."""
    if shape > PARTNER_SHAPE:
        return f"hidden {shape - PARTNER_SHAPE}"
    return {ME_SHAPE: "me", PARTNER_SHAPE: "partner"}.get(shape) or f"{COLOURS[colour - 1]} {SHAPES[shape - 1]}"


def icon_of(shape: int, colour: int, size: int) -> Image.Image:
    """The picture of a shown thing."""
    if shape > PARTNER_SHAPE:
        return sprites.unknown(shape - PARTNER_SHAPE, size)
    if shape >= ME_SHAPE:
        return sprites.player(shape - ME_SHAPE, 0, size)
    return sprites.thing(4 * (colour - 1) + shape, size)


def _draw_rules(picture: Image.Image, size: Size, rules: tuple[tuple[int, ...], ...], margin: int, top: int) -> None:
    secret = sum(row[0] == HIDDEN and row[1] == 0 for row in rules)
    _label(picture, size, margin + size.px(PAD), top + size.px(21), "RULES", f"{secret} hidden" if secret else "")
    first = top + size.px(HEAD)
    if not rules:
        at = (margin + size.px(PAD), first + size.px(RULE_HEIGHT / 2) - size.px(4))
        ImageDraw.Draw(picture).text(at, "none", font=sprites.font(size.px(15)), fill=sprites.MUTED, anchor="lm")
    for r, row in enumerate(rules):
        x = margin + size.px(PAD + (r // size.rows) * (COLUMN + GAP))
        y = first + size.px((r % size.rows) * RULE_HEIGHT)
        (_draw_secret if row[0] == HIDDEN and row[1] == 0 else _draw_rule)(picture, size, row, x, y)


def _draw_secret(picture: Image.Image, size: Size, row: tuple[int, ...], x: int, y: int) -> None:
    del row
    icon = size.px(32)
    for at, sprite in ((0, sprites.unknown(0, icon)), (80, sprites.unknown(0, icon)), (161, sprites.unknown(0, icon)),
                       (195, sprites.arrow(icon)), (227, sprites.unknown(0, icon))):  # fmt: skip
        picture.paste(sprite, (x + size.px(at), y + size.px(2)), sprite)


def _draw_rule(picture: Image.Image, size: Size, row: tuple[int, ...], x: int, y: int) -> None:
    icon = size.px(34)
    cells = [row[i : i + 2] for i in range(2, len(row), 2)]
    spawns = [cell for cell in cells[2:] if cell[0]]
    placed = [
        (0, icon_of(cells[0][0], cells[0][1], icon)),
        (160, icon_of(cells[1][0], cells[1][1], icon)),
        (194, sprites.arrow(icon)),
    ]
    placed += [(226 + 34 * s, icon_of(cell[0], cell[1], icon)) for s, cell in enumerate(spawns)]
    if not spawns:
        placed.append((226, sprites.nothing(icon)))
    for at, sprite in placed:
        picture.paste(sprite, (x + size.px(at), y + size.px(1)), sprite)
    chip = _relation_chip(row[0], row[1], size)
    picture.paste(chip, (x + size.px(38), y + size.px(4)), chip)


@lru_cache(maxsize=64)
def _relation_chip(negated: int, code: int, size: Size) -> Image.Image:
    """A pill with the relation's picture and word; red if it is negated, a question mark if it is hidden."""
    over, width, height, icon = 3, size.px(119), size.px(28), size.px(22)
    hidden = code > len(RELATIONS)
    tint = sprites.BAD if negated == 1 else sprites.MUTED
    large = Image.new("RGBA", (width * over, height * over), (0, 0, 0, 0))
    ImageDraw.Draw(large).rounded_rectangle(
        [0, 0, width * over - 1, height * over - 1], height * over / 2, fill=sprites.lighter(tint, 0.86)
    )
    chip = large.resize((width, height), Image.Resampling.LANCZOS)
    picture = sprites.unknown(code - len(RELATIONS), icon) if hidden else sprites.relation(code, icon)
    marks = [sprites.negation(icon), picture] if negated == 1 else [picture]
    x = size.px(6)
    for mark in marks:
        chip.alpha_composite(mark, (x, (height - icon) // 2))
        x += icon + size.px(2)
    words = "hidden" if hidden else RELATIONS[code - 1]
    ink = sprites.darker(sprites.BAD, 0.25) if negated == 1 else sprites.INK
    ImageDraw.Draw(chip).text(
        (x + size.px(3), height / 2), words, font=sprites.font(size.px(13)), fill=ink, anchor="lm"
    )
    return chip


@dataclass(frozen=True)
class Clock:
    """How far the episode is: trial and time count from 0, `totals` is the reward of each trial so far."""

    trial: int
    trials: int
    time: int
    length: int
    totals: tuple[float, ...]
    best: float
    """Reward total that fills a trial's bar."""


def draw_clock(picture: Image.Image, size: Size, clock: Clock, x: int, y: int) -> None:
    """Trial, time left and the score of each trial, into the clock card at pixel (x, y)."""
    strip = _clock(clock, size)
    picture.paste(strip, (x + size.px(PAD), y + size.px(8)))


@lru_cache(maxsize=16)
def _clock(clock: Clock, size: Size) -> Image.Image:
    over, width, height = 2, size.width - 2 * size.px(PAD), size.px(CLOCK_HEIGHT - 16)
    large = Image.new("RGB", (width * over, height * over), sprites.CARD)
    unit = size.unit * over
    draw = ImageDraw.Draw(large)
    face = sprites.font(round(13 * unit))

    def bar(x0: float, y0: float, x1: float, y1: float, colour: sprites.Colour) -> None:
        draw.rounded_rectangle([x0, y0, x1, y1], min((x1 - x0), (y1 - y0), 8 * unit) / 2, fill=colour)

    def words(x: float, y: float, text: str, colour: sprites.Colour, anchor: str, bold: float = 0.0) -> None:
        stroke = round(bold * unit)
        draw.text((x, y), text, font=face, fill=colour, anchor=anchor, stroke_width=stroke, stroke_fill=colour)

    full = width * over
    words(0, 13 * unit, f"TRIAL {clock.trial + 1} of {clock.trials}", sprites.MUTED, "lm", 0.4)
    words(full, 13 * unit, f"step {clock.time} of {clock.length}", sprites.MUTED, "rm")
    bar(0, 27 * unit, full, 34 * unit, sprites.FAINT)
    share = min(clock.time / max(clock.length, 1), 1.0)
    if share > 0:
        bar(0, 27 * unit, max(share * full, 7 * unit), 34 * unit, sprites.PLAYERS[0])

    slot = min(full / max(clock.trials, 1), 54 * unit)
    top, floor = 58 * unit, 122 * unit
    for trial in range(clock.trials):
        left, right = trial * slot, (trial + 1) * slot - max(0.14 * slot, 2)
        total = clock.totals[trial] if trial < len(clock.totals) else 0.0
        rise = min(total / clock.best, 1.0) * (floor - top)
        bar(left, floor - 4 * unit, right, floor, sprites.FAINT)
        if total > 0:
            bar(left, floor - max(rise, 6 * unit), right, floor, sprites.GOOD)
        middle, now = (left + right) / 2, trial == clock.trial
        if trial < len(clock.totals) and slot >= 24 * unit:
            words(middle, floor - max(rise, 4 * unit) - 10 * unit, f"{total:.3g}", sprites.INK, "mm")
        if slot >= 14 * unit:
            ink, bold = (sprites.INK, 0.4) if now else (sprites.MUTED, 0.0)
            words(middle, floor + 11 * unit, str(trial + 1), ink, "mm", bold)
    return large.resize((width, height), Image.Resampling.LANCZOS)
