"""The report of trainings from scratch: an agent over its seeds, or several agents in one environment.

It is read from the runs' folders alone, so that it can be written at any time, while they are under way, too.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rekindle.agents.registry import config_from_json, load, make_agent
from rekindle.core.errors import ConfigError, RekindleError
from rekindle.core.stats import Interval, bootstrap
from rekindle.envs import registry
from rekindle.envs.base import Env
from rekindle.envs.host.worlds import HostWorlds
from rekindle.envs.seats import seat_spec
from rekindle.evaluate.policies import samples
from rekindle.evaluate.rollout import evaluation_key
from rekindle.library import files
from rekindle.library.library import Library
from rekindle.library.records import Record
from rekindle.library.run import Run
from rekindle.report import runs
from rekindle.report.film import FILMED, shots, side_by_side
from rekindle.report.html import Ancestor, Picture, ancestor, duration, number
from rekindle.report.page import Fact, Page, Table, write_page
from rekindle.report.plots import Curve, Panel, joined_plot, learning_plot
from rekindle.report.runs import CAPTION, FILE, POINTS, VIDEO, Training, numeric
from rekindle.train.order import AnyMade, Order, made_by_options, made_for

GRID = 100
"""Points at which curves of several seeds are averaged, at most."""
FILMS = 3
"""Agents that are filmed side by side, at most."""
SCORES = {
    "score/return": ("return of evaluations", "Evaluations: whole episodes of their own, without exploration"),
    "trial/reward": ("reward of a trial", "What trials in training brought, exploration included"),
    "episode/return": ("return of an episode", "What episodes in training brought, exploration included"),
}
"""The first of these that all runs logged tells how they learnt: what it is, and what of it is drawn."""
RATE = "time/env_steps_per_s"
INSIGHT = 6
"""Panels of an agent's own metrics, at most."""


@dataclass(frozen=True)
class Arm:
    """One agent with the same settings and budget, over its seeds."""

    label: str
    trainings: Sequence[Training]

    def curve(self, metric: str) -> Curve:
        """One seed as it is, with its evaluations' interval; of several the mean, with its interval over seeds."""
        curves = [one.curve(metric) for one in self.trainings]
        if len(curves) == 1:
            return curves[0]._replace(label=self.label, **self._of_evaluations(metric))
        last = min(curve.x[-1] for curve in curves)
        first = min(max(curve.x[0] for curve in curves), last)
        places = np.unique([x for curve in curves for x in curve.x if first <= x <= last])
        grid = places if len(places) <= GRID else np.linspace(first, last, GRID)
        values = np.stack([np.interp(grid, curve.x, curve.y) for curve in curves])
        means = [bootstrap(column[:, None], draws=500) for column in values.T]
        y, low, high = (np.array(ends) for ends in zip(*means, strict=True))
        return Curve(self.label, grid, y, low, high)

    def _of_evaluations(self, metric: str) -> dict[str, Any]:
        rows = [row for row in self.trainings[0].rows if numeric(row.get(metric))]
        bounded = all(numeric(row.get(f"score/{end}")) for row in rows for end in ("low", "high"))
        if metric != "score/return" or not bounded or len(rows) > POINTS:
            return {}
        return {end: [float(row[f"score/{end}"]) for row in rows] for end in ("low", "high")}

    def last(self, metric: str) -> Interval:
        """Where the curve ends, which need not be its best; without an interval for one seed without evaluations."""
        curve = self.curve(metric)
        ends = (np.nan, np.nan) if curve.low is None or curve.high is None else (curve.low[-1], curve.high[-1])
        return Interval(float(curve.y[-1]), *map(float, ends))


def tell(ids: Sequence[str], library: Library, path: Path | None = None, *, executes: bool = False) -> Path:
    """Write the page; its path.

    Args:
        ids: of trainings in one environment.
        library: where they are.
        path: of the page; by default `report.html` in the folder of the only run, if that is on this machine and not
            part of the package, or else in this one.
        executes: whether worlds may be opened, and policies be filmed in them, that execute code of other libraries.

    Raises:
        ConfigError: runs in different environments, one that trained nothing, or none with a curve.
    """
    records = [library.find(id) for id in ids]
    own = records[0] if len(records) == 1 and writable(records[0]) else None
    trainings = {record.id: runs.read(Run.open(library, record.id)) for record in records}
    arms, notes = grouped(list(trainings.values()))
    called = {id_of(one): id for id, one in trainings.items()}
    try:
        filmed: Picture | str = film(arms, called, library, own, executes=executes)
    except RekindleError as error:
        filmed = f"There is no video: {error}"
    lineage = None
    if len(records) == 1:
        (record,) = records
        parents = map(ancestor, library.lineage(record.id).parents)
        lineage = Ancestor(record.id, "this run", record.manifest.name, tuple(parents))
    path = path or (Path(FILE) if own is None else own.path / FILE)
    write_page(path, page(arms, called, lineage, filmed, notes))
    return path


