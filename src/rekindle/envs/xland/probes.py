"""Probes: tasks written by hand, each of which asks for one ability. After AdA's (2023, appendix D), on the grid.

The texts are in `data/probes`, the ids are `xland/probe-NAME-v1`. What each asks for is in docs/xland.md, and
`test_probes.py` proves that it does. All have the sizes of the small families, so that their agents can be probed.
"""

from pathlib import Path

import numpy as np

from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.envs.xland.games import Split
from rekindle.envs.xland.level import Task
from rekindle.envs.xland.pools import TaskPool, make_pool
from rekindle.envs.xland.spec import PAIR_PROBES, PROBES
from rekindle.envs.xland.text import parse_task

FOLDER = Path(__file__).parent / "data" / "probes"
MAX_RULES, MAX_OBJECTS = 4, 12


def probe(name: str) -> Task:
    """The task of that name.

    Raises:
        ConfigError: there is none; the nearest ones are named.
    """
    known = (*PROBES, *PAIR_PROBES)
    if name not in known:
        raise ConfigError(f"no probe {name!r}; {did_you_mean(name, known)}")
    text = (FOLDER / f"{name}.txt").read_text("utf-8")
    return parse_task(text, players=players(name), max_rules=MAX_RULES, max_objects=MAX_OBJECTS)


def players(name: str) -> int:
    """For how many players a probe is."""
    return 2 if name in PAIR_PROBES else 1


def pool(name: str, *, split: Split, seed: int) -> TaskPool:
    """The probe as a pool of one task, the same in both splits: probes are for looking, not for training."""
    del split, seed
    task = probe(name)
    return make_pool([task.world], [task.game], trial_length=np.asarray(task.trial_length),
                     random_heading=float(task.random_heading))  # fmt: skip
