from dataclasses import replace

import jax.numpy as jnp
import pytest

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec
from rekindle.envs.seats import seat_obs, seat_spec
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland.presets import PAIR, SMALL


def test_a_seat_of_two_is_a_world_of_one():
    """Names, shapes, bounds and dtypes: a network made for one player can be put into either seat."""
    assert seat_spec(Trials(PAIR).spec) == Trials(SMALL).spec
    assert seat_spec(Trials(SMALL).spec) == Trials(SMALL).spec
    assert seat_spec(replace(Trials(PAIR).spec, id="xland/c2-v1")).id == "xland/c2-v1"


def test_each_seat_sees_its_own_slice():
    obs = {"a": jnp.arange(12).reshape(3, 2, 2), "b": jnp.arange(6).reshape(3, 2)}
    assert seat_obs(obs, 1)["a"].tolist() == [[2, 3], [6, 7], [10, 11]]
    assert seat_obs(obs, 0)["b"].tolist() == [0, 2, 4]


@pytest.mark.parametrize("space", [Discrete(3), Box((3, 2), 0, 1)])
def test_what_cannot_be_shared_out_is_refused(space):
    with pytest.raises(ConfigError, match="'it' needs an axis of that length"):
        seat_spec(EnvSpec("a/b-v1", 1, {"it": space}, Discrete(2), players=2))
