"""E6, cooperation: two copies of the agent against the agent beside a random player in its better seat.

Scored is what AdA scores, the reward of the last trial; over the trial's steps, since the best for two is not known.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from benchmarks import training
from benchmarks.adaptive.arms import EVALUATION_SEED, all_seeds, at_least_apart, bootstrap_pair
from benchmarks.common import Bar, Study, at_least
from rekindle.agents.registry import load
from rekindle.core.stats import Interval, bootstrap, percentile_20
from rekindle.envs import registry
from rekindle.envs.seats import seat_spec
from rekindle.evaluate.cooperation import RANDOM_PARTNER, SELF_PLAY, cooperate, make_pair_evaluation_set
from rekindle.evaluate.rollout import evaluation_key
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
    cells = all_seeds(study, "E6", what, size.seeds, lambda seed: compute(study, what, size, seed))
    both = {k: np.stack([[cell["scores"][f"{who}|{k}"] for cell in cells] for who in (SELF_PLAY, RANDOM_PARTNER)],
                        axis=-1) for k in TRIALS}  # fmt: skip
    means = {k: bootstrap(pair[..., 0] - pair[..., 1]) for k, pair in both.items()}
    tails = {k: bootstrap_pair(pair, percentile_20) for k, pair in both.items()}
    rows = [{"k": k, "self-play": both[k][..., 0].mean(), "random partner": both[k][..., 1].mean(),
             **ends("gain", means[k]), **ends("gain of the 20th percentile", tails[k]),
             "both players fire": fired(cells, k).value} for k in TRIALS]  # fmt: skip
    gate = tails if preset == "gpu" else means
    bars = [at_least_apart(f"E6.self-play-over-random.k{k}", gate[k], 0.05) for k in TRIALS if k >= 2]
    probes = pooled([probe for cell in cells for probe in cell["probes"]])
    share = max((Interval(*(probe[f"share{end}"] for end in ("", "_low", "_high"))) for probe in probes),
                key=lambda interval: interval.low, default=Interval(0.0, 0.0, 0.0))  # fmt: skip
    bars.append(at_least("E6.division-of-labour", *share, 0.5))
    return {"scores": rows, "probes": probes}, bars


def ends(name: str, value: Interval) -> dict[str, float]:
    """An interval as columns of a table."""
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def fired(cells: list[dict[str, Any]], k: int) -> Interval:
    """Of the successes in self-play, the share in which both players fired rules."""
    return proportion(sum(cell["both"][str(k)] for cell in cells), sum(cell["successes"][str(k)] for cell in cells))


def pooled(probes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per probe: successes of all seeds, and the share in which both players fired rules."""
    rows = []
    for name in sorted({probe["probe"] for probe in probes}):
        of = [probe for probe in probes if probe["probe"] == name]
        successes, both = (sum(probe[what] for probe in of) for what in ("successes", "both"))
        rows.append({"probe": name, "successes": successes, **ends("share", proportion(both, successes))})
    return rows


def proportion(hits: int, of: int) -> Interval:
    """A share with Wilson's 95 % interval; of nothing, anything from 0 to 1."""
    if of == 0:
        return Interval(0.0, 0.0, 1.0)
    ci = binomtest(hits, of).proportion_ci(method="wilson")
    return Interval(hits / of, float(ci.low), float(ci.high))


def compute(study: Study, what: Any, size: Preset, seed: int) -> dict[str, Any]:
    """Train and score one seed, on held-out tasks and on the probes for two."""
    kept = training.library()
    folder = training.trained(f"E6-{study.preset}", what, seed, kept, study.say)
    made = registry.make(size.env)
    policy = load(folder, env_spec=seat_spec(made.spec)).policy
    pool = made.pool(split="test", seed=EVALUATION_SEED)
    held_out = make_pair_evaluation_set(made.env, pool, tasks=size.count, max_states=size.max_states,
                                          cache=training.HOME / "planned", seed=EVALUATION_SEED)  # fmt: skip
    key = evaluation_key(EVALUATION_SEED + seed)
    result = cooperate(held_out, policy, key, trials=TRIALS, repetitions=size.repetitions, kind="return")
    probes = [probe(name, policy, size, key) for name in registry.ids() if name.startswith("xland/probe-")]
    run = Run.open(kept, folder.parent.name)
    return {
        "scores": {f"{who}|{k}": record.scores().tolist() for (who, k), record in result.records.items()},
        "successes": {str(k): int(division.successes.sum()) for k, division in result.division.items()},
        "both": {str(k): int(division.both.sum()) for k, division in result.division.items()},
        "needs_both": float(np.mean(held_out.needs_both)),
        "left_out": held_out.left_out,
        "probes": [found | {"seed": seed} for found in probes if found],
        "wall_s": run.manifest.wall_s,
        "trained_steps": run.manifest.env_steps,
    }


def probe(name: str, policy: Any, size: Preset, key: Any) -> dict[str, Any]:
    """Division of labour in a probe for two; nothing for probes of one player or of another kind of view."""
    made = registry.make(name)
    if made.spec.players != 2 or seat_spec(made.spec).obs != seat_spec(registry.make(size.env).spec).obs:
        return {}
    held_out = make_pair_evaluation_set(made.env, made.pool(split="test", seed=0), tasks=1, max_states=size.max_states,
                          cache=training.HOME / "planned")  # fmt: skip
    division = cooperate(held_out, policy, key, trials=[5], repetitions=size.repetitions).division[5]
    return {"probe": name, "successes": int(division.successes.sum()), "both": int(division.both.sum())}
