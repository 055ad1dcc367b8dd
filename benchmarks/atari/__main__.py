"""Pong, from a teacher that nobody trained to a network: `python -m benchmarks.atari --preset smoke|cpu`.

Every cell is what a user would type: `rekindle reincarnate` with the scripted teacher, killed (SIGKILL) while it learns
from the teacher's data and again while it plays, `rekindle resume` each time, `rekindle library export` and `import`
elsewhere. Then teacher, chance and the imported student play fresh episodes.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.common import ROOT, Bar, Study, at_least
from rekindle.agents.registry import load
from rekindle.core.platform import allow_callbacks
from rekindle.core.spaces import Discrete
from rekindle.core.stats import stratified
from rekindle.envs import registry
from rekindle.evaluate.policies import EpsilonGreedy, RandomPolicy
from rekindle.evaluate.returns import host_episodes
from rekindle.library.files import read_json, write_json
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.reincarnation.teachers import load as teachers
from rekindle.reincarnation.weaning import normalised

GAME, TEACHER = "ALE/Pong-v5", "examples.pong_teacher:act"


class Preset(NamedTuple):
    """Sizes of a run."""

    steps: int
    """Of the student; from them follow the updates on the teacher's data, and how many steps it is asked to play."""
    settings: dict[str, Any]
    """Of the student."""
    episodes: int
    """That teacher, chance and student play in the end."""
    seeds: int
    longest: int = 27_000
    """Steps of an episode."""
    kills: tuple[str, ...] = ("0-offline", "1-online")
    """Phases in which it is killed, after their first report."""


ATARI = {"learning_rate": 6.25e-5, "reward_clip": 1.0, "network": "nature", "width": 512, "n_step": 3, "num_envs": 8}
SMALL = {"network": "minatar", "width": 16, "capacity": 800, "warmup": 64, "batch": 4}
PRESETS = {
    "smoke": Preset(400, {**ATARI, **SMALL}, 1, 1, 120, ()),
    "cpu": Preset(16_000, {**ATARI, "capacity": 24_000, "warmup": 1_000}, 32, 1),
    "gpu": Preset(200_000, {**ATARI, "capacity": 200_000, "warmup": 5_000}, 64, 3),
}


def main() -> None:
    """One cell a seed."""
    allow_callbacks()
    study = Study("atari", about="From a scripted teacher of Pong to a network, killed twice on the way.")
    size = PRESETS[study.preset]
    cells = [study.cell(f"pong-seed{seed}", partial(compute, seed, size, study)) for seed in range(size.seeds)]
    rows = [{"seed": seed, **{name: x for name, x in cell.items() if name != "curve"}}
            for seed, cell in enumerate(cells)]  # fmt: skip
    curves = [{"seed": seed, **point} for seed, cell in enumerate(cells) for point in cell["curve"]]
    study.finish(seeds=list(range(size.seeds)), values={"students": rows, "curves": curves},
                 bars=bars(cells, size) if study.preset != "smoke" else [])  # fmt: skip


