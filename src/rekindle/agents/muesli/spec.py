"""What the registry needs to know without importing the algorithm."""

NAME = "muesli"
MODULE = "rekindle.agents.muesli.muesli"
