"""Rollouts, adaptation curves, normalised scores and their intervals."""