def writable(record: Record) -> bool:
    """Whether a page can be kept in its folder."""
    return not isinstance(record.place, Path) and not record.place.is_remote


def id_of(training: Training) -> str:
    """Of its manifest, which the library calls otherwise if it came with the package."""
    return training.manifest.id


def grouped(trainings: Sequence[Training]) -> tuple[list[Arm], list[str]]:
    """By agent, settings and budget, with remarks on what is left out.

    Labels tell as many settings as it takes to tell the agents apart. Left out are runs without a curve, those under
    way beside some that are done, and all but the last of a seed.

    Raises:
        ConfigError: they are of different environments, or nothing is left.
    """
    worlds = {(one.order.env, repr(sorted(one.order.pool.items()))): one for one in trainings}
    if len(worlds) > 1:
        shown = [f"{id_of(one)} is of {one.order.env} with {one.order.pool or 'no options'}" for one in worlds.values()]
        raise ConfigError(
            f"a page is of one environment with the same options: {shown[0]}, {shown[1]}; report them apart."
        )
    notes = [f"{id_of(one)} is left out: it has no curve yet." for one in trainings if not one.rows]
    groups: dict[tuple[str, str], list[Training]] = {}
    for one in trainings:
        if one.rows:
            groups.setdefault((one.name, repr(sorted(told(one).items()))), []).append(one)
    if not groups:
        raise ConfigError(f"there is nothing to tell of. {' '.join(notes)}")
    arms = []
    for (name, _), alike in groups.items():
        others = [members[0] for (other, _), members in groups.items() if other == name]
        apart = [f"{setting}={value}" for setting, value in told(alike[0]).items()
                 if any(told(other).get(setting) != value for other in others)]  # fmt: skip
        arms.append(Arm(", ".join([name, *apart]), without_repeats(alike, notes)))
    return arms, notes


def without_repeats(alike: Sequence[Training], notes: list[str]) -> list[Training]:
    """Of each seed the last run, of those that are done if any is; the others are noted."""
    done = [one for one in alike if one.manifest.status == "done"]
    notes += [f"{id_of(one)} is left out: it is {one.manifest.status}." for one in alike if done and one not in done]
    last = {one.manifest.seed: one for one in sorted(done or alike, key=lambda one: one.manifest.created)}
    notes += [f"{id_of(one)} is left out: {id_of(last[one.manifest.seed])} is of the same seed."
              for one in done or alike if one is not last[one.manifest.seed]]  # fmt: skip
    return sorted(last.values(), key=lambda one: one.manifest.seed or 0)


def told(training: Training) -> dict[str, Any]:
    """What decides how a training goes, but for its seed."""
    order = training.order
    beside = {"curriculum": order.curriculum, "from": order.init, "trials": (order.min_trials, order.max_trials),
              "budget": order.budget}  # fmt: skip
    return {**order.settings, **order.choice, **order.partners, **beside}


def film(
    arms: Sequence[Arm], called: dict[str, str], library: Library, own: Record | None, *, executes: bool
) -> Picture:
    """The first seed of each agent at play, side by side; of a run that is done kept in its `own` folder.

    Raises:
        RekindleError: why there is none.
    """
    kept = own.path if own is not None and own.manifest.status == "done" else None
    if kept is not None and (kept / VIDEO).is_file() and (kept / CAPTION).is_file():
        return Picture((kept / VIDEO).read_bytes(), (kept / CAPTION).read_text("utf-8"))
    order = arms[0].trainings[0].order
    if registry.is_hosted(order.env) and not executes:
        raise ConfigError(f"opening {order.env} executes code of another library; --trust does.")
    data, caption = play(arms, called, library)
    if kept is not None:
        files.write_bytes(kept / VIDEO, data)
        files.write_text(kept / CAPTION, caption)
    return Picture(data, caption)


