"""The sizes and arms of the study, and what a cell computes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rekindle.agents.registry import config_from_json, export, load, make_agent
from rekindle.core.budget import Budget
from rekindle.core.tree import flatten_arrays
from rekindle.envs import registry
from rekindle.library.artefact import save_policy
from rekindle.library.dataset import read_dataset, save_dataset
from rekindle.library.files import plain
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.reincarnation.methods.registry import make_method
from rekindle.reincarnation.phases import Scale
from rekindle.replay import ring as rings
from rekindle.train import reincarnate
from rekindle.train.loop import Plan, train
from rekindle.train.off_policy import Given, OffPolicy, Worlds

GAMES = ("asterix", "breakout", "freeway", "space-invaders")


class Preset(NamedTuple):
    """Sizes of a run."""

    teacher_steps: int
    """T."""
    scale: Scale
    seeds: int
    seeds_of_sweeps: int
    games: tuple[str, ...]
    arms: tuple[str, ...] | None = None
    """All, by default."""


STEP_SIZES = {"guided": 3e-4, "alone": 5e-5, "scratch": 2.5e-4}
PRESETS = {
    "smoke": Preset(4_000, Scale(400, 1_600, 2, **STEP_SIZES), 1, 1, ("breakout",), ("qdagger", "tabula-rasa")),
    "cpu": Preset(4_000_000, Scale(40_000, 100_000, 10, **STEP_SIZES), 5, 3, GAMES),
    "gpu": Preset(4_000_000, Scale(40_000, 100_000, 10, **STEP_SIZES), 10, 10, GAMES),
}
SHARES = (0.25, 0.5, 1.0)
"""Of its steps at which a teacher is kept."""
HEADROOM = 0.85
TEACHER = {"epsilon_steps": 10_000, "epsilon_warmup": 1_000, "learning_rate": 2.5e-4, "n_step": 1}
STUDENT = {"epsilon_steps": 2_000, "epsilon_warmup": 0, "n_step": 3}
TAU, WEIGHT = 0.1, 3.0
"""Of every distillation, unless an arm sweeps it."""


@dataclass(frozen=True)
class Arm:
    """One method with its settings."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    agent: str = "dqn"
    student: dict[str, Any] = field(default_factory=dict)
    """What differs from STUDENT."""
    main: bool = False
    """One of the five that have all seeds."""


ARMS: dict[str, Arm] = {
    "qdagger": Arm("qdagger", {"tau": TAU, "weight": WEIGHT}, main=True),
    "kickstarting": Arm("kickstarting", {"tau": TAU, "weight": WEIGHT}, main=True),
    "pretraining": Arm("pretraining", main=True),
    "tabula-rasa": Arm("tabula-rasa", main=True),
    "rehearsal": Arm("rehearsal", {"share": 1 / 16}, main=True),
    "dqfd": Arm("dqfd"),
    "jsrl-100": Arm("jsrl", {"most": 100}),
    "jsrl-1000": Arm("jsrl", {"most": 1000}),
    "dagger": Arm("dagger", {"tau": TAU, "weight": WEIGHT}),
    "dagger+ql": Arm("dagger+ql", {"tau": TAU, "weight": WEIGHT}),
    "rehearsal-1-256": Arm("rehearsal", {"share": 1 / 256}),
    "rehearsal-1-64": Arm("rehearsal", {"share": 1 / 64}),
    "rehearsal-1-4": Arm("rehearsal", {"share": 1 / 4}),
    "kickstarting-n1": Arm("kickstarting", {"tau": TAU, "weight": WEIGHT}, student={"n_step": 1}),
    "qdagger-n1": Arm("qdagger", {"tau": TAU, "weight": WEIGHT}, student={"n_step": 1}),
}


