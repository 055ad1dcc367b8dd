"""`rekindle library`: what was trained, what came of what, and whether it is whole (`keeping.py`: giving, tidying).

Loads no JAX.
"""

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from rekindle.cli import keeping
from rekindle.cli.io import parse
from rekindle.cli.keeping import say, say_json, size
from rekindle.cli.reproduce import recipe
from rekindle.core.errors import CheckpointError, ConfigError, LibraryError, did_you_mean, within
from rekindle.library import bundle, checkpoint, dataset, files
from rekindle.library.library import Library
from rekindle.library.lineage import Kin
from rekindle.library.manifest import Kind, Status
from rekindle.library.records import Record
from rekindle.library.run import Run

SHOWN = 50
"""Runs that a table shows without `--limit`."""
LARGEST = 1e300
"""Beyond it a number is not drawn."""
CURVE_POINTS = 60
"""Of a curve that is drawn in the terminal."""
BLOCKS = "▁▂▃▄▅▆▇█"
SCORES = ("score/return", "validation/score", "episode/return", "trial/reward")
"""Metrics by which a run is judged, the best first."""
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
    metric: str | None = None
    """Which; an unknown one lists those that there are. By default the newest run's score: of evaluations if there are
    some, else the return of an episode or the reward of a trial."""
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
        listed = [
            _facts(record) | {"pinned": record.id in pins, "killed": "killed" in _status(library, record)}
            for record in records
        ]
        return say_json({"library": library.address, "runs": listed, "damaged": [one.id for one in damaged]})
    if not records:
        say(f"no such run in {library.address}.")
    else:
        say(_table(library, records, pins))
    if (more := library.count(**wanted) - sum(not record.is_shipped for record in records)) > 0:
        say(f"… and {more:,} more; a larger --limit shows them.")
    if damaged:
        say(f"{len(damaged)} left out, damaged or made by a newer rekindle: {damaged[0].text}")
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
    if status != "running" or library.is_being_written(record.id):
        return status
    return "running elsewhere, or killed" if library.store.is_remote else "killed"


def _result(record: Record) -> str:
    """What came of a job, its verdict and score; of another run the return that it was last scored with, if it was."""
    facts = record.manifest
    if facts.kind != "master":
        returns = [score.value for score in facts.scores if score.name == "return" and score.value is not None]
        return " ".join(f"return {value:.4g}" for value in returns[:1])
    if facts.status != "done":
        return ""
    scores = [score.value for score in facts.scores if score.value is not None]
    return " ".join([facts.notes.partition(":")[0].replace("_", " "), *(f"{score:.2f}" for score in scores[:1])])


def _show(options: Show) -> int:
    library = Library.open()
    record = library.find(options.id)
    if options.reproduce:
        lines = recipe(record)
        return say_json({"id": record.id, "commands": lines}) if options.json else say("\n".join(lines))
    opened = Run(record.path, record.manifest)
    problem = ""
    try:
        metrics = opened.metrics()
    except LibraryError as error:
        metrics, problem = [], str(error)
    replay = _replay(record.path)
    facts = _facts(record) | {
        "manifest": record.manifest,
        "policy": record.policy,
        "checkpoints": checkpoint.steps(record.path),
        "replay": replay,
        "metrics": {"rows": len(metrics), "last": metrics[-1] if metrics else None, "problem": problem},
        "decisions": len(opened.decisions()),
    }
    if options.json:
        return say_json(facts)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(record, facts, _status(library, record)):
        table.add_row(name, value)
    return say(table)


