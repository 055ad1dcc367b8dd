"""What leads from what is easily found to what is wanted: mixtures of task families, headings that begin fixed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.envs import registry
from rekindle.envs.xland.pools import Mixture, TaskPool
from rekindle.envs.xland.presets import pool_for


class Family(NamedTuple):
    """One part of a mixture: an environment's tasks, drawn with this relative probability per episode."""

    id: str
    weight: float
    options: tuple[tuple[str, Any], ...] = ()


_FAR = (("distance", 4),)
DOORS = {
    n: tuple(Family(f"xland/doors-{m}-v1", 1.0, _FAR if n > 4 else ()) for m in range(2, n + 1)) for n in range(2, 9)
}
"""D-N with random headings is not found from nothing: with N objects, avoiding those already tried pays too little.
With two it pays at once, and what is learnt there carries over. So D-2 to D-N are practised together."""

FOUNDATION = (
    Family("xland/doors-2-v1", 0.08),
    Family("xland/doors-3-v1", 0.10),
    Family("xland/doors-4-v1", 0.20),
    Family("xland/f0-visible-v1", 0.15),
    Family("xland/f0-v1", 0.10),
    Family("xland/f0t-v1", 0.27, (("hidden", "rules"),)),
    Family("xland/f0t-v1", 0.10, (("hidden", "none"),)),
)
"""Weights count episodes; those of F0 are several times as long as the others."""
FIRST_QUARTER = (0.15, 0.15, 0.20, 0.35, 0.15, 0.0, 0.0)
"""Weights at first: F0t leaves no time to do anything by chance, so finding one's way comes before it."""


RAMP = 0.5
"""Share of training over which a trial's heading becomes random: with fixed ones D-4 is found from nothing."""


def mixture(families: tuple[Family, ...], *, seed: int, **options: Any) -> Mixture:
    """Training pools of these families, on the device; `options` are for all, beside each family's own."""
    pools = tuple(pool_for(f.id, split="train", seed=seed, **options, **dict(f.options)) for f in families)
    return jax.tree.map(jnp.asarray, Mixture(pools, np.asarray([f.weight for f in families], np.float32)))


def source(name: str, env_id: str, *, seed: int, **options: Any) -> Callable[[float], TaskPool | Mixture | Any]:
    """What to draw from at each share of training; `options` are those of the families' pools.

    Raises:
        ConfigError: an unknown curriculum, or one that does not lead to this environment.
    """
    if name == "foundation":
        mixed = mixture(FOUNDATION, seed=seed, **options)
        easier = mixed._replace(weights=jnp.asarray(FIRST_QUARTER))
        return lambda share: easier if share < 0.25 else mixed
    if name == "ramp":
        pool = jax.tree.map(jnp.asarray, registry.make(env_id, **options).pool(split="train", seed=seed))
        if not isinstance(pool, TaskPool):
            raise ConfigError(f"the curriculum 'ramp' turns players around, as xland does; {env_id} has no headings.")
        return lambda share: pool._replace(random_heading=pool.random_heading * min(share / RAMP, 1.0))
    if name == "doors":
        leads_to = {f"xland/doors-{n}-v1": families for n, families in DOORS.items()}
        id = registry.resolve(env_id, registry.ids())
        if id not in leads_to:
            raise ConfigError(f"the curriculum 'doors' leads to {', '.join(leads_to)}; got {env_id!r}.")
        mixed = mixture(leads_to[id], seed=seed, **options)
        return lambda share: mixed
    raise ConfigError(f"no curriculum {name!r}; {did_you_mean(name, ['doors', 'foundation', 'ramp'])}")
