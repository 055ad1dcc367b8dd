"""The ids of this folder's environments."""

ENVS: dict[str, str] = {}
HOSTED = {"ALE/": "rekindle.envs.host.atari:make", "gymnasium/": "rekindle.envs.host.foreign:make"}
"""Atari's games by Gymnasium's ids, such as ALE/Breakout-v5; any other of Gymnasium's as gymnasium/CartPole-v1."""