def teach(game: str, size: Preset, kept: Library, say: Any) -> Path:
    """Train a teacher, or go on training it; the folder of the strongest that leaves something to be learnt.

    It is kept at several shares of its steps; the one that is taken is the last that scores at most 85 % of the final.
    """
    name = f"pvrl-teacher-{game}"
    made = registry.make(f"minatar/{game}-v1")
    agent = make_agent("dqn", config_from_json("dqn", TEACHER))
    worlds, source = Worlds(made.env, made.draw, agent.needs.rows), jax.tree.map(jnp.asarray, made.pool())
    config = {"game": game, "steps": size.teacher_steps, "settings": TEACHER}
    same = [record for record in kept.runs(name=name) if record.manifest.config == config]
    run = Run.open(kept, same[-1].id) if same else Run.create(kept, "train", name=name, config=config, seed=0)
    engine = OffPolicy(agent, worlds, Given(source))
    for share in SHARES:
        folder = run.path / f"at-{round(100 * share)}"
        if (folder / "replay").is_dir():
            continue
        budget = Budget(env_steps=round(share * size.teacher_steps))
        plan = Plan(budget, chunk_updates=1_000, checkpoint_seconds=120)
        show = lambda now: say(f"{name}: {now.env_steps:,} {now.metrics.get('episode/return', 0):.1f}")  # noqa: E731
        with run.held():
            trained = train(engine, jax.random.key(0), plan, run=run, show=show)
            if trained.status == "interrupted":
                raise KeyboardInterrupt
            folder.mkdir(exist_ok=True)
            save_policy(folder / "policy", **export(agent, trained.state, made.spec))
            save_dataset(folder / "replay", spec=made.spec.to_json(), arrays=rings.to_arrays(trained.loop.replay))
    found = {}
    for share in SHARES:
        policy = load(run.path / f"at-{round(100 * share)}" / "policy", env_spec=made.spec).policy
        scored = reincarnate.marks(worlds, source, policy, jax.random.key(99), number=512)
        found[share] = scored.teacher - scored.random
    chosen = max((s for s in SHARES if found[s] <= HEADROOM * found[1.0]), default=min(SHARES))
    say(f"{name}: {found}, takes that at {chosen:.0%}")
    return run.path / f"at-{round(100 * chosen)}"


class Lesson(NamedTuple):
    """A teacher and everything that students get from it; the same for all arms."""

    loaded: Any
    worlds: Worlds
    source: Any
    data: rings.Ring
    marks: reincarnate.Marks


def lesson(game: str, folder: Path) -> Lesson:
    """What a teacher's folder holds."""
    made = registry.make(f"minatar/{game}-v1")
    loaded = load(folder / "policy", env_spec=made.spec)
    worlds, source = Worlds(made.env, made.draw, 4), jax.tree.map(jnp.asarray, made.pool())
    marks = reincarnate.marks(worlds, source, loaded.policy, jax.random.key(100), number=512)
    data = rings.from_arrays(read_dataset(folder / "replay").arrays)
    return Lesson(loaded, worlds, source, reincarnate.labelled(data, loaded.policy, made.spec), marks)


def compute(name: str, arm: Arm, game: str, seed: int, size: Preset, taught: Lesson, kept: Library, say: Any
            ) -> dict[str, Any]:  # fmt: skip
    """A student's curve; resumes from its run's checkpoint."""
    agent = make_agent(arm.agent, config_from_json(arm.agent, {**STUDENT, **arm.student}))
    method = make_method(arm.method, arm.settings, student=arm.agent)
    spec = taught.worlds.spec
    told = reincarnate.told_by(taught.loaded.policy, spec, jax.random.key(0))
    course = reincarnate.Course(agent, taught.worlds, taught.source, taught.loaded.policy, taught.data, taught.marks,
                                told, episodes=128)  # fmt: skip
    config = plain({"arm": vars(arm), "game": game, "scale": vars(size.scale), "student": STUDENT})
    same = [record for record in kept.runs(name=name) if record.manifest.seed == seed
            and record.manifest.config == config and record.manifest.status != "done"]  # fmt: skip
    run = Run.open(kept, same[-1].id) if same else Run.create(kept, "train", name=name, config=config, seed=seed)
    with run.held():
        show = lambda phase, now: say(f"{name} seed {seed}: {phase} {now.share:.0%}")  # noqa: E731
        done = reincarnate.reincarnate(course, method, size.scale, jax.random.key(seed), run=run, show=show)
        if done.status == "interrupted":
            raise KeyboardInterrupt
        run.drop_checkpoints()
        run.finish("done", wall_s=round(run.wall_s(), 3))
    points = [{"phase": p.phase, "steps": p.steps, "score": p.score, "multiplier": p.multiplier, "return": p.returned}
              for p in done.curve]  # fmt: skip
    return {"curve": points, "teacher": taught.marks.teacher, "random": taught.marks.random, "wall_s": run.wall_s(),
            "parameters": int(sum(x.size for x in flatten_arrays(agent.policy(done.state)).values()))}  # fmt: skip
