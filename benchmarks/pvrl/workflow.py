"""P5 and P6: a teacher's weights that go on, and another network that takes over; and the sweep of the temperature."""

from typing import Any

import numpy as np

from benchmarks.common import Bar, value_at_least
from benchmarks.pvrl.arms import TAU, TAUS
from benchmarks.pvrl.measures import Cells, area, difference, matrix, points, ratio, spread
from rekindle.core.stats import Interval, stratified

TUNED_PUBLISHED = {"T / 40": "0.92 to 0.96", "T / 20": "0.98 to 0.99"}
"""Interquartile means of an agent fine-tuned with Adam after 10 and 20 million frames of Atari, by that of Adam after
400 million (2206.01626, read off its figures); RMSProp alone came to 0.53."""
BUILT_PUBLISHED = {"rainbow-qdagger": 1.79, "rainbow-tabula-rasa": 1.55, "dqn-fine-tuned": 1.16}
"""The same at 50 million frames, with the Impala network, from a fine-tuned teacher, in the same unit."""
GAMES_TO_WIN = 3


def tuning(cells: Cells) -> list[dict[str, Any]]:
    """Fine-tuned agents by the score of Adam from scratch after T steps, and where they began."""
    rows = []
    for name, games in cells.items():
        start = np.array([[cell["begins"] for cell in game] for game in games]).T
        ends = {"T / 40": matrix(games, at=halfway(games)), "T / 20": matrix(games)}
        row = {"arm": name, "as it began": stratified(start).value, **spread("initial dip", initial_dip(games))}
        for budget, found in ends.items():
            published = TUNED_PUBLISHED[budget] if name == "fine-tuned" else None
            row |= {**spread(budget, stratified(found)), f"{budget}, published (Atari)": published}
        rows.append({**row, "seeds": len(games[0]), "games": len(games)})
    return rows


def starts(cells: Cells, games: tuple[str, ...]) -> list[dict[str, Any]]:
    """Of every game, what is 1 there, and where fine-tuning began."""
    first = next(iter(cells.values()))
    return [{"game": game, "random (0)": first[i][0]["random"], "Adam after T (1)": first[i][0]["teacher"],
             "RMSProp after T / 2": first[i][0]["begins"]} for i, game in enumerate(games)]  # fmt: skip


def halfway(games: list[list[dict[str, Any]]]) -> int:
    """The evaluation after T / 40 steps of T / 20."""
    return len(points(games[0][0], "online")) // 2 - 1


def initial_dip(games: list[list[dict[str, Any]]]) -> Interval:
    """What the weights scored as they began, less what they score at the first evaluation."""
    start = np.array([[cell["begins"] for cell in game] for game in games]).T
    return difference(start, matrix(games, at=0), paired=True)


def tuning_bars(cells: Cells) -> list[Bar]:
    """P5: what is asked of a mean is not asked of its interval."""
    ours, full, blank = (cells[name] for name in ("fine-tuned", "fine-tuned-full-step", "fine-tuned-no-replay"))
    early, late = stratified(matrix(ours, at=halfway(ours))), stratified(matrix(ours))
    smaller = difference(matrix(ours), matrix(full))
    deeper = difference(matrix(ours, at=0), matrix(blank, at=0))
    return [
        value_at_least("P5.at-T/40", *early, 0.9),
        value_at_least("P5.at-T/20", *late, 0.95),
        value_at_least("P5.small-step-over-full", *smaller, 0.0),
        Bar("P5.dips-without-replay", *deeper, 0.0, deeper.value > 0.0, "value > 0"),
    ]


def building(cells: Cells) -> list[dict[str, Any]]:
    """The new architecture beside the old one, over the same steps."""
    return [{"arm": name, **spread("area under the curve", stratified(area(games))),
             **spread("final", stratified(matrix(games))),
             "published at 50M frames (Atari)": BUILT_PUBLISHED.get(name), "parameters": games[0][0]["parameters"],
             "seeds": len(games[0]), "games": len(games)} for name, games in cells.items()]  # fmt: skip


def building_bars(cells: Cells) -> list[Bar]:
    """P6: what is asked of a mean is not asked of its interval."""
    ours, blank, old = (cells[name] for name in ("rainbow-qdagger", "rainbow-tabula-rasa", "dqn-fine-tuned"))
    more = ratio(area(ours), area(blank))
    apart, alone = difference(matrix(ours), matrix(blank)), stratified(matrix(blank))
    half = (alone.high - alone.low) / 2
    won = games_won(matrix(ours), matrix(old))
    return [
        value_at_least("P6.area-over-tabula-rasa", *more, 1.15),
        value_at_least("P6.final-over-tabula-rasa", *apart, -half),
        value_at_least("P6.games-over-fine-tuning", *won, GAMES_TO_WIN),
    ]


def games_won(ours: np.ndarray, theirs: np.ndarray, *, draws: int = 2000) -> Interval:
    """Number of games on which the mean over seeds is higher; runs are drawn within each game."""
    rng, games = np.random.default_rng(0), np.arange(ours.shape[1])

    def won(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.mean(axis=0) > b.mean(axis=0)).sum())

    drawn = [won(*(x[rng.integers(len(x), size=x.shape), games] for x in (ours, theirs))) for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(won(ours, theirs), float(low), float(high))


def temperatures(cells: Cells, game: int) -> list[dict[str, Any]]:
    """QDagger on the game on which its temperature is swept, over the seeds that all have."""
    arms = {TAU: [cells["qdagger"][game]]} | {tau: cells[name] for tau, name in TAUS.items()}
    least = min(len(games[0]) for games in arms.values())
    rows = []
    for tau, games in arms.items():
        same = [game[:least] for game in games]
        found = {"after the offline phase": matrix(same, "offline"), "final": matrix(same),
                 "area under the curve": area(same)}  # fmt: skip
        row: dict[str, Any] = {"tau": tau}
        for column, values in found.items():
            row |= spread(column, stratified(values))
        rows.append({**row, "seeds": least})
    return rows
