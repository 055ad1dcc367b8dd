import subprocess
import sys

import jax
import pytest

from rekindle.core.errors import ConfigError
from rekindle.envs import registry
from rekindle.envs.xland import presets, spec


def test_every_listed_family_exists_and_every_family_is_listed():
    assert set(spec.ENVS) == set(presets.PRESETS)
    assert set(spec.ENVS) <= set(registry.ids())


def test_a_made_environment_draws_its_own_tasks():
    made = registry.make("xland/doors-3", worlds=4, games=8)
    assert made.spec.id == "xland/doors-3-v1" and made.trials == 3
    task = made.draw(jax.random.key(0), made.pool(split="train", seed=0))
    _, step = made.env.reset(jax.random.key(1), task)
    assert set(step.obs) == set(made.spec.obs) and 1 <= task.trials <= 3


def test_versions_and_typing_errors():
    assert registry.resolve("a/b", ["a/b-v2", "a/b-v10", "a/b-v9", "a/bc-v11"]) == "a/b-v10"
    with pytest.raises(ConfigError, match="'xland/f0t-v1'"):
        registry.make("xland/f0tt")


def test_listing_ids_imports_nothing_heavy():
    code = "import sys; from rekindle.envs.xland import spec; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_that_are_not_given_have_their_usual_values():
    assert registry.defaults("minatar/breakout") == {"sticky": 0.1} and registry.defaults("gymnax/CartPole-v1") == {
        "sticky": 0.0
    }
    assert registry.defaults("gymnasium/CartPole-v1") == {}
