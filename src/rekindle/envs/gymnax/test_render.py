import numpy as np

from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec
from rekindle.envs.gymnax.render import GROUND, colour, render, shows_planes


def test_every_plane_has_its_colour_and_the_last_is_seen():
    planes = np.zeros((2, 3, 4), np.uint8)
    planes[0, 1, 2] = planes[1, 2, 0] = planes[1, 2, 3] = 1
    picture = render(planes, cell=5)
    assert picture.shape == (10, 15, 3) and picture.dtype == np.uint8
    blocks = picture.reshape(2, 5, 3, 5, 3).transpose(0, 2, 1, 3, 4).reshape(2, 3, 25, 3)
    assert (blocks == blocks[:, :, :1]).all()
    expected = {(0, 1): colour(2, 4), (1, 2): colour(3, 4)}
    for at in np.ndindex(2, 3):
        assert tuple(blocks[at][0]) == expected.get(at, GROUND)


def test_planes_have_different_colours():
    for count in range(1, 11):
        assert len({GROUND, *(colour(plane, count) for plane in range(count))}) == count + 1


def test_boards_are_known_by_their_shape_and_values():
    def shown(**obs):
        return shows_planes(EnvSpec("test/x", 1, obs, Discrete(2)))

    assert shown(obs=Box((10, 10, 4), 0, 1, "uint8")) and shown(obs=Box((10, 5), 0, 1))
    assert not shown(obs=Box((4,), 0, 1)) and not shown(obs=Box((84, 84, 4), 0, 255, "uint8"))
    assert not shown(obs=Box((10, 5), 0, 1), more=Discrete(3))