def _replay(folder: Path) -> dict[str, Any] | None:
    """What a run's replay says of itself, its steps unread."""
    if not (folder / dataset.FOLDER).is_dir():
        return None
    try:
        meta = dataset.read_meta(folder / dataset.FOLDER)
    except CheckpointError as error:
        return {"problem": str(error)}
    return {
        "env_id": meta.spec["id"],
        "transitions": meta.transitions,
        "bytes": meta.steps.nbytes,
        "recipe": meta.recipe,
    }


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
    if (replay := facts["replay"]) is not None:
        told = (
            replay.get("problem") or f"{replay['transitions']:,} steps of {replay['env_id']}, {size(replay['bytes'])}"
        )
        yield "replay", told
    steps = ", ".join(f"{step:,}" for step in facts["checkpoints"])
    yield "checkpoints", steps or "none"
    if facts["metrics"].get("problem"):
        yield "curves", facts["metrics"]["problem"]
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
    if strange := next((id for id in options.ids if re.fullmatch(r"\w+/\w+", id)), None):
        raise ConfigError(f"{strange!r} is no run; a metric is given by --metric {strange}.")
    if options.ids:
        records = [library.find(id) for id in options.ids]
    else:
        records = library.runs(options.kind, options.env, limit=20 * options.limit)
    known: set[str] = set()
    metric = options.metric
    curves: list[tuple[Record, list[tuple[int, float]]]] = []
    for record in records:
        rows = Run(record.fetch(), record.manifest).metrics() if len(curves) < options.limit else []
        known |= {name for row in rows for name in row}
        metric = metric or next((name for name in SCORES if name in known), None)
        if metric and (points := _points(rows, metric, options.points)):
            curves.append((record, points))
    if not curves:
        wanted = metric or SCORES[-1]
        raise ConfigError(
            f"no run here has the metric {wanted!r}; {did_you_mean(wanted, known)}"
            if known
            else f"{', '.join(options.ids) or 'no such run'} in {library.address} has no metrics yet."
        )
    if options.json:
        return say_json({"metric": metric, "curves": [{"id": r.id, "points": points} for r, points in curves]})
    assert metric is not None
    table = Table(box=None, pad_edge=False)
    for title in ("id", metric, "last", "least", "most", "env steps"):
        table.add_column(title, no_wrap=True, justify="left" if title in ("id", metric) else "right")
    for record, points in curves:
        values = [value for _, value in points]
        table.add_row(record.id, _spark(values), f"{values[-1]:.4g}", f"{min(values):.4g}", f"{max(values):.4g}",
                      f"{points[-1][0]:,}")  # fmt: skip
    return say(table)


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

        path = Path(os.path.realpath(options.svg))
        bundle.refuse_to_replace(path, b"<svg", "picture of a family")
        files.write_bytes(path, family_svg(family))
    if options.json:
        parents, children = (_kin_json(kin) for kin in (family.parents, family.children))
        drawn = {} if options.svg is None else {"svg": options.svg}
        return say_json(_facts(family.record) | {"parents": parents, "children": children} | drawn)
    tree = Tree(Text.assemble((family.record.id, "bold"), f"  {family.record.manifest.name}"))
    for title, kin in (("made from", family.parents), ("made into", family.children)):
        _grow(tree.add(Text(title if kin else f"{title} nothing that is known")), kin)
    return say(tree)


def _grow(tree: Tree, kin: tuple[Kin, ...]) -> None:
    for one in kin:
        what = "" if one.manifest is None else one.manifest.name
        where = "" if one.kept else "not in this library"
        more = "see above" if one.again else ""
        told = "  ".join(filter(None, (f"{one.id} ({one.role})", what, where, more)))
        _grow(tree.add(Text(told)), one.beyond)


def _kin_json(kin: tuple[Kin, ...]) -> list[dict[str, Any]]:
    return [
        {"id": one.id, "role": one.role, "kept": one.kept, "again": one.again, "beyond": _kin_json(one.beyond)}
        for one in kin
    ]


def _verify(options: Verify) -> int:
    problems = Library.open().verify(options.id)
    if options.json:
        say_json({"ok": not problems, "problems": [problem._asdict() for problem in problems]})
    elif problems:
        for problem in problems:
            say(f"{problem.id}: {problem.text}")
    else:
        say("everything is whole.")
    return LibraryError.exit_code if problems else 0


def _rm(options: Rm) -> int:
    id = Library.open().rm(options.id, force=options.force)
    return say_json({"removed": id}) if options.json else say(f"removed {id}.")


def _reindex(options: Reindex) -> int:
    library = Library.open()
    try:
        runs = library.reindex()
    except LibraryError:
        runs = Library.rebuilt().count()
    return say_json({"library": library.address, "runs": runs}) if options.json else say(f"{runs} runs.")


_COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "ls": (Ls, _ls),
    "show": (Show, _show),
    "curve": (CurveOptions, _curve),
    "lineage": (LineageOptions, _lineage),
    "verify": (Verify, _verify),
    "export": (keeping.Export, keeping.export),
    "import": (keeping.Import, keeping.import_),
    "pin": (keeping.Pin, keeping.pin),
    "unpin": (keeping.Unpin, keeping.unpin),
    "gc": (keeping.Gc, keeping.collect),
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


def _help() -> str:
    rows = "".join(f"  {name:<8}  {_first(options.__doc__)}\n" for name, (options, _) in _COMMANDS.items())
    return f"usage: rekindle library COMMAND ...\n\n{rows}\n`rekindle library COMMAND --help` explains one.\n"


def _first(text: str | None) -> str:
    return (text or "").partition("\n")[0]
