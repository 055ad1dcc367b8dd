import jax
import jax.numpy as jnp

from rekindle.core import compiling
from rekindle.core.compiling import compiler_options
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec


def spec(**obs):
    return EnvSpec("x", 1, obs, Discrete(2), kind="host")


def test_only_large_pictures_have_options_and_jax_takes_them():
    picture, plane, numbers = (Box(shape, 0, 255, "uint8") for shape in ((84, 84, 4), (10, 10, 4), (17,)))
    assert compiler_options(spec(obs=plane)) == compiler_options(spec(obs=numbers, which=Discrete(3))) == {}
    options = compiler_options(spec(obs=picture, which=Discrete(3)))
    x, weights = jnp.ones((32, 512)), jnp.ones((512, 512))
    by_itself, asked = (
        jax.jit(lambda x, w: x @ w, compiler_options=o).lower(x, weights).compile().as_text() for o in ({}, options)
    )
    assert "ynn_fusion" in by_itself and "ynn_fusion" not in asked


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiling, "OPTIONS", {"xla_cpu_of_the_future": "on"})
    compiling._without_library.cache_clear()
    assert compiler_options(spec(obs=Box((84, 84, 4), 0, 255, "uint8"))) == {}
    compiling._without_library.cache_clear()
