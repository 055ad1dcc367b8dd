"""DQN of Stable-Baselines3 on MinAtar itself, with the network that ours has.

Needs `pip install minatar==1.0.15 stable-baselines3`.
"""

from functools import partial

import gymnasium
import torch
from minatar.gym import BaseEnv
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from benchmarks.peers import sb3_dqn
from rekindle.agents.dqn.dqn import Config


class Torso(BaseFeaturesExtractor):
    """A convolution of 16 planes, 3 by 3, and a dense layer; their own torso refuses pictures as small as MinAtar's."""

    def __init__(self, space: gymnasium.spaces.Box, width: int):
        """For planes `[H, W, C]`."""
        super().__init__(space, width)
        height, across, planes = space.shape
        convolution = nn.Conv2d(planes, 16, 3)
        dense = nn.Linear(16 * (height - 2) * (across - 2), width)
        self.layers = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), dense, nn.ReLU())

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Features."""
        return self.layers(obs.permute(0, 3, 1, 2))


def make(game: str, config: Config, seed: int) -> DQN:
    """An agent with the settings of ours."""
    world = partial(BaseEnv, game, use_minimal_action_set=True)  # as ours has
    envs = DummyVecEnv([world] * config.num_envs)
    return sb3_dqn.make("MlpPolicy", envs, Torso, config, seed)
