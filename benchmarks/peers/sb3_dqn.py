"""DQN of Stable-Baselines3 with the settings and the network of ours.

Needs `pip install stable-baselines3`.
"""

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv

from rekindle.agents.dqn.dqn import Config


def make(policy: str, worlds: VecEnv, torso: type[BaseFeaturesExtractor], config: Config, seed: int) -> DQN:
    """An agent whose exploration is done, so that it always asks its network: a torso and a value for each action."""
    return DQN(
        policy,
        worlds,
        learning_rate=config.learning_rate,
        buffer_size=config.capacity,
        learning_starts=config.warmup,
        batch_size=config.batch,
        gamma=config.gamma,
        train_freq=config.update_period // config.num_envs,
        target_update_interval=config.target_period * config.update_period,
        exploration_initial_eps=config.epsilon,
        exploration_final_eps=config.epsilon,
        policy_kwargs={
            "features_extractor_class": torso,
            "features_extractor_kwargs": {"width": config.width},
            "net_arch": [],
            "optimizer_kwargs": {"eps": config.optimiser_eps},
        },
        device="cuda" if torch.cuda.is_available() else "cpu",
        seed=seed,
    )
