"""`rekindle report RUN...`: the page of a training or of several, from scratch or from a teacher."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rekindle.cli import io as cli
from rekindle.core.errors import ConfigError
from rekindle.library import files
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.report import comparison, reincarnation, training
from rekindle.report.page import write_page
from rekindle.report.runs import FILE


@dataclass(frozen=True)
class Options:
    """Write a page with curves, numbers and a video: of a training, of an agent over its seeds, or of several agents.

    Trainings from scratch have to be in one environment. Reincarnations are grouped by method and student, over seeds
    and environments, and compared by interquartile means, profiles and curves; a fair comparison has the same teacher,
    the same data and the same number of environment steps, others are refused.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Ids, beginnings of ids, or names; a name is all runs that have it."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """The page; by default report.html in the run's folder, or, for several runs, report.html or comparison.html in the
    working directory."""
    trust: bool = False
    """Open worlds of other libraries, and teachers that are code, so that they can be filmed: that executes them."""
    json: bool = False
    """Print one JSON object as the last line of standard output: every number of a comparison."""


def run(argv: list[str]) -> int:
    """One page."""
    options = cli.parse(Options, argv, "rekindle report")
    library = Library.open()
    if not options.runs:
        raise ConfigError("which run? Give one to tell of, or several to compare; `rekindle library ls` lists them.")
    ids = list(dict.fromkeys(id for which in options.runs for id in named(library, which)))
    runs = [Run.open(library, id) for id in ids]
    if not any(reincarnation.is_reincarnation(run.manifest) for run in runs):
        told = {"path": str(training.tell(ids, library, options.output, executes=options.trust))}
    elif len(runs) == 1:
        path = options.output or (Path(FILE) if library.store.is_remote else runs[0].path / FILE)
        told = {"path": str(reincarnation.tell(runs[0], library, path, executes=options.trust))}
    else:
        found = comparison.compare([reincarnation.read(run) for run in runs])
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
