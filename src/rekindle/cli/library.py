"""`rekindle library`: what was trained, what came of what, and whether it is whole; to give away and to tidy up.

Loads no JAX.
"""

import datetime
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from rekindle.cli.io import emit_json, parse
from rekindle.cli.reproduce import recipe
from rekindle.core.errors import ConfigError, LibraryError, did_you_mean, within
from rekindle.library import bundle, checkpoint, files, gc
from rekindle.library.library import Kin, Library, Record
from rekindle.library.manifest import Kind, Status
from rekindle.library.run import Run

FILE_WIDTH = 160
"""Characters of a line where output goes to a file or another program."""
SHOWN = 50
"""Runs that a table shows without `--limit`."""
LARGEST = 1e300
"""Beyond it a number is not drawn."""
CURVE_POINTS = 60
"""Of a curve that is drawn in the terminal."""
BLOCKS = "▁▂▃▄▅▆▇█"
Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Ls:
    """List the runs in the library, newest first, and those that came with rekindle."""

    kind: Kind | None = None
    """Only these."""
    env: str | None = None
    """Only those of this environment, such as xland/f0."""
    name: str | None = None
    """Only those of this name."""
    status: Status | None = None
    """Only those that are at this."""
    agent: str | None = None
    """Only those with a policy of this agent, such as ppo."""
    limit: int | None = None
    """At most so many; by default a table shows 50, and JSON has all."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Show:
    """Show what is known of a run: its facts, last metrics, checkpoints and scores."""

    id: Positional[str]
    """Its id, the beginning of it, or its name."""
    reproduce: bool = False
    """Print the commands that repeat it instead: the code as it was, and what to type."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class CurveOptions:
    """Draw a metric over the environment steps, of one run or of several."""

    ids: Positional[tuple[str, ...]] = ()
    """Their ids, beginnings of them, or names; by default the newest runs that have the metric."""
    metric: str = "trial/reward"
    """Which; an unknown one lists those that there are."""
    kind: Kind | None = None
    """Only runs of this kind."""
    env: str | None = None
    """Only runs of this environment."""
    limit: int = 10
    """At most so many runs."""
    points: int = 1000
    """At most so many points a run, evenly chosen."""
    json: bool = False
    """Print one JSON object, with the points."""


@dataclass(frozen=True)
class LineageOptions:
    """Show what a run was made from, and what was made from it."""

    id: Positional[str]
    """Its id, the beginning of it, or its name."""
    svg: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw the family tree into this file, too."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Verify:
    """Read every byte that is kept, and name what is damaged; exit code 2 if anything is."""

    id: Positional[str | None] = None
    """The run to read; by default all of them."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Rm:
    """Remove a run with everything in it; refused while a kept run was made from it."""

    id: Positional[str]
    """Its id, the beginning of it, or its name."""
    force: bool = False
    """Remove it even if kept runs were made from it, it is pinned, or it may be running."""
    json: bool = False
    """Print one JSON object."""


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
    """Write a prior to one file, to give away: policy, curves, decisions, and the manifests of its ancestors."""

    id: Positional[str]
    """Its id, the beginning of it, or its name."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """The file; by default ID.rekindle in this folder."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Import:
    """Check a file that `export` made, to the last byte, then keep the prior in it; exit code 2 if it is refused."""

    file: Positional[Path]
    """The file."""
    sha256: str | None = None
    """The SHA-256 that `export` printed, if it is to be compared."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Reindex:
    """Make the index anew from the run folders, however damaged it is."""

    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """`rekindle library COMMAND`; the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    name, *rest = argv
    if name not in _COMMANDS:
        raise ConfigError(f"no command 'library {name}'; {did_you_mean(name, _COMMANDS)}")
    options_class, command = _COMMANDS[name]
    return command(parse(options_class, rest, prog=f"rekindle library {name}"))


