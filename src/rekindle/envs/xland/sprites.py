"""Small pictures of everything in XLand, drawn large and scaled down, each drawn once per size.

Coordinates inside a sprite run from 0 to 1. Purple, yellow and black differ in lightness as much as in hue, so they
stay apart for colour-blind eyes; every shape has its own outline besides.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from rekindle.envs.xland.level import COLOURS, HOLD, NEAR, OBJECT_TYPES, RELATIONS, SEE, SHAPES, TOUCHING

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

OVERSAMPLE = 4
INK: Colour = (43, 45, 58)
MUTED: Colour = (128, 128, 142)
FAINT: Colour = (226, 222, 213)
CARD: Colour = (255, 255, 255)
PAPER: Colour = (243, 240, 233)
FLOORS: tuple[Colour, Colour] = ((236, 231, 221), (230, 224, 213))
WALL_TOP: Colour = (107, 117, 140)
WALL_FRONT: Colour = (73, 81, 102)
GOOD: Colour = (25, 158, 112)
BAD: Colour = (204, 62, 68)
ICE: Colour = (96, 184, 232)
PLAYERS: tuple[Colour, Colour] = ((14, 148, 158), (232, 106, 51))
BASES: dict[str, Colour] = {"black": (58, 61, 74), "purple": (142, 84, 222), "yellow": (250, 200, 36)}
OUTLINES: dict[str, Colour] = {"black": (18, 19, 26), "purple": (66, 28, 122), "yellow": (138, 98, 0)}
HIDDEN_TINTS: tuple[Colour, ...] = ((86, 180, 233), (213, 94, 0), (0, 158, 115), (204, 121, 167), (90, 100, 130))


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def lighter(colour: Colour, share: float) -> Colour:
    """Towards white."""
    return mix(colour, (255, 255, 255), share)


def darker(colour: Colour, share: float) -> Colour:
    """Towards black."""
    return mix(colour, (0, 0, 0), share)


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that no font file is needed."""
    return ImageFont.load_default(size=max(size, 6))


