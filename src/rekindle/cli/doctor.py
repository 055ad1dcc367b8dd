"""`rekindle doctor`: what is installed, where things are kept, what is wrong, and the mend. Changes nothing."""

import importlib.metadata
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from sqlalchemy import URL

from rekindle.cli.io import emit_json, parse
from rekindle.core.errors import RekindleError
from rekindle.library import home, index, provenance, rows, store

LOW_DISK_BYTES = 2**30
"""Less free space than this is reported: a run with video and checkpoints can take a good part of it."""


@dataclass(frozen=True)
class Options:
    """Say what is installed, where things are kept, what is wrong, and the mend; exit code 2 if anything is wrong."""

    json: bool = False
    """Print one JSON object."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    value: str
    problem: str | None = None
    """What is wrong and the mend, in one sentence; None if all is well."""


def run(argv: list[str]) -> int:
    """Look at everything; 0 if all is well, 2 if not."""
    options = parse(Options, argv, prog="rekindle doctor")
    findings = [*_packages(), _devices(), *_library(), _shipped(), _ffmpeg()]
    problems = [finding for finding in findings if finding.problem is not None]
    if options.json:
        emit_json(
            {
                "ok": not problems,
                "found": {finding.name: finding.value for finding in findings},
                "problems": [{"what": finding.name, "problem": finding.problem} for finding in problems],
            }
        )
    else:
        _show(findings)
    return 2 if problems else 0


def _show(findings: list[Finding]) -> None:
    console = Console(highlight=False, markup=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(finding.name, finding.value)
    console.print(table)
    wrong = [finding for finding in findings if finding.problem is not None]
    console.print("\nAll is well." if not wrong else "\nNot well:")
    for finding in wrong:
        console.print(f"  {finding.name}: {finding.problem}", soft_wrap=True)


def _packages() -> Iterator[Finding]:
    """Versions that decide what a training computes, then whatever else rekindle needs and does not find."""
    found = provenance.versions()
    for name, version in found.items():
        yield Finding(name, version)
    for requirement in importlib.metadata.requires("rekindle") or ():
        match = re.match(r"[\w.-]+", requirement)
        if match is None or "extra ==" in requirement or match[0] in found:
            continue
        try:
            importlib.metadata.version(match[0])
        except importlib.metadata.PackageNotFoundError:
            yield Finding(match[0], "missing", f"rekindle needs it; install it with `pip install '{requirement}'`.")


def _devices() -> Finding:
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        mend = "unset JAX_PLATFORMS, or install the JAX of this machine's device (`pip install 'jax[cuda13]'`)"
        return Finding("device", "none", f"JAX finds no device to compute on ({reason}); {mend}.")
    value = f"{len(devices)} x {devices[0].device_kind}, beside {os.cpu_count()} cores"
    if devices[0].platform == "cpu" and Path("/dev/nvidia0").exists() and not os.environ.get("JAX_PLATFORMS"):
        value += "; there is a GPU that JAX does not use: `pip install 'jax[cuda13]'`"
    return Finding("device", value)


def _library() -> Iterator[Finding]:
    named = home.default_home()
    folder = home.near(named)
    if home.is_remote(named):
        yield _remote(named)
    refused = _cannot_write(folder)
    what = "copies of it" if home.is_remote(named) else "library"
    yield Finding(what, str(folder) + ("" if folder.exists() else " (the first run makes it)"), refused)
    if folder.is_dir():
        free = shutil.disk_usage(folder).free
        low = f"less than 1 GiB is free in {folder}; remove runs with `rekindle library rm`, or set REKINDLE_HOME."
        yield Finding("free space", f"{free / 2**30:.1f} GiB", low if free < LOW_DISK_BYTES else None)
    yield _index(folder / rows.FILE)
    yield _compiled(folder)


def _remote(named: str) -> Finding:
    try:
        opened = store.open_store(named)
        return Finding("library", f"{opened.address}, {len(opened.stamps())} runs")
    except RekindleError as error:
        return Finding("library", "cannot be used", str(error))


def _index(path: Path) -> Finding:
    named = home.database()
    if named is None and not path.is_file():
        return Finding("index", "none yet")
    try:
        url = URL.create("sqlite", database=str(path)) if named is None else index.address(named)
        opened = index.Index(url)
        shown = "" if named is None else f"{opened.name}, "
        known = f"{len(opened.stamps())} runs" if named is None else "it answers"
        return Finding("index", f"{shown}{known}", opened.problem())
    except RekindleError as error:
        return Finding("index", "cannot be used", str(error))


def _compiled(folder: Path) -> Finding:
    kept = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or folder / "compiled")
    if not kept.is_dir():
        return Finding("compiled programs", "none yet", _cannot_write(kept))
    sizes = [entry.stat().st_size for entry in os.scandir(kept) if entry.is_file()]
    return Finding("compiled programs", f"{len(sizes)}, {sum(sizes) / 2**20:.1f} MiB in {kept}", _cannot_write(kept))


def _shipped() -> Finding:
    folder = home.shipped()
    runs = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    return Finding("shipped agents", ", ".join(runs) or "none")


def _ffmpeg() -> Finding:
    try:
        import imageio_ffmpeg

        return Finding("ffmpeg", imageio_ffmpeg.get_ffmpeg_version())
    except (ImportError, RuntimeError, OSError):
        mend = "install it with `pip install imageio-ffmpeg`, or name one in IMAGEIO_FFMPEG_EXE"
        return Finding("ffmpeg", "missing", f"without ffmpeg there are no videos; {mend}.")


def _cannot_write(folder: Path) -> str | None:
    """Why nothing can be written in `folder`, or made there if it does not exist, with the mend."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        mend = "give yourself the right to write there, or set REKINDLE_HOME to a folder of yours"
        return f"cannot write in {place} ({error.strerror}); {mend}."
