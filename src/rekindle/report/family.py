"""The family tree of a run as a picture: what it was made from to its left, what was made from it to its right."""

from collections.abc import Iterable
from typing import NamedTuple
from xml.sax.saxutils import escape

from rekindle.library.lineage import Kin, Lineage

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 250, 44, 70, 14, 16
"""Of a box and between boxes, in pixels."""
NAME_LETTERS = 34
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #222 } .id { font-size: 10px; fill: #666 }
  .role { font-size: 10px; fill: #888; text-anchor: middle }
  rect { fill: #fff; stroke: #999; rx: 6px } .self rect { fill: #fff4d6; stroke: #d79b00; stroke-width: 2px }
  .gone rect { stroke-dasharray: 4 3; fill: #f6f6f6 } path { fill: none; stroke: #999 }
"""


class _Box(NamedTuple):
    id: str
    name: str
    kept: bool
    column: int


def family_svg(lineage: Lineage) -> bytes:
    """The picture, as an SVG file that needs nothing else; runs that are not kept have a dashed border."""
    own = _Box(lineage.record.id, lineage.record.manifest.name, True, 0)
    boxes: dict[str, _Box] = {own.id: own}
    links: dict[tuple[str, str], str] = {}
    _walk(own, lineage.parents, -1, boxes, links)
    _walk(own, lineage.children, 1, boxes, links)
    first = min(box.column for box in boxes.values())
    columns: dict[int, list[_Box]] = {}
    for box in boxes.values():
        columns.setdefault(box.column - first, []).append(box)
    tallest = max(len(column) for column in columns.values())
    place: dict[str, tuple[int, int]] = {}
    for number, column in columns.items():
        above = (tallest - len(column)) * (HEIGHT + GAP_Y) // 2
        for row, box in enumerate(column):
            place[box.id] = (MARGIN + number * (WIDTH + GAP_X), MARGIN + above + row * (HEIGHT + GAP_Y))
    width = 2 * MARGIN + len(columns) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + tallest * (HEIGHT + GAP_Y) - GAP_Y
    drawn = [*_lines(links, place), *(_drawn(box, own, *place[box.id]) for box in boxes.values())]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    title = f"<title>{_text(f'The family of {own.id}')}</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *drawn, "</svg>\n"]).encode()


def _walk(
    near: _Box, kin: tuple[Kin, ...], step: int, boxes: dict[str, _Box], links: dict[tuple[str, str], str]
) -> None:
    for one in kin:
        name = one.manifest.name if one.manifest else ""
        box = boxes.setdefault(one.id, _Box(one.id, name, one.kept, near.column + step))
        ends = (one.id, near.id) if step < 0 else (near.id, one.id)
        links[ends] = one.role
        _walk(box, one.beyond, step, boxes, links)


def _lines(links: dict[tuple[str, str], str], place: dict[str, tuple[int, int]]) -> Iterable[str]:
    for (parent, child), role in links.items():
        x0, y0 = place[parent][0] + WIDTH, place[parent][1] + HEIGHT // 2
        x1, y1 = place[child][0], place[child][1] + HEIGHT // 2
        middle = (x0 + x1) // 2
        yield f'<path d="M{x0},{y0} C{middle},{y0} {middle},{y1} {x1},{y1}"/>'
        yield f'<text class="role" x="{middle}" y="{(y0 + y1) // 2 - 3}">{_text(role[:14])}</text>'


def _drawn(box: _Box, own: _Box, x: int, y: int) -> str:
    kind = "self" if box.id == own.id else "" if box.kept else "gone"
    name = box.name if len(box.name) <= NAME_LETTERS else f"{box.name[:NAME_LETTERS]}…"
    return (
        f'<g class="{kind}"><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}"/>'
        f'<text x="{x + 10}" y="{y + 19}">{_text(name or "not in this library")}</text>'
        f'<text class="id" x="{x + 10}" y="{y + 35}">{_text(box.id[:44])}</text></g>'
    )


def _text(text: str) -> str:
    """Escaped, without the characters that XML does not have."""
    return escape("".join(char if char.isprintable() else "?" for char in text))
