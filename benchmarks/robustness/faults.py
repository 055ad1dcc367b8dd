"""What goes wrong around a library: a full disk, a home that cannot be written, a clock that jumps, another version.

Each fault is real: a small tmpfs in a mount namespace of its own, the same one mounted read-only, and, where git has
it, the code of an earlier commit. What a person sees must be one sentence, and nothing may be lost.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
TINY = ("num_envs=8", "rollout_length=16", "hidden=8", "width=8")
TRAIN = ("train", "ppo", "--env", "probe/bandit-trials", "--budget", "400000steps", "--checkpoint-every", "0",
         *(word for setting in TINY for word in ("--set", setting)))  # fmt: skip
SAY_ALL = """
import json, sys
from benchmarks.robustness import faults
print(json.dumps(getattr(faults, sys.argv[1])(sys.argv[2])))
"""


def inside_small_disk(fault: str, folder: Path, megabytes: int) -> list[str]:
    """Run a function of this module in a process whose `folder` is a disk of that size; what it found wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = f'mount -t tmpfs -o size={megabytes}m none "$0" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, str(folder), sys.executable, "-c", SAY_ALL, fault, str(folder)]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    if done.returncode != 0:
        return [f"{fault} ended with {done.returncode}: {done.stderr.strip()[-800:]}"]
    return json.loads(done.stdout.splitlines()[-1])


def full_disk(folder: str) -> list[str]:
    """A training runs into a full disk: one sentence, nothing lost, and once there is room it ends as it would have."""
    home, filler, problems = Path(folder) / "home", Path(folder) / "filler", []
    with tempfile.TemporaryDirectory() as elsewhere:
        code, said, out = rekindle(Path(elsewhere), *TRAIN)
        if code != 0:
            return [f"training where there is room: {code}, {said!r}"]
        expected = policy_hash(Path(elsewhere))
    training = subprocess.Popen(command(*TRAIN), env=environment(home), stdout=-1, stderr=-1, text=True)
    while training.poll() is None and not list(home.glob("runs/*/checkpoints/[0-9]*")):
        time.sleep(0.01)
    fill(filler)
    out, err = training.communicate(timeout=200)
    said = last_words(err)
    if training.returncode != 2 or said.count("\n") != 1 or "No space left on device; free some space" not in said:
        problems.append(f"a full disk was answered with {training.returncode}: {err[-500:]!r}")
    problems += one_object(out)
    code, said, out = rekindle(home, "library", "verify")
    if code != 0:
        problems.append(f"verify on a full disk: {code}, {said!r}, {out[-500:]!r}")
    filler.unlink()
    (run,) = [path.name for path in (home / "runs").iterdir() if not path.name.startswith(".")]
    code, said, _ = rekindle(home, "resume", run)
    if code != 0 or policy_hash(home) != expected:
        problems.append(f"resumed with room again: {code}, {said!r}, {policy_hash(home)} instead of {expected}")
    return problems


