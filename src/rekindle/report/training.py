"""The report of trainings from scratch: an agent over its seeds, or several agents in one environment.

It is read from the runs' folders alone, so that it can be written at any time, while they are under way, too.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from pydantic import TypeAdapter, ValidationError

from rekindle.agents.registry import config_from_json, load, make_agent
from rekindle.core.errors import ConfigError, RekindleError
from rekindle.core.stats import Interval, bootstrap
from rekindle.envs.base import Env
from rekindle.envs.host.worlds import HostWorlds
from rekindle.envs.registry import Hosted, is_hosted
from rekindle.envs.seats import seat_spec
from rekindle.evaluate.policies import samples
from rekindle.evaluate.rollout import evaluation_key
from rekindle.library import files
from rekindle.library.library import Library
from rekindle.library.manifest import Manifest, first_problem
from rekindle.library.run import Run
from rekindle.report.film import FILMED, shots, side_by_side
from rekindle.report.html import Ancestor, Picture, ancestor, duration, number
from rekindle.report.page import Fact, Page, Table, write_page
from rekindle.report.plots import Curve, Panel, joined_plot, learning_plot
from rekindle.train import session
from rekindle.train.session import Order

FILE, VIDEO, CAPTION = "report.html", "film.mp4", "film.txt"
POINTS = 400
"""Of a curve that is drawn, at most."""
GRID = 100
"""Points at which curves of several seeds are averaged, at most."""
FILMS = 3
"""Agents that are filmed side by side, at most."""
SCORES = {
    "score/return": ("return of exams", "Exams: whole episodes of their own, without exploration"),
    "trial/reward": ("reward of a trial", "What trials in training brought, exploration included"),
    "episode/return": ("return of an episode", "What episodes in training brought, exploration included"),
}
"""The first of these that all runs logged tells how they learnt: what it is, and what of it is drawn."""
RATE = "time/env_steps_per_s"
INSIGHT = 6
"""Panels of an agent's own metrics, at most."""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Training:
    """A training, as its run's folder tells of it."""

    manifest: Manifest
    order: Order
    rows: Rows
    """Of its curves."""

    @property
    def name(self) -> str:
        """Algorithm and, unless it follows from what is seen, network."""
        network = str(self.order.settings.get("network", "auto"))
        return self.order.agent if network == "auto" else f"{self.order.agent}:{network}"

    def at(self, row: Mapping[str, Any]) -> float:
        """Where a row lies on the horizontal axis: environment steps."""
        return row["env_steps"]

    def curve(self, metric: str, label: str = "") -> Curve:
        """A metric over that axis."""
        rows = [row for row in self.rows if numeric(row.get(metric))]
        if len(rows) > POINTS:
            rows = [rows[i] for i in np.linspace(0, len(rows) - 1, POINTS).round().astype(int)]
        return Curve(label, [self.at(row) for row in rows], [float(row[metric]) for row in rows])


@dataclass(frozen=True)
class Arm:
    """One agent with the same settings, over its seeds."""

    label: str
    runs: Sequence[Training]

    def curve(self, metric: str) -> Curve:
        """Of one seed as it is, with the interval of its exams; of several their mean, with its interval over seeds."""
        curves = [run.curve(metric) for run in self.runs]
        if len(curves) == 1:
            return curves[0]._replace(label=self.label, **self._of_exams(metric))
        first, last = max(c.x[0] for c in curves), min(c.x[-1] for c in curves)
        longest = np.unique([x for c in curves for x in c.x if first <= x <= last])
        grid = longest if len(longest) <= GRID else np.linspace(first, last, GRID)
        values = np.stack([np.interp(grid, c.x, c.y) for c in curves])
        means = [bootstrap(column[:, None], draws=500) for column in values.T]
        y, low, high = (np.array(ends) for ends in zip(*means, strict=True))
        return Curve(self.label, grid, y, low, high)

    def _of_exams(self, metric: str) -> dict[str, Any]:
        rows = [row for row in self.runs[0].rows if numeric(row.get(metric))]
        bounded = all(numeric(row.get(f"score/{end}")) for row in rows for end in ("low", "high"))
        if metric != "score/return" or not bounded or len(rows) > POINTS:
            return {}
        return {end: [float(row[f"score/{end}"]) for row in rows] for end in ("low", "high")}

    def last(self, metric: str) -> Interval | None:
        """The last value, never the best; over seeds its mean, else the interval over the episodes of an exam."""
        found = [curve for run in self.runs if (curve := run.curve(metric)).y]
        if len(found) > 1:
            return bootstrap(np.array([[curve.y[-1]] for curve in found]))
        if not found:
            return None
        ends = self._of_exams(metric)
        value = float(found[0].y[-1])
        return Interval(value, ends["low"][-1], ends["high"][-1]) if ends else Interval(value, np.nan, np.nan)