def play(arms: Sequence[Arm], called: dict[str, str], library: Library) -> tuple[bytes, str]:
    """One episode of each of the first agents, from the same start, and how they ended."""
    shown = arms[:FILMS]
    first = shown[0].trainings[0]
    made = made_for(first.order)
    task_key, play_key = jax.random.split(evaluation_key(first.manifest.seed or 0))
    worlds, task = opened(first.order, made, task_key, len(shown))
    episodes = {}
    for world, arm in zip(worlds, shown, strict=True):
        kept = library.find(called[id_of(arm.trainings[0])]).fetch("policy")
        loaded = load(kept, env_spec=seat_spec(made.spec))
        players = [loaded.policy] * made.spec.players
        episodes[arm.label] = shots(world, players if len(players) > 1 else players[0], task, play_key,
                                    explore=samples(loaded.agent), most=FILMED)  # fmt: skip
    data, ended = side_by_side(episodes)
    words = [
        f"{name} reaches {tally.returned:.4g} in {tally.steps} steps" + ("" if tally.shot.over else ", and goes on")
        for name, tally in ended.items()
    ]
    which = f"the first {FILMS} agents" if len(arms) > FILMS else "each agent"
    return data, (
        f"An episode of {which}, by its first seed, from the same start: {'; '.join(words)}. At most {FILMED} steps "
        "are shown; above each is the return so far."
    )


def opened(order: Order, made: AnyMade, key: Any, number: int) -> tuple[Sequence[Env | HostWorlds], Any]:
    """So many worlds that can be seen, and a task such as those in training, but held out from it."""
    if isinstance(made, registry.Hosted):
        return [made.open(1, seen=True) for _ in range(number)], ()
    options, most = {} if made_by_options(order.env) else order.pool, order.max_trials or made.trials
    pool = registry.make(order.env, **options).pool(split="test", seed=0)
    draw = jax.jit(partial(made.draw, min_trials=min(order.min_trials, most), max_trials=most))
    return [made.env] * number, draw(key, pool)


def page(
    arms: Sequence[Arm], called: dict[str, str], lineage: Ancestor | None, filmed: Picture | str, notes: Sequence[str]
) -> Page:
    """What is written; in place of the video perhaps a sentence why there is none."""
    first, one = arms[0].trainings[0], len(arms) == 1
    metric = metric_of(arms)
    every = [training for arm in arms for training in arm.trainings]
    return Page(
        title=f"{first.order.env}: {' and '.join(arm.label for arm in arms)}",
        lead=lead(arms, metric),
        facts=facts(arms[0], metric) if one else (),
        tables=(table(arms, metric),) if len(every) > 1 else (),
        figures=({"At play": filmed} if isinstance(filmed, Picture) else {}) | figures(arms, metric),
        notes=(*notes, *(() if isinstance(filmed, Picture) else (filmed,))),
        lineage=lineage,
        code=next_lines(first, called[id_of(first)]),
        provenance={
            **({"command": shlex.join(first.manifest.command)} if len(every) == 1 else {}),
            **{f"{arm.label}, seed {of.manifest.seed}": called[id_of(of)] for arm in arms for of in arm.trainings},
            **(
                {"settings": " ".join(f"{name}={value}" for name, value in first.order.settings.items())} if one else {}
            ),
            "device": ", ".join(sorted({training.manifest.device for training in every})),
            **first.manifest.versions,
        },
        created=first.manifest.created.strftime("%Y-%m-%d %H:%M UTC"),
    )


def metric_of(arms: Sequence[Arm]) -> str | None:
    """By which it is told how they learnt; None where they have nothing in common yet."""

    def logged(metric: str) -> bool:
        return all(any(numeric(row.get(metric)) for row in run.rows) for arm in arms for run in arm.trainings)

    return next((metric for metric in SCORES if logged(metric)), None)


def lead(arms: Sequence[Arm], metric: str | None) -> str:
    """How it ended, in a sentence or two."""
    if metric is None:
        return "Nothing was measured yet."
    sentences = [f"{arm.label}: {shown(arm.last(metric))} after {steps_of(arm)} environment steps." for arm in arms]
    going = sorted({run.manifest.status for arm in arms for run in arm.trainings} - {"done"})
    what = f"{SCORES[metric][0].capitalize()}, the last, not the best. "
    return what + " ".join(sentences) + (f" Not all are done: {', '.join(going)}." if going else "")


