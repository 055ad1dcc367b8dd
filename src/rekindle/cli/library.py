"""`rekindle library`: what was trained, what came of what, and whether it is whole. Loads no JAX."""

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from rekindle.cli.io import emit_json, parse
from rekindle.core.errors import ConfigError, LibraryError, did_you_mean
from rekindle.library import checkpoint, files
from rekindle.library.library import Kin, Library, Record
from rekindle.library.manifest import Kind
from rekindle.library.run import Run

FILE_WIDTH = 160
"""Characters of a line where output goes to a file or another program."""
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
    limit: int | None = None
    """At most so many."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Show:
    """Show what is known of a run: its facts, last metrics, checkpoints and scores."""

    id: Positional[str]
    """Its id, the beginning of it, or its name."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Lineage:
    """Show what a run was made from, and what was made from it."""

    id: Positional[str]
    """Its id, the beginning of it, or its name."""
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
    """Remove it even if kept runs were made from it."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Reindex:
    """Make the index anew from the run folders, however damaged it is."""

    json: bool = False
    """Print one JSON object."""


def run(argv: list[str]) -> int:
    """`rekindle library ls | show | lineage | verify | rm | reindex`; the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    name, *rest = argv
    if name not in _COMMANDS:
        raise ConfigError(f"no command 'library {name}'; {did_you_mean(name, _COMMANDS)}")
    options_class, command = _COMMANDS[name]
    return command(parse(options_class, rest, prog=f"rekindle library {name}"))


def _ls(options: Ls) -> int:
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"--limit must be at least 1; got {options.limit!r}.")
    library = Library.open()
    records = library.runs(options.kind, options.env, options.name, options.limit, shipped=True)
    if options.json:
        return _json({"library": library.folder, "runs": [_facts(record) for record in records]})
    if not records:
        return _say(f"no such run in {library.folder}.")
    table = Table(box=None, pad_edge=False)
    for title in ("id", "kind", "environment", "agent", "env steps", "status", "result"):
        table.add_column(title, justify="right" if title == "env steps" else "left", no_wrap=title == "id")
    for record in records:
        facts = record.manifest
        agent = "" if record.policy is None else str(record.policy["agent"])
        table.add_row(record.id, facts.kind, facts.env_id or "", agent, f"{facts.env_steps:,}", facts.status,
                      _result(record))  # fmt: skip
    return _say(table)


def _result(record: Record) -> str:
    """What came of a job: its verdict and score; empty for other runs."""
    facts = record.manifest
    if facts.kind != "master" or facts.status != "done":
        return ""
    scores = [score.value for score in facts.scores if score.value is not None]
    return " ".join([facts.notes.partition(":")[0].replace("_", " "), *(f"{score:.2f}" for score in scores[:1])])


def _show(options: Show) -> int:
    record = Library.open().find(options.id)
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
    for name, value in _lines(record, facts):
        table.add_row(name, value)
    return _say(table)


def _lines(record: Record, facts: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    manifest = record.manifest
    yield "id", record.id
    yield "folder", str(record.path)
    yield "what", f"{manifest.kind} {manifest.name!r}, {manifest.status}"
    yield "made", f"{manifest.created.astimezone():%Y-%m-%d %H:%M}, on {manifest.device}"
    yield "command", shlex.join(manifest.command)
    yield "environment", manifest.env_id or "none"
    yield "cost", f"{manifest.env_steps:,} env steps, {manifest.wall_s:,.0f} s"
    for parent in manifest.parents:
        yield "parent", f"{parent.id} ({parent.role})"
    for score in manifest.scores:
        interval = "" if score.low is None or score.high is None else f" [{score.low:.3g}, {score.high:.3g}]"
        yield "score", f"{score.name}: {'none' if score.value is None else f'{score.value:.3g}'}{interval}"
    if record.policy is not None:
        yield "policy", f"{record.policy['agent']} (version {record.policy['agent_version']})"
    steps = ", ".join(f"{step:,}" for step in facts["checkpoints"])
    yield "checkpoints", steps or "none"
    for name, value in (facts["metrics"]["last"] or {}).items():
        yield f"  {name}", f"{value:.6g}" if isinstance(value, float) else str(value)
    if manifest.notes:
        yield "notes", manifest.notes


def _lineage(options: Lineage) -> int:
    family = Library.open().lineage(options.id)
    if options.json:
        parents, children = (_kin_json(kin) for kin in (family.parents, family.children))
        return _json(_facts(family.record) | {"parents": parents, "children": children})
    tree = Tree(f"[bold]{family.record.id}[/bold]  {family.record.manifest.name}")
    for title, kin in (("made from", family.parents), ("made into", family.children)):
        _grow(tree.add(title if kin else f"{title} nothing that is known"), kin)
    return _say(tree)


def _grow(tree: Tree, kin: tuple[Kin, ...]) -> None:
    for one in kin:
        what = "not in this library" if one.record is None else one.record.manifest.name
        _grow(tree.add(f"{one.id} ({one.role})  {what}"), one.beyond)


def _kin_json(kin: tuple[Kin, ...]) -> list[dict[str, Any]]:
    return [
        {"id": one.id, "role": one.role, "kept": one.record is not None, "beyond": _kin_json(one.beyond)} for one in kin
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


def _reindex(options: Reindex) -> int:
    library = Library.open()
    try:
        runs = library.reindex()
    except LibraryError:
        runs = Library.rebuilt().reindex()
    return _json({"library": library.folder, "runs": runs}) if options.json else _say(f"{runs} runs.")


_COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "ls": (Ls, _ls),
    "show": (Show, _show),
    "lineage": (Lineage, _lineage),
    "verify": (Verify, _verify),
    "rm": (Rm, _rm),
    "reindex": (Reindex, _reindex),
}


def _facts(record: Record) -> dict[str, Any]:
    facts = record.manifest
    return {
        "id": record.id,
        "path": record.path,
        "kind": facts.kind,
        "name": facts.name,
        "env_id": facts.env_id,
        "agent": None if record.policy is None else record.policy["agent"],
        "created": facts.created.isoformat(),
        "status": facts.status,
        "env_steps": facts.env_steps,
        "wall_s": facts.wall_s,
        "scores": facts.scores,
        "parents": facts.parents,
    }


def _json(value: Mapping[str, Any]) -> int:
    emit_json(files.plain(value))
    return 0


def _say(what: Any) -> int:
    width = None if sys.stdout.isatty() else FILE_WIDTH
    Console(width=width, soft_wrap=isinstance(what, str), highlight=False, markup=not isinstance(what, str)).print(what)
    return 0


def _help() -> str:
    rows = "".join(f"  {name:<8}  {options.__doc__}\n" for name, (options, _) in _COMMANDS.items())
    return f"usage: rekindle library COMMAND ...\n\n{rows}\n`rekindle library COMMAND --help` explains one.\n"