def numeric(value: Any) -> bool:
    """Whether a value of a row can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def order_of(run: Run) -> Order:
    """What a run was to train.

    Raises:
        ConfigError: it was to train nothing, or its config is none of ours.
    """
    if run.manifest.kind != "train":
        raise ConfigError(f"{run.id} is a run of kind {run.manifest.kind!r}; reports are of what was trained.")
    try:
        return TypeAdapter(Order).validate_python(dict(run.manifest.config))
    except ValidationError as error:
        raise ConfigError(f"the config of {run.id} is damaged: {first_problem(error)}.") from None


def read(run: Run) -> Training:
    """What a run's folder tells; ConfigError as `order_of`."""
    return Training(run.manifest, order_of(run), run.metrics())


def tell(runs: Sequence[Run], library: Library, path: Path | None = None, *, executes: bool = False) -> Path:
    """Write the page, by default as `report.html` into the folder of the only run, or into this one; its path.

    Args:
        runs: trainings in one environment.
        library: where their policies are.
        path: of the page.
        executes: whether worlds may be opened, and policies be filmed in them, that execute code of other libraries.

    Raises:
        ConfigError: runs in different environments, or one that trained nothing.
    """
    arms = grouped([read(run) for run in runs])
    try:
        filmed: Picture | str = film(runs, arms, library, executes=executes)
    except RekindleError as error:
        filmed = f"There is no video: {error}"
    parents = [Ancestor(run.id, "this run", run.manifest.name, tuple(map(ancestor, library.lineage(run.id).parents)))
               for run in runs]  # fmt: skip
    path = path or (runs[0].path / FILE if len(runs) == 1 else Path(FILE))
    write_page(path, page(arms, parents, filmed))
    for run in runs:
        run.push()
    return path


def grouped(trainings: Sequence[Training]) -> list[Arm]:
    """By agent and settings; labels tell as many settings as it takes to tell the agents apart.

    Raises:
        ConfigError: they are of different environments.
    """
    worlds = {(run.order.env, repr(sorted(run.order.pool.items()))): run for run in trainings}
    if len(worlds) > 1:
        first, other, *_ = worlds.values()
        raise ConfigError(
            f"a page is of one environment with the same options: {first.manifest.id} is of {first.order.env} "
            f"{first.order.pool or ''}, {other.manifest.id} of {other.order.env} {other.order.pool or ''}; report them "
            "apart."
        )
    groups: dict[tuple[str, str], list[Training]] = {}
    for run in trainings:
        groups.setdefault((run.name, repr(sorted(told(run).items()))), []).append(run)
    arms = []
    for (name, _), runs in groups.items():
        alike = [others[0] for (other, _), others in groups.items() if other == name]
        apart = [f"{setting}={value}" for setting, value in told(runs[0]).items()
                 if any(told(other).get(setting) != value for other in alike)]  # fmt: skip
        arms.append(Arm(", ".join([name, *apart]), sorted(runs, key=lambda run: run.manifest.seed or 0)))
    return arms


def told(run: Training) -> dict[str, Any]:
    """What decides how a training goes, but for its seed and its budget."""
    order = run.order
    beside = {"curriculum": order.curriculum, "from": order.init, "trials": (order.min_trials, order.max_trials)}
    return {**order.settings, **order.choice, **order.partners, **beside}


def film(runs: Sequence[Run], arms: Sequence[Arm], library: Library, *, executes: bool) -> Picture:
    """The first seed of each agent at play, side by side; of a single run kept in its folder.

    Raises:
        RekindleError: why there is none.
    """
    kept = runs[0].path if len(runs) == 1 and runs[0].manifest.status == "done" else None
    if kept is not None and (kept / VIDEO).is_file() and (kept / CAPTION).is_file():
        return Picture((kept / VIDEO).read_bytes(), (kept / CAPTION).read_text("utf-8"))
    order = arms[0].runs[0].order
    if is_hosted(order.env) and not executes:
        raise ConfigError(f"opening {order.env} executes code of another library; --trust does.")
    data, caption = play(arms, order, library)
    if kept is not None:
        files.write_bytes(kept / VIDEO, data)
        files.write_text(kept / CAPTION, caption)
    return Picture(data, caption)


