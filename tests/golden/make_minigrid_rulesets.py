"""Statistics of rulesets drawn one by one: `python tests/golden/make_minigrid_rulesets.py`. Needs nothing but Python.

A slow second reading of the recipe of XLand-MiniGrid's benchmarks, without duplicates removed: a goal, its chain grown
backwards from a stack of wanted tiles, distracting things, distracting rules. What is stored are counts over 20,000
rulesets of each benchmark, seed 42.
"""

import json
import random
from collections import Counter
from pathlib import Path

FILE = Path(__file__).parent / "minigrid" / "rulesets.json"
COUNT, SEED = 20_000, 42
BENCHMARKS = {"trivial-21k": (0, 0.0, 0, 3), "small-1m": (1, 0.3, 2, 2), "medium-1m": (2, 0.1, 3, 2),
              "high-1m": (3, 0.1, 4, 1)}  # fmt: skip
"""Chain depth, probability of pruning, distractor rules at most, distractor things."""
COLOURS = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
LIFT = [(tile, colour) for tile in (3, 4, 5, 7, 11, 12) for colour in COLOURS]
WALK = [(6, colour) for colour in COLOURS]
HOLD_KIND, AGENT_KINDS, PAIR_KINDS = 1, [2, 8, 9, 10, 11], [3, 4, 5, 6, 7]
GOAL_OF = {1: 1, 2: 3, 3: 4, 4: 7, 5: 8, 6: 9, 7: 10, 8: 11, 9: 12, 10: 13, 11: 14}


def pick(things: list, avoid: set) -> tuple[int, int]:
    return random.choice([thing for thing in things if thing not in avoid])


def condition(avoid: set, goal: bool) -> tuple[int, list]:
    """A kind of rule and its one or two tiles."""
    kind = random.choice([HOLD_KIND, *AGENT_KINDS, *PAIR_KINDS])
    if kind in PAIR_KINDS:
        return kind, [pick(LIFT + WALK, avoid), pick(LIFT, avoid)]
    return kind, [pick(LIFT + WALK if goal and kind in AGENT_KINDS else LIFT, avoid)]


def ruleset(depth: int, prune: float, distractor_rules: int, distractors: int) -> tuple[int, list, list]:
    """Kind of the goal, rules as (kind, inputs, product), initial tiles."""
    kind, wanted = condition(set(), goal=True)
    used, rules, tiles = set(wanted), [], [] if depth else list(wanted)
    for level in range(depth):
        below: list = []
        while wanted:
            product = wanted.pop()
            if random.random() < prune:
                tiles.append(product)
                continue
            rule, inputs = condition(used, goal=False)
            used |= set(inputs)
            rules.append((rule, inputs, product))
            below += inputs
        wanted = below
        if level == depth - 1:
            tiles += below
    tiles += [pick(LIFT + WALK, used) for _ in range(distractors)]
    for _ in range(random.randint(0, distractor_rules)):
        product = pick([*LIFT, (1, 7)], used)
        rule, inputs = condition(set(), goal=False)
        rules.append((rule, inputs, product))
        tiles += inputs
    return GOAL_OF[kind], rules, tiles


def main() -> None:
    """Write the counts."""
    random.seed(SEED)
    table = {}
    for name, recipe in BENCHMARKS.items():
        drawn = [ruleset(*recipe) for _ in range(COUNT)]
        table[name] = {
            "goal_kinds": Counter(goal for goal, _, _ in drawn),
            "num_rules": Counter(len(rules) for _, rules, _ in drawn),
            "num_tiles": Counter(len(tiles) for _, _, tiles in drawn),
            "rule_kinds": Counter(kind for _, rules, _ in drawn for kind, _, _ in rules),
            "tiles": Counter(tile for _, _, tiles in drawn for tile, _ in tiles),
            "products": Counter(tile for _, rules, _ in drawn for _, _, (tile, _) in rules),
        }
        table[name] = {stat: dict(sorted(counts.items())) for stat, counts in table[name].items()}
    command = "python tests/golden/make_minigrid_rulesets.py"
    FILE.write_text(json.dumps({"command": command, "rulesets": COUNT, "benchmarks": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