def fill(filler: Path, *, room: int = 0) -> None:
    """Let a file grow until the disk is full, less some bytes."""
    with open(filler, "ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
        file.truncate(max(file.tell() - room, 0))


def policy_hash(home: Path) -> str | None:
    """Of the weights of the one policy in a home."""
    found = [json.loads(path.read_text()) for path in home.glob("runs/*/policy/policy.json")]
    return found[0]["weights"]["sha256"] if len(found) == 1 else None


def full_library(folder: str) -> list[str]:
    """Checkpoints, curves and decisions on a disk that fills up now and then.

    Each error is one sentence, what was kept is whole, and once there is room writing goes on where it stopped.
    """
    from rekindle.core.errors import LibraryError
    from rekindle.library.library import Library
    from rekindle.library.run import Run

    library, problems = Library(Path(folder) / "home"), []
    run = Run.create(library, "train", name="full", config={}, seed=0)
    filler = Path(folder) / "filler"
    fill(filler, room=300_000)
    written = refused = 0
    for step in range(400):
        try:
            run.log(step, {"x": float(step)})
            run.decide(choice=f"step {step}")
            run.save_checkpoint(step, {"w": np.full(8_000, step, np.float32)}, {"step": step})
            written += 1
        except LibraryError as error:
            refused += 1
            if "No space left on device; free some space" not in str(error) or "\n" in str(error):
                problems.append(f"said {error}")
        if step % 20 == 9:  # the disk comes and goes
            fill(filler)
        elif step % 20 == 19:
            fill(filler, room=200_000)
    if not written or not refused:
        problems.append(f"the disk was not full now and then: {written} written, {refused} refused")
    filler.unlink()
    problems += [problem.text for problem in library.verify()]
    again = Run.open(library, run.id)
    step, arrays, _ = again.latest_checkpoint() or (-1, {}, {})
    if step < 0 or arrays["w"][0] != step:
        problems.append(f"the last checkpoint is {step}")
    again.log(1000, {"x": 1.0})
    again.decide(choice="go on")
    again.save_checkpoint(1000, {"w": np.zeros(4)}, {})
    again.finish("done")
    problems += [problem.text for problem in library.verify()]
    if again.metrics()[-1]["env_steps"] != 1000 or again.decisions()[-1]["choice"] != "go on":
        problems.append("what was written after the disk had room again is not there")
    return problems


def read_only(folder: str) -> list[str]:
    """A home on a disk that is mounted read-only: it can be read; what would write says so in one sentence."""
    from rekindle.library.library import Library

    home, problems = Path(folder) / "home", []
    code, said, _ = rekindle(home, *TRAIN[:4], "--budget", "500steps", *TRAIN[8:])
    if code != 0:
        return [f"training on a disk that can be written: {code}, {said!r}"]
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    code, said, out = rekindle(home, "library", "ls")
    listed = [run["id"] for run in json.loads(out.splitlines()[-1])["runs"]] if code == 0 else []
    if code != 0 or len(listed) != 2:
        problems.append(f"ls of a home that can be read: {code}, {said!r}, {listed}")
    for words in (TRAIN, ("library", "rm", "--force", listed[0]), ("library", "pin", listed[0]), ("library", "gc")):
        code, said, out = rekindle(home, *words)
        if words[-1] == "gc" and code == 0:
            continue  # there is nothing to remove
        if code != 2 or said.count("\n") != 1 or "Read-only file system" not in said or "REKINDLE_HOME" not in said:
            problems.append(f"{words[:2]} in a home that cannot be written: {code}, {said!r}")
        problems += one_object(out)
    problems += [problem.text for problem in Library(home).verify()]
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    return problems


def jumping_clock(folder: str) -> list[str]:
    """The clock goes back a year and forward ten while runs are written: nothing depends on it."""
    from rekindle.library import files, gc, run
    from rekindle.library import manifest as manifests
    from rekindle.library.library import Library
    from rekindle.library.run import Run

    library, problems = Library(folder), []
    real_now, real_time = manifests.now, time.time
    shift = timedelta(0)
    patched: list[tuple[Any, str, Any]] = [
        (manifests, "now", lambda: real_now() + shift),
        (run, "now", lambda: real_now() + shift),
        (gc, "now", lambda: real_now() + shift),
        (time, "time", lambda: real_time() + shift.total_seconds()),
    ]
    with contextlib.ExitStack() as undo:
        for module, name, value in patched:
            undo.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        runs: list[Run] = []
        for days in (0, -365, 3650, -30, 0):
            shift = timedelta(days=days)
            parents = [(one.id, "init") for one in runs[-1:]]
            made = Run.create(library, "train", name="clock", config={}, seed=0, parents=parents)
            runs.append(made)
            with files.new_folder(library.runs_folder / f"slow-{days}") as slow:
                for one in runs:
                    one.log(len(runs), {"x": 1.0})
                    one.decide(choice=f"at {days}")
                    one.save_checkpoint(len(runs), {"w": np.full(3, days)}, {})
                gc.collect(library, older_than=timedelta(0))
                if not slow.is_dir():
                    problems.append(f"at {days} days a folder that was being written was swept away")
                shutil.copy(made.path / "manifest.json", slow)
            shutil.rmtree(library.runs_folder / f"slow-{days}")
            for one in runs:
                steps = [row["wall_s"] for row in one.metrics()]
                if steps != sorted(steps) or one.wall_s() < 0 or one.latest_checkpoint() is None:
                    problems.append(f"{one.id} at {days} days: {steps}")
        found = {record.id for record in library.runs()}
        if found != {one.id for one in runs}:
            problems.append(f"{len(found)} of {len(runs)} runs were found")
        problems += [problem.text for problem in library.verify()]
        for one in runs:
            one.finish("interrupted")
            Run.open(library, one.id).finish("done")
    return problems


def newer_version(folder: str) -> list[str]:
    """A newer rekindle writes in the same library: this one says so, lists the rest, and removes and harms nothing."""
    from rekindle.core.errors import LibraryError
    from rekindle.library import gc
    from rekindle.library.library import Library
    from rekindle.library.run import Run

    library, problems = Library(folder), []
    mine = Run.create(library, "train", name="mine", config={}, seed=0)
    mine.finish("done")
    theirs = Run.create(library, "train", name="theirs", config={}, seed=0)
    theirs.save_checkpoint(5, {"w": np.zeros(3)}, {})
    path = theirs.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2, "invented": True}))
    before = path.read_bytes()
    if [record.id for record in library.runs()] != [mine.id]:
        problems.append("the run of this version is not listed alone")
    if "newer rekindle: upgrade" not in library.damaged()[0].text:
        problems.append(f"it is called {library.damaged()[0].text}")
    for ask in (lambda: library.find(theirs.id), lambda: Run.open(library, theirs.id)):
        try:
            ask()
            problems.append("a run of a newer version was opened")
        except LibraryError as error:
            if "newer rekindle: upgrade" not in str(error):
                problems.append(f"said {error}")
    gc.collect(library, older_than=timedelta(0))
    library.reindex()
    if path.read_bytes() != before or not (theirs.path / "checkpoints" / "5" / "meta.json").exists():
        problems.append("a run of a newer version was changed")
    return problems


