"""E4, attention against recurrence: eight doors whose trials are so long that the first is far away at the end.

Headings are fixed, as in E7: with random ones none of the three learnt anything in 4M steps (three seeds each).
"""

from typing import Any, NamedTuple

import jax

from benchmarks import training
from benchmarks.adaptive.arms import Evaluation, at_least_apart, cells, costs, equal, table, versus
from benchmarks.common import Bar, Study
from rekindle.agents.registry import config_from_json, make_agent
from rekindle.envs import registry
from rekindle.train.order import Order

TRIALS = [1, 2, 3, 5, 8]
WIDTH = 64


class Preset(NamedTuple):
    """Sizes of a run."""

    budget: str
    seeds: int
    count: int
    repetitions: int
    worlds: int
    minibatches: int


PRESETS = {
    "smoke": Preset("2e4steps", 1, 8, 1, 128, 4),
    "cpu": Preset("4e6steps", 3, 128, 8, 128, 4),
    "gpu": Preset("14499840steps", 3, 512, 16, 512, 8),
}
MEMORIES = ("transformer-xl", "gru+attention", "gru")
TASK = {"length": 30, "random_heading": 0.0}


def run(study: Study, preset: str) -> tuple[dict[str, Any], list[Bar]]:
    """Equal numbers of parameters in the whole network; reported whichever way it falls."""
    size = PRESETS[preset]
    arms = {memory: cells(study, "E4", cell_name(memory), what(memory, size), evaluation(size), size.seeds)
            for memory in MEMORIES}  # fmt: skip
    txl, attention, gru = arms.values()
    bars = [
        equal("E4.k1", versus(txl, gru, 1), 0.05),
        *[at_least_apart(f"E4.k{k}", versus(txl, gru, k), 0.10) for k in (5, 8)],
        at_least_apart("E4.attention-between.low", versus(attention, gru, 8), 0.0),
        at_least_apart("E4.attention-between.high", versus(txl, attention, 8), 0.0),
    ]
    return {"scores": table(arms, TRIALS), "costs": costs(arms)}, bars


def cell_name(memory: str) -> str:
    """An arm, as files are named."""
    return memory.replace("+", "-")


def evaluation(size: Preset) -> Evaluation:
    """Eight doors in rooms and games that no arm was trained on."""
    pool = {**TASK, "worlds": 64, "games": 512}
    return Evaluation("xland/doors-8-v1", TRIALS, "success", size.count, size.repetitions, pool)


def what(memory: str, size: Preset) -> Order:
    """The training of an arm."""
    common: dict[str, Any] = {"layers": 2, "epochs": 1, "rollout_length": 60, "num_envs": size.worlds,
                              "minibatches": size.minibatches}  # fmt: skip
    equal_to = parameters({**common, "memory": "transformer-xl", "slots": 120, "hidden": WIDTH})
    settings = {**common, "memory": memory, "slots": 64 if memory == "gru+attention" else 120}
    return training.order("xland/doors-8-v1", size.budget, curriculum="doors", trials=(1, 8), pool=TASK,
                          hidden=width_with(equal_to, settings), **settings)  # fmt: skip


def parameters(settings: dict[str, Any]) -> int:
    """Of the whole network: encoder, memory and heads."""
    agent = make_agent("ppo", config_from_json("ppo", settings))
    spec = registry.make("xland/doors-8-v1").spec
    state = jax.eval_shape(lambda key: agent.init(key, spec), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(state.net))


def width_with(equal_to: int, settings: dict[str, Any]) -> int:
    """The memory's width, a multiple of the heads, that brings the whole network nearest to so many parameters."""
    low, high = 4, 512
    while high - low > 4:
        middle = (low + high) // 8 * 4
        low, high = (middle, high) if parameters({**settings, "hidden": middle}) <= equal_to else (low, middle)
    return min((low, high), key=lambda width: abs(parameters({**settings, "hidden": width}) - equal_to))
