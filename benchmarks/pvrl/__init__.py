"""Reincarnation on MinAtar."""