class Pen:
    """Draws in unit coordinates on a large transparent canvas; `done` scales it down."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.scale = size * OVERSAMPLE
        self.image = Image.new("RGBA", (self.scale, self.scale), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, fill: Colour | None, outline: Colour | None = None,
                width: float = 0.035) -> None:  # fmt: skip
        """A polygon with round joints."""
        dots = [(x * self.scale, y * self.scale) for x, y in points]
        if fill:
            self.draw.polygon(dots, fill=fill)
        if outline:
            self.line([*points, points[0], points[1]], outline, width)

    def line(self, points: Points, colour: Colour, width: float = 0.06) -> None:
        """A line with round joints and ends."""
        dots = [(x * self.scale, y * self.scale) for x, y in points]
        self.draw.line(dots, fill=colour, width=max(round(width * self.scale), 1), joint="curve")
        for x, y in (points[0], points[-1]):
            self.disc(x, y, width / 2, colour)

    def disc(self, x: float, y: float, radius: float, fill: Colour | None, outline: Colour | None = None,
             width: float = 0.04) -> None:  # fmt: skip
        """A circle."""
        box = [v * self.scale for v in (x - radius, y - radius, x + radius, y + radius)]
        self.draw.ellipse(box, fill=fill, outline=outline, width=round(width * self.scale) if outline else 0)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour | tuple[int, int, int, int] | None,
            outline: Colour | None = None, radius: float = 0.08, width: float = 0.04) -> None:  # fmt: skip
        """A rectangle with round corners."""
        box = [v * self.scale for v in (x0, y0, x1, y1)]
        line = round(width * self.scale) if outline else 0
        self.draw.rounded_rectangle(box, radius * self.scale, fill=fill, outline=outline, width=line)

    def text(self, x: float, y: float, words: str, height: float, colour: Colour) -> None:
        """Bold text about a centre."""
        face = font(round(height * self.scale))
        stroke = round(0.018 * self.scale)
        place = (x * self.scale, y * self.scale)
        self.draw.text(place, words, font=face, fill=colour, anchor="mm", stroke_width=stroke, stroke_fill=colour)

    def paste(self, other: Image.Image) -> None:
        """Lay another large canvas over this one."""
        self.image.alpha_composite(other)

    def done(self) -> Image.Image:
        """The sprite in its size."""
        return self.image.resize((self.size, self.size), Image.Resampling.LANCZOS)


@lru_cache(maxsize=512)
def thing(code: int, size: int) -> Image.Image:
    """An object type 1..12 with its soft shadow."""
    shape, colour = OBJECT_TYPES[code - 1].split()[::-1]
    pen = Pen(size)
    pen.paste(_shadow(pen.scale, 0.5, 0.83, 0.36, 0.1))
    _DRAW[shape](pen, BASES[colour], OUTLINES[colour])
    return pen.done()


def _shadow(scale: int, x: float, y: float, rx: float, ry: float, alpha: int = 70) -> Image.Image:
    layer = Image.new("RGBA", (scale, scale), (30, 26, 40, 0))
    box = [(x - rx) * scale, (y - ry) * scale, (x + rx) * scale, (y + ry) * scale]
    ImageDraw.Draw(layer).ellipse(box, fill=(30, 26, 40, alpha))
    return layer.filter(ImageFilter.GaussianBlur(scale * 0.03))


def _draw_cube(pen: Pen, base: Colour, edge: Colour) -> None:
    top, left, right, low = (0.5, 0.12), (0.15, 0.31), (0.85, 0.31), (0.5, 0.5)
    pen.polygon([top, right, low, left], lighter(base, 0.38))
    pen.polygon([left, low, (0.5, 0.9), (0.15, 0.71)], base)
    pen.polygon([right, low, (0.5, 0.9), (0.85, 0.71)], darker(base, 0.22))
    pen.line([low, (0.5, 0.9)], mix(base, edge, 0.45), 0.02)
    pen.line([left, low, right], mix(base, edge, 0.45), 0.02)
    pen.polygon([top, right, (0.85, 0.71), (0.5, 0.9), (0.15, 0.71), left], None, edge)


def _draw_wall(pen: Pen, base: Colour, edge: Colour) -> None:
    front, mortar = [(0.06, 0.38), (0.8, 0.38), (0.8, 0.84), (0.06, 0.84)], mix(base, edge, 0.5)
    pen.polygon(front, base)
    pen.polygon([(0.06, 0.38), (0.2, 0.22), (0.94, 0.22), (0.8, 0.38)], lighter(base, 0.38))
    pen.polygon([(0.8, 0.38), (0.94, 0.22), (0.94, 0.68), (0.8, 0.84)], darker(base, 0.22))
    pen.line([(0.06, 0.38), (0.8, 0.38), (0.94, 0.22)], mortar, 0.02)
    pen.line([(0.8, 0.38), (0.8, 0.84)], mortar, 0.02)
    for y in (0.533, 0.687):
        pen.line([(0.06, y), (0.8, y)], mortar, 0.025)
    for y, joints in ((0.38, (0.31, 0.56)), (0.533, (0.185, 0.43, 0.68)), (0.687, (0.31, 0.56))):
        for x in joints:
            pen.line([(x, y), (x, y + 0.153)], mortar, 0.025)
    pen.polygon([(0.06, 0.38), (0.2, 0.22), (0.94, 0.22), (0.94, 0.68), (0.8, 0.84), (0.06, 0.84)], None, edge)


def _draw_pyramid(pen: Pen, base: Colour, edge: Colour) -> None:
    apex, left, foot, right = (0.5, 0.1), (0.1, 0.74), (0.6, 0.89), (0.9, 0.7)
    pen.polygon([apex, left, foot], lighter(base, 0.22))
    pen.polygon([apex, foot, right], darker(base, 0.2))
    pen.line([apex, foot], mix(base, edge, 0.45), 0.02)
    pen.polygon([apex, right, foot, left], None, edge)


def _draw_sphere(pen: Pen, base: Colour, edge: Colour) -> None:
    radius, cx, cy = 0.365, 0.5, 0.51
    pen.disc(cx, cy, radius + 0.018, edge)
    ys, xs = (np.mgrid[: pen.scale, : pen.scale] + 0.5) / pen.scale
    u, v = (xs - cx) / radius, (ys - cy) / radius
    inside = u * u + v * v < 0.93
    w = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
    light = np.clip(-0.42 * u - 0.58 * v + 0.7 * w, 0, 1)
    shade = (0.62 + 0.5 * light)[..., None] * np.asarray(base, float)
    gloss = np.clip(light - 0.86, 0, 1)[..., None] * 5.0
    picture = np.zeros((pen.scale, pen.scale, 4), np.uint8)
    picture[..., :3] = np.clip(shade + (255 - shade) * np.clip(gloss, 0, 0.75), 0, 255)
    picture[..., 3] = inside * 255
    pen.paste(Image.fromarray(picture, "RGBA"))


_DRAW: dict[str, Callable[[Pen, Colour, Colour], None]] = {
    "wall": _draw_wall,
    "cube": _draw_cube,
    "sphere": _draw_sphere,
    "pyramid": _draw_pyramid,
}
assert tuple(_DRAW) == SHAPES and tuple(BASES) == COLOURS


@lru_cache(maxsize=64)
def player(number: int, heading: int, size: int) -> Image.Image:
    """Player `number` from above; eyes and beak point where it faces."""
    pen, colour = Pen(size), PLAYERS[number % 2]
    edge = darker(colour, 0.45)
    pen.polygon([(0.5, 0.03), (0.33, 0.26), (0.67, 0.26)], (255, 176, 46), (150, 92, 0), 0.03)
    pen.disc(0.17, 0.45, 0.09, darker(colour, 0.12), edge, 0.03)
    pen.disc(0.83, 0.45, 0.09, darker(colour, 0.12), edge, 0.03)
    pen.disc(0.5, 0.53, 0.36, colour, edge)
    pen.disc(0.5, 0.6, 0.23, lighter(colour, 0.16))
    for x in (0.36, 0.64):
        pen.disc(x, 0.37, 0.115, (255, 255, 255), edge, 0.022)
        pen.disc(x, 0.335, 0.058, INK)
    body = pen.image.rotate(-90 * heading)
    under = Pen(size)
    under.paste(_shadow(under.scale, 0.5, 0.62, 0.38, 0.32, 80))
    under.paste(body)
    return under.done()


@lru_cache(maxsize=64)
def gaze(number: int, heading: int, size: int) -> Image.Image:
    """A soft light on the 3 x 3 cells around a player, falling where it faces."""
    n = 3 * size
    ys, xs = (np.mgrid[:n, :n] + 0.5) / size - 1.5
    aside, ahead = np.abs(xs), -ys
    inside = np.clip((0.34 + 0.2 * ahead - aside) / 0.12, 0, 1) * np.clip((ahead - 0.2) / 0.2, 0, 1)
    fade = np.clip((1.35 - ahead) / 1.0, 0, 1)
    light = np.zeros((n, n, 4), np.uint8)
    light[..., :3] = PLAYERS[number % 2]
    light[..., 3] = 72 * inside * fade
    return Image.fromarray(np.rot90(light, -heading).copy(), "RGBA")


@lru_cache(maxsize=256)
def carried(code: int, size: int) -> Image.Image:
    """A held object: smaller, with a white halo that lifts it off what is beneath."""
    small = thing(code, round(size * 0.56))
    margin = max(round(size * 0.05), 1)
    n = small.width + 2 * margin
    alpha = Image.new("L", (n, n), 0)
    solid = np.where(np.asarray(small.getchannel("A")) > 120, 255, 0).astype(np.uint8)
    alpha.paste(Image.fromarray(solid), (margin, margin))
    halo = alpha.filter(ImageFilter.MaxFilter(2 * margin + 1)).filter(ImageFilter.GaussianBlur(margin / 3))
    picture = Image.new("RGBA", (n, n), (255, 255, 255, 0))
    picture.putalpha(halo)
    picture.alpha_composite(small, (margin, margin))
    return picture


@lru_cache(maxsize=32)
def gate(is_open: bool, sideways: bool, size: int) -> Image.Image:
    """A barred door between two posts; `sideways` if the posts stand above and below."""
    pen, post, bar = Pen(size), (92, 66, 48), (166, 122, 82)
    edge = darker(post, 0.4)
    if is_open:
        pen.box(0.11, 0.06, 0.21, 0.94, bar, darker(bar, 0.45), 0.03, 0.02)
        pen.box(0.79, 0.06, 0.89, 0.94, bar, darker(bar, 0.45), 0.03, 0.02)
    else:
        for x in (0.2, 0.35, 0.5, 0.65, 0.8):
            pen.box(x - 0.048, 0.2, x + 0.048, 0.8, bar, darker(bar, 0.45), 0.04, 0.02)
        for y in (0.34, 0.66):
            pen.box(0.06, y - 0.05, 0.94, y + 0.05, lighter(bar, 0.14), darker(bar, 0.45), 0.02, 0.02)
    for x in (0.0, 0.87):
        pen.box(x, 0.16, x + 0.13, 0.84, post, edge, 0.04, 0.02)
    sprite = pen.done()
    return sprite.rotate(90) if sideways else sprite


@lru_cache(maxsize=32)
def frost(size: int) -> Image.Image:
    """The bed of ice under a frozen object."""
    pen = Pen(size)
    pen.box(0.05, 0.05, 0.95, 0.95, (*ICE, 90), ICE, 0.16, 0.035)
    return pen.done()


@lru_cache(maxsize=32)
def snowflake(size: int) -> Image.Image:
    """The badge of a frozen object."""
    pen = Pen(size)
    pen.disc(0.5, 0.5, 0.48, (255, 255, 255), ICE, 0.08)
    for angle in np.deg2rad([90, 150, 210]):
        dx, dy = float(np.cos(angle)), float(np.sin(angle))
        pen.line([(0.5 - 0.31 * dx, 0.5 - 0.31 * dy), (0.5 + 0.31 * dx, 0.5 + 0.31 * dy)], darker(ICE, 0.35), 0.08)
    return pen.done()


@lru_cache(maxsize=128)
def unknown(number: int, size: int) -> Image.Image:
    """A question mark for what is hidden; `number` 0 for a whole rule, else the placeholder's number."""
    pen, tint = Pen(size), HIDDEN_TINTS[(number - 1) % len(HIDDEN_TINTS)] if number else MUTED
    pen.box(0.06, 0.06, 0.94, 0.94, lighter(tint, 0.8), tint, 0.2, 0.045)
    if not number:
        pen.text(0.5, 0.5, "?", 0.62, darker(tint, 0.15))
        return pen.done()
    pen.text(0.36, 0.46, "?", 0.6, darker(tint, 0.3))
    pen.text(0.68 if number < 10 else 0.66, 0.66, str(number), 0.4 if number < 10 else 0.34, darker(tint, 0.3))
    return pen.done()


