"""What this folder offers. Imports nothing heavy."""

NAME = "rainbow"
MODULE = "rekindle.agents.rainbow.rainbow"
