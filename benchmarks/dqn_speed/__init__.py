"""Steps per second of training a deep Q-network, beside Stable-Baselines3."""
