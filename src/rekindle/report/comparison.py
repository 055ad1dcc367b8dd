"""Several reincarnations side by side: one row a method and student, over the same environments.

Fair is a comparison by the same teacher, data and number of environment steps (Agarwal et al. 2022, 2206.01626, section
4); everything else is refused. Interquartile means, profiles and probabilities of improvement, with stratified
intervals, are those of Agarwal et al. 2021 (2108.13264).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rekindle.core.budget import parse_budget
from rekindle.core.errors import ConfigError
from rekindle.core.stats import Interval, improvement, profile, stratified
from rekindle.library.verify import OFFLINE
from rekindle.report.html import Picture, number
from rekindle.report.page import Fact, Page, Table
from rekindle.report.plots import Curve, Panel, joined_plot, profile_plot
from rekindle.report.runs import Training
from rekindle.train.session import OF_RANDOM, OF_TEACHER

Groups = dict[str, dict[str, list[Training]]]
"""Runs by label and environment, in the order of their seeds."""

THRESHOLDS = (0.5, 0.75, 1.0, 1.25)
"""Of the profile, in the table."""
DRAWS = 500
"""Of a bootstrap, for each point of a curve."""
LEAST_SHARE = 0.8
"""Of its budget that a run has to have used: whole iterations are somewhat less than all of it."""


class Marks(NamedTuple):
    """What returns in an environment are normalised by."""

    random: float
    teacher: float
    called: str
    sha256: str


@dataclass(frozen=True)
class Arm:
    """A method and student, with its runs in every environment."""

    label: str
    students: Mapping[str, Sequence[Training]]
    """By environment, in the order of their seeds; equally many."""
    returns: Mapping[str, Float[np.ndarray, "runs points"]]

    @property
    def seeds(self) -> int:
        """Runs in an environment."""
        return len(next(iter(self.students.values())))


class Row(NamedTuple):
    """What came of an arm; intervals of a single seed are its value alone."""

    label: str
    seeds: int
    end: Interval
    """Interquartile mean of the last normalised scores."""
    above: tuple[Interval, ...]
    """Share of runs above each threshold."""
    best_is_better: Interval | None
    """How probable it is that a run of the best arm scores higher; None for the best itself."""


@dataclass(frozen=True)
class Comparison:
    """Arms, the best first, and what has to be said of them."""

    arms: Sequence[Arm]
    rows: Sequence[Row]
    marks: Mapping[str, Marks]
    """By environment."""
    steps: int
    """Environment steps of each run, as they were asked for."""
    notes: tuple[str, ...]


def compare(students: Iterable[Training]) -> Comparison:
    """Group runs by method and student, and by environment.

    Runs that are not done, repeat a seed, or have no counterpart in another environment are left out, with a remark.

    Raises:
        ConfigError: nothing is left, or the runs differ in teacher, options of the environment, or steps.
    """
    notes: list[str] = []
    kept = finished(students, notes)
    steps = refuse_unfair(kept)
    groups = without_repeats(grouped(kept), notes)
    environments = common(groups, notes)
    marks = {env: marked([s for runs in groups.values() for s in runs[env]]) for env in environments}
    arms = [arm(label, runs, environments, notes) for label, runs in groups.items()]
    ends = {arm.label: normalised(arm, marks, -1) for arm in arms}
    means = {label: stratified(matrix) for label, matrix in ends.items()}
    arms.sort(key=lambda arm: -means[arm.label].value)
    best = arms[0].label
    rows = [
        Row(one.label, one.seeds, means[one.label], tuple(profile(ends[one.label], bar) for bar in THRESHOLDS),
            None if one.label == best else improvement(ends[best], ends[one.label]))
        for one in arms
    ]  # fmt: skip
    if single := [row.label for row in rows if row.seeds == 1]:
        notes.append(f"{listed(single)}: one seed, so there is no interval.")
    if len({row.seeds for row in rows}) > 1:
        notes.append(f"The numbers of seeds differ: {listed([f'{row.label} {row.seeds}' for row in rows])}.")
    return Comparison(arms, rows, marks, steps, tuple(notes))


def finished(students: Iterable[Training], notes: list[str]) -> list[Training]:
    """Those that are done; the others are noted."""
    kept = []
    for student in students:
        status = student.manifest.status
        if status != "done":
            notes.append(f"{student.manifest.id} is left out: it is {status}.")
        elif not student.evaluations or not {OF_RANDOM, OF_TEACHER} <= student.scores.keys():
            notes.append(f"{student.manifest.id} is left out: it has no evaluations.")
        elif student.evaluations[-1]["env_steps"] < LEAST_SHARE * budget(student):
            notes.append(f"{student.manifest.id} is left out: it was stopped before its budget was spent.")
        else:
            kept.append(student)
    if not kept:
        raise ConfigError(f"there is nothing to compare. {' '.join(notes)}")
    return kept


def refuse_unfair(students: Sequence[Training]) -> int:
    """The steps that all were given.

    Raises:
        ConfigError: two runs differ in them, or in one environment in its options or in the teacher; both are named.
    """
    alike: dict[str, Callable[[Training], Any]] = {
        "options of the environment": lambda student: student.order.pool,
        "data": lambda student: student.data,
        "way of reading the teacher": lambda student: (student.order.valued, student.order.trust),
    }
    first_in: dict[str, Training] = {}
    for student in students:
        first = first_in.setdefault(student.order.env, student)
        refuse_two("teacher", first, student, lambda one: one.teacher[1] or one.teacher[0],
                   shown=lambda one: " ".join(one.teacher))  # fmt: skip
        for what, of in alike.items():
            refuse_two(what, first, student, of)
        refuse_two("budget in environment steps", students[0], student, budget)
    return budget(students[0])


def budget(student: Training) -> int:
    """Environment steps that were asked for."""
    return parse_budget(student.order.budget).env_steps or 0


def refuse_two(
    what: str, first: Training, other: Training, of: Callable[[Training], Any],
    shown: Callable[[Training], Any] | None = None,
) -> None:  # fmt: skip
    """ConfigError where two runs differ in what has to be the same; `shown` says more of it than is compared."""
    if of(first) != of(other):
        was, here = (shown or of)(first), (shown or of)(other)
        raise ConfigError(
            f"a fair comparison has the same {what}: {first.manifest.id} has {was}, {other.manifest.id} has {here}. "
            "Compare them apart."
        )


def grouped(students: Sequence[Training]) -> Groups:
    """By label and environment; labels tell as many settings as it takes to tell the groups apart."""
    groups: dict[tuple[str, str, str], list[Training]] = {}
    for student in students:
        key = student.order.method, student.name, repr(sorted(settings_of(student).items()))
        groups.setdefault(key, []).append(student)
    found: Groups = {}
    for (method, name, _), runs in groups.items():
        alike = [other for key, other in groups.items() if key[:2] == (method, name)]
        told = [f"{setting}={value}" for setting, value in settings_of(runs[0]).items()
                if any(settings_of(other[0]).get(setting) != value for other in alike)]  # fmt: skip
        of = found.setdefault(", ".join([f"{method} {name}", *told]), {})
        for run in sorted(runs, key=lambda run: (run.manifest.seed or 0, run.manifest.created)):
            of.setdefault(run.order.env, []).append(run)
    return found


def settings_of(student: Training) -> dict[str, Any]:
    """Of the method and of the student, by name."""
    return {**student.order.settings, **student.order.method_settings}


def without_repeats(
    groups: dict[str, dict[str, list[Training]]], notes: list[str]
) -> dict[str, dict[str, list[Training]]]:
    """The same with the last run of each seed alone."""
    found: Groups = {}
    for label, by_env in groups.items():
        for env, runs in by_env.items():
            last = {run.manifest.seed: run for run in runs}
            found.setdefault(label, {})[env] = list(last.values())
            notes += [f"{run.manifest.id} is left out: {last[run.manifest.seed].manifest.id} is of the same seed."
                      for run in runs if run is not last[run.manifest.seed]]  # fmt: skip
    return found


def common(groups: Groups, notes: list[str]) -> list[str]:
    """Environments in which all have runs; the others are noted.

    Raises:
        ConfigError: there is none.
    """
    every = sorted({env for runs in groups.values() for env in runs})
    shared = [env for env in every if all(env in runs for runs in groups.values())]
    if not shared:
        has = "; ".join(f"{label} has {listed(sorted(runs))}" for label, runs in groups.items())
        raise ConfigError(f"there is no environment in which all have runs: {has}.")
    for env in every:
        if env not in shared:
            lacking = [label for label, runs in groups.items() if env not in runs]
            notes.append(f"{env} is left out: it has no run of {listed(lacking)}.")
    return shared


def marked(students: Sequence[Training]) -> Marks:
    """The mean of what the runs measured, so that all are normalised alike."""
    random, teacher = (float(np.mean([s.scores[name] for s in students])) for name in (OF_RANDOM, OF_TEACHER))
    return Marks(random, teacher, *students[0].teacher)


def arm(label: str, runs: Mapping[str, list[Training]], environments: Sequence[str], notes: list[str]) -> Arm:
    """As many runs in each environment: those that are more have seeds that come last, and are noted.

    Raises:
        ConfigError: runs were evaluated at different steps.
    """
    seeds = min(len(runs[env]) for env in environments)
    for env in environments:
        if extra := runs[env][seeds:]:
            notes.append(f"{listed([run.manifest.id for run in extra])}: left out, since {label} has {seeds} of "
                         "its seeds in another environment.")  # fmt: skip
    kept = {env: runs[env][:seeds] for env in environments}
    first = kept[environments[0]][0]
    for run in (run for many in kept.values() for run in many):
        if places(run) != places(first):
            raise ConfigError(
                f"{first.manifest.id} and {run.manifest.id} were evaluated at different steps; compare them apart."
            )
    returns = {env: np.array([[row["score/return"] for row in run.evaluations] for run in many], float)
               for env, many in kept.items()}  # fmt: skip
    return Arm(label, kept, returns)


def places(student: Training) -> list[float]:
    """Where its evaluations lie on the joined axis."""
    return [student.at(row) for row in student.evaluations]


def normalised(arm: Arm, marks: Mapping[str, Marks], at: int) -> Float[np.ndarray, "runs games"]:
    """Scores of one evaluation."""
    columns = [(returns[:, at] - marks[env].random) / (marks[env].teacher - marks[env].random)
               for env, returns in arm.returns.items()]  # fmt: skip
    return np.stack(columns, axis=1)


def curve(arm: Arm, marks: Mapping[str, Marks]) -> Curve:
    """Interquartile means of every evaluation, offline and online joined."""
    x = places(next(iter(arm.students.values()))[0])
    means = [stratified(normalised(arm, marks, at), draws=DRAWS) for at in range(len(x))]
    value, low, high = (np.array(column) for column in zip(*means, strict=True))
    return Curve(arm.label, x, value, *((low, high) if arm.seeds > 1 else (None, None)))


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def page(found: Comparison) -> Page:
    """As a page."""
    curves = [curve(one, found.marks) for one in found.arms]
    offline = max(run.offline_updates for one in found.arms for runs in one.students.values() for run in runs)
    over = np.linspace(0.0, max(1.5, *(float(normalised(one, found.marks, -1).max()) for one in found.arms)), 301)
    profiles = [Curve(one.label, over, [float((normalised(one, found.marks, -1) > bar).mean()) for bar in over])
                for one in found.arms]  # fmt: skip
    best = found.rows[0]
    return Page(
        title=f"Reincarnation: {best.label}" + (f", best of {len(found.rows)}" if len(found.rows) > 1 else ""),
        lead="Scores are normalised: 0 is acting at random, 1 is the teacher. All have the same teacher, the same data "
             "and the same number of environment steps.",
        facts=(Fact("Best", best.label, f"interquartile mean {shown(best.end, best.seeds)}"),
               Fact("Environments", str(len(found.marks))),
               Fact("Environment steps", number(found.steps), "of each run"),
               Fact("Updates offline", number(offline), "of methods that learn from the teacher's data first")),
        tables=(final(found), by_environment(found)),
        figures={
            "How they learnt": Picture(
                joined_plot([Panel("interquartile mean of scores", curves, 1.0)], title="How they learnt",
                            offline_updates=offline),
                "Bands are 95 % intervals by a bootstrap of the runs within each environment."),
            "Performance profile": Picture(profile_plot(profiles), "Share of runs whose last score is above."),
        },
        notes=found.notes,
        provenance={label: ", ".join(ids) for label, ids in runs_of(found).items()},
    )  # fmt: skip


def final(found: Comparison) -> Table:
    """The table of final scores."""
    columns = ("method and student", "seeds", "interquartile mean (95 % interval)",
               *(f"runs above {bar:g}" for bar in THRESHOLDS), "best is better, probability")  # fmt: skip
    rows = tuple(
        (row.label, str(row.seeds), shown(row.end, row.seeds), *(f"{share.value:.2f}" for share in row.above),
         "" if row.best_is_better is None else shown(row.best_is_better, min(row.seeds, found.rows[0].seeds)))
        for row in found.rows
    )  # fmt: skip
    return Table("Final scores", columns, rows)


def by_environment(found: Comparison) -> Table:
    """Mean scores in each environment."""
    columns = ("environment", "teacher", "return: random", "teacher's", *(row.label for row in found.rows))
    rows = tuple(
        (env, f"{marks.called} {marks.sha256[:8]}", f"{marks.random:.4g}", f"{marks.teacher:.4g}",
         *(f"{normalised(arm, {env: marks}, -1).mean():.2f}" for arm in alone(found.arms, env)))
        for env, marks in found.marks.items()
    )  # fmt: skip
    note = "Means of the last scores, normalised by the mean of what the runs measured of chance and of the teacher."
    return Table("In each environment", columns, rows, note)


def alone(arms: Sequence[Arm], env: str) -> list[Arm]:
    """The same in one environment."""
    return [Arm(arm.label, {env: arm.students[env]}, {env: arm.returns[env]}) for arm in arms]


def shown(value: Interval, seeds: int) -> str:
    """A value with its interval, if several seeds give one."""
    return f"{value.value:.2f}" + (f" ({value.low:.2f} to {value.high:.2f})" if seeds > 1 else "")


def runs_of(found: Comparison) -> dict[str, list[str]]:
    """Ids by label."""
    return {one.label: [run.manifest.id for runs in one.students.values() for run in runs] for one in found.arms}


def to_json(found: Comparison) -> dict[str, Any]:
    """The same numbers, as JSON data; ends of an interval are null where there is one seed."""

    def interval(value: Interval, seeds: int) -> dict[str, float | None]:
        return {**value._asdict()} if seeds > 1 else {"value": value.value, "low": None, "high": None}

    best = found.rows[0].seeds
    methods = [
        {"label": row.label, "seeds": row.seeds, "runs": runs_of(found)[row.label],
         "interquartile_mean": interval(row.end, row.seeds),
         "above": {f"{bar:g}": interval(share, row.seeds) for bar, share in zip(THRESHOLDS, row.above, strict=True)},
         "best_is_better": row.best_is_better and interval(row.best_is_better, min(row.seeds, best)),
         "curve": points(one, found.marks)}
        for row, one in zip(found.rows, found.arms, strict=True)
    ]  # fmt: skip
    return {"environments": {env: marks._asdict() for env, marks in found.marks.items()}, "env_steps": found.steps,
            "methods": methods, "notes": list(found.notes)}  # fmt: skip


def points(arm: Arm, marks: Mapping[str, Marks]) -> list[dict[str, Any]]:
    """The joined curve, with updates and environment steps apart."""
    drawn, rows = curve(arm, marks), next(iter(arm.students.values()))[0].evaluations
    low, high = ([None] * len(rows) if end is None else [float(x) for x in end] for end in (drawn.low, drawn.high))
    return [{"offline_updates": row.get(OFFLINE, 0), "env_steps": row["env_steps"], "value": float(value), "low": down,
             "high": up} for row, value, down, up in zip(rows, drawn.y, low, high, strict=True)]  # fmt: skip
