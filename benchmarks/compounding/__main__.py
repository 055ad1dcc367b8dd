"""Do goals compound? Steps to master twelve goals from scratch, with a frozen and with a growing library.

`python -m benchmarks.compounding --preset smoke|cpu|gpu [--only PART]`. Every goal has its whole budget; one that is
not mastered costs it whole. The shipped agent's own training is not counted in the arms, but printed.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import training
from benchmarks.common import ROOT, Bar, Study, at_least, at_most
from benchmarks.compounding.goals import F0, GOALS, IDLE_BAR, ORDERS, TUNING, Asked
from rekindle.core.budget import parse_budget
from rekindle.core.stats import Interval
from rekindle.envs.xland import goals as tasks
from rekindle.envs.xland.level import NOOP
from rekindle.evaluate.evaluation_set import evaluate, make_evaluation_set
from rekindle.evaluate.policies import ConstantPolicy, RandomPolicy
from rekindle.library.library import Library
from rekindle.master import Request, Silent, master
from rekindle.report.plots import compounding_plot
from rekindle.strategies.words import from_scratch

PARTS = ("scratch", "frozen", "growing", "idle", "tuning")


class Preset(NamedTuple):
    """Sizes of a run."""

    budget: str
    goals: int
    orders: int


PRESETS = {"smoke": Preset("10s", 1, 1), "cpu": Preset("5m", 12, ORDERS), "gpu": Preset("5m", 12, ORDERS)}
CANDIDATES = tuple(
    {"num_envs": worlds, "entropy_weight": weight}
    for worlds, weight in ((32, 0.03), (64, 0.03), (128, 0.03), (64, 0.01))
)
"""Settings of learning from scratch that were tried; the first is in use."""


class Quiet(Silent):
    """Says the stages of the main job through the study."""

    def __init__(self, study: Study) -> None:
        """Of this study."""
        self.study = study

    def stage(self, name: str, text: str) -> None:
        """One line."""
        self.study.say(f"    {name}: {text}")


def answer(study: Study, preset: Preset, asked: Asked, home: Path, *, reuse: bool, seed: int) -> dict[str, Any]:
    """Run the main job on one goal in this library; its JSON line."""
    request = Request(asked.goal, asked.rules, budget=parse_budget(preset.budget), reuse=reuse, seed=seed)
    outcome = master(request, Library.open(home), Quiet(study))
    return outcome.to_json(Path("report.html"))


def arm(study: Study, preset: Preset, name: str, order: int, numbers: list[int]) -> list[dict[str, Any]]:
    """Goals one after the other; only the growing arm keeps its library from goal to goal."""
    rows = []
    for place, number in enumerate(numbers):
        home = training.HOME / "compounding" / study.preset / f"{name}-{order}"

        def compute(number: int = number, home: Path = home, place: int = place) -> dict[str, Any]:
            if name != "growing" or place == 0:
                shutil.rmtree(home, ignore_errors=True)
            forget_after(home, place if name == "growing" else 0)
            return answer(study, preset, GOALS[number], home, reuse=name != "scratch", seed=order)

        rows.append(study.cell(f"{name}-{order}-{place:02}-goal{number:02}", compute))
    return rows


def forget_after(home: Path, place: int) -> None:
    """Remove what an interrupted goal left, so that it does not answer itself.

    Raises:
        SystemExit: goals before this one were answered elsewhere, and what they left is not here.
    """
    library = Library.open(home)
    runs = sorted(library.runs(kind="master"), key=lambda record: record.id)
    if len(runs) < place:
        raise SystemExit(f"{home} holds {len(runs)} of the {place} goals before this one; start over with --again.")
    for record in runs[place:]:
        library.rm(record.id, force=True)


def tuning(study: Study, preset: Preset, settings: dict[str, Any]) -> dict[str, Any]:
    """From scratch with other settings, on goals outside the twelve: steps to master each."""
    row: dict[str, Any] = dict(settings)
    before = from_scratch.CONFIG
    from_scratch.CONFIG = replace(before, **settings)
    try:
        for number, asked in enumerate(TUNING):
            home = training.HOME / "compounding" / study.preset / "tuning"
            shutil.rmtree(home, ignore_errors=True)
            done = answer(study, preset, asked, home, reuse=False, seed=0)
            row |= {f"{name} of goal {number + 1}": done[name] for name in ("verdict", "env_steps", "wall_s")}
    finally:
        from_scratch.CONFIG = before
    return row


def idle(number: int) -> dict[str, float]:
    """What doing nothing and acting at random reach on a goal."""
    goal = tasks.parse(GOALS[number].goal, GOALS[number].rules)
    env = tasks.env_of(goal)
    pool = tasks.pool(goal, split="test", seed=0, worlds=80)
    held_out = make_evaluation_set(env, pool, tasks=64, cache=training.HOME / "planned")
    players = {"no-op": ConstantPolicy(NOOP), "random": RandomPolicy(7)}
    return {n: evaluate(held_out, p, jax.random.key(0), trials=1, repetitions=8).last.value for n, p in players.items()}


def main() -> None:
    """All arms, the bars and the plot."""
    study = Study("compounding", about=__doc__ or "", parts=PARTS)
    preset = PRESETS[study.preset]
    training.library()
    first = list(range(len(GOALS)))[: preset.goals]
    orders = [np.random.default_rng(o).permutation(preset.goals).tolist() for o in range(preset.orders)]
    done: dict[str, Any] = {}
    if study.only in (None, "idle"):
        done["idle"] = [study.cell(f"idle-goal{n:02}", lambda n=n: idle(n)) for n in first]
    if study.only in (None, "growing"):
        done["growing"] = [arm(study, preset, "growing", o, numbers) for o, numbers in enumerate(orders)]
    if study.only in (None, "frozen"):
        done["frozen"] = [arm(study, preset, "frozen", o, first) for o in range(preset.orders)]
    if study.only in (None, "scratch"):
        done["scratch"] = arm(study, preset, "scratch", 0, first)
    if study.only in (None, "tuning"):
        names = {f"tuning-{s['num_envs']}-{s['entropy_weight']}": s for s in CANDIDATES[: preset.goals]}
        done["tuning"] = [study.cell(n, lambda s=s: tuning(study, preset, s)) for n, s in names.items()]
    bars = judge(done, orders) if study.only is None else []
    numbers = values(done, orders)
    if study.only is None:
        numbers["late over frozen, by how its interval is drawn"] = late_over_frozen(done, orders)
    study.finish(seeds=list(range(preset.orders)), values=numbers, bars=bars)
    if study.only is None:
        steps = paid(done, orders)
        plot = compounding_plot({"from scratch": steps["scratch"], "frozen library": steps["frozen"],
                                 "growing library": steps["growing"]}, log=True)  # fmt: skip
        (ROOT / "compounding" / "results" / f"{study.preset}.svg").write_bytes(plot)


def paid(done: dict[str, Any], orders: list[list[int]]) -> dict[str, list[list[int]]]:
    """Environment steps by arm, order and place. Scratch was run once, frozen once for the seed of every order."""
    return {
        "scratch": [[done["scratch"][goal]["env_steps"] for goal in order] for order in orders],
        "frozen": [[done["frozen"][o][goal]["env_steps"] for goal in order] for o, order in enumerate(orders)],
        "growing": [[row["env_steps"] for row in rows] for rows in done["growing"]],
    }


def values(done: dict[str, Any], orders: list[list[int]]) -> dict[str, Any]:
    """A row per goal and arm."""
    rows = []
    for number, cell in enumerate(done.get("scratch", [])):
        rows.append({"arm": "scratch", "order": 0, "place": number, **line(number, cell)})
    for order, cells in enumerate(done.get("frozen", [])):
        for number, cell in enumerate(cells):
            rows.append({"arm": "frozen", "order": order, "place": number, **line(number, cell)})
    for order, cells in enumerate(done.get("growing", [])):
        for place, cell in enumerate(cells):
            rows.append({"arm": "growing", "order": order, "place": place, **line(orders[order][place], cell)})
    return {
        "goals": rows,
        "tuning from scratch": done.get("tuning", []),
        "idle": [{"goal": n, **cell} for n, cell in enumerate(done.get("idle", []))],
    }


def line(number: int, cell: dict[str, Any]) -> dict[str, Any]:
    """What the table shows of a run of the main job."""
    kept = ("verdict", "score", "score_low", "strategy", "env_steps", "wall_s")
    return {"goal": number, **{name: cell[name] for name in kept}}


def judge(done: dict[str, Any], orders: list[list[int]]) -> list[Bar]:
    """The promises of the compounding study; intervals of ratios draw goals anew, with all orders of each."""
    mastered = [sum(row["verdict"] == "mastered" for row in rows) for rows in done["growing"]]
    steps = {name: np.asarray(arm, float) for name, arm in paid(done, orders).items()}
    goals, late = np.asarray(orders), len(orders[0]) // 2
    total = ratio(steps["growing"], steps["scratch"], goals)
    after = ratio(*(steps[name][:, late:] for name in ("growing", "frozen")), goals[:, late:])
    idle_most = max(max(cell.values()) for cell in done["idle"])
    return [
        at_least("C1.mastered", float(np.mean(mastered)), float(min(mastered)), float(max(mastered)), 10),
        at_most("C2.steps_over_scratch", *total, 0.2),
        Bar("C3.late_over_frozen", *after, 0.7, after.value <= 0.7 and after.high < 1.0, "value ≤ 0.7, interval < 1"),
        at_most("C0.idle", idle_most, idle_most, idle_most, IDLE_BAR),
    ]


def late_over_frozen(done: dict[str, Any], orders: list[list[int]]) -> list[dict[str, Any]]:
    """The ratio of C3 with other intervals beside that of the bar."""
    steps, goals = {name: np.asarray(arm, float) for name, arm in paid(done, orders).items()}, np.asarray(orders)
    late = len(orders[0]) // 2
    arms = [steps[name][:, late:] for name in ("growing", "frozen")]
    families = ratio(*arms, goals[:, late:])
    together = ratio(*arms, goals[:, late:], stratified=False)
    pairs = ratio(*arms, np.arange(goals[:, late:].size).reshape(goals[:, late:].shape), stratified=False)
    ways = {"goals within their family": families, "goals": together, "pairs of goal and order": pairs}
    return [
        {"drawn anew": name, "ratio": i.value, "ratio_low": i.low, "ratio_high": i.high} for name, i in ways.items()
    ]


def ratio(above: np.ndarray, below: np.ndarray, goals: np.ndarray, *, stratified: bool = True) -> Interval:
    """Sum over sum of `[order, place]` costs, with the 95 % interval of drawing goals with replacement.

    Goals are drawn within their family, as many as there are: a stratified bootstrap, as the twelve are six of each;
    or, not `stratified`, from all of them.
    """
    known = np.unique(goals)
    sums = np.asarray([[part[goals == goal].sum() for goal in known] for part in (above, below)])
    parts = (known < len(F0), known >= len(F0)) if stratified else (known >= 0,)
    families = [np.flatnonzero(part) for part in parts if part.any()]
    rng = np.random.default_rng(0)
    drawn = [sum(sums[:, rng.choice(part, size=len(part))].sum(axis=1) for part in families) for _ in range(2000)]
    low, high = np.percentile([a / b for a, b in drawn], [2.5, 97.5])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))


if __name__ == "__main__":
    main()
