import numpy as np
import pytest

from rekindle.agents import registry as agents
from rekindle.core.errors import ConfigError
from rekindle.curriculum.base import Uniform
from rekindle.curriculum.make import NAMES, make
from rekindle.curriculum.noop import NoOpFilter
from rekindle.curriculum.plr import PLR

SMALL = {"worlds": 8, "games": 16, "pairs": 24}
AGENT = agents.make_agent("ppo", agents.config_from_json("ppo", {"num_envs": 8, "minibatches": 2, "gamma": 0.9}))


def made(name, env="xland/f0", **options):
    return make(name, env, AGENT, seed=0, trials=(1, 2), pool=SMALL if env == "xland/f0" else None, **options)


def test_every_name_is_a_curriculum():
    kinds = {"plr": PLR, "no-op": NoOpFilter}
    for name in NAMES:
        settings = {"capacity": 10} if name in ("plr", "regret") else None
        if name == "regret":
            continue  # plans every task; see below
        got = made(name, "xland/doors-3" if name in ("doors", "foundation") else "xland/f0", settings=settings)
        assert isinstance(got.curriculum, kinds.get(name, Uniform))
        assert got.curriculum.rows == 8 * (2 if name in kinds else 1)
    plr = made("plr", settings={"capacity": 10}).curriculum
    assert (plr.gamma, plr.reward_scale) == (0.9, AGENT.config.reward_scale)


def test_the_ramp_turns_players_around_more_and_more():
    source = made("ramp").source
    assert [float(source(share).random_heading) for share in (0.0, 0.25, 0.5, 1.0)] == [0, 0.5, 1, 1]


def test_regret_knows_the_planners_best():
    got = make("regret", "xland/doors-2", AGENT, seed=0, trials=(1, 2), pool={"worlds": 2, "games": 4},
               settings={"capacity": 5})  # fmt: skip
    best = np.asarray(got.curriculum.optimum)
    assert best.shape == (8,) and (best >= 1).all()


def test_pools_that_are_too_small_or_too_large_to_choose_from_are_refused():
    with pytest.raises(ConfigError, match="tasks for 8 worlds side by side; the pool has 4"):
        make("no-op", "xland/doors-2", AGENT, seed=0, trials=(1, 2), pool={"worlds": 2, "games": 2})
    with pytest.raises(ConfigError, match="at most 4096; this one has 5000"):
        make("regret", "xland/doors-2", AGENT, seed=0, trials=(1, 2), pool={"worlds": 50, "games": 100})


@pytest.mark.parametrize(
    ("name", "env", "settings", "message"),
    [
        ("plrr", "xland/f0", None, "no curriculum 'plrr'; did you mean 'plr'"),
        ("none", "xland/f0", {"capacity": 5}, "has no settings; got capacity"),
        ("plr", "xland/f0", {"capacty": 5}, "no setting 'capacty'; did you mean 'capacity'"),
        ("plr", "xland/f0", {"capacity": 0.5}, "capacity takes a int; got 0.5"),
        ("no-op", "xland/f0", {"episodes": 0}, "episodes and repetitions must be at least 1"),
        ("plr", "probe/identity", None, "chooses among numbered tasks"),
        ("doors", "xland/f0", None, "leads to"),
        ("plr", "xland/f0", {"groups": 2}, "no setting 'groups'"),
        ("regret", "xland/f0", {"kind": "td"}, "no setting 'kind'"),
        ("plr", "xland/f0", {"which": "lst", "capacity": 5}, "which must be one of last, first, mean; got 'lst'"),
        ("plr", "xland/f0", {"decay": 2.0, "capacity": 5}, "decay must lie in"),
        ("ramp", "probe/identity", None, "turns players around, as xland does"),
    ],
)
def test_what_cannot_be_is_refused(name, env, settings, message):
    with pytest.raises(ConfigError, match=message):
        made(name, env, settings=settings)
