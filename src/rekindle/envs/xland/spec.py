"""The ids of this folder's environments."""

PROBES = (
    "three-spheres-jumbled", "two-doors", "wrong-pair-disappears", "irreversible-production",
    "same-signature-match-colours", "same-signature-three-steps", "same-signature-two-dead-ends",
    "same-signature-destroy-to-protect", "push-dont-lift", "dont-act", "crafting-tree", "object-permanence",
)  # fmt: skip
"""Hand-written tasks for one player (probes.py)."""
PAIR_PROBES = ("coordinated-production", "information-asymmetry", "pass-over-the-wall")
"""The same for two."""
FAMILIES = (*(f"doors-{n}" for n in range(2, 9)), "f0", "f0-visible", "f0-diluted", "f0t", "f1", "f2", "c2", "c2-f1",
            *(f"probe-{name}" for name in (*PROBES, *PAIR_PROBES)))  # fmt: skip
ENVS = {f"xland/{name}-v1": "rekindle.envs.xland.presets:make" for name in FAMILIES}
