"""What a cell computes: teachers, what students get from them, and a student's curve."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pvrl.arms import RMSPROP, STUDENT, TEACHER, Arm, Preset
from rekindle.agents.registry import Loaded, config_from_json, export, load, make_agent
from rekindle.core.budget import Budget
from rekindle.core.tree import flatten_arrays
from rekindle.core.types import Agent
from rekindle.envs import registry
from rekindle.evaluate.policies import as_evaluated
from rekindle.evaluate.returns import episodes
from rekindle.library.artefact import save_policy
from rekindle.library.dataset import read_dataset, save_dataset
from rekindle.library.files import plain
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.reincarnation.methods.registry import make_method
from rekindle.reincarnation.phases import Scale
from rekindle.reincarnation.weaning import normalised
from rekindle.replay import ring as rings
from rekindle.replay.ring import Ring
from rekindle.train import prepare, reincarnate
from rekindle.train.loop import Plan, train
from rekindle.train.off_policy import Given, Worlds
from rekindle.train.replay_engine import OffPolicy

SHARES = (0.25, 0.5, 1.0)
"""Of its steps at which a teacher is kept."""
HEADROOM = 0.85
"""Share of its last score that the teacher to learn from has at most."""
EPISODES = 512
"""By which teachers are scored; students play a quarter of that."""


class Lesson(NamedTuple):
    """A teacher and everything that students get from it; the same for all its arms."""

    loaded: Loaded
    worlds: Worlds
    source: Any
    data: rings.Ring
    marks: prepare.Marks
    score: float
    """Of the teacher itself, normalised by the marks."""
    steps: int
    """That it was trained for."""
    of_final: float
    """Its score as a share of that of Adam after all steps."""


def teach(name: str, game: str, settings: dict[str, Any], steps: int, shares: tuple[float, ...], kept: Library,
          say: Any) -> dict[float, Path]:  # fmt: skip
    """Train a teacher, or go on training it; its folders, by the share of its steps at which it was kept."""
    made = registry.make(f"minatar/{game}-v1")
    agent = make_agent("dqn", config_from_json("dqn", settings))
    worlds, source = Worlds(made.env, made.draw, agent.needs.rows), jax.tree.map(jnp.asarray, made.pool())
    config = {"game": game, "steps": steps, "settings": settings}
    same = [record for record in kept.runs(name=name) if record.manifest.config == config]
    run = Run.open(kept, same[-1].id) if same else Run.create(kept, "train", name=name, config=config, seed=0)
    engine = OffPolicy(agent, worlds, Given(source))
    folders = {share: run.path / f"at-{round(100 * share)}" for share in shares}
    for share, folder in folders.items():
        if (folder / "replay").is_dir():
            continue
        plan = Plan(Budget(env_steps=round(share * steps)), chunk_updates=1_000, checkpoint_seconds=120)
        show = lambda now: say(f"{name}: {now.env_steps:,} {now.metrics.get('episode/return', 0):.1f}")  # noqa: E731
        with run.held():
            trained = train(engine, jax.random.key(0), plan, run=run, show=show)
            if trained.status == "interrupted":
                raise KeyboardInterrupt
            folder.mkdir(exist_ok=True)
            save_policy(folder / "policy", **export(agent, trained.state, made.spec))
            save_dataset(folder / "replay", spec=made.spec.to_json(), arrays=rings.to_arrays(trained.loop.replay))
    return folders


def adam(game: str, size: Preset, kept: Library, say: Any) -> dict[float, Path]:
    """The ordinary teacher of a game."""
    return teach(f"pvrl-teacher-{game}", game, TEACHER, size.teacher_steps, SHARES, kept, say)


def outdone(game: str, size: Preset, kept: Library, say: Any) -> Lesson:
    """The strongest teacher that leaves something to be learnt: the last that scores at most 85 % of the final."""
    folders = adam(game, size, kept, say)
    found = {}
    for share, folder in folders.items():
        worlds, source, loaded = opened(game, folder)
        marks = prepare.marks(worlds, source, loaded.policy, jax.random.key(99), number=EPISODES)
        found[share] = marks.teacher - marks.random
    share = max((s for s in SHARES if found[s] <= HEADROOM * found[1.0]), default=min(SHARES))
    say(f"{game}: teachers {found}, takes that at {share:.0%}")
    worlds, source, loaded = opened(game, folders[share])
    marks = prepare.marks(worlds, source, loaded.policy, jax.random.key(100), number=EPISODES)
    data = rings.from_arrays(read_dataset(folders[share] / "replay").arrays)
    return Lesson(loaded, worlds, source, prepare.labelled(data, loaded.policy, worlds.spec), marks, 1.0,
                  round(share * size.teacher_steps), found[share] / found[1.0])  # fmt: skip


def to_be_tuned(game: str, size: Preset, kept: Library, say: Any) -> Lesson:
    """A teacher that RMSProp trained for T / 2; scores are normalised by the ordinary one after all its T steps."""
    final = adam(game, size, kept, say)[1.0]
    name, steps = f"pvrl-teacher-{game}-rmsprop", size.teacher_steps // 2
    folder = teach(name, game, RMSPROP, steps, (1.0,), kept, say)[1.0]
    worlds, source, best = opened(game, final)
    marks = prepare.marks(worlds, source, best.policy, jax.random.key(100), number=EPISODES)
    loaded = opened(game, folder)[2]
    played = episodes(worlds.env, as_evaluated(loaded.policy, worlds.spec.action), worlds.draw, source,
                      jax.random.key(101), number=EPISODES)  # fmt: skip
    score = normalised(float(np.mean(played.returns)), random=marks.random, teacher=marks.teacher)
    data = prepare.labelled(rings.from_arrays(read_dataset(folder / "replay").arrays), loaded.policy, worlds.spec)
    return Lesson(loaded, worlds, source, data, marks, float(score), steps, float(score))


def opened(game: str, folder: Path) -> tuple[Worlds, Any, Loaded]:
    """Worlds of a game, their source, and the policy of a teacher's folder."""
    made = registry.make(f"minatar/{game}-v1")
    worlds = Worlds(made.env, made.draw, 4)
    return worlds, jax.tree.map(jnp.asarray, made.pool()), load(folder / "policy", env_spec=made.spec)


