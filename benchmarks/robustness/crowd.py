"""Several processes at one library: each begins runs, writes, reads, lists, exports and removes, as fast as it can.

Afterwards every run that a process finished and did not remove must be there, whole, and no process may have met an
error: a lock is waited for, never shown.
"""

import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

LEAST_TURNS = 8
"""Of each process, however slow the machine is."""
WORKER = """
import sys
from benchmarks.robustness.crowd import work
work(*sys.argv[1:])
"""


def crowd(home: Path, *, processes: int, seconds: float, database: str = "") -> dict[str, Any]:
    """Let them at it; what they did and what is wrong with what they left.

    Returns:
        `runs` finished, `removed`, `questions` asked, `slowest_s` of one question, and `problems`: errors that a
        process met, runs that were lost or came back, and whatever `verify` finds.
    """
    from rekindle.library.library import Library

    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", WORKER, str(home), database, str(seconds)]
    workers = [subprocess.Popen([*command, str(i)], stdout=-1, stderr=-1, text=True) for i in range(processes)]
    told: list[dict[str, Any]] = []
    problems: list[str] = []
    for worker in workers:
        out, err = worker.communicate(timeout=seconds + 180)
        if worker.returncode != 0 or err:
            problems.append(f"a process ended with {worker.returncode}: {err.strip()[-500:]}")
        else:
            told.append(json.loads(out))
    finished = {id for one in told for id in one["finished"]}
    removed = {id for one in told for id in one["removed"]}
    library = Library(home, database=database or None)
    there = {record.id for record in library.runs()}
    problems += [f"lost: {id}" for id in sorted(finished - removed - there)]
    problems += [f"came back: {id}" for id in sorted(there & removed)]
    problems += [f"{problem.id}: {problem.text}" for problem in library.verify()]
    problems += [error for one in told for error in one["errors"]]
    return {
        "runs": len(finished),
        "removed": len(removed),
        "questions": sum(one["questions"] for one in told),
        "slowest_s": round(max((one["slowest_s"] for one in told), default=0.0), 3),
        "problems": problems,
    }


def work(home: str, database: str, seconds: str, number: str) -> None:
    """One process; its seconds begin when it has started."""
    import numpy as np

    from benchmarks.robustness.fuzz_files import SPEC
    from rekindle.core.errors import RekindleError
    from rekindle.library import bundle, gc
    from rekindle.library.artefact import read_policy, save_policy
    from rekindle.library.library import Library
    from rekindle.library.run import Run

    library = Library(home, database=database or None)
    finished, removed, errors = list[str](), list[str](), list[str]()
    questions, slowest, turn = 0, 0.0, 0
    rng = np.random.default_rng(int(number))

    def ask(question: Any) -> Any:
        nonlocal questions, slowest
        started = time.monotonic()
        answer = question()
        questions, slowest = questions + 1, max(slowest, time.monotonic() - started)
        return answer

    until = time.monotonic() + float(seconds)
    while time.monotonic() < until or turn < LEAST_TURNS:
        turn += 1
        try:
            others = [record.id for record in ask(lambda: library.runs(limit=5))]  # anyone's
            parents = [(others[-1], "init")] if others and rng.random() < 0.3 else []
            run = Run.create(
                library, "train", name=f"crowd {number}", config={"turn": turn}, seed=turn, parents=parents
            )
            arrays = {"w": rng.random(32).astype(np.float32)}
            for step in range(3):
                run.log(step, {"x": float(step)})
            run.decide(choice="go on")
            run.save_checkpoint(2, arrays, {"n": turn})
            save_policy(run.path / "policy", agent="ppo", agent_version=1, config={}, spec=SPEC, arrays=arrays)
            run.finish("done")
            finished.append(run.id)
            found = ask(lambda run=run: library.find(run.id))
            if read_policy(found.fetch("policy")).arrays["w"].tolist() != arrays["w"].tolist():
                errors.append(f"{run.id} has other weights than were written")
            ask(lambda: library.runs(limit=20))
            ask(lambda run=run: library.lineage(run.id))
            if turn % 5 == 0:
                bundle.export(library, run.id, Path(home) / f"{number}.rekindle")
            if turn % 6 == 0:
                ask(lambda: gc.collect(library, older_than=timedelta(0)))
            with run.held():
                library.is_being_written(run.id)
            if turn % 7 == 0:
                gone = finished[int(rng.integers(len(finished)))]
                if gone not in removed:
                    ask(lambda gone=gone: library.rm(gone, force=True))
                    removed.append(gone)
        except RekindleError as error:
            errors.append(f"{type(error).__name__}: {error}")
    facts = {"finished": finished, "removed": removed, "errors": errors, "questions": questions, "slowest_s": slowest}
    sys.stdout.write(json.dumps(facts))
