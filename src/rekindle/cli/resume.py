"""`rekindle resume RUN`: go on with what was interrupted."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from rekindle.cli import evaluate as evaluate_command
from rekindle.cli import io as cli
from rekindle.cli import master as master_command
from rekindle.cli import train as train_command
from rekindle.core.budget import parse_budget
from rekindle.core.errors import ConfigError
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.master import Request


@dataclass(frozen=True)
class Options:
    """Go on with a run that was interrupted, from its last checkpoint."""

    which: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run's id, the beginning of one, or its name; `rekindle library ls` lists them."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def run(argv: list[str]) -> int:
    """Find the run, read what it was asked to do, and do the rest."""
    options = cli.parse(Options, argv, "rekindle resume")
    library = Library.open()
    resumed = Run.open(library, options.which)
    manifest = resumed.manifest
    is_told = manifest.kind != "master" or (resumed.path / "report.html").exists()
    if manifest.status == "done" and is_told:  # a crash between the last proof and the report leaves that to do
        raise ConfigError(f"{resumed.id} is done; there is nothing to resume. `rekindle library show {resumed.id}`.")
    if manifest.kind == "master":
        config: dict[str, Any] = dict(manifest.config)
        lists = {"rules": tuple(config["rules"]), "log": tuple(config.get("log", ()))}
        request = Request(**{**config, **lists, "budget": parse_budget(config["budget"])})
        return master_command.carry_out(request, library, json=options.json, run=resumed)
    if manifest.kind == "train":
        return train_command.carry_out(resumed, library, json=options.json)
    if manifest.kind == "evaluate":
        return evaluate_command.carry_out(resumed, library, json=options.json)
    raise ConfigError(f"{resumed.id} is a run of kind {manifest.kind!r}; only what trains or evaluates can be resumed.")