@lru_cache(maxsize=64)
def relation(code: int, size: int) -> Image.Image:
    """A line drawing of a relation."""
    pen = Pen(size)
    _RELATION_DRAW[code](pen)
    return pen.done()


def _draw_touching(pen: Pen) -> None:
    pen.box(0.07, 0.29, 0.5, 0.71, lighter(INK, 0.7), INK, 0.07, 0.06)
    pen.box(0.5, 0.29, 0.93, 0.71, lighter(INK, 0.7), INK, 0.07, 0.06)


def _draw_near(pen: Pen) -> None:
    pen.disc(0.2, 0.5, 0.15, lighter(INK, 0.7), INK, 0.06)
    pen.disc(0.8, 0.5, 0.15, lighter(INK, 0.7), INK, 0.06)
    for x in (0.42, 0.5, 0.58):
        pen.disc(x, 0.5, 0.028, INK)
    for start, end in ((215, 325), (35, 145)):
        box = [v * pen.scale for v in (0.14, 0.14, 0.86, 0.86)]
        pen.draw.arc(box, start, end, fill=INK, width=round(0.055 * pen.scale))


def _draw_hold(pen: Pen) -> None:
    skin = lighter(INK, 0.7)
    fingers = [((0.36, 0.6), (0.33, 0.27)), ((0.48, 0.56), (0.48, 0.16)), ((0.6, 0.56), (0.63, 0.2)),
               ((0.69, 0.62), (0.77, 0.36)), ((0.4, 0.72), (0.17, 0.52))]  # fmt: skip
    palm = (0.3, 0.5, 0.75, 0.9)
    for grow, colour in ((0.05, INK), (0.0, skin)):
        for a, b in fingers:
            pen.line([a, b], colour, 0.11 + 2 * grow)
        pen.box(palm[0] - grow, palm[1] - grow, palm[2] + grow, palm[3] + grow, colour, None, 0.16)


