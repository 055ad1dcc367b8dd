"""What is trained once teaches: students of a stored policy beside learning from scratch, with the reduced agent."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import training
from benchmarks.common import Bar, Study, value_at_most
from rekindle.agents.registry import config_from_json, config_to_json
from rekindle.core.stats import bootstrap
from rekindle.library.run import Run
from rekindle.train.order import Order, as_student
from rekindle.train.session import OF_TEACHER

TASK = "dmc/cartpole-swingup"
ARMS = {"student": "qdagger", "blank": "tabula-rasa"}
"""Who learns from the teacher, and who as long and as early without it."""
TEACHER_SEED = 100
Cells = Callable[[], list[dict[str, Any]]]
GAIN, SHARE = 1.2, 0.5
"""A student has to reach so many times its teacher's return, in at most this share of the steps from scratch."""


def run(
    study: Study, settings: dict[str, Any], alone: Cells, teacher_steps: int, steps: int, seeds: int
) -> tuple[dict[str, Any], list[Bar]]:
    """The teacher's students, beside the curves from scratch.

    Args:
        study: whose cells these are.
        settings: of the agent that teaches, and of its students.
        alone: makes the cells of seeds that learn from scratch.
        teacher_steps: after which the teacher stops.
        steps: of a student.
        seeds: how many students.
    """
    taught, blank = (
        [study.cell(f"reuse-{arm}-seed{seed}", partial(student, study, settings, method, teacher_steps, steps, seed))
         for seed in range(seeds)] for arm, method in ARMS.items()
    )  # fmt: skip
    scratch = alone()[:seeds]
    goal = GAIN * float(np.mean([cell["teacher"] for cell in taught]))
    every = next(point["steps"] for point in scratch[0]["curve"] if point["steps"])
    whole, cold = ([first_at(cell["curve"], goal, every) for cell in cells] for cells in (scratch, blank))
    reused = [first_at([p for p in cell["curve"] if p["multiplier"] == 0], goal, every) for cell in taught]
    table = [{"seed": seed, "its teacher's return": cell["teacher"], "goal": goal, "steps from scratch": own,
              "from scratch, warm-up of a student": brief, "steps of the student, weaned": its,
              "student's last return": cell["curve"][-1]["return"]}
             for seed, (cell, own, brief, its) in enumerate(zip(taught, whole, cold, reused, strict=True))]  # fmt: skip
    beside = None if None in reused else float(shares(cold, reused, steps).mean())
    found = {"share_beside_as_brief_a_warm_up": beside, "students": table, "student_curves": curves(taught),
             "blank_curves": curves(blank),
             "scratch_curves": [{"seed": seed, **point} for seed, cell in enumerate(scratch)
                                for point in cell["curve"]]}  # fmt: skip
    if study.preset == "smoke":
        return found, []
    return found, [judged(whole, reused, scratch[0]["curve"][-1]["steps"])]


def judged(whole: list[int | None], reused: list[int | None], most: int) -> Bar:
    """The students' steps as a share of those from scratch."""
    if None in reused:
        return value_at_most("reuse.steps", np.inf, np.inf, np.inf, SHARE)
    each = shares(whole, reused, most)
    return value_at_most("reuse.steps", *bootstrap(each[None]), SHARE)


def shares(whole: list[int | None], reused: list[int | None], most: int) -> np.ndarray:
    """Steps of students over those without a teacher; seeds that never got there count all they took."""
    return np.array([(its or np.inf) / (own or most) for own, its in zip(whole, reused, strict=True)])


def first_at(curve: list[dict[str, Any]], goal: float, every: int) -> int | None:
    """Steps until the first evaluation that reaches it, rounded up to a multiple, as if none were between."""
    steps = next((point["steps"] for point in curve if point["return"] >= goal), None)
    return None if steps is None else -(-steps // every) * every


def curves(taught: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over students of every evaluation."""
    rows = []
    for at, point in enumerate(taught[0]["curve"]):
        mean = bootstrap(np.array([[cell["curve"][at]["return"]] for cell in taught]))
        weight = np.mean([cell["curve"][at]["multiplier"] for cell in taught])
        rows.append({"steps": point["steps"], "return": mean.value, "return_low": mean.low, "return_high": mean.high,
                     "multiplier before": float(weight), "seeds": len(taught)})  # fmt: skip
    return rows


def student(
    study: Study, settings: dict[str, Any], method: str, teacher_steps: int, steps: int, seed: int
) -> dict[str, Any]:
    """The evaluations of `rekindle reincarnate --teacher ... --student mrq:small`, and its teacher's return."""
    kept, config = training.library(), config_to_json(config_from_json("mrq", settings))
    alone = Order("mrq", config, TASK, f"{teacher_steps}steps")
    teacher = training.trained(f"reuse-teacher-{study.preset}", alone, TEACHER_SEED, kept, study.say).parent.name
    briefly = {"warmup": as_student(steps, kind="sequence")["warmup"]}
    what = Order("mrq", config | briefly, TASK, f"{steps}steps", teacher=teacher, method=method)
    name = f"reuse-{'student' if method == 'qdagger' else method}-{study.preset}"
    done = Run.open(kept, training.trained(name, what, seed, kept, study.say).parent.name)
    points = [{"steps": int(row["phase/steps"]), "return": row["score/return"], "multiplier": row["phase/multiplier"]}
             for row in done.metrics() if "score/return" in row and "online" in str(row["tag"])]  # fmt: skip
    marks = {score.name: score.value for score in done.manifest.scores}
    return {"curve": points, "teacher": marks[OF_TEACHER], "wall_s": done.manifest.wall_s}
