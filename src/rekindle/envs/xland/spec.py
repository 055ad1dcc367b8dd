"""The ids of this folder's environments."""

FAMILIES = (*(f"doors-{n}" for n in range(2, 9)), "f0", "f0-visible", "f0t", "f1", "f2", "c2", "c2-f1")
ENVS = {f"xland/{name}-v1": "rekindle.envs.xland.presets:make" for name in FAMILIES}