def shown(value: Interval) -> str:
    """A value with its interval, if there is one."""
    return f"{value.value:.4g}" + (f" [{value.low:.4g}, {value.high:.4g}]" if np.isfinite(value.low) else "")


def steps_of(arm: Arm) -> str:
    """Environment steps of its runs, from and to."""
    counts = sorted({run.rows[-1]["env_steps"] if run.rows else 0 for run in arm.trainings})
    return number(counts[0]) if len(counts) == 1 else f"{number(counts[0])} to {number(counts[-1])}"


def facts(arm: Arm, metric: str | None) -> tuple[Fact, ...]:
    """The numbers above all others."""
    found = [] if metric is None else [Fact(SCORES[metric][0].capitalize(), shown(arm.last(metric)), interval_of(arm))]
    wall = [run.manifest.wall_s or 0.0 for run in arm.trainings]
    rates = [row[RATE] for run in arm.trainings for row in run.rows if numeric(row.get(RATE))]
    return (
        *found,
        Fact("Environment steps", steps_of(arm), "of each run" if len(arm.trainings) > 1 else ""),
        Fact("Steps per second", f"{np.median(rates):,.0f}" if rates else "–", "median of all chunks"),
        Fact("Time", duration(float(np.mean(wall))), "wall clock" + (", mean" if len(wall) > 1 else "")),
        Fact("Seeds", ", ".join(str(run.manifest.seed) for run in arm.trainings)),
    )


def interval_of(arm: Arm) -> str:
    """What the interval is of."""
    return (
        "95 % interval over seeds" if len(arm.trainings) > 1 else "one seed; an interval is of an evaluation's episodes"
    )


def table(arms: Sequence[Arm], metric: str | None) -> Table:
    """A row for each agent and each run."""
    rows = []
    for arm in arms:
        for one in [arm, *(Arm(f"· seed {run.manifest.seed}", [run]) for run in arm.trainings)]:
            wall = [run.manifest.wall_s or 0.0 for run in one.trainings]
            last = "–" if metric is None else shown(one.last(metric))
            rows.append((one.label, last, steps_of(one), duration(float(np.mean(wall)))))
    what = "score" if metric is None else SCORES[metric][0]
    return Table("Where they ended", ("agent", f"{what} (95 % interval)", "environment steps", "time"), tuple(rows))


def figures(arms: Sequence[Arm], metric: str | None) -> dict[str, Picture]:
    """The plots that there are numbers for."""
    found = {}
    if metric is not None:
        label, caption = SCORES[metric]
        bands = "bands are 95 % intervals, over seeds where there are several, else over an evaluation's episodes"
        plot = learning_plot([arm.curve(metric) for arm in arms], title="How it learnt", y_label=label)
        found["How it learnt"] = Picture(plot, f"{caption}; {bands}.")
    for arm in arms:
        agent = arm.trainings[0].order.agent
        names = dict.fromkeys(name for row in arm.trainings[0].rows for name in row if name.startswith(f"{agent}/"))
        panels = []
        for name in list(names)[:INSIGHT]:
            seeds = [run.curve(name, "" if panels else f"seed {run.manifest.seed}") for run in arm.trainings]
            panels.append(Panel(name.partition("/")[2].replace("_", " "), seeds))
        if panels:
            title = f"Inside {arm.label}"
            found[title] = Picture(
                joined_plot(panels, title=title), "What the agent logs of its updates, chunk by chunk."
            )
    return found


def next_lines(first: Training, run: str) -> str:
    """What can be done with it on the command line."""
    env = first.order.env
    options = [word for name, value in first.order.pool.items() for word in ("--pool", f"{name}={value}")]
    agent = make_agent(first.order.agent, config_from_json(first.order.agent, first.order.settings))
    student = first.order.agent if agent.needs.kind == "sequence" else "rainbow"
    teach = ["rekindle", "reincarnate", "--teacher", run, "--student", student, "--env", env, *options]
    lines = [["rekindle", "render", env, "--policy", run, "-o", "run.mp4"], ["rekindle", "library", "export", run]]
    return "\n".join(map(shlex.join, [*lines, *([] if samples(agent) else [teach])]))