def play(arms: Sequence[Arm], order: Order, library: Library) -> tuple[bytes, str]:
    """One episode of each, from the same start, and how they ended."""
    made, shown = session.made_for(order), arms[:FILMS]
    task_key, play_key = jax.random.split(evaluation_key(shown[0].runs[0].manifest.seed or 0))
    worlds, task = opened(made, task_key, len(shown))
    episodes = {}
    for world, one in zip(worlds, shown, strict=True):
        kept = library.find(one.runs[0].manifest.id).fetch("policy")
        loaded = load(kept, env_spec=seat_spec(made.spec))
        players = [loaded.policy] * made.spec.players
        episodes[one.label] = shots(world, players if len(players) > 1 else players[0], task, play_key,
                                    explore=samples(loaded.agent), most=FILMED)  # fmt: skip
    data, ended = side_by_side(episodes)
    words = [
        f"{name} reaches {tally.returned:.4g} in {tally.steps} steps" + ("" if tally.shot.over else ", and goes on")
        for name, tally in ended.items()
    ]
    return data, (
        f"An episode of each agent's first seed, from the same start: {'; '.join(words)}. At most {FILMED} steps are "
        "shown; above each is the return so far."
    )


def opened(made: session.AnyMade, key: Any, number: int) -> tuple[Sequence[Env | HostWorlds], Any]:
    """So many worlds that can be seen, and a task that training did not have."""
    if isinstance(made, Hosted):
        return [made.open(1, seen=True) for _ in range(number)], ()
    draw = jax.jit(partial(made.draw, min_trials=made.trials, max_trials=made.trials))
    return [made.env] * number, draw(key, made.pool(split="test", seed=0))


def page(arms: Sequence[Arm], lineage: Sequence[Ancestor], filmed: Picture | str) -> Page:
    """What is written; in place of the video perhaps a sentence why there is none."""
    first, one = arms[0].runs[0], len(arms) == 1
    metric = metric_of(arms)
    runs = [run for arm in arms for run in arm.runs]
    drawn = figures(arms, metric)
    return Page(
        title=f"{first.order.env}: {' and '.join(arm.label for arm in arms)}",
        lead=lead(arms, metric),
        facts=facts(arms[0], metric) if one else (),
        tables=(table(arms, metric),) if len(runs) > 1 else (),
        figures=({"At play": filmed} if isinstance(filmed, Picture) else {}) | drawn,
        notes=() if isinstance(filmed, Picture) else (filmed,),
        lineage=lineage[0] if len(runs) == 1 else None,
        code=next_lines(first),
        provenance={
            **({"command": shlex.join(first.manifest.command)} if len(runs) == 1 else {}),
            **{f"{arm.label}, seed {run.manifest.seed}": run.manifest.id for arm in arms for run in arm.runs},
            "settings": " ".join(f"{name}={value}" for name, value in first.order.settings.items()) if one else "",
            "device": ", ".join(sorted({run.manifest.device for run in runs})),
            **first.manifest.versions,
        },
        created=first.manifest.created.strftime("%Y-%m-%d %H:%M UTC"),
    )


def metric_of(arms: Sequence[Arm]) -> str | None:
    """By which it is told how they learnt; None where they have nothing in common yet."""

    def logged(metric: str) -> bool:
        return all(any(numeric(row.get(metric)) for row in run.rows) for arm in arms for run in arm.runs)

    return next((metric for metric in SCORES if logged(metric)), None)


def lead(arms: Sequence[Arm], metric: str | None) -> str:
    """How it ended, in a sentence or two."""
    if metric is None:
        return "Nothing was measured yet."
    sentences = [f"{arm.label}: {shown(arm.last(metric))} after {steps_of(arm)} environment steps." for arm in arms]
    going = sorted({run.manifest.status for arm in arms for run in arm.runs} - {"done"})
    what = f"{SCORES[metric][0].capitalize()}, the last, not the best. "
    return what + " ".join(sentences) + (f" Not all are done: {', '.join(going)}." if going else "")


