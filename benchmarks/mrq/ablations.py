"""Rows of the paper's design study with the reduced agent: what falls where a part is taken out."""

from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks import training
from benchmarks.common import Bar, Study, value_at_most
from benchmarks.mrq.published import ABLATIONS
from rekindle.agents.mrq import mrq
from rekindle.agents.mrq.ablations import make_variant
from rekindle.core.budget import Budget
from rekindle.core.stats import Interval, bootstrap
from rekindle.envs import registry
from rekindle.evaluate.returns import host_episodes
from rekindle.library.files import plain
from rekindle.library.run import Run
from rekindle.train.loop import Plan, train
from rekindle.train.sequence_engine import OnSequences

SWINGUP, CHEETAH = "dmc/cartpole-swingup", "gymnasium/HalfCheetah-v4"
ROWS = {"linear_value": SWINGUP, "no_model": CHEETAH, "one_step": CHEETAH}
"""Where each is shown; of the last two one is asked for."""
MORE = {SWINGUP: 0, CHEETAH: 5}
"""Seeds beside those of a preset: on HalfCheetah three did not tell. How many to add was settled before any of them was
trained."""
FALLS = 0.3
"""Share by which the linear critic has to fall behind."""
EPISODES = 10


def run(study: Study, settings: dict[str, Any], steps: int, seeds: int) -> tuple[dict[str, Any], list[Bar], int]:
    """Every variant beside the whole agent, with the same seeds: a table, bars, and the number of seeds."""
    table, bars, brief = [], [], study.preset == "smoke"
    number = {task: seeds if brief else seeds + more for task, more in MORE.items()}
    for variant, task in ROWS.items():
        whole, without = (
            np.array([cell(study, name, task, settings, steps, seed)["return"] for seed in range(number[task])])
            for name in ("whole", variant)
        )
        groups = [(0, seeds), (seeds, number[task]), (0, number[task])] if number[task] > seeds else [(0, seeds)]
        table += [line(variant, task, steps, whole[a:b], without[a:b], f"{a} to {b - 1}") for a, b in groups]
        bars.append(judged(variant, difference(whole, without), whole.mean()))
    return {"scores": table}, bars if not brief else [], max(number.values())


def line(variant: str, task: str, steps: int, whole: np.ndarray, without: np.ndarray, seeds: str) -> dict[str, Any]:
    """What some seeds came to."""
    apart = difference(whole, without)
    return {"without": variant, "task": task, "steps": steps, "whole": whole.mean(), "score": without.mean(),
            "difference": apart.value, "difference_low": apart.low, "difference_high": apart.high,
            "published sign": "-", "published (Gym)": ABLATIONS[variant], "seeds": seeds}  # fmt: skip


def difference(whole: np.ndarray, without: np.ndarray) -> Interval:
    """Mean over seeds, each beside its own."""
    return bootstrap((without - whole)[None])


def judged(variant: str, apart: Interval, whole: float) -> Bar:
    """The linear critic's fall by its mean, the other by its interval."""
    if variant == "linear_value":
        return value_at_most(f"ablation.{variant}", *apart, -FALLS * whole)
    return Bar(f"ablation.{variant}", *apart, 0.0, apart.high < 0.0, "interval < 0")


def cell(study: Study, variant: str, task: str, settings: dict[str, Any], steps: int, seed: int) -> dict[str, Any]:
    """One training, which goes on where it stopped."""
    name = f"ablation-{variant}-{task}-seed{seed}".replace("/", "-").replace("_", "-")
    return study.cell(name, partial(compute, f"{name}-{study.preset}", variant, task, settings, steps, seed, study))


def compute(name: str, variant: str, task: str, settings: dict[str, Any], steps: int, seed: int, study: Study
            ) -> dict[str, Any]:  # fmt: skip
    """Its score in the end."""
    config, kept = mrq.Config(**settings), training.library()
    agent = mrq.make(config) if variant == "whole" else make_variant(variant, config)
    made = registry.host(task)
    order = plain({"variant": variant, "task": task, "settings": settings, "steps": steps})
    same = [record for record in kept.runs(name=name) if record.manifest.config == order]
    run = Run.open(kept, same[-1].id) if same else Run.create(kept, "train", name=name, config=order, seed=seed)
    engine = OnSequences(agent, made.open(1), most_steps=steps)
    with run.held():
        show = lambda now: study.say(f"{name}: {now.share:.0%} {now.metrics.get('episode/return', 0):.0f}")  # noqa: E731
        trained = train(engine, jax.random.key(seed), Plan(Budget(env_steps=steps), chunk_updates=500), run=run,
                        show=show)  # fmt: skip
        if trained.status == "interrupted":
            raise KeyboardInterrupt
        played = host_episodes(made.open(EPISODES), agent.policy(trained.state), jax.random.key(1_000 + seed),
                               number=EPISODES, explore=False)  # fmt: skip
        run.drop_checkpoints()
        run.finish("done", env_steps=steps, wall_s=trained.wall_s)
    return {"return": float(np.mean(played.returns)), "wall_s": trained.wall_s}
