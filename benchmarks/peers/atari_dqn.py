"""DQN of Stable-Baselines3 in Atari's games, with its own preprocessing and the network that ours has.

Needs `pip install ale-py opencv-python-headless stable-baselines3`.
"""

import ale_py
import gymnasium
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack
from torch import nn

from benchmarks.peers import sb3_dqn
from rekindle.agents.dqn.dqn import Config
from rekindle.envs.host.atari import DEFAULTS, SKIP, STACK


class Torso(BaseFeaturesExtractor):
    """The three convolutions of Mnih et al. 2015 and a dense layer; padded as ours are, which their own are not."""

    def __init__(self, space: gymnasium.spaces.Box, width: int):
        """For pictures `[4, 84, 84]`: 21 by 21, 11 by 11 and 11 by 11 are left of them."""
        super().__init__(space, width)
        layers = [
            *(nn.Conv2d(STACK, 32, 8, 4, padding=2), nn.ReLU()),
            *(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(32, 64, 4, 2), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
        ]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 11 * 11, width), nn.ReLU())

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Features."""
        return self.layers(obs)


def make(game: str, config: Config, seed: int) -> DQN:
    """An agent with the settings of ours; ImportError where what its preprocessing takes is missing."""
    import cv2  # noqa: F401, their wrappers ask for it only when the first picture is there

    gymnasium.register_envs(ale_py)
    games = make_atari_env(
        game,
        config.num_envs,
        seed=seed,
        env_kwargs={"frameskip": 1, "repeat_action_probability": DEFAULTS["sticky"]},
        wrapper_kwargs={"noop_max": 0, "frame_skip": SKIP, "terminal_on_life_loss": False, "clip_reward": True},
    )
    return sb3_dqn.make("CnnPolicy", VecFrameStack(games, STACK), Torso, config, seed)