def compute(name: str, arm: Arm, game: str, seed: int, size: Preset, taught: Lesson, kept: Library, say: Any
            ) -> dict[str, Any]:  # fmt: skip
    """A student's curve; resumes from its run's checkpoint."""
    agent = make_agent(arm.agent, config_from_json(arm.agent, {**STUDENT, **arm.student}))
    method = make_method(arm.method, arm.settings, student=arm.agent)
    kinds = prepare.output_kinds(taught.loaded.policy, taught.worlds.spec, jax.random.key(0), agent)
    data = taught.data if arm.replay is None else latest(taught.data, arm.replay)
    course = reincarnate.Course(agent, taught.worlds, taught.source, taught.loaded.policy, data, taught.marks, kinds,
                                episodes=EPISODES // 4)  # fmt: skip
    scale = longer(size.scale, arm.times)
    state = begun(arm, agent, taught, seed) if arm.method == "fine-tuning" else None
    config = plain({"arm": vars(arm), "game": game, "scale": vars(scale), "student": STUDENT})
    same = [record for record in kept.runs(name=name) if record.manifest.seed == seed
            and record.manifest.config == config and record.manifest.status != "done"]  # fmt: skip
    run = Run.open(kept, same[-1].id) if same else Run.create(kept, "train", name=name, config=config, seed=seed)
    with run.held():
        show = lambda phase, now: say(f"{name} seed {seed}: {phase} {now.share:.0%}")  # noqa: E731
        done = reincarnate.reincarnate(course, method, scale, jax.random.key(seed), run=run, state=state, show=show)
        if done.status == "interrupted":
            raise KeyboardInterrupt
        run.drop_checkpoints()
        run.finish("done", wall_s=round(run.wall_s(), 3))
    points = [{"phase": p.phase, "steps": p.steps, "score": p.score, "multiplier": p.multiplier, "return": p.returned}
              for p in done.curve]  # fmt: skip
    return {"curve": points, "teacher": taught.marks.teacher, "random": taught.marks.random, "begins": taught.score,
            "teacher_steps": taught.steps, "teacher_of_final": taught.of_final, "wall_s": run.wall_s(),
            "parameters": int(sum(x.size for x in flatten_arrays(agent.policy(done.state)).values()))}  # fmt: skip


def latest(data: Ring, steps: int) -> Ring:
    """The last steps of a full ring."""
    slices = steps // data.rows
    return Ring(jax.tree.map(lambda x: x[-slices:], data.steps), jnp.int32(slices))


def longer(scale: Scale, times: int) -> Scale:
    """So many times the online steps, evaluated as often; offline as it is."""
    return dataclasses.replace(scale, online_steps=times * scale.online_steps, iterations=times * scale.iterations)


def begun(arm: Arm, agent: Agent, taught: Lesson, seed: int) -> Any:
    """The teacher's weights to go on with; their exploration is done, unless the arm begins it anew."""
    state = taught.loaded.state_for(agent, jax.random.key(seed))
    return state._replace(clock=jnp.int32(0)) if arm.explores else state
