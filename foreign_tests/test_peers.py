"""What ours is timed beside is what ours is: the same network."""

import ale_py
import equinox as eqx
import gymnasium
import jax
import numpy as np
from benchmarks.dqn_speed.arms import ATARI, GAME
from benchmarks.peers import atari_dqn, sb3_dqn
from stable_baselines3.common.vec_env import DummyVecEnv

from rekindle.agents.dqn import dqn
from rekindle.envs import registry

gymnasium.register_envs(ale_py)


class Pictures(gymnasium.Env):
    """What their preprocessing shows."""

    observation_space, action_space = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8), gymnasium.spaces.Discrete(4)


def test_their_network_in_atari_has_the_shapes_of_ours():
    theirs = sb3_dqn.make("CnnPolicy", DummyVecEnv([Pictures] * ATARI.num_envs), atari_dqn.Torso, ATARI, 0)
    ours = jax.eval_shape(lambda key: dqn.init(ATARI, key, registry.host(GAME).spec).net, jax.random.key(0))
    shapes = [sorted(x.shape) for x in jax.tree.leaves(eqx.filter(ours, lambda x: hasattr(x, "shape")))]
    assert sorted(shapes) == sorted(sorted(p.shape) for p in theirs.q_net.parameters())
