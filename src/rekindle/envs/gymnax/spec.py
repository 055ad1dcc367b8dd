"""The ids of this folder's environments."""

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space-invaders")
"""MinAtar as its own package plays it by default: actions stick with probability 0.1."""
ENVS = {f"minatar/{name}-v1": "rekindle.envs.gymnax.adapter:make_minatar" for name in GAMES}
OPEN = {"gymnax/": "rekindle.envs.gymnax.adapter:make"}
"""Any world that is registered with gymnax, by its own id, such as gymnax/CartPole-v1."""
