"""kill -9 at a chosen point of a job, then `rekindle resume`: does it end as if nothing had happened?

A job is a real command in a process of its own. A point is either a moment, or the n-th time that the process opens,
renames, links, cuts or removes something in its home: the places where a half-written file would come from. After the
kill the library must be whole to the last byte; the job is resumed (or, where it had not begun, begun anew) and what
it leaves must equal, bit for bit, what the same job left that nobody killed.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

PRELOAD = ["rekindle.cli.train", "rekindle.cli.resume", "rekindle.cli.library", "rekindle.library.index"]
"""What every child needs, imported once in the process that they are forked from; no device is touched before."""
TINY = ("num_envs=16", "rollout_length=32", "hidden=8", "width=8", "epochs=1")
WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree"}
PATIENCE_S = 300.0
RUN = "job-0000"


class Point(NamedTuple):
    """Where to kill: at a share of the job's file operations, or of its seconds."""

    by: str
    share: float


class Outcome(NamedTuple):
    """What came of one kill."""

    job: str
    by: str
    share: float
    killed: bool
    """False if the job had ended before the point came."""
    problems: list[str]
    """What was not whole afterwards, or differs from the job that nobody killed; empty if all is well."""


class Job(NamedTuple):
    """A command that is killed, and what is compared afterwards."""

    name: str
    words: tuple[str, ...]
    needs: str | None = None
    """The job whose home this one begins with."""


def jobs() -> dict[str, Job]:
    """By name; `{home}` stands for the home."""
    settings = [word for setting in TINY for word in ("--set", setting)]
    train = ("train", "ppo", "--env", "xland/doors-2", "--budget", "20480steps", "--checkpoint-every", "0", *settings)
    master = ("master", "hold yellow sphere", "--no-reuse", "--budget", "30000steps")
    score = ("evaluate", RUN, "--tasks", "xland/doors-2", "--count", "6", "--repetitions", "2", "--trials", "1")
    return {
        "train": Job("train", train),
        "evaluate": Job("evaluate", score, needs="train"),
        "master": Job("master", master),
        "export": Job("export", ("library", "export", RUN, "--output", "{home}/prior.rekindle"), needs="train"),
        "gc": Job("gc", ("library", "gc", "--older-than", "0d"), needs="litter"),
        "litter": Job("litter", ("train", *train[1:]), needs="train"),
    }


class Killer:
    """Runs jobs in children, kills some, and compares."""

    def __init__(self, folder: Path, *, compiled: str | None = None, timed: bool = True) -> None:
        """Nothing runs yet.

        Args:
            folder: keeps the homes.
            compiled: keeps the programs that all share; by default in `folder`.
            timed: whether jobs are killed at moments, so that their time without compilation must be known.
        """
        self.folder, self.jobs, self.compiled = folder, jobs(), compiled or str(folder / "compiled")
        self.timed = timed
        self.context: BaseContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)
        self.reference: dict[str, Mapping[str, Any]] = {}

    def prepare(self, name: str) -> Mapping[str, Any]:
        """What the job leaves that nobody kills, how many file operations it has and how long it takes."""
        if name not in self.reference:
            job = self.jobs[name]
            home = self._home(job)
            taken = self._run(job.words, home, count=True)
            if self.timed:  # the first time compiles
                home = self._home(job)
                taken = self._run(job.words, home, count=True)
            counted = json.loads((home.parent / "counted.json").read_text())
            self.reference[name] = {"home": home, "left": left(home), "seconds": taken, **counted}
        return self.reference[name]

    def kill(self, name: str, point: Point) -> Outcome:
        """Kill the job at the point, look at what is there, resume it, compare."""
        job, reference = self.jobs[name], self.prepare(name)
        home = self._home(job)
        if point.by == "file":
            code = self._run(job.words, home, at=max(round(point.share * reference["operations"]), 1))
        else:
            code = self._run(job.words, home, after=point.share * reference["seconds"])
        problems = whole(home)
        self._run(resumption(job, home), home)
        problems += whole(home)
        for what, value in left(home).items():
            if value != reference["left"].get(what):
                problems.append(f"{what} differs from the job that nobody killed")
        if missing := sorted(reference["left"].keys() - left(home).keys()):
            problems.append(f"{missing[0]} is missing")
        shutil.rmtree(home.parent)
        return Outcome(name, point.by, point.share, code < 0, problems)

    def _home(self, job: Job) -> Path:
        home = self.folder / f"{job.name}-{time.monotonic_ns()}" / "home"
        if job.needs is None:
            home.mkdir(parents=True)
        else:
            shutil.copytree(self.prepare(job.needs)["home"], home)
        if job.name == "gc":
            litter(home)
        return home

    def _run(self, words: tuple[str, ...], home: Path, *, count: bool = False, at: int | None = None,
             after: float | None = None) -> float:  # fmt: skip
        """Run a command in a child; the seconds it took, or less than 0 if it was killed."""
        filled = tuple(word.replace("{home}", str(home)) for word in words)
        child = self.context.Process(target=_child, args=(filled, str(home), self.compiled, count, at))
        started = time.monotonic()
        child.start()
        child.join(PATIENCE_S if after is None else after)
        if child.is_alive():
            if after is None:
                child.kill()
                raise TimeoutError(f"{words} in {home} did not end within {PATIENCE_S} s.")
            child.kill()
            child.join()
        if child.exitcode == -signal.SIGKILL:
            return -1.0
        if child.exitcode not in (0, 3):
            raise RuntimeError(f"{words} in {home} ended with {child.exitcode}: {(home.parent / 'said').read_text()}")
        return time.monotonic() - started


