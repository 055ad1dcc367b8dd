"""The report of a student: read from the run's folder alone, so that it can be written again at any time."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from rekindle.agents.registry import load
from rekindle.core.errors import ConfigError, RekindleError
from rekindle.envs.registry import is_hosted
from rekindle.evaluate.policies import as_evaluated
from rekindle.evaluate.rollout import evaluation_key
from rekindle.library import files
from rekindle.library.library import Library
from rekindle.library.manifest import Manifest
from rekindle.library.run import Run
from rekindle.library.verify import OFFLINE
from rekindle.reincarnation.teachers import load as teachers
from rekindle.report import runs
from rekindle.report.film import FILMED, Tally, shots, side_by_side
from rekindle.report.html import Ancestor, Picture, ancestor, duration, number, score
from rekindle.report.page import Fact, Page, write_page
from rekindle.report.plots import Panel, joined_plot
from rekindle.report.runs import CAPTION, FILE, VIDEO, Training
from rekindle.report.training import opened
from rekindle.train import teaching
from rekindle.train.order import Order, made_for
from rekindle.train.session import OF_RANDOM, OF_TEACHER

TITLE = "Teacher and student at play"


def is_reincarnation(manifest: Manifest) -> bool:
    """Whether a run has a teacher."""
    return manifest.kind == "train" and manifest.config.get("teacher") is not None


def read(run: Run) -> Training:
    """What a run's folder tells.

    Raises:
        ConfigError: it is no reincarnation, or its config is none of ours.
    """
    if not is_reincarnation(run.manifest):
        raise ConfigError(
            f"{run.id} is no reincarnation; to compare learning from scratch with those, take `rekindle reincarnate "
            "--method tabula-rasa`."
        )
    return runs.read(run)


def tell(run: Run, library: Library, path: Path | None = None, *, executes: bool = False) -> Path:
    """Write the page, by default as `report.html` into the run's folder; its path.

    Args:
        run: of the student.
        library: where its teacher is.
        path: of the page; left out by whoever is at work on the run.
        executes: whether a teacher may be asked whose loading executes code.

    Raises:
        ConfigError: as `read`.
    """
    student = read(run)
    try:
        filmed: Picture | str = film(run, student, library, executes=executes)
    except RekindleError as error:
        filmed = f"There is no video: {error}"
    told = page(student, map(ancestor, library.lineage(run.id).parents), filmed)
    if path is not None:
        write_page(path, told)
        return path
    write_page(run.path / FILE, told)
    run.push()
    return run.path / FILE


def film(run: Run, student: Training, library: Library, *, executes: bool) -> Picture:
    """Teacher and student at play, side by side; kept in the run's folder, since teachers from elsewhere may go away.

    Raises:
        RekindleError: why there is none.
    """
    video, caption = run.path / VIDEO, run.path / CAPTION
    if not (video.is_file() and caption.is_file()):
        if student.manifest.status != "done":
            raise ConfigError(f"the student is {student.manifest.status}.")
        if not executes:
            refuse_code(student.order)
        data, ended = play(run, student, library)
        files.write_bytes(video, data)
        files.write_text(caption, described(ended))
    return Picture(video.read_bytes(), caption.read_text("utf-8"))


def refuse_code(order: Order) -> None:
    """ConfigError where loading a teacher or opening a world executes code: a report that is written again only reads.

    The options of worlds of other libraries, and modules in their ids, are whatever a manifest says.
    """
    which = str(order.teacher)
    if is_hosted(order.env):
        raise ConfigError(f"{order.env} is opened only where a student is made.")
    if teachers.is_foreign(which) and teachers.executes(which, trust=order.trust):
        raise ConfigError(f"the teacher {which} is code, which is executed only where a student is made.")


def play(run: Run, student: Training, library: Library) -> tuple[bytes, dict[str, Tally]]:
    """An episode of each from the same start, acting as they are evaluated; and how both ended."""
    order, key = student.order, evaluation_key(student.manifest.seed or 0)
    made = made_for(order)
    teacher, _, _ = teaching.teacher_of(order, made, library, run)
    learnt = load(library.find(run.id).fetch("policy"), env_spec=made.spec)
    task_key, play_key = jax.random.split(key)
    worlds, task = opened(order, made, task_key, 2)
    players = {"teacher": teacher, "student": learnt.policy}
    return side_by_side({
        name: shots(world, as_evaluated(policy, made.spec.action), task, play_key, explore=False, most=FILMED)
        for world, (name, policy) in zip(worlds, players.items(), strict=True)
    })  # fmt: skip


def described(ended: Mapping[str, Tally]) -> str:
    """How both episodes went, in words."""
    words = [
        f"the {name} reaches {tally.returned:.4g} in {tally.steps} steps" + ("" if tally.shot.over else ", and goes on")
        for name, tally in ended.items()
    ]
    return (
        f"One episode each, from the same start and seed, greedy but for one action in a thousand: {'; '.join(words)}. "
        f"At most {FILMED} steps are shown; above each is the return so far."
    )


def page(student: Training, parents: Iterable[Ancestor], filmed: Picture | str) -> Page:
    """What is written; in place of the video perhaps a sentence why there is none."""
    manifest, order = student.manifest, student.order
    called, sha256 = student.teacher
    return Page(
        title=f"{order.env}: {student.name} from {Path(called).name} by {order.method}",
        lead=lead(student),
        facts=facts(student),
        figures=({TITLE: filmed} if isinstance(filmed, Picture) else {}) | figures(student),
        notes=() if isinstance(filmed, Picture) else (filmed,),
        lineage=Ancestor(manifest.id, "this run", manifest.name, tuple(parents)),
        code=next_line(student),
        provenance={
            "run": manifest.id,
            "command": shlex.join(manifest.command),
            "teacher": called,
            "teacher's SHA-256": sha256 or "none",
            "seed": str(manifest.seed),
            "method": " ".join([order.method, *(f"{name}={value}" for name, value in order.method_settings.items())]),
            "student": " ".join([order.agent, *(f"{name}={value}" for name, value in order.settings.items())]),
            "device": manifest.device,
            **manifest.versions,
        },
        created=manifest.created.strftime("%Y-%m-%d %H:%M UTC"),
    )


def next_line(student: Training) -> str:
    """The command that makes it a teacher."""
    order = student.order
    options = [word for name, value in order.pool.items() for word in ("--pool", f"{name}={value}")]
    return shlex.join(["rekindle", "reincarnate", "--teacher", student.manifest.id, "--student", student.name,
                       "--env", order.env, *options])  # fmt: skip


def lead(student: Training) -> str:
    """How it ended, in a sentence."""
    evaluated = student.evaluations
    if not evaluated:
        return f"It is {student.manifest.status}, and was not evaluated yet."
    last, so_far = evaluated[-1], "" if student.manifest.status == "done" else f"; it is {student.manifest.status}"
    return (
        f"After {number(last.get(OFFLINE, 0))} updates on the teacher's data and {number(last['env_steps'])} "
        f"environment steps the student scores {score(last['score/normalised'])}, where 0 is acting at random and 1 is "
        f"the teacher{so_far}."
    )


def facts(student: Training) -> tuple[Fact, ...]:
    """The numbers above all others."""
    manifest, scores, evaluated = student.manifest, student.scores, student.evaluations
    called, sha256 = student.teacher
    found = [Fact("Normalised score", score(evaluated[-1]["score/normalised"]), "teacher = 1, random = 0"),
             Fact("Return", f"{evaluated[-1]['score/return']:.4g}", "of the student")] if evaluated else []  # fmt: skip
    if OF_TEACHER in scores and OF_RANDOM in scores:
        found.append(Fact("Teacher's return", f"{scores[OF_TEACHER]:.4g}", f"random {scores[OF_RANDOM]:.4g}"))
    return (
        *found,
        Fact("Environment steps", number(manifest.env_steps)),
        Fact("Updates", number(student.updates), f"{number(student.offline_updates)} of them offline"),
        Fact("Time", duration(manifest.wall_s), "wall clock, teacher's evaluation included"),
        Fact("Teacher", Path(called).name, sha256[:12]),
    )


def figures(student: Training) -> dict[str, Picture]:
    """The plots that there are numbers for."""
    agent = student.order.agent
    wanted = {
        "How it learnt": (
            "Normalised score of evaluations: whole episodes, greedy but for one action in a thousand.",
            [("normalised score", ["score/normalised"])],
        ),
        "How it was weaned": (
            "Weight of what the method adds to the loss, and the step size.",
            [("weight of the added loss", ["phase/weight"]), ("step size", ["phase/learning_rate"])],
        ),
        "Beside its teacher": (
            "Share of observations on which both would do the same, and how undecided the teacher is there.",
            [("agreement", ["phase/agreement"]), ("teacher's entropy, nats", ["phase/teacher_entropy"])],
        ),
        "Losses and values": (
            "The student's own loss, what the method adds before its weight, and action values.",
            [("own loss", [f"{agent}/value_loss"]), ("added loss", [f"{agent}/guide_loss"]),
             ("action values", [f"{agent}/q_mean", f"{agent}/q_max"])],
        ),
    }  # fmt: skip
    found = {}
    for title, (caption, asked) in wanted.items():
        panels = [panel for y_label, metrics in asked if (panel := drawn(student, y_label, metrics)) is not None]
        if panels:
            plot = joined_plot(panels, title=title, offline_updates=student.offline_updates)
            found[title] = Picture(plot, caption)
    return found


def drawn(student: Training, y_label: str, metrics: Sequence[str]) -> Panel | None:
    """Some metrics in one panel; None where there are none of them, or nothing but zeros."""
    named = len(metrics) > 1
    curves = [student.curve(metric, metric.partition("/")[2] if named else "") for metric in metrics]
    curves = [curve for curve in curves if np.any(curve.y)]
    return Panel(y_label, curves, 1.0 if y_label == "normalised score" else None) if curves else None
