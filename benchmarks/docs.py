"""Pages from results: `python -m benchmarks.docs` writes docs/results/STUDY.md from benchmarks/STUDY/results/*.json.

The study's README.md opens the page. Tables named `curves`, or `..._curves`, are drawn too. With `--check` nothing is
written, and the exit code says whether the pages are up to date.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import PRESETS
from rekindle.library.files import read_json, write_bytes, write_text
from rekindle.report.plots import Curve, Panel, joined_plot

ROOT = Path(__file__).parent
PAGES = ROOT.parent / "docs" / "results"
TITLES = {"pvrl": "reincarnation"}
"""Pages that have another name than their study."""
MEASURED = tuple(preset for preset in PRESETS if preset != "smoke")
"""Presets whose results mean something."""
DRAWN = ("score", "return")
"""What curves are of."""


def page(study: Path) -> str:
    """The page of one study, from its folder."""
    opening = (study / "README.md").read_text().rstrip()
    sections = [section(result, part, study.name) for part, result in results(study)]
    return "\n\n".join([opening, *sections, unmeasured(study)]) + "\n"


def pictures(study: Path) -> dict[str, Callable[[], bytes]]:
    """What is drawn on the page of one study, by file name; drawn when it is asked for."""
    heading = (study / "README.md").read_text().partition("\n")[0].lstrip("# ")
    return {picture(study.name, result, part, name): partial(drawn, f"{heading}: {name.replace('_', ' ')}", rows)
            for part, result in results(study) for name, rows in result["values"].items()
            if _is_table(rows) and _is_drawn(name, rows)}  # fmt: skip


def results(study: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Results of a study, each with the name of its part."""
    return [(file.stem.partition("-")[2], read_json(file)) for file in sorted((study / "results").glob("*.json"))]


def unmeasured(study: Path) -> str:
    """Which parts of a study have no result, by preset."""
    known: dict[str, set[str]] = {}
    for part, result in results(study):
        known.setdefault(result["preset"], set()).add(part)
    parts = getattr(importlib.import_module(f"benchmarks.{study.name}.__main__"), "PARTS", ())
    lacks = {preset: [part for part in parts if part not in known.get(preset, ())] for preset in MEASURED}
    said = [f"Preset {preset}: {', '.join(lacks[preset]) if preset in known else 'everything'}." for preset in MEASURED
            if preset not in known or ("" not in known[preset] and lacks[preset])]  # fmt: skip
    return f"## Not measured yet\n\n{' '.join(said) or 'Nothing is left.'}"


def section(result: Mapping[str, Any], part: str = "", study: str = "") -> str:
    """One result, of the whole study or of a part: where it was measured, its bars, its numbers, curves and tables."""
    numbers = {name: value for name, value in result["values"].items() if not _is_table(value)}
    tables = {name: value for name, value in result["values"].items() if _is_table(value)}
    older = [revision for revision in result.get("cells_from", []) if revision != result["revision"]]
    revision = result["revision"] + (f" (of some cells: {', '.join(older)})" if older else "")
    parts = [
        f"## Preset {result['preset']}" + (f", {part}" if part else ""),
        f"Machine: {result['machine']}. Revision: {revision}. Seeds: {', '.join(map(str, result['seeds']))}.",
        table([_bar(bar, result["seeds"]) for bar in result["bars"]]),
        table([{"quantity": name, "value": value} for name, value in numbers.items()]),
    ]
    for name, rows in tables.items():
        if _is_drawn(name, rows):
            shown = f"![{name}](images/{picture(study, result, part, name)})"
            parts += [f"### {name}", shown, "<details><summary>In numbers</summary>", table(rows), "</details>"]
        else:
            parts += [f"### {name}", table(rows)]
    return "\n\n".join(part for part in parts if part)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table; columns `x`, `x_low` and `x_high` become one, "x [low, high]"."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [name for name in names if not _is_end(name, names)]
    lines = [columns, ["---"] * len(columns), *([_cell(row, name) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def picture(study: str, result: Mapping[str, Any], part: str, name: str) -> str:
    """The file name of a picture."""
    whole = name if not part or name.startswith(part) else f"{part}-{name}"
    return f"{study}-{result['preset']}-{whole}.svg".replace("_", "-")


def drawn(title: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Curves as an SVG: a panel for each task, a line for each method or seed, what was published beside it."""
    y = next(y for y in DRAWN if y in rows[0])
    read = max([row["steps"] for row in rows if row.get("phase") == "offline"], default=0)
    shown = "normalised score" if y == "score" else y
    panels = [Panel(f"{task}\n{shown}" if task else shown, lines(some, y, read))
              for task, some in grouped(rows, "task").items()]  # fmt: skip
    return joined_plot(panels, title=title, offline_updates=read)


def lines(rows: Sequence[Mapping[str, Any]], y: str, read: int) -> list[Curve]:
    """One curve for each method or seed; x of what was learnt from data ends at 0."""
    by = "method" if "method" in rows[0] else "seed"
    curves = [curve(f"seed {label}" if by == "seed" and label != "" else str(label or "ours"), some, y, read)
              for label, some in grouped(rows, by).items()]  # fmt: skip
    known = [row for row in rows if row.get("published") is not None]
    return curves + ([curve("published", known, "published", read)] if known else [])


def curve(label: str, rows: Sequence[Mapping[str, Any]], y: str, read: int) -> Curve:
    """A column of some rows over their steps, with its interval where all of them have one."""
    x = [row["steps"] - (read if row.get("phase") == "offline" else 0) for row in rows]
    ends = [[row.get(f"{y}_{end}") for row in rows] for end in ("low", "high")]
    low, high = ends if None not in ends[0] + ends[1] else (None, None)
    return Curve(label, x, [row[y] for row in rows], low, high)


def grouped(rows: Sequence[Mapping[str, Any]], by: str) -> dict[Any, list[Mapping[str, Any]]]:
    """Rows by a column; under "" those that have none."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row.get(by, ""), []).append(row)
    return groups


def number(value: Any) -> str:
    """Three figures, thousands apart; text as it is."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _cell(row: Mapping[str, Any], name: str) -> str:
    text = number(row.get(name))
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None or high is None else f"{text} [{number(low)}, {number(high)}]"


def _bar(bar: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """One seed alone has no interval; where a bar is of something else than seeds, it may have one all the same."""
    known = len(seeds) > 1 or bar["low"] < bar["high"]
    interval = {"value": bar["value"]} | ({"value_low": bar["low"], "value_high": bar["high"]} if known else {})
    return {"bar": bar["name"], **interval, "asked": bar["asks"], "kept": bar["ok"]}


def _is_end(name: str, names: Sequence[str]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in names for end in ("_low", "_high"))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _is_drawn(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    return name.endswith("curves") and "steps" in rows[0] and any(y in rows[0] for y in DRAWN)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.docs", description="Pages from results.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check = parser.parse_args().check
    PAGES.mkdir(parents=True, exist_ok=True)
    stale = []
    for study in sorted(path.parent for path in ROOT.glob("*/README.md")):
        path, text = PAGES / f"{TITLES.get(study.name, study.name)}.md", page(study)
        beside = {PAGES / "images" / name: draw for name, draw in pictures(study).items()}
        if not path.exists() or path.read_text() != text or not all(image.exists() for image in beside):
            stale.append(path.name)
            if not check:
                for image, draw in beside.items():
                    image.parent.mkdir(exist_ok=True)
                    write_bytes(image, draw())
                write_text(path, text)
    print(f"{'out of date' if check else 'written'}: {', '.join(stale) or 'none'}", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