def earlier_version(folder: str, revision: str = "47b3386") -> list[str]:
    """The code of an earlier commit and this one take turns on one library; neither loses or hides a run."""
    problems: list[str] = []
    home = Path(folder) / "home"
    with checked_out(revision) as tree:
        if tree is None:
            return [f"git does not have {revision}"]
        old, small = str(tree / "src"), (*TRAIN[:4], "--budget", "500steps", *TRAIN[8:])  # without --checkpoint-every
        for turn, source in enumerate((None, old, None, old)):
            words = small
            code, said, _ = rekindle(home, *words, source=source)
            if code != 0:
                problems.append(f"turn {turn}, {'this' if source is None else 'the earlier'} version: {code}, {said!r}")
            for reader in (None, old):
                code, said, out = rekindle(home, "library", "ls", source=reader)
                runs = json.loads(out.splitlines()[-1])["runs"] if code == 0 else []
                if len(runs) != turn + 2:
                    problems.append(f"turn {turn}: {len(runs)} runs, {code}, {said!r}")
    code, said, out = rekindle(home, "library", "verify")
    if code != 0:
        problems.append(f"verify: {out}")
    return problems


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Path | None]:
    """The tree of a commit in a folder of its own; None where git does not have it."""
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True)
        if packed.returncode != 0:
            yield None
            return
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        yield Path(folder)


def rekindle(home: Path, *words: str, source: str | None = None) -> tuple[int, str, str]:
    """A command as a person types it, with `--json`: exit code, and what it said on both streams without progress."""
    done = subprocess.run(command(*words), env=environment(home, source), capture_output=True, text=True, timeout=280)
    return done.returncode, last_words(done.stderr), done.stdout


def command(*words: str) -> list[str]:
    """What runs it in a process of its own."""
    return [sys.executable, "-m", "rekindle", *words, "--json"]


def environment(home: Path, source: str | None = None) -> dict[str, str]:
    """Of that process: a home, and the code of another version if `source` says so."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("REKINDLE_", "JAX_COMPILATION"))}
    return clean | {"REKINDLE_HOME": str(home), **({"PYTHONPATH": source} if source else {})}


def last_words(err: str) -> str:
    """What a command said on standard error beside its progress."""
    lines = err.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(" ") or "Error" in line or "Warning" in line)


def one_object(out: str) -> list[str]:
    """Whether the last line is the object that a failure is, under `--json`."""
    try:
        said = json.loads(out.splitlines()[-1])
        return [] if set(said) == {"error", "exit_code"} else [f"--json ended with {said}"]
    except (ValueError, IndexError):
        return [f"--json ended with {out[-200:]!r}"]
