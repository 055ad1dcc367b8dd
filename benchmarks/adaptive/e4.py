"""E4, attention against recurrence: eight doors whose trials are so long that the first is far away at the end."""

from typing import Any, NamedTuple

from benchmarks import training
from benchmarks.adaptive.arms import Exam, at_least_apart, cells, costs, equal, table, versus
from benchmarks.common import Bar, Study
from rekindle.networks.memory import width_for

TRIALS = [1, 2, 3, 5, 8]
WIDTH = 64


class Preset(NamedTuple):
    """Sizes of a run."""

    budget: str
    seeds: int
    count: int
    repetitions: int


PRESETS = {
    "smoke": Preset("2e4steps", 1, 8, 1),
    "cpu": Preset("4e6steps", 3, 128, 8),
    "gpu": Preset("100e6steps", 3, 512, 16),
}


def run(study: Study, preset: str) -> tuple[dict[str, Any], list[Bar]]:
    """Equal numbers of parameters in the memory; reported whichever way it falls."""
    size = PRESETS[preset]
    pool = {"length": 30, "worlds": 64, "games": 512}
    exam = Exam("xland/doors-8-v1", TRIALS, "success", size.count, size.repetitions, pool)
    sizes = {"layers": 2, "heads": 4, "slots": 120}
    equal_to = parameters("transformer-xl", WIDTH, **sizes)
    arms = {}
    for memory in ("transformer-xl", "gru+attention", "gru"):
        slots = 64 if memory == "gru+attention" else 120
        wide = width_for(memory, WIDTH, equal_to, **{**sizes, "slots": slots})
        what = training.order("xland/doors-8-v1", size.budget, curriculum="doors", trials=(1, 8), pool={"length": 30},
                              memory=memory, hidden=wide, layers=2, slots=slots, epochs=1, rollout_length=60,
                              num_envs=128)  # fmt: skip
        arms[memory] = cells(study, "E4", memory.replace("+", "-"), what, exam, size.seeds)
    txl, attention, gru = arms.values()
    bars = [
        equal("E4.k1", versus(txl, gru, 1), 0.05),
        *[at_least_apart(f"E4.k{k}", versus(txl, gru, k), 0.10) for k in (5, 8)],
        at_least_apart("E4.attention-between.low", versus(attention, gru, 8), 0.0),
        at_least_apart("E4.attention-between.high", versus(txl, attention, 8), 0.0),
    ]
    return {"scores": table(arms, TRIALS), "costs": costs(arms)}, bars


def parameters(memory: str, width: int, **sizes: int) -> int:
    """Of a memory of this width."""
    import jax

    from rekindle.networks.memory import make_memory, num_parameters

    return num_parameters(make_memory(memory, jax.random.key(0), WIDTH, width, **sizes))