def shown(value: Interval | None) -> str:
    """A value with its interval, if there is one."""
    if value is None:
        return "–"
    return f"{value.value:.4g}" + (f" [{value.low:.4g}, {value.high:.4g}]" if np.isfinite(value.low) else "")


def steps_of(arm: Arm) -> str:
    """Environment steps of its runs, from and to."""
    counts = sorted({run.rows[-1]["env_steps"] if run.rows else 0 for run in arm.runs})
    return number(counts[0]) if len(counts) == 1 else f"{number(counts[0])} to {number(counts[-1])}"


def facts(arm: Arm, metric: str | None) -> tuple[Fact, ...]:
    """The numbers above all others."""
    found = [] if metric is None else [Fact(SCORES[metric][0].capitalize(), shown(arm.last(metric)), interval_of(arm))]
    wall = [run.manifest.wall_s or 0.0 for run in arm.runs]
    rates = [row[RATE] for run in arm.runs for row in run.rows if numeric(row.get(RATE))]
    return (
        *found,
        Fact("Environment steps", steps_of(arm), "of each run" if len(arm.runs) > 1 else ""),
        Fact("Steps per second", f"{np.median(rates):,.0f}" if rates else "–", "median of all chunks"),
        Fact("Time", duration(float(np.mean(wall))), "wall clock" + (", mean" if len(wall) > 1 else "")),
        Fact("Seeds", ", ".join(str(run.manifest.seed) for run in arm.runs)),
    )


def interval_of(arm: Arm) -> str:
    """What the interval is of."""
    return "95 % interval over seeds" if len(arm.runs) > 1 else "one seed; an interval is of an exam's episodes"


def table(arms: Sequence[Arm], metric: str | None) -> Table:
    """A row for each agent and each run."""
    rows = []
    for arm in arms:
        for one in [arm, *(Arm(f"· seed {run.manifest.seed}", [run]) for run in arm.runs)]:
            wall = [run.manifest.wall_s or 0.0 for run in one.runs]
            last = "–" if metric is None else shown(one.last(metric))
            rows.append((one.label, last, steps_of(one), duration(float(np.mean(wall)))))
    what = "score" if metric is None else SCORES[metric][0]
    return Table("Where they ended", ("agent", f"{what} (95 % interval)", "environment steps", "time"), tuple(rows))


def figures(arms: Sequence[Arm], metric: str | None) -> dict[str, Picture]:
    """The plots that there are numbers for."""
    found = {}
    if metric is not None:
        label, caption = SCORES[metric]
        bands = "bands are 95 % intervals, over seeds where there are several, else over an exam's episodes"
        plot = learning_plot([arm.curve(metric) for arm in arms], title="How it learnt", y_label=label)
        found["How it learnt"] = Picture(plot, f"{caption}; {bands}.")
    for arm in arms:
        agent = arm.runs[0].order.agent
        names = dict.fromkeys(name for row in arm.runs[0].rows for name in row if name.startswith(f"{agent}/"))
        panels = [Panel(name.partition("/")[2].replace("_", " "), [run.curve(name, f"seed {run.manifest.seed}")
                                                                   for run in arm.runs] if i == 0 else
                        [run.curve(name) for run in arm.runs])
                  for i, name in enumerate(list(names)[:INSIGHT])]  # fmt: skip
        if panels:
            title = f"Inside {arm.label}"
            found[title] = Picture(
                joined_plot(panels, title=title), "What the agent logs of its updates, chunk by chunk."
            )
    return found


def next_lines(first: Training) -> str:
    """What can be done with it on the command line."""
    run, env = first.manifest.id, first.order.env
    options = [word for name, value in first.order.pool.items() for word in ("--pool", f"{name}={value}")]
    agent = make_agent(first.order.agent, config_from_json(first.order.agent, first.order.settings))
    student = first.order.agent if agent.needs.kind == "sequence" else "rainbow"
    teach = ["rekindle", "reincarnate", "--teacher", run, "--student", student, "--env", env, *options]
    lines = [["rekindle", "render", env, "--policy", run, "-o", "run.mp4"], ["rekindle", "library", "export", run]]
    return "\n".join(map(shlex.join, [*lines, *([] if samples(agent) else [teach])]))
