"""Reincarnation on MinAtar: `python -m benchmarks.pvrl --preset smoke|cpu|gpu [--only breakout]`.

One teacher a game; every method gets the same teacher, the same data and the same number of environment steps
(Agarwal et al. 2022, 2206.01626, section 4). Each (game, arm, seed) is a cell, and a training that was interrupted goes
on from its checkpoint. The published numbers are read off figures: within about 0.03.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from benchmarks import training
from benchmarks.common import Bar, Study, at_least
from benchmarks.pvrl.study import ARMS, GAMES, PRESETS, Lesson, Preset, compute, lesson, teach
from rekindle.core.stats import Interval, improvement, profile, stratified
from rekindle.core.stats import pooled_interquartile_mean as middle

PUBLISHED = {"qdagger": 1.14, "kickstarting": 0.83, "pretraining": 0.64, "dqfd": 0.45, "rehearsal": 0.44,
             "jsrl-100": 0.38, "tabula-rasa": 0.40}  # fmt: skip
"""Interquartile means at 10 million frames of Atari (2206.01626, read off its figures)."""
Cells = dict[str, list[list[dict[str, Any]]]]
"""By arm: `[game][seed]`."""


def main() -> None:
    """Run all games, or one."""
    study = Study("pvrl", about=__doc__ or "", parts=GAMES)
    size = PRESETS[study.preset]
    games = size.games if study.only is None else (study.only,)
    cells = collect(study, size, games)
    values = {"scores": scores(cells), "curves": curves(cells), "profiles": profiles(cells),
              "qdagger_against": against(cells), "teachers": teachers(cells, games)}  # fmt: skip
    study.finish(seeds=list(range(size.seeds)), values=values, bars=bars(cells) if size.arms is None else [])


def collect(study: Study, size: Preset, games: tuple[str, ...]) -> Cells:
    """Every cell, game by game."""
    kept = training.library()
    arms = {name: arm for name, arm in ARMS.items() if size.arms is None or name in size.arms}
    cells: Cells = {name: [] for name in arms}
    for game in games:
        taught = taught_in(game, size, study)
        for name, arm in arms.items():
            seeds = range(size.seeds if arm.main else size.seeds_of_sweeps)
            run = f"pvrl-{study.preset}-{game}-{name}"
            cells[name].append(
                [study.cell(f"{game}-{name}-seed{seed}", lambda run=run, arm=arm, seed=seed, game=game, taught=taught:
                            compute(run, arm, game, seed, size, taught(), kept, study.say)) for seed in seeds]
            )  # fmt: skip
    return cells


def taught_in(game: str, size: Preset, study: Study) -> Callable[[], Lesson]:
    """The teacher of a game, made when it is first needed."""
    return cache(lambda: lesson(game, teach(game, size, training.library(), study.say)))


def points(cell: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    """The evaluations of a phase."""
    return [point for point in cell["curve"] if point["phase"] == phase]


def matrix(cells: list[list[dict[str, Any]]], phase: str = "online", at: int = -1, what: str = "score") -> np.ndarray:
    """Normalised scores `[seeds, games]` of one evaluation of a phase."""
    return np.array([[points(cell, phase)[at][what] for cell in game] for game in cells]).T


def scores(cells: Cells) -> list[dict[str, Any]]:
    """The table of final scores, the published ones beside them."""
    rows = []
    for name, games in cells.items():
        end = stratified(matrix(games))
        rows.append({"method": name, "interquartile mean": end.value, "interquartile mean_low": end.low,
                     "interquartile mean_high": end.high, "published (Atari)": PUBLISHED.get(name),
                     "seeds": len(games[0]), "games": len(games)})  # fmt: skip
    return rows


def curves(cells: Cells) -> list[dict[str, Any]]:
    """Interquartile means of every evaluation, offline and online joined."""
    rows = []
    for name, games in cells.items():
        for phase in ("offline", "online"):
            for at, point in enumerate(points(games[0][0], phase)):
                mean = stratified(matrix(games, phase, at), draws=500)
                rows.append({"method": name, "phase": phase, "steps": point["steps"], "score": mean.value,
                             "score_low": mean.low, "score_high": mean.high,
                             "multiplier": float(matrix(games, phase, at, "multiplier").mean())})  # fmt: skip
    return rows


def profiles(cells: Cells) -> list[dict[str, Any]]:
    """Shares of runs above some scores."""
    rows = []
    for name, games in cells.items():
        shares = {f"above {above}": profile(matrix(games), above).value for above in (0.5, 0.75, 1.0, 1.25)}
        rows.append({"method": name, **shares})
    return rows


def against(cells: Cells) -> list[dict[str, Any]]:
    """How probable it is that QDagger is better."""
    ours = matrix(cells["qdagger"])
    rows = []
    for name, games in cells.items():
        if name != "qdagger":
            found = improvement(ours, matrix(games))
            rows.append({"method": name, "probability": found.value, "probability_low": found.low,
                         "probability_high": found.high})  # fmt: skip
    return rows


def teachers(cells: Cells, games: tuple[str, ...]) -> list[dict[str, Any]]:
    """What students are measured by."""
    first = cells["tabula-rasa"]
    return [{"game": game, "random": first[i][0]["random"], "teacher": first[i][0]["teacher"]}
            for i, game in enumerate(games)]  # fmt: skip


def difference(ours: np.ndarray, theirs: np.ndarray, *, paired: bool = False, draws: int = 2000) -> Interval:
    """Of two interquartile means, with a stratified interval; `paired` draws the same runs for both."""
    rng, games = np.random.default_rng(0), np.arange(ours.shape[1])
    drawn = []
    for _ in range(draws):
        rows = rng.integers(len(ours), size=ours.shape)
        others = rows if paired else rng.integers(len(theirs), size=theirs.shape)
        drawn.append(middle(ours[rows, games].ravel()) - middle(theirs[others, games].ravel()))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(middle(ours.ravel()) - middle(theirs.ravel()), float(low), float(high))


def dip(games: list[list[dict[str, Any]]]) -> Interval:
    """Interquartile mean before the teacher falls silent, less that after: at 60 % of the online steps."""
    cut = round(0.6 * len(points(games[0][0], "online")))
    return difference(matrix(games, at=cut - 1), matrix(games, at=cut), paired=True)


def bars(cells: Cells) -> list[Bar]:
    """P1 to P4 and P7 of the specification's section 6.3; what is asked of a mean is not asked of its interval."""
    mean = {name: stratified(matrix(games)) for name, games in cells.items()}
    ours, blank = mean["qdagger"], mean["tabula-rasa"]
    found = [
        Bar("P1.qdagger", *ours, 1.0, ours.value >= 1.0),
        at_least("P1.qdagger.low", *ours, 0.9),
        Bar("P1.tabula-rasa", *blank, 0.6, blank.value <= 0.6),
    ]
    for name in ("kickstarting", "pretraining", "tabula-rasa", "rehearsal", "dqfd", "jsrl-100"):
        better = improvement(matrix(cells["qdagger"]), matrix(cells[name]))
        found.append(Bar(f"P2.over.{name}", *better, 0.65, better.value >= 0.65 and better.low > 0.5))
    fall, beside, own = (dip(cells[name]) for name in ("kickstarting-n1", "qdagger-n1", "qdagger"))
    found.append(Bar("P3.kickstarting-n1-dips", *fall, 0.05, fall.value >= 0.05 and fall.value > beside.value))
    found.append(Bar("P3.qdagger-does-not", *own, 0.05, abs(own.value) <= 0.05))
    best = max((name for name in cells if name.startswith("rehearsal")), key=lambda name: mean[name].value)
    gain = difference(matrix(cells[best]), matrix(cells["tabula-rasa"]))
    found.append(Bar("P4.rehearsal-gains-little", *gain, 0.15, gain.value <= 0.15))
    jump = difference(matrix(cells["jsrl-1000"]), matrix(cells["tabula-rasa"]))
    found.append(Bar("P4.jsrl-gains-nothing", *jump, 0.0, jump.value <= 0.0))
    found.append(Bar("P7.dagger-stays-with-its-teacher", *mean["dagger"], 1.1, mean["dagger"].value <= 1.1))
    apart = difference(matrix(cells["qdagger"]), matrix(cells["dagger+ql"]))
    found.append(Bar("P7.qdagger-over-dagger+ql", *apart, 0.0, apart.value > 0.0))
    return found


if __name__ == "__main__":
    main()