def _draw_see(pen: Pen) -> None:
    t = np.linspace(0, np.pi, 25)
    upper = [(float(0.5 - 0.44 * np.cos(a)), float(0.5 - 0.27 * np.sin(a))) for a in t]
    lower = [(x, 1 - y) for x, y in reversed(upper)]
    pen.polygon([*upper, *lower], (255, 255, 255), INK, 0.06)
    pen.disc(0.5, 0.5, 0.19, lighter(INK, 0.45), INK, 0.05)
    pen.disc(0.5, 0.5, 0.09, INK)
    pen.disc(0.56, 0.44, 0.04, (255, 255, 255))


_RELATION_DRAW: dict[int, Callable[[Pen], None]] = {
    TOUCHING: _draw_touching,
    NEAR: _draw_near,
    HOLD: _draw_hold,
    SEE: _draw_see,
}
assert len(_RELATION_DRAW) == len(RELATIONS)


@lru_cache(maxsize=32)
def negation(size: int) -> Image.Image:
    """The red sign that turns a condition into its opposite."""
    pen = Pen(size)
    pen.disc(0.5, 0.5, 0.38, lighter(BAD, 0.85), BAD, 0.11)
    pen.line([(0.26, 0.26), (0.74, 0.74)], BAD, 0.11)
    return pen.done()


