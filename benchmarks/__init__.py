"""Studies: every published figure comes from a folder here. `python -m benchmarks.STUDY --preset smoke` runs one."""
