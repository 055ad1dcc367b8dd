"""Worlds that a process steps, not a compiled program: Gymnasium's, and Atari's by threads of its own."""
