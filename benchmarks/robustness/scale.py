"""A library of many runs, made by a script, and how long its questions take.

Every run has the files that a real one has, and the index reads them as it reads any other; only the waits for the disk
(fsync) are left out while they are made.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rekindle.library import artefact, tensors
from rekindle.library.home import shipped
from rekindle.library.library import Library

LONG = 20_000
"""Rows of the one long curve; the other runs share the rest of the points evenly."""
METRICS = ("trial/reward", "trial/success", "ppo/policy_loss", "ppo/value_loss", "time/env_steps_per_s")
GOALS = ("hold", "near", "touching")
COLOURS, SHAPES = ("black", "purple", "yellow"), ("wall", "cube", "sphere", "pyramid")
KINDS = ("master", "train", "master", "evaluate", "master")


class Made(NamedTuple):
    """What is in the library that was made."""

    runs: int
    points: int
    seconds: float


def make_library(home: Path, *, runs: int, points: int) -> Made:
    """Fill an empty home with `runs` runs that hold `points` metric points in all."""
    started = time.monotonic()
    facts = json.loads((shipped() / "foundation" / "policy" / "policy.json").read_text())
    manifest = json.loads((shipped() / "foundation" / "manifest.json").read_text())
    specs = [{**facts["spec"], "version": version} for version in (facts["spec"]["version"], 2, 3)]
    data, table = tensors.encode({"w": np.zeros(64, np.float32)})
    rows = max((points // len(METRICS) - LONG) // runs, 1)
    curve = {count: "".join(_row(i) for i in range(count)) for count in (rows, LONG + rows)}
    rng = np.random.default_rng(0)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ids: list[str] = []
    for i in range(runs):
        kind = KINDS[i % len(KINDS)]
        created = begin + timedelta(minutes=7 * i)
        name = f"{GOALS[i % 3]}-{COLOURS[i % 3]}-{SHAPES[i % 4]}"
        id = f"{created:%Y%m%d-%H%M%S}-{name}-{i:04x}"
        parents = [{"id": ids[int(rng.integers(i))], "role": "init", "sha256": None}] if i and kind == "master" else []
        said = {"id": id, "kind": kind, "name": name, "created": created.isoformat(), "parents": parents}
        said |= {"env_id": f"xland/{('goal-v1', 'f0', 'doors-4')[i % 3]}", "config": {"budget": "5m"}, "seed": i}
        folder = home / "runs" / id
        (folder / artefact.FOLDER).mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(manifest | said, indent=2))
        (folder / "metrics.jsonl").write_text(curve[LONG + rows if i == runs // 2 else rows])
        if kind != "evaluate":
            goal = f"{GOALS[i % 3]} {COLOURS[i % 3]} {SHAPES[i % 4]}; hide none; world f0; trials 1"
            card = {"goal": goal, "score": 0.5, "score_low": 0.4, "score_high": 0.6, "strategy": "fine-tune"}
            said = {"spec": specs[i % 3], "card": card, "weights": table.model_dump(mode="json")}
            (folder / artefact.FOLDER / artefact.FACTS).write_text(json.dumps(facts | said, indent=2))
            (folder / artefact.FOLDER / artefact.WEIGHTS).write_bytes(data)
        ids.append(id)
    return Made(runs, len(METRICS) * (rows * runs + LONG), time.monotonic() - started)


def _row(i: int) -> str:
    values = {name: round(float(np.sin(i / 50 + j)), 6) for j, name in enumerate(METRICS)}
    return json.dumps({"env_steps": 8192 * (i + 1), "wall_s": round(0.4 * i, 3), **values}) + "\n"


def questions(home: Path, database: str | None) -> dict[str, Callable[[], Any]]:
    """What is asked, each of a library that is opened for it, as a command does."""
    from rekindle.cli import library as cli
    from rekindle.library.run import Run
    from rekindle.master import Request, understand

    def opened() -> Library:
        return Library(home, database=database)

    ids = sorted(os.listdir(home / "runs"))
    long, some = ids[len(ids) // 2], ids[len(ids) // 3]
    asked = Request("near(yellow sphere, black cube)")
    task = understand(asked, opened())

    def curve() -> Any:
        record = opened().find(long)
        return cli._points(Run(record.fetch(), record.manifest).metrics(), METRICS[0], 1000)

    return {
        "ls, newest 50": lambda: [r.manifest for r in opened().runs(limit=50)],
        "ls --kind train --env xland/f0": lambda: [r.manifest for r in opened().runs("train", "xland/f0", limit=50)],
        "ls --name, all that match": lambda: [r.manifest for r in opened().runs(name="near-purple-cube")],
        "show": lambda: opened().find(some).manifest,
        f"curve of {LONG:,} rows": curve,
        "recall": lambda: task.likeliest(task.nominate(opened(), None)),
        "lineage": lambda: opened().lineage(some),
    }


def commands(home: Path) -> dict[str, list[str]]:
    """The same as whole processes."""
    ids = sorted(os.listdir(home / "runs"))
    return {
        "rekindle library ls": ["ls"],
        "rekindle library ls --kind train --env xland/f0": ["ls", "--kind", "train", "--env", "xland/f0"],
        "rekindle library show ID": ["show", ids[len(ids) // 3]],
        "rekindle library curve ID": ["curve", ids[len(ids) // 2]],
    }


def timed(ask: Callable[[], Any], repetitions: int) -> list[float]:
    """Seconds of each of some repetitions."""
    taken = []
    for _ in range(repetitions):
        started = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - started)
    return taken


def run_command(home: Path, database: str | None, words: list[str]) -> None:
    """A whole process, which must succeed."""
    environment = {**os.environ, "REKINDLE_HOME": str(home), **({"REKINDLE_DB": database} if database else {})}
    subprocess.run(
        [sys.executable, "-m", "rekindle", "library", *words], env=environment, check=True, capture_output=True
    )
