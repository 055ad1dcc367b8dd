"""E6, cooperation: two copies of the agent against the agent beside a random player in its better seat."""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import training
from benchmarks.adaptive.arms import at_least_apart, bootstrap_pair
from benchmarks.common import Bar, Study
from rekindle.agents.registry import load
from rekindle.core.stats import bootstrap
from rekindle.envs import registry
from rekindle.envs.seats import seat_spec
from rekindle.evaluate.cooperation import RANDOM_PARTNER, SELF_PLAY, cooperate, make_pair_exam
from rekindle.library.run import Run

TRIALS = [1, 2, 3, 5]


class Preset(NamedTuple):
    """Sizes of a run."""

    budget: str
    env: str
    seeds: int
    count: int
    repetitions: int
    max_states: int
    """Of each of the planner's searches for what one player can do alone."""


PRESETS = {
    "smoke": Preset("2e4steps", "xland/c2-v1", 1, 4, 2, 64),
    "cpu": Preset("10e6steps", "xland/c2-v1", 3, 256, 16, 4_000),
    "gpu": Preset("200e6steps", "xland/c2-f1-v1", 2, 512, 16, 20_000),
}
ALONE = 0.5
"""Share of the training tasks that are for one player, as in AdA."""
SETTINGS = {"width": 64, "hidden": 64, "epochs": 1, "rollout_length": 40, "entropy_weight": 0.03}


def run(study: Study, preset: str) -> tuple[dict[str, Any], list[Bar]]:
    """Train beside a growing pool of copies; on the CPU the mean gates, the 20th percentile is reported."""
    size = PRESETS[preset]
    what = training.order(size.env, size.budget, curriculum="none", trials=(1, 4), pool={"alone": ALONE}, **SETTINGS)
    cells = [study.cell(f"E6-seed{seed}", lambda seed=seed: compute(study, what, size, seed))
             for seed in range(size.seeds)]  # fmt: skip
    pairs = {k: np.stack([[np.asarray(cell["scores"][f"{who}|{k}"]) for cell in cells] for who in
                          (SELF_PLAY, RANDOM_PARTNER)], axis=-1) for k in TRIALS}  # fmt: skip
    gains = {k: bootstrap(both[..., 0] - both[..., 1]) for k, both in pairs.items()}
    rows = []
    for k, both in pairs.items():
        tail = bootstrap_pair(both, percentile_20_of)
        rows.append({"k": k, "self-play": both[..., 0].mean(), "random partner": both[..., 1].mean(),
                     "gain": gains[k].value, "gain_low": gains[k].low, "gain_high": gains[k].high,
                     "gain of the 20th percentile": tail.value, "both players fire": share(cells, k)})  # fmt: skip
    bars = [at_least_apart(f"E6.self-play-over-random.k{k}", gains[k], 0.05) for k in TRIALS if k >= 2]
    labour = [probe for cell in cells for probe in cell["probes"]]
    best = max((probe["share"] for probe in labour), default=0.0)
    bars.append(Bar("E6.division-of-labour", best, best, best, 0.5, best > 0.5))
    return {"scores": rows, "probes": labour}, bars


def compute(study: Study, what: Any, size: Preset, seed: int) -> dict[str, Any]:
    """Train and score one seed, on held-out tasks and on the probes for two."""
    kept = training.library()
    folder = training.trained(f"E6-{study.preset}", what, seed, kept, study.say)
    made = registry.make(size.env)
    policy = load(folder, env_spec=seat_spec(made.spec)).policy
    pool = made.pool(split="test", seed=100 + seed)
    exam = make_pair_exam(made.env, pool, tasks=size.count, max_states=size.max_states, cache=training.HOME / "planned",
                          seed=100 + seed)  # fmt: skip
    result = cooperate(exam, policy, jax.random.key(seed), trials=TRIALS, repetitions=size.repetitions)
    probes = [probe(name, policy, size, seed) for name in registry.ids() if name.startswith("xland/probe-")]
    run = Run.open(kept, folder.parent.name)
    return {
        "scores": {f"{who}|{k}": record.scores().tolist() for (who, k), record in result.records.items()},
        "successes": {str(k): int(division.successes.sum()) for k, division in result.division.items()},
        "both": {str(k): int(division.both.sum()) for k, division in result.division.items()},
        "needs_both": float(np.mean(exam.needs_both)),
        "left_out": exam.left_out,
        "probes": [found | {"seed": seed} for found in probes if found],
        "wall_s": run.manifest.wall_s,
        "trained_steps": run.manifest.env_steps,
    }


def probe(name: str, policy: Any, size: Preset, seed: int) -> dict[str, Any]:
    """Division of labour in a probe for two; nothing for probes of one player or of another kind of view."""
    made = registry.make(name)
    if made.spec.players != 2 or seat_spec(made.spec).obs != seat_spec(registry.make(size.env).spec).obs:
        return {}
    exam = make_pair_exam(made.env, made.pool(split="test", seed=0), tasks=1, max_states=size.max_states,
                          cache=training.HOME / "planned")  # fmt: skip
    division = cooperate(exam, policy, jax.random.key(seed), trials=[5], repetitions=size.repetitions).division[5]
    return {"probe": name, "successes": int(division.successes.sum()), "share": division.share}


def percentile_20_of(values: np.ndarray) -> float:
    """Over tasks, of the mean over seeds."""
    return float(np.percentile(values.mean(axis=0), 20))


def share(cells: list[dict[str, Any]], k: int) -> float:
    """Of the successes in self-play, those in which both players fired rules."""
    return sum(cell["both"][str(k)] for cell in cells) / max(sum(cell["successes"][str(k)] for cell in cells), 1)