def resumption(job: Job, home: Path) -> tuple[str, ...]:
    """What a person types after the crash: resume the run if there is one that is not done, else the same again."""
    begun = {"train": RUN, "master": RUN, "evaluate": "job-0001"}.get(job.name)
    manifest = home / "runs" / str(begun) / "manifest.json"
    if begun is None or not manifest.exists():
        return job.words
    is_told = job.name != "master" or (manifest.parent / "report.html").exists()
    if json.loads(manifest.read_text())["status"] == "done" and is_told:
        return ("library", "verify")
    return ("resume", begun)


def whole(home: Path) -> list[str]:
    """What cannot be used in a home after a crash: nothing may be half there."""
    from rekindle.library.library import Library

    library = Library(home)
    found = [f"{problem.id}: {problem.text}" for problem in library.verify()]
    found += [f"{problem.id}: {problem.text}" for problem in library.damaged()]
    exported = home / "prior.rekindle"
    if exported.exists():
        from rekindle.library import bundle

        elsewhere = Library(home.parent / f"elsewhere-{time.monotonic_ns()}")
        bundle.load(elsewhere, exported)
    return found


def left(home: Path) -> dict[str, Any]:
    """What a job left that must not depend on crashes: weights, scores, steps, curves; not times and seconds."""
    from rekindle.library.library import Library
    from rekindle.library.run import Run

    found: dict[str, Any] = {}
    for record in Library(home).runs():
        facts = record.manifest
        scores = [(score.name, score.value, score.low, score.high) for score in facts.scores]
        found[f"{record.id}: facts"] = (facts.kind, facts.status, facts.env_steps, scores, facts.notes)
        found[f"{record.id}: weights"] = record.row.weights
        rows = Run(record.path, facts).metrics()
        found[f"{record.id}: curve"] = [(row["env_steps"], row.get("ppo/value_loss")) for row in rows]
        found[f"{record.id}: checkpoints"] = _states(record.path)
    exported = home / "prior.rekindle"
    if exported.exists():
        found["prior.rekindle"] = hashlib.sha256(exported.read_bytes()).hexdigest()
    return found


def _states(folder: Path) -> list[tuple[str, str]]:
    files = sorted((folder / "checkpoints").glob("*/state.safetensors"))
    return [(path.parent.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def litter(home: Path) -> None:
    """Waste for gc: what a dead process left, and runs that failed with nothing to keep."""
    from rekindle.library import files

    dead = f"{files.TEMPORARY}x-{files.machine()}-4194305-00000000"
    (home / "runs" / dead).mkdir()
    (home / "runs" / dead / "part").write_text("half")
    for i in range(3):
        folder = home / "runs" / f"failed-{i}"
        shutil.copytree(home / "runs" / RUN, folder)
        shutil.rmtree(folder / "policy")
        shutil.rmtree(folder / "checkpoints")
        said = json.loads((folder / "manifest.json").read_text()) | {"id": folder.name, "status": "failed"}
        (folder / "manifest.json").write_text(json.dumps(said))


def points(count: int, seed: int, *, by: tuple[str, ...] = ("file", "time")) -> list[Point]:
    """Random points, in turns by file operations and by time."""
    rng = random.Random(seed)
    return [Point(by[i % len(by)], rng.random()) for i in range(count)]


def _child(words: tuple[str, ...], home: str, compiled: str, count: bool, at: int | None) -> None:
    """One command, as the command line runs it, in this fresh process."""
    said = open(Path(home).parent / "said", "w")  # noqa: SIM115  (stays open until the process is gone)
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", compiled)
    os.environ |= {"REKINDLE_HOME": home}
    os.environ.pop("REKINDLE_DB", None)
    _make_small()
    operations = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal operations
        if event in WATCHED and arguments and _is_below(arguments[0], home) and not _is_reading(event, arguments):
            operations += 1
            if operations == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    from rekindle.cli.main import main

    code = main(list(words))
    if count:
        (Path(home).parent / "counted.json").write_text(json.dumps({"operations": operations}))
    sys.stdout.flush()
    os._exit(code)


def _is_below(path: Any, home: str) -> bool:
    return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(f"{home}/")  # pyright: ignore


def _is_reading(event: str, arguments: tuple[Any, ...]) -> bool:
    return event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))


def _make_small() -> None:
    """The same code on small sizes, with names that do not depend on the time."""
    from rekindle.agents.ppo import ppo
    from rekindle.library import run
    from rekindle.strategies.words import from_scratch, practice, task

    names = iter(f"job-{i:04d}" for i in range(10_000))
    run.new_id = lambda name: next(names)
    task.PRACTICE_TASKS, task.PROOF_TASKS, task.MIN_PROOF_EPISODES = 8, 8, 16
    practice.WORLDS, practice.SHORT_TASKS, task.SHORT_TASKS = 64, 4, 4
    from_scratch.CONFIG = ppo.Config(num_envs=16, rollout_length=32, hidden=8, width=8, epochs=1)
    plan: Callable[..., Any] = practice.plan
    from dataclasses import replace

    practice.plan = lambda budget, now: replace(plan(budget, now), checkpoint_seconds=0.0)
