"""What this folder offers. Imports nothing heavy."""

NAME = "mrq"
MODULE = "rekindle.agents.mrq.mrq"
