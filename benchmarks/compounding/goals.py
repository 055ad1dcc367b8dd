"""The twelve goals, fixed: six of the F0 family, six chains of two rules, which the foundation agent never trained on.

The six of F0 were chosen by hand, before the study was first run, for variety of relations and parts. The chains were
drawn: see draw.py, which prints them.
"""

from typing import NamedTuple


class Asked(NamedTuple):
    """A goal and its rules, in words."""

    goal: str
    rules: tuple[str, ...] = ()


F0 = (
    Asked("hold yellow sphere"),
    Asked("near(purple cube, black pyramid)"),
    Asked("hold black cube", ("hold purple sphere -> black cube",)),
    Asked("near(black sphere, yellow wall)", ("hold purple cube -> black sphere",)),
    Asked("hold purple pyramid", ("near(black wall, yellow cube) -> purple pyramid",)),
    Asked("near(yellow pyramid, black cube)", ("near(purple wall, yellow cube) -> yellow pyramid",)),
)
CHAINS = (
    Asked("hold yellow pyramid",
          ("hold black wall -> yellow sphere", "near(yellow cube, yellow sphere) -> yellow pyramid")),
    Asked("near(me, yellow sphere)", ("hold black wall -> black pyramid", "hold black pyramid -> yellow sphere")),
    Asked("near(yellow cube, yellow wall)",
          ("hold black cube -> purple cube", "hold purple cube -> yellow cube, yellow wall")),
    Asked("hold purple wall",
          ("near(yellow wall, black cube) -> purple wall",
           "near(yellow cube, purple pyramid) -> black cube, yellow wall")),
    Asked("hold purple cube",
          ("hold yellow sphere -> yellow pyramid", "near(yellow pyramid, purple pyramid) -> purple cube")),
    Asked("near(me, purple sphere)",
          ("hold black wall -> yellow pyramid", "near(yellow pyramid, purple cube) -> purple sphere")),
)  # fmt: skip
GOALS = F0 + CHAINS
ORDERS = 3
"""Goals are met in this many random orders, drawn from seed 0, 1, 2."""
TUNING = (
    Asked("hold yellow wall"),
    Asked("hold purple cube",
          ("hold yellow sphere -> black wall", "near(black wall, yellow pyramid) -> purple cube")),
)  # fmt: skip
"""Outside the twelve: on these the settings of learning from scratch were chosen."""
IDLE_BAR = 0.2
"""No goal on which a no-op or a random player reaches this share of the planner's reward."""
