"""What this folder offers. Imports nothing heavy."""

NAME = "dqn"
MODULE = "rekindle.agents.dqn.dqn"