@lru_cache(maxsize=32)
def arrow(size: int) -> Image.Image:
    """From a rule's condition to what it spawns."""
    pen = Pen(size)
    pen.line([(0.12, 0.5), (0.84, 0.5)], MUTED, 0.08)
    pen.line([(0.6, 0.27), (0.86, 0.5), (0.6, 0.73)], MUTED, 0.08)
    return pen.done()


@lru_cache(maxsize=32)
def nothing(size: int) -> Image.Image:
    """What a rule without spawns leaves."""
    pen = Pen(size)
    for start in range(0, 360, 45):
        box = [v * pen.scale for v in (0.2, 0.2, 0.8, 0.8)]
        pen.draw.arc(box, start, start + 26, fill=MUTED, width=round(0.06 * pen.scale))
    return pen.done()


@lru_cache(maxsize=32)
def lamp(on: bool, size: int) -> Image.Image:
    """Lit while the goal holds."""
    pen = Pen(size)
    if on:
        glow = Image.new("RGBA", pen.image.size, (*GOOD, 0))
        ImageDraw.Draw(glow).ellipse([v * pen.scale for v in (0.1, 0.1, 0.9, 0.9)], fill=(*GOOD, 150))
        pen.paste(glow.filter(ImageFilter.GaussianBlur(pen.scale * 0.08)))
    pen.disc(0.5, 0.5, 0.25, (64, 214, 152) if on else (222, 219, 212), darker(GOOD, 0.2) if on else (188, 184, 176))
    pen.disc(0.43, 0.42, 0.07, (226, 255, 241) if on else (240, 238, 233))
    return pen.done()
