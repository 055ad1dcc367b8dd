"""The ids of this folder's environments."""

ENVS: dict[str, str] = {}
HOSTED = {
    "ALE/": "rekindle.envs.host.atari:make",
    "dmc/": "rekindle.envs.host.dmc:make",
    "gymnasium/": "rekindle.envs.host.foreign:make",
}
"""Atari's games by Gymnasium's ids, such as ALE/Breakout-v5; DeepMind's control suite, such as dmc/walker-stand and
dmc/walker-stand-visual; any other of Gymnasium's as gymnasium/CartPole-v1."""
MUJOCO = ("Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum",
          "Pusher", "Reacher", "Swimmer", "Walker2d")  # fmt: skip
"""Gymnasium's bodies in MuJoCo."""
SHORT = {f"{name}{end}": f"gymnasium/{name}{end or '-v5'}" for name in MUJOCO for end in ("", "-v4", "-v5")}
"""Their ids as Gymnasium has them, and without a version; each with its full id here."""