def _ls(options: Ls) -> int:
    if options.limit is not None:
        within("--limit", options.limit, 1)
    library = Library.open()
    wanted = {"kind": options.kind, "env_id": options.env, "name": options.name, "status": options.status,
              "agent": options.agent}  # fmt: skip
    limit = options.limit or (None if options.json else SHOWN)
    records = library.runs(limit=limit, shipped=True, **wanted)
    damaged, pins = library.damaged(), library.pins()
    if options.json:
        listed = [_facts(record) | {"pinned": record.id in pins} for record in records]
        return _json({"library": library.address, "runs": listed, "damaged": [one.id for one in damaged]})
    if not records:
        _say(f"no such run in {library.address}.")
    else:
        _say(_table(library, records, pins))
    if (more := library.count(**wanted) - sum(not record.is_shipped for record in records)) > 0:
        _say(f"… and {more:,} more; --limit shows as many as you say.")
    if damaged:
        _say(f"{len(damaged)} left out, damaged or made by a newer rekindle: {damaged[0].text}")
    return 0


def _table(library: Library, records: Iterable[Record], pins: set[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("id", "kind", "environment", "agent", "env steps", "status", "result"):
        table.add_column(title, justify="right" if title == "env steps" else "left", no_wrap=title == "id")
    for record in records:
        facts = record.manifest
        table.add_row(
            record.id,
            facts.kind,
            facts.env_id or "",
            record.row.agent or "",
            f"{facts.env_steps:,}",
            _status(library, record) + (", pinned" if record.id in pins else ""),
            _result(record),
        )
    return table


def _status(library: Library, record: Record) -> str:
    """As the manifest has it; one that says "running" while nobody is at work on it here was killed."""
    status = record.manifest.status
    if status != "running" or library.store.is_remote or library.is_being_written(record.id):
        return status
    return "killed"


def _result(record: Record) -> str:
    """What came of a job: its verdict and score; empty for other runs."""
    facts = record.manifest
    if facts.kind != "master" or facts.status != "done":
        return ""
    scores = [score.value for score in facts.scores if score.value is not None]
    return " ".join([facts.notes.partition(":")[0].replace("_", " "), *(f"{score:.2f}" for score in scores[:1])])


def _show(options: Show) -> int:
    library = Library.open()
    record = library.find(options.id)
    if options.reproduce:
        lines = recipe(record)
        return _json({"id": record.id, "commands": lines}) if options.json else _say("\n".join(lines))
    opened = Run(record.path, record.manifest)
    metrics = opened.metrics()
    facts = _facts(record) | {
        "manifest": record.manifest,
        "policy": record.policy,
        "checkpoints": checkpoint.steps(record.path),
        "metrics": {"rows": len(metrics), "last": metrics[-1] if metrics else None},
        "decisions": len(opened.decisions()),
    }
    if options.json:
        return _json(facts)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(record, facts, _status(library, record)):
        table.add_row(name, value)
    return _say(table)


def _lines(record: Record, facts: Mapping[str, Any], status: str) -> Iterable[tuple[str, str]]:
    manifest = record.manifest
    yield "id", record.id
    yield "folder", record.location
    yield "what", f"{manifest.kind} {manifest.name!r}, {status}"
    yield "made", f"{manifest.created.astimezone():%Y-%m-%d %H:%M}, on {manifest.device}"
    yield "command", " ".join(manifest.command)
    yield "code", _code(record)
    yield "versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    yield "environment", manifest.env_id or "none"
    yield "cost", f"{manifest.env_steps:,} env steps, {manifest.wall_s:,.0f} s"
    for parent in manifest.parents:
        yield "parent", f"{parent.id} ({parent.role}), weights {(parent.sha256 or 'unknown')[:16]}"
    for score in manifest.scores:
        interval = "" if score.low is None or score.high is None else f" [{score.low:.3g}, {score.high:.3g}]"
        yield "score", f"{score.name}: {'none' if score.value is None else f'{score.value:.3g}'}{interval}"
    if record.policy is not None:
        version = record.policy["agent_version"]
        yield "policy", f"{record.policy['agent']} (version {version}), weights {(record.row.weights or '')[:16]}"
    steps = ", ".join(f"{step:,}" for step in facts["checkpoints"])
    yield "checkpoints", steps or "none"
    for name, value in (facts["metrics"]["last"] or {}).items():
        yield f"  {name}", f"{value:.6g}" if isinstance(value, float) else str(value)
    if manifest.notes:
        yield "notes", manifest.notes


def _code(record: Record) -> str:
    code = record.manifest.code
    if code.revision is None:
        return "unknown: no git checkout"
    if not code.dirty:
        return code.revision
    return f"{code.revision}, and a difference (SHA-256 {(code.difference_sha256 or 'unknown')[:16]}); see --reproduce"


def _curve(options: CurveOptions) -> int:
    within("--limit", options.limit, 1)
    within("--points", options.points, 2)
    library = Library.open()
    if options.ids:
        records = [library.find(id) for id in options.ids]
    else:
        records = library.runs(options.kind, options.env, limit=20 * options.limit)
    known: set[str] = set()
    curves: list[tuple[Record, list[tuple[int, float]]]] = []
    for record in records:
        rows = Run(record.fetch(), record.manifest).metrics() if len(curves) < options.limit else []
        known |= {name for row in rows[-1:] for name in row}
        if points := _points(rows, options.metric, options.points):
            curves.append((record, points))
    if not curves:
        raise ConfigError(
            f"no run here has the metric {options.metric!r}; {did_you_mean(options.metric, known)}"
            if known
            else f"no such run in {library.address} has any metrics yet."
        )
    if options.json:
        return _json({"metric": options.metric, "curves": [{"id": r.id, "points": points} for r, points in curves]})
    table = Table(box=None, pad_edge=False)
    for title in ("id", options.metric, "last", "least", "most", "env steps"):
        table.add_column(title, no_wrap=True, justify="left" if title in ("id", options.metric) else "right")
    for record, points in curves:
        values = [value for _, value in points]
        table.add_row(record.id, _spark(values), f"{values[-1]:.4g}", f"{min(values):.4g}", f"{max(values):.4g}",
                      f"{points[-1][0]:,}")  # fmt: skip
    return _say(table)


def _points(rows: list[dict[str, Any]], metric: str, most: int) -> list[tuple[int, float]]:
    """At most so many points of a metric, the first and the last among them; numbers only."""
    found = [
        (row["env_steps"], float(value))
        for row in rows
        if isinstance(value := row.get(metric), int | float) and -LARGEST < value < LARGEST
    ]
    if len(found) <= most:
        return found
    return [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]


def _spark(values: list[float]) -> str:
    chosen = values if len(values) <= CURVE_POINTS else values[:: math.ceil(len(values) / CURVE_POINTS)]
    low, high = min(chosen), max(chosen)
    span = (high - low) or 1.0
    return "".join(BLOCKS[int((value - low) / span * (len(BLOCKS) - 1))] for value in chosen)


def _lineage(options: LineageOptions) -> int:
    family = Library.open().lineage(options.id)
    if options.svg is not None:
        from rekindle.report.family import family_svg

        files.write_bytes(options.svg, family_svg(family))
    if options.json:
        parents, children = (_kin_json(kin) for kin in (family.parents, family.children))
        drawn = {} if options.svg is None else {"svg": options.svg}
        return _json(_facts(family.record) | {"parents": parents, "children": children} | drawn)
    tree = Tree(f"[bold]{family.record.id}[/bold]  {_plain(family.record.manifest.name)}")
    for title, kin in (("made from", family.parents), ("made into", family.children)):
        _grow(tree.add(title if kin else f"{title} nothing that is known"), kin)
    return _say(tree)


def _grow(tree: Tree, kin: tuple[Kin, ...]) -> None:
    for one in kin:
        what = "" if one.manifest is None else _plain(one.manifest.name)
        where = "" if one.kept else "not in this library"
        more = "see above" if one.again else ""
        told = "  ".join(filter(None, (f"{one.id} ({_plain(one.role)})", what, where, more)))
        _grow(tree.add(told), one.beyond)


def _plain(text: str) -> str:
    """Names as they are: no markup of the terminal's."""
    return text.replace("[", r"\[")


def _kin_json(kin: tuple[Kin, ...]) -> list[dict[str, Any]]:
    return [
        {"id": one.id, "role": one.role, "kept": one.kept, "again": one.again, "beyond": _kin_json(one.beyond)}
        for one in kin
    ]


def _verify(options: Verify) -> int:
    problems = Library.open().verify(options.id)
    if options.json:
        _json({"ok": not problems, "problems": [problem._asdict() for problem in problems]})
    elif problems:
        for problem in problems:
            _say(f"{problem.id}: {problem.text}")
    else:
        _say("everything is whole.")
    return LibraryError.exit_code if problems else 0


def _rm(options: Rm) -> int:
    id = Library.open().rm(options.id, force=options.force)
    return _json({"removed": id}) if options.json else _say(f"removed {id}.")


def _pin(options: Pin) -> int:
    id = Library.open().pin(options.id)
    return _json({"pinned": id}) if options.json else _say(f"pinned {id}; gc leaves it alone.")


def _unpin(options: Unpin) -> int:
    id = Library.open().unpin(options.id)
    return _json({"unpinned": id}) if options.json else _say(f"{id} is not pinned any more.")


def _gc(options: Gc) -> int:
    age = _age(options.older_than)
    library = Library.open()
    waste = gc.plan(library, older_than=age) if options.dry_run else gc.collect(library, older_than=age)
    total = sum(one.nbytes for one in waste)
    if options.json:
        listed = [one._asdict() for one in waste]
        return _json({"library": library.address, "dry_run": options.dry_run, "bytes": total, "waste": listed})
    for one in waste:
        _say(f"{one.what:<12}{one.id}: {one.why} ({_size(one.nbytes)})")
    verb = "would be removed; run it without --dry-run" if options.dry_run else "removed"
    return _say(f"{len(waste)} things, {_size(total)} {verb}." if waste else "nothing to remove.")


def _age(text: str) -> datetime.timedelta:
    match = re.fullmatch(r"([0-9]{1,6})(m|h|d)", text.strip())
    if match is None:
        raise ConfigError(f"--older-than takes minutes, hours or days, such as 30m, 12h, 7d; got {text!r}.")
    names: dict[str, Literal["minutes", "hours", "days"]] = {"m": "minutes", "h": "hours", "d": "days"}
    return datetime.timedelta(**{names[match[2]]: int(match[1])})


def _export(options: Export) -> int:
    library = Library.open()
    path = options.output or Path(f"{library.find(options.id).id.replace('/', '-')}{bundle.EXTENSION}")
    made = bundle.export(library, options.id, path)
    if options.json:
        return _json(made._asdict())
    _say(f"{made.path}: {made.id} with {made.kin} ancestors' manifests, {_size(made.nbytes)}.")
    return _say(f"SHA-256 {made.sha256}")


def _import(options: Import) -> int:
    kept = bundle.load(Library.open(), options.file, sha256=options.sha256)
    if options.json:
        return _json(kept._asdict())
    if not kept.new:
        return _say(f"{kept.id} is in the library already.")
    return _say(f"imported {kept.id}; {kept.kin} ancestors became known. `rekindle library show {kept.id}`.")


def _reindex(options: Reindex) -> int:
    library = Library.open()
    try:
        runs = library.reindex()
    except LibraryError:
        runs = Library.rebuilt().reindex()
    return _json({"library": library.address, "runs": runs}) if options.json else _say(f"{runs} runs.")


_COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "ls": (Ls, _ls),
    "show": (Show, _show),
    "curve": (CurveOptions, _curve),
    "lineage": (LineageOptions, _lineage),
    "verify": (Verify, _verify),
    "export": (Export, _export),
    "import": (Import, _import),
    "pin": (Pin, _pin),
    "unpin": (Unpin, _unpin),
    "gc": (Gc, _gc),
    "rm": (Rm, _rm),
    "reindex": (Reindex, _reindex),
}


def _facts(record: Record) -> dict[str, Any]:
    facts = record.manifest
    return {
        "id": record.id,
        "path": record.location,
        "kind": facts.kind,
        "name": facts.name,
        "env_id": facts.env_id,
        "agent": record.row.agent,
        "created": facts.created.isoformat(),
        "status": facts.status,
        "env_steps": facts.env_steps,
        "wall_s": facts.wall_s,
        "scores": facts.scores,
        "parents": facts.parents,
    }


def _size(nbytes: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} bytes"


def _json(value: Mapping[str, Any]) -> int:
    emit_json(files.plain(value))
    return 0


def _say(what: Any) -> int:
    width = None if sys.stdout.isatty() else FILE_WIDTH
    Console(width=width, soft_wrap=isinstance(what, str), highlight=False, markup=not isinstance(what, str)).print(what)
    return 0


def _help() -> str:
    rows = "".join(f"  {name:<8}  {_first(options.__doc__)}\n" for name, (options, _) in _COMMANDS.items())
    return f"usage: rekindle library COMMAND ...\n\n{rows}\n`rekindle library COMMAND --help` explains one.\n"


def _first(text: str | None) -> str:
    return (text or "").partition("\n")[0]
