import jax
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs import registry
from rekindle.envs.xland import diluted, planner, pools
from rekindle.envs.xland.presets import env_for, pool_for, quiet


def test_most_of_a_diluted_pool_is_useless_in_the_promised_shares():
    pool = pool_for("xland/f0-diluted", split="train", seed=0, worlds=16, games=40, pairs=40)
    games = len(pool.games.goal)
    new = np.flatnonzero(pool.pairs[:, 1] >= 40)
    assert (len(pool.pairs), len(new), games) == (40, 36, 76)
    still = quiet(env_for("xland/f0"), pool)
    solved = new[(pool.games.rules[pool.pairs[new, 1]] == 0).all(axis=(1, 2)) & ~still[new]]
    assert len(solved) == 18  # doing nothing earns a reward
    hopeless = np.setdiff1d(new, solved)
    assert len(hopeless) == 18 and still[hopeless].all()
    tasks = [jax.tree.map(np.asarray, pools.task(pool, int(i), 1)) for i in hopeless]
    plans = planner.plan_many(env_for("xland/f0"), tasks)
    assert not any(plan.solvable for plan in plans)
    assert registry.make("xland/f0-diluted").trials == 4


def test_nonsense_is_refused():
    pool = pool_for("xland/f0", split="train", seed=0, worlds=4, games=4, pairs=4)
    with pytest.raises(ConfigError, match=r"add up to at most 1; got 0\.7 and 0\.6"):
        diluted.dilute(pool, np.random.default_rng(0), learnable=0.7, impossible=0.6)
    with pytest.raises(ConfigError, match="chosen pairs"):
        diluted.dilute(pool_for("xland/doors-2", split="train", seed=0, worlds=4, games=4), np.random.default_rng(0),
                       learnable=0.1, impossible=0.1)  # fmt: skip