def compute(seed: int, size: Preset, study: Study) -> dict[str, Any]:
    """A student's way; goes on where it was."""
    home = ROOT / ".library" / f"atari-{study.preset}-{seed}"
    run = taught(home, seed, size, study)
    with tempfile.TemporaryDirectory() as folder:
        given, elsewhere = Path(folder) / "pong.rekindle", Path(folder) / "home"
        rekindle(home, "library", "export", run.id, "--output", str(given))
        rekindle(elsewhere, "library", "import", str(given))
        there = Library.open(elsewhere).find(run.id)
        if not (run.path / "report.html").is_file():
            raise SystemExit(f"the student of seed {seed} has no report")
        student = load(there.fetch("policy"))
        bundle_mib = given.stat().st_size / 2**20
    made = registry.host(GAME, longest=size.longest)
    teacher = teachers.load(TEACHER, made.spec)
    assert isinstance(made.spec.action, Discrete)
    players = {"random": RandomPolicy(made.spec.action.n), "teacher": EpsilonGreedy(teacher, 0.001, made.spec.action.n),
               "student": EpsilonGreedy(student.policy, 0.001, made.spec.action.n)}  # fmt: skip
    worlds, returns = made.open(8), {}
    for number, (name, policy) in enumerate(players.items()):
        study.say(f"seed {seed}: {name} plays")
        key = jax.random.fold_in(jax.random.key(1_000 + seed), number)
        returns[name] = host_episodes(worlds, policy, key, number=size.episodes).returns
    mean = {name: float(np.mean(x)) for name, x in returns.items()}
    curve = [{"phase": row["tag"].split("-")[1], "steps": row["phase/steps"], "score": row["score/normalised"],
              "multiplier": row["phase/multiplier"]} for row in run.metrics() if "score/normalised" in row]  # fmt: skip
    scores = normalised(returns["student"], random=mean["random"], teacher=mean["teacher"])
    kills = len(read_json(home / "killed.json")) if size.kills else 0
    return {**mean, "scores": [float(x) for x in scores], "bundle_mib": bundle_mib, "kills": kills,
            "wall_s": run.wall_s(), "curve": curve}  # fmt: skip


def taught(home: Path, seed: int, size: Preset, study: Study) -> Run:
    """The student, killed in some phases and resumed."""
    library = Library.open(home)
    known = library.runs()
    if known and known[-1].manifest.status == "done":
        return Run.open(library, known[-1].id)
    settings = [word for name, value in size.settings.items() for word in ("--set", f"{name}={value}")]
    words = ["reincarnate", "--teacher", TEACHER, "--student", "dqn", "--env", GAME, "--seed", str(seed), *settings,
             "--budget", f"{size.steps}steps", "--checkpoint-every", "20",
             "--pool", f"longest={size.longest}"]  # fmt: skip
    book = home / "killed.json"
    killed: list[str] = read_json(book) if book.exists() else []
    for phase in (*(phase for phase in size.kills if phase not in killed), None):
        if known := library.runs():
            words = ["resume", known[-1].id]
            if known[-1].manifest.status == "done":
                break
        study.say(f"seed {seed}: rekindle {' '.join(words[:2])}, until {'the end' if phase is None else phase}")
        process = subprocess.Popen(command(*words), env=environment(home), cwd=ROOT.parent)
        while process.poll() is None:
            time.sleep(1)
            if phase is not None and (runs := library.runs()) and reported(Run.open(library, runs[-1].id), phase):
                process.kill()
        if phase is not None and process.returncode == -signal.SIGKILL:
            killed.append(phase)
            write_json(book, killed)
        if phase is None and process.returncode:
            raise SystemExit(f"the student of seed {seed} ended with {process.returncode}")
    return Run.open(library, library.runs()[-1].id)


def reported(run: Run, phase: str) -> bool:
    """Whether a phase has been evaluated and checkpointed."""
    saved = run.latest_checkpoint()
    return saved is not None and saved[2]["tag"] == phase and int(saved[2]["evaluations"]) > 0


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rekindle", *words]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "REKINDLE_HOME": str(home), "PYTHONPATH": os.pathsep.join(["src", str(ROOT.parent)])}


def rekindle(home: Path, *words: str) -> dict[str, Any]:
    """What a command says."""
    done = subprocess.run(command(*words, "--json"), env=environment(home), cwd=ROOT.parent, check=True,
                          capture_output=True, text=True)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def bars(cells: list[dict[str, Any]], size: Preset) -> list[Bar]:
    """What it is worth after the teacher's data alone, and in the end."""
    final = stratified(np.array([[float(np.mean(cell["scores"]))] for cell in cells]))
    offline = stratified(
        np.array([[[p["score"] for p in cell["curve"] if p["phase"] == "offline"][-1]] for cell in cells])
    )
    return [
        at_least("atari.offline-alone", *offline, 0.6),
        at_least("atari.student", *final, 0.9),
        at_least("atari.killed-and-resumed", *[float(min(cell["kills"] for cell in cells))] * 3, len(size.kills)),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
