"""Studies: every published figure comes from a folder here. Run one with `python -m benchmarks.STUDY --preset smoke`."""
