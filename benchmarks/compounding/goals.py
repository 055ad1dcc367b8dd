"""The twelve goals, fixed: six of the F0 family, six chains of two rules, which the foundation agent never trained on.

Any set is a choice; this one was made before the study was first run, for variety of relations and of the parts in
which rules meet, and no goal that a random or an idle player half solves. The study checks the latter.
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
    Asked("hold yellow cube",
          ("near(black sphere, purple wall) -> black pyramid", "hold black pyramid -> yellow cube")),
    Asked("hold black sphere",
          ("hold purple cube -> yellow wall", "near(yellow wall, black pyramid) -> black sphere")),
    Asked("near(purple sphere, yellow pyramid)",
          ("hold black cube -> purple sphere", "hold yellow wall -> yellow pyramid")),
    Asked("near(black wall, purple cube)",
          ("near(yellow sphere, yellow cube) -> black wall", "hold black sphere -> purple cube")),
    Asked("hold purple wall",
          ("hold yellow sphere -> black sphere", "near(black sphere, purple pyramid) -> purple wall")),
    Asked("hold yellow pyramid",
          ("near(purple sphere, black cube) -> purple pyramid", "near(purple pyramid, yellow cube) -> yellow pyramid")),
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
