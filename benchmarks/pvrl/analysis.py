"""P1 to P4 and P7: the methods, from the same teacher into a student like it."""

from typing import Any

from benchmarks.common import Bar, at_least, value_at_least, value_at_most
from benchmarks.pvrl.measures import Cells, area, difference, matrix, points, spread
from rekindle.core.stats import Interval, improvement, profile, stratified

PUBLISHED = {"qdagger": 1.14, "kickstarting": 0.83, "pretraining": 0.64, "dqfd": 0.45, "rehearsal": 0.44,
             "jsrl-100": 0.38, "tabula-rasa": 0.40}  # fmt: skip
"""Interquartile means at 10 million frames of Atari (2206.01626, read off its figures)."""
PUBLISHED_ABOVE = {"qdagger": 0.76, "kickstarting": 0.23, "pretraining": 0.18, "dqfd": 0.14, "rehearsal": 0.10,
                   "jsrl-100": 0.07}  # fmt: skip
"""Shares of runs that outdo the teacher there."""


def scores(cells: Cells) -> list[dict[str, Any]]:
    """The table of final scores, those of the last three evaluations and the published ones beside them."""
    return [{"method": name, **spread("interquartile mean", stratified(matrix(games))),
             **spread("of the last three evaluations", stratified(area(games, last=3))),
             "published (Atari)": PUBLISHED.get(name), "seeds": len(games[0]), "games": len(games)}
            for name, games in cells.items()]  # fmt: skip


def curves(cells: Cells) -> list[dict[str, Any]]:
    """Interquartile means of every evaluation, offline and online joined."""
    rows = []
    for name, games in cells.items():
        for phase in ("offline", "online"):
            for at, point in enumerate(points(games[0][0], phase)):
                mean = stratified(matrix(games, phase, at), draws=500)
                rows.append({"method": name, "phase": phase, "steps": point["steps"], **spread("score", mean),
                             "multiplier": float(matrix(games, phase, at, "multiplier").mean())})  # fmt: skip
    return rows


def profiles(cells: Cells) -> list[dict[str, Any]]:
    """Shares of runs above some scores."""
    rows = []
    for name, games in cells.items():
        shares = {f"above {above}": profile(matrix(games), above).value for above in (0.5, 0.75, 1.0, 1.25)}
        rows.append({"method": name, **shares, "above 1.0, published (Atari)": PUBLISHED_ABOVE.get(name)})
    return rows


def against(cells: Cells) -> list[dict[str, Any]]:
    """How probable it is that QDagger is better."""
    ours = matrix(cells["qdagger"])
    return [{"method": name, **spread("probability", improvement(ours, matrix(games)))}
            for name, games in cells.items() if name != "qdagger"]  # fmt: skip


def teachers(cells: Cells, games: tuple[str, ...]) -> list[dict[str, Any]]:
    """What students are measured by, for how long it was trained, and how much of what it came to later it has."""
    first = next(iter(cells.values()))
    return [{"game": game, "random": first[i][0]["random"], "teacher": first[i][0]["teacher"],
             "its steps": first[i][0].get("teacher_steps"), "of its final score": first[i][0].get("teacher_of_final")}
            for i, game in enumerate(games)]  # fmt: skip


def dip(games: list[list[dict[str, Any]]]) -> Interval:
    """Interquartile mean before the teacher falls silent, less that after: at 60 % of the online steps."""
    cut = round(0.6 * len(points(games[0][0], "online")))
    return difference(matrix(games, at=cut - 1), matrix(games, at=cut), paired=True)


def main_bars(cells: Cells) -> list[Bar]:
    """P1 and P2; what is asked of a mean is not asked of its interval."""
    ours, blank = (stratified(matrix(cells[name])) for name in ("qdagger", "tabula-rasa"))
    found = [
        value_at_least("P1.qdagger", *ours, 1.0),
        at_least("P1.qdagger.low", *ours, 0.9),
        value_at_most("P1.tabula-rasa", *blank, 0.6),
    ]
    for name in ("kickstarting", "pretraining", "tabula-rasa", "rehearsal", "dqfd", "jsrl-100"):
        if name in cells:
            better = improvement(matrix(cells["qdagger"]), matrix(cells[name]))
            found.append(value_at_least(f"P2.over.{name}", *better, 0.65, above=0.5))
    return found


def bars(cells: Cells) -> list[Bar]:
    """P3, P4 and P7 there."""
    found = []
    fall, beside, own = (dip(cells[name]) for name in ("kickstarting-n1", "qdagger-n1", "qdagger"))
    dips = fall.value >= 0.05 and fall.value > beside.value
    asks = f"value ≥ 0.05, and > QDagger's there, {beside.value:.2g}"
    found.append(Bar("P3.kickstarting-n1-dips", *fall, 0.05, dips, asks))
    found.append(Bar("P3.qdagger-does-not", *own, 0.0, abs(own.value) <= 0.05, "value in 0 ± 0.05"))
    rehearsals = [name for name in cells if name.startswith("rehearsal")]
    best = max(rehearsals, key=lambda name: stratified(matrix(cells[name])).value)
    gain = difference(matrix(cells[best]), matrix(cells["tabula-rasa"]))
    found.append(value_at_most("P4.rehearsal-gains-little", *gain, 0.15))
    jump = difference(matrix(cells["jsrl-1000"]), matrix(cells["tabula-rasa"]))
    found.append(value_at_most("P4.jsrl-gains-nothing", *jump, 0.0))
    near = stratified(matrix(cells["dagger"]))
    found.append(value_at_most("P7.dagger-stays-with-its-teacher", *near, 1.1))
    apart = difference(matrix(cells["qdagger"]), matrix(cells["dagger+ql"]))
    found.append(Bar("P7.qdagger-over-dagger+ql", *apart, 0.0, apart.value > 0.0, "value > 0"))
    return found
