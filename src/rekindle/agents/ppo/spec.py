"""What this folder offers. Imports nothing heavy."""

NAME = "ppo"
MODULE = "rekindle.agents.ppo.ppo"
