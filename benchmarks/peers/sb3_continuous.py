"""TD3 and SAC of Stable-Baselines3 with the settings that they come with, and what their evaluations say.

Needs `pip install stable-baselines3`.
"""

import time
from typing import Any

import torch
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.evaluation import evaluate_policy

from benchmarks.peers.host_env import HostEnv
from rekindle.envs.registry import Hosted

AGENTS = {"td3": TD3, "sac": SAC}
EVALUATION_SEED = 1_000
"""Added to that of training."""


def curve(agent: str, made: Hosted, *, steps: int, every: int, episodes: int, seed: int, threads: int
          ) -> list[dict[str, Any]]:  # fmt: skip
    """Steps, seconds of training without evaluations, and mean return without noise, after every so many steps.

    Args:
        agent: `td3` or `sac`.
        made: where.
        steps: of the environment, a multiple of `every`.
        every: of them, between two evaluations.
        episodes: of an evaluation.
        seed: of everything.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    model = AGENTS[agent]("MlpPolicy", HostEnv(made.open(1), seed), seed=seed, device="cpu")
    evaluation, seconds, points = HostEnv(made.open(1), EVALUATION_SEED + seed), 0.0, []
    for _ in range(every, steps + 1, every):
        began = time.perf_counter()
        model.learn(every, reset_num_timesteps=False)
        seconds += time.perf_counter() - began
        score, _ = evaluate_policy(model, evaluation, n_eval_episodes=episodes, warn=False)
        points.append({"steps": model.num_timesteps, "seconds": seconds, "return": float(score)})
    return points
