"""The ids of this folder's environments."""

FAMILIES = ("x-trivial", "x-small", "x-medium", "x-high")
ENVS = {f"minigrid/{name}-v1": "rekindle.envs.minigrid.presets:make" for name in FAMILIES}
