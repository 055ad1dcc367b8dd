"""Pages from results: `python -m benchmarks.docs` writes docs/results/STUDY.md from benchmarks/STUDY/results/*.json.

The study's README.md opens the page. With `--check` nothing is written, and the exit code says whether
the pages are up to date.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rekindle.library.files import read_json, write_text

ROOT = Path(__file__).parent
PAGES = ROOT.parent / "docs" / "results"
TITLES = {"pvrl": "reincarnation"}
"""Pages that have another name than their study."""


def page(study: Path) -> str:
    """The page of one study, from its folder."""
    opening = (study / "README.md").read_text().rstrip()
    files = sorted((study / "results").glob("*.json"))
    sections = [section(read_json(file), file.stem.partition("-")[2]) for file in files]
    sections = sections or ["There are no results yet."]
    return "\n\n".join([opening, *sections]) + "\n"


def section(result: Mapping[str, Any], part: str = "") -> str:
    """One result, of the whole study or of a part: where it was measured, its bars, its numbers and its tables."""
    numbers = {name: value for name, value in result["values"].items() if not _is_table(value)}
    tables = {name: value for name, value in result["values"].items() if _is_table(value)}
    older = [revision for revision in result.get("cells_from", []) if revision != result["revision"]]
    revision = result["revision"] + (f" (of some cells: {', '.join(older)})" if older else "")
    parts = [
        f"## Preset {result['preset']}" + (f", {part}" if part else ""),
        f"Machine: {result['machine']}. Revision: {revision}. Seeds: {', '.join(map(str, result['seeds']))}.",
        table([_bar(bar) for bar in result["bars"]]),
        table([{"quantity": name, "value": value} for name, value in numbers.items()]),
    ]
    for name, rows in tables.items():
        parts += [f"### {name}", table(rows)]
    return "\n\n".join(part for part in parts if part)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table; columns `x`, `x_low` and `x_high` become one, "x [low, high]"."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [name for name in names if not _is_end(name, names)]
    lines = [columns, ["---"] * len(columns), *([_cell(row, name) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


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


def _bar(bar: Mapping[str, Any]) -> dict[str, Any]:
    interval = {"value": bar["value"], "value_low": bar["low"], "value_high": bar["high"]}
    return {"bar": bar["name"], **interval, "promised": bar["bar"], "kept": bar["ok"]}


def _is_end(name: str, names: Sequence[str]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in names for end in ("_low", "_high"))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.docs", description="Pages from results.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check = parser.parse_args().check
    PAGES.mkdir(parents=True, exist_ok=True)
    stale = []
    for study in sorted(path.parent for path in ROOT.glob("*/README.md")):
        path, text = PAGES / f"{TITLES.get(study.name, study.name)}.md", page(study)
        if not path.exists() or path.read_text() != text:
            stale.append(path.name)
            if not check:
                write_text(path, text)
    print(f"{'out of date' if check else 'written'}: {', '.join(stale) or 'none'}", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
