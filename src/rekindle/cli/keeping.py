"""`rekindle library export | import | pin | unpin | gc`: to give priors away, and to tidy up. Loads no JAX."""

import datetime
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from rekindle.cli.io import console, emit_json
from rekindle.core.errors import ConfigError
from rekindle.library import bundle, files, gc
from rekindle.library.dataset import read_dataset
from rekindle.library.library import Library

FILE_WIDTH = 160
"""Characters of a line where output goes to a file or another program."""
Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Pin:
    """Mark a run so that `gc` never touches it."""

    id: Positional[str]
    """Its id, the beginning of it, or its name."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Unpin:
    """Take the mark of `pin` away."""

    id: Positional[str]
    """Its id, the beginning of it, or its name."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Gc:
    """Remove what nobody needs: remains of crashes, checkpoints of what is done, runs with nothing to reuse.

    Never a pinned run, one that is being worked on, a policy that no other run has, or what an unfinished run needs.
    """

    dry_run: bool = False
    """Only say what would be removed."""
    older_than: str = "1d"
    """Leave runs alone that began less long ago: 30m, 12h, 7d; 0d takes all."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Export:
    """Write a prior to one file, to give away: policy, replay, curves, decisions, and its ancestors' manifests."""

    id: Positional[str]
    """Its id, the beginning of it, or its name."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """The file; by default ID.rekindle in this folder."""
    no_replay: bool = False
    """Leave the replay out, which is most of the file."""
    minari: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Write the replay as a dataset of Minari's on this machine instead, such as catch/dqn-v0."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Import:
    """Check a file that `export` made, to the last byte, then keep the prior in it; exit code 2 if it is refused."""

    file: Positional[Path | None] = None
    """The file."""
    minari: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Keep a dataset of Minari's on this machine instead, as a run that holds data and no policy."""
    sha256: str | None = None
    """The SHA-256 that `export` printed, if it is to be compared."""
    json: bool = False
    """Print one JSON object."""


def pin(options: Pin) -> int:
    """Mark it."""
    id = Library.open().pin(options.id)
    return say_json({"pinned": id}) if options.json else say(f"pinned {id}; gc leaves it alone.")


def unpin(options: Unpin) -> int:
    """Unmark it."""
    id = Library.open().unpin(options.id)
    return say_json({"unpinned": id}) if options.json else say(f"{id} is not pinned any more.")


def collect(options: Gc) -> int:
    """List the waste, and remove it unless that is a dry run."""
    age = _age(options.older_than)
    library = Library.open()
    waste = gc.plan(library, older_than=age) if options.dry_run else gc.collect(library, older_than=age)
    total = sum(one.nbytes for one in waste)
    if options.json:
        listed = [one._asdict() for one in waste]
        return say_json({"library": library.address, "dry_run": options.dry_run, "bytes": total, "waste": listed})
    for one in waste:
        say(f"{one.what:<12}{one.id}: {one.why} ({size(one.nbytes)})")
    verb = "would be removed; run it without --dry-run" if options.dry_run else "removed"
    things = "1 thing" if len(waste) == 1 else f"{len(waste)} things"
    young = f"nothing to remove among what is older than {options.older_than}; see --older-than."
    return say(f"{things}, {size(total)} {verb}." if waste else young)


def _age(text: str) -> datetime.timedelta:
    match = re.fullmatch(r"([0-9]{1,6})(m|h|d)", text.strip())
    if match is None:
        raise ConfigError(f"--older-than takes minutes, hours or days, such as 30m, 12h, 7d; got {text!r}.")
    names: dict[str, Literal["minutes", "hours", "days"]] = {"m": "minutes", "h": "hours", "d": "days"}
    return datetime.timedelta(**{names[match[2]]: int(match[1])})


def export(options: Export) -> int:
    """Write the file, and say its hash."""
    library = Library.open()
    if options.minari is not None:
        return _export_to_minari(library, options, options.minari)
    path = options.output or Path(f"{library.find(options.id).id.replace('/', '-')}{bundle.EXTENSION}")
    made = bundle.export(library, options.id, path, replay=not options.no_replay)
    if made.replay_nbytes:
        what = f"{made.transitions:,} steps, {size(made.replay_nbytes)}"
        console().print(f"with its replay of {what}; --no-replay leaves it out.")
    if options.json:
        return say_json(made._asdict())
    say(f"{made.path}: {made.id} with {made.kin} ancestors' manifests, {size(made.nbytes)}.")
    return say(f"SHA-256 {made.sha256}")


def import_(options: Import) -> int:
    """Check the file, keep the prior."""
    if options.minari is not None:
        return _import_from_minari(Library.open(), options, options.minari)
    if options.file is None:
        raise ConfigError("import takes a file that `rekindle library export` made, or --minari NAME.")
    kept = bundle.load(Library.open(), options.file, sha256=options.sha256)
    if options.json:
        return say_json(kept._asdict())
    if not kept.new:
        return say(f"{kept.id} is in the library already.")
    return say(f"imported {kept.id}; {kept.kin} ancestors became known. `rekindle library show {kept.id}`.")


def _export_to_minari(library: Library, options: Export, name: str) -> int:
    if options.output is not None or options.no_replay:
        raise ConfigError(
            "--minari writes the replay where Minari keeps its datasets; leave --output, --no-replay out."
        )
    from rekindle.reincarnation import minari

    record = library.find(options.id)
    algorithm = None if record.policy is None else str(record.policy["agent"])
    made = minari.write(name, read_dataset(record.path), run=record.id, algorithm=algorithm)
    if options.json:
        return say_json(made._asdict())
    say(f"{made.path}: {made.episodes:,} episodes, {made.steps:,} steps of {record.id}.")
    return say(minari.REPEATED)


def _import_from_minari(library: Library, options: Import, name: str) -> int:
    if options.file is not None or options.sha256 is not None:
        raise ConfigError("--minari NAME takes neither a file nor --sha256; Minari has the dataset already.")
    from rekindle.reincarnation import minari

    id, transitions = minari.keep(library, name)
    if options.json:
        return say_json({"id": id, "transitions": transitions})
    return say(f"imported {transitions:,} steps as {id}; `rekindle reincarnate --data {id}` learns from them.")


def size(nbytes: int) -> str:
    """For people."""
    for unit, one in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= one:
            return f"{nbytes / one:.1f} {unit}"
    return f"{nbytes} bytes"


def say_json(value: Mapping[str, Any]) -> int:
    """One object, and the exit code 0."""
    emit_json(files.plain(value))
    return 0


def say(what: Any) -> int:
    """A line, table or tree for people, and the exit code 0."""
    width = None if sys.stdout.isatty() else FILE_WIDTH
    Console(width=width, soft_wrap=isinstance(what, str), highlight=False, markup=False).print(what)
    return 0
