"""M: Muesli and PPO on D-3, D-4 and F0, at equal environment steps and at equal wall time."""

from typing import Any, NamedTuple

from benchmarks import training
from benchmarks.adaptive.arms import Evaluation, cells, costs, table, versus
from benchmarks.common import Bar, Study


class Preset(NamedTuple):
    """Sizes of a run."""

    steps: str
    seconds: str
    seeds: int
    count: int
    repetitions: int


PRESETS = {
    "smoke": Preset("2e4steps", "5s", 1, 8, 2),
    "cpu": Preset("3e6steps", "180s", 3, 256, 16),
    "gpu": Preset("50e6steps", "300s", 3, 1000, 16),
}
FAMILIES = {
    "doors-3": ("doors", [1, 2, 3], "success", {"rollout_length": 18}),
    "doors-4": ("doors", [1, 2, 3, 4], "success", {"rollout_length": 24}),
    "f0": ("none", [1, 2, 4], "return", {"rollout_length": 40, "entropy_weight": 0.03}),
}
LEARNERS: dict[str, dict[str, Any]] = {"ppo": {}, "muesli": {}}


def run(study: Study, preset: str) -> tuple[dict[str, Any], list[Bar]]:
    """Both learners, both budgets; no bar: the better at equal wall time is the default."""
    size = PRESETS[preset]
    values: dict[str, Any] = {}
    differences = []
    for budget in (size.steps, size.seconds):
        unit = "steps" if budget.endswith("steps") else "time"
        for name, (curriculum, trials, kind, settings) in FAMILIES.items():
            evaluation = Evaluation(f"xland/{name}-v1", trials, kind, size.count, size.repetitions)
            arms = {}
            for agent, own in LEARNERS.items():
                mine = {k: v for k, v in settings.items() if agent == "ppo" or k != "entropy_weight"}
                what = training.order(evaluation.env, budget, agent=agent, curriculum=curriculum,
                                      trials=(1, max(trials)),
                                      **{**mine, **own})  # fmt: skip
                arms[agent] = cells(study, "M", f"{name}-{unit}-{agent}", what, evaluation, size.seeds)
            values[f"{name}_{unit}"] = table(arms, trials)
            values[f"{name}_{unit}_costs"] = costs(arms)
            apart = versus(arms["muesli"], arms["ppo"], max(trials))
            differences.append({"family": name, "equal": unit, "muesli - ppo": apart.value,
                                "muesli - ppo_low": apart.low, "muesli - ppo_high": apart.high})  # fmt: skip
    return {"differences": differences, **values}, []
