import json
import math

import pytest

from rekindle.core.errors import ConfigError, did_you_mean, nearest
from rekindle.core.spaces import Box, Discrete, Image, MultiDiscrete, Text, space_from_json, space_to_json
from rekindle.core.types import EnvSpec

SPACES = [
    Box((2, 3), -1.0, 1.0),
    Box((), -math.inf, math.inf),
    Box((4, 12), 0, 11, "int8", set_axis=True),
    Discrete(4, "int8"),
    MultiDiscrete((2, 5)),
    Text(100),
    Image(8, 9),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_a_space_is_json_and_back(space):
    text = json.dumps(space_to_json(space), allow_nan=False)
    assert space_from_json(json.loads(text)) == space


def test_a_spec_is_json_and_back():
    spec = EnvSpec("a/b-v2", 2, {str(i): space for i, space in enumerate(SPACES)}, Discrete(3), players=2, kind="host")
    assert EnvSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_foreign_spaces_are_refused():
    with pytest.raises(ConfigError, match="'ball'"):
        space_from_json({"kind": "ball"})
    with pytest.raises(ConfigError, match=r"'discrete' does not take the fields \['kind', 'm'\]"):
        space_from_json({"kind": "discrete", "m": 3})
    for wrong in ({"kind": "discrete", "n": -3}, {"kind": "box", "shape": [-1], "low": 0, "high": 1}):
        with pytest.raises(ConfigError, match="sizes of a space are whole numbers"):
            space_from_json(wrong)


def test_shapes():
    assert (Discrete(4).shape, MultiDiscrete((2, 5)).shape, Image(8, 9).shape) == ((), (2,), (8, 9, 3))
    assert Image(8, 9).dtype == "uint8"


def test_the_nearest_words():
    assert nearest("doors", ["doors-2", "f0", "drawers"], n=2) == "'doors-2' or 'drawers'"
    assert nearest("x", []) == "nothing"


def test_only_what_is_much_like_a_word_is_suggested():
    assert did_you_mean("mastr", ["master", "train"]) == "did you mean 'master'?"
    assert did_you_mean("frob", ["rm", "show"]) == "known are rm, show."
