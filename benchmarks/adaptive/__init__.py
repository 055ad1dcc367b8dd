"""Adaptation in context: the experiments of the adaptive agent."""
