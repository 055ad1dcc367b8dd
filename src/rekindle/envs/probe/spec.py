"""The ids of this folder's environments."""

PROBLEMS = ("constant", "observation", "discount", "action", "both", "identity", "chain", "delay", "wages", "choice",
            "limit", "bandit-trials")  # fmt: skip
ENVS = {f"probe/{name}-v1": "rekindle.envs.probe.probe:make" for name in PROBLEMS}
