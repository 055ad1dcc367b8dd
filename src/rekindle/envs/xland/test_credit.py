import jax
import jax.numpy as jnp
import pytest

from rekindle.envs.xland.credit import TRIGGERED, Credit
from rekindle.envs.xland.level import ACTIONS
from rekindle.envs.xland.presets import PAIR
from rekindle.envs.xland.text import parse_task

step = jax.jit(Credit(PAIR).step)
reset = jax.jit(Credit(PAIR).reset)


def triggered(world: str, rule: str, actions: str, objects: str = "black cube, purple cube"):
    """Who triggers a rule with this pair of actions, taken at once."""
    text = f"goal: hold yellow wall\nrule: {rule}\nobjects: {objects}\nworld:\n{world}"
    task = parse_task(text, players=2, max_rules=4, max_objects=12)
    state, first = reset(jax.random.key(0), task)
    assert first.metrics[TRIGGERED].tolist() == [False, False]
    codes = jnp.asarray([ACTIONS.index(name) for name in actions.split("/")], jnp.int32)
    return step(jax.random.key(0), state, codes, task)[1].metrics[TRIGGERED].tolist()


ROOM = "######\n#0.1.#\n#^.N.#\n######"


@pytest.mark.parametrize(
    ("rule", "actions", "who"),
    [
        ("hold black cube -> nothing", "pick/noop", [True, False]),
        ("hold black cube -> nothing", "pick/pick", [True, False]),
        ("hold(partner, purple cube) -> nothing", "pick/pick", [False, True]),
        ("hold(partner, purple cube) -> nothing", "pick/left", [False, False]),
        ("near(black cube, me) -> nothing", "left/right", [False, False]),  # holds anyway
        ("not near(me, black cube) -> black wall", "pick/noop", [True, False]),
        ("near(black cube, yellow cube) -> nothing", "pick/pick", [False, False]),
    ],
)
def test_who_acts_is_credited(rule, actions, who):
    assert triggered(ROOM, rule, actions) == who


@pytest.mark.parametrize(
    ("world", "rule", "who"),
    [
        ("######\n#>..W#\n######", "touching(me, partner) -> black cube", [True, True]),  # it took both
        ("#######\n#>...W#\n#######", "touching(me, partner) -> black cube", [False, False]),  # not even both
        ("######\n#.<E.#\n######", "not touching(me, partner) -> black cube", [False, False]),  # either would do
    ],
)
def test_both_are_credited_where_it_took_both_and_neither_where_one_would_do(world, rule, who):
    assert triggered(world, rule, "forward/forward", "nothing") == who
