"""Reincarnation on MinAtar: `python -m benchmarks.pvrl --preset smoke|cpu|gpu [--only PART|GAME]`.

One teacher a game; every method gets the same teacher, the same data and the same number of environment steps
(Agarwal et al. 2022, 2206.01626, section 4). Each (game, arm, seed) is a cell, and a training that was interrupted goes
on from its checkpoint. The published numbers are read off figures: within about 0.03.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

from benchmarks import training
from benchmarks.common import Bar, Study
from benchmarks.pvrl import analysis, workflow
from benchmarks.pvrl.arms import (
    ARMS,
    BUILDING,
    GAMES,
    MAIN,
    METHODS,
    PRESETS,
    REHEARSING,
    SWEEP,
    SWEPT,
    TAUS,
    TUNING,
    Arm,
    Preset,
)
from benchmarks.pvrl.measures import Cells
from benchmarks.pvrl.study import Lesson, compute, outdone, to_be_tuned

PARTS = {"main": MAIN, "methods": METHODS | SWEEP, "fine-tuning": TUNING, "architecture": BUILDING,
         "rehearsing": REHEARSING}  # fmt: skip
"""Parts of the study, of all games each: P1 and most of P2; P1 to P4 and P7; P5; P6; why P4 is missed."""


def main() -> None:
    """Run everything, a part, or one game; bars are of all games together."""
    study = Study("pvrl", about=__doc__ or "", parts=(*PARTS, *GAMES))
    size = PRESETS[study.preset]
    if study.preset == "smoke":  # its programs are compiled for longer than they run
        jax.config.update("jax_disable_most_optimizations", True)
    part = PARTS.get(study.only or "", ARMS)
    games = (study.only,) if study.only in GAMES else size.games
    arms = {name: arm for name, arm in part.items() if size.arms is None or name in size.arms}
    cells = collect(study, size, games, arms)
    judged = [] if size.arms is not None or games != size.games else bars(cells)
    study.finish(seeds=list(range(size.seeds)), values=values(cells, games), bars=judged)


def collect(study: Study, size: Preset, games: tuple[str, ...], arms: dict[str, Arm]) -> Cells:
    """Every cell, game by game."""
    kept = training.library()
    cells: Cells = {}
    for game in games:
        lessons = lessons_in(game, size, study)
        for name, arm in arms.items():
            if game not in arm.games:
                continue
            seeds = range(size.seeds if arm.main else size.seeds_of_sweeps)
            run, taught = f"pvrl-{study.preset}-{game}-{name}", lessons[arm.teacher]
            cells.setdefault(name, []).append(
                [study.cell(f"{game}-{name}-seed{seed}", lambda run=run, arm=arm, seed=seed, game=game, taught=taught:
                            compute(run, arm, game, seed, size, taught(), kept, study.say)) for seed in seeds]
            )  # fmt: skip
    return cells


def lessons_in(game: str, size: Preset, study: Study) -> dict[str, Callable[[], Lesson]]:
    """The teachers of a game, each made when it is first needed."""
    kinds = {"adam": outdone, "rmsprop": to_be_tuned}
    return {name: cache(lambda kind=kind: kind(game, size, training.library(), study.say))
            for name, kind in kinds.items()}  # fmt: skip


def values(cells: Cells, games: tuple[str, ...]) -> dict[str, Any]:
    """All tables; scores by another normaliser are in another one."""
    methods, tuned, built = (among(cells, group) for group in (METHODS | REHEARSING, TUNING, BUILDING))
    found: dict[str, Any] = {
        "scores": analysis.scores(methods),
        "profiles": analysis.profiles(methods),
        "qdagger_against": analysis.against(methods) if "qdagger" in methods else [],
        "teachers": analysis.teachers(methods, games) if "qdagger" in methods else [],
        "fine_tuning": workflow.tuning(tuned),
        "fine_tuning_starts": workflow.starts(tuned, games) if tuned else [],
        "new_architecture": workflow.building(built),
        "new_architecture_teachers": analysis.teachers(built, games) if built else [],
    }
    if set(TAUS.values()) <= set(cells):
        found |= {f"temperatures_{game}": workflow.temperatures(cells, games.index(game)) for game in SWEPT}
    found |= {
        "curves": analysis.curves(methods),
        "fine_tuning_curves": analysis.curves(tuned),
        "new_architecture_curves": analysis.curves(built),
    }
    return {name: table for name, table in found.items() if table}


def among(cells: Cells, group: dict[str, Arm]) -> Cells:
    """Those of a group of arms."""
    return {name: cells[name] for name in group if name in cells}


def bars(cells: Cells) -> list[Bar]:
    """P1 to P7, as far as their arms are there."""
    judges = {analysis.main_bars: MAIN, analysis.bars: METHODS, workflow.tuning_bars: TUNING,
              workflow.building_bars: BUILDING}  # fmt: skip
    return [bar for judge, group in judges.items() if set(group) <= set(cells) for bar in judge(cells)]


if __name__ == "__main__":
    main()
