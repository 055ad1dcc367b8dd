"""Teachers by Stable-Baselines3, and what they were saved as: `python -m foreign_tests.teachers FOLDER`.

Neither is trained to the end, so that a student has something to learn beyond it. Each takes well under a minute.
"""

import sys
import warnings
from pathlib import Path

import gymnasium
import torch
from gymnasium.wrappers import TransformObservation
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from rekindle.envs import registry
from rekindle.envs.gymnasium import to_gymnasium

STOP = 150.0
"""Mean return at which CartPole's teacher is good enough; the best is 500."""
GAME_STEPS = 20_480


class Planes(BaseFeaturesExtractor):
    """One convolution over MinAtar's planes, as Stable-Baselines3's own needs pictures of 36x36 at least."""

    def __init__(self, space: gymnasium.spaces.Box, channels: int = 16, width: int = 64):
        super().__init__(space, width)
        side = space.shape[0] - 2
        self.convolution = torch.nn.Conv2d(space.shape[-1], channels, 3)
        self.linear = torch.nn.Linear(channels * side * side, width)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Features of `[B, H, W, C]`."""
        seen = torch.relu(self.convolution(planes.permute(0, 3, 1, 2)))
        return torch.relu(self.linear(seen.flatten(1)))


def cartpole(folder: Path) -> None:
    """PPO, stopped as soon as it is half good: as a zip, its policy as ONNX, and what does the opposite."""
    stop = StopTrainingOnRewardThreshold(STOP)
    judge = EvalCallback(make_vec_env("CartPole-v1", 20, seed=1000), stop, n_eval_episodes=40, eval_freq=256, verbose=0)
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=0), learning_rate=1e-3, n_steps=64, batch_size=256,
                gamma=0.98, gae_lambda=0.8, seed=0, device="cpu")  # fmt: skip
    model.learn(40_000, callback=judge)
    model.save(folder / "cartpole.zip")
    policy = model.policy
    logits = torch.nn.Sequential(policy.mlp_extractor.policy_net, policy.action_net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without a compiler is enough for dense layers
        torch.onnx.export(logits, (torch.zeros(1, 4),), folder / "cartpole.onnx", dynamo=False,
                          input_names=["obs"], output_names=["logits"],
                          dynamic_axes={"obs": {0: "batch"}, "logits": {0: "batch"}})  # fmt: skip
    for weight in policy.action_net.parameters():
        weight.data.neg_()
    model.save(folder / "backwards.zip")


def breakout(folder: Path) -> None:
    """PPO on the planes of MinAtar's Breakout, with an extractor of its own."""
    made = registry.make("minatar/breakout")
    seeds = iter(range(16))

    def world() -> gymnasium.Env:
        env = to_gymnasium(made, seed=next(seeds))
        return TransformObservation(env, lambda obs: obs["obs"], env.observation_space["obs"])

    model = PPO("MlpPolicy", make_vec_env(world, 16, seed=0), learning_rate=1e-3, n_steps=64, batch_size=256,
                n_epochs=4, gamma=0.98, ent_coef=0.01, policy_kwargs={"features_extractor_class": Planes},
                seed=0, device="cpu")  # fmt: skip
    model.learn(GAME_STEPS)
    model.save(folder / "breakout.zip")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for make in (cartpole, breakout):
        make(Path(sys.argv[1]))
