"""Muesli."""
