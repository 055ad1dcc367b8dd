"""`rekindle report RUN...`: the page of a reincarnation, or of several side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rekindle.cli import io as cli
from rekindle.core.errors import ConfigError
from rekindle.library import files
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.report import comparison, reincarnation
from rekindle.report.page import write_page


@dataclass(frozen=True)
class Options:
    """Write the page of a reincarnation again, or compare several by interquartile means, profiles and curves.

    They are grouped by method and student, over seeds and environments. A fair comparison has the same teacher, the
    same data and the same number of environment steps; others are refused.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Ids, beginnings of ids, or names; a name is all runs that have it."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """The page; by default report.html in the run's folder, or comparison.html in this one."""
    json: bool = False
    """Print one JSON object as the last line of standard output: every number of a comparison."""


def run(argv: list[str]) -> int:
    """One page."""
    options = cli.parse(Options, argv, "rekindle report")
    library = Library.open()
    if not options.runs:
        raise ConfigError("which run? Give one to tell of, or several to compare; `rekindle library ls` lists them.")
    ids = list(dict.fromkeys(id for which in options.runs for id in named(library, which)))
    students = {id: reincarnation.read(Run.open(library, id)) for id in ids}
    if len(ids) == 1:
        told = {"path": str(reincarnation.tell(Run.open(library, ids[0]), library, options.output))}
    else:
        found = comparison.compare(students.values())
        path = options.output or Path("comparison.html")
        write_page(path, comparison.page(found))
        told = {"path": str(path), **comparison.to_json(found)}
        for row in found.rows:
            cli.console().print(f"{comparison.shown(row.end, row.seeds):22} {row.label}", highlight=False, markup=False)
        for note in found.notes:
            cli.console().print(note, highlight=False, markup=False)
    cli.console().print(f"report: {told['path']}", highlight=False, markup=False)
    if options.json:
        cli.emit_json(files.plain(told))
    return 0


def named(library: Library, which: str) -> list[str]:
    """All runs of that name, or the one of that id or beginning of one.

    Raises:
        LibraryError: there is none.
    """
    same = [record.id for record in library.runs(name=which)]
    return same or [library.find(which).id]
