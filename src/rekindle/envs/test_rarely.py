import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.envs import rarely as module
from rekindle.envs.rarely import rarely


def double(x, y, z):
    return {"sum": x["sum"] + y, "name": x["name"] * z}


def expected(flag, x, y, z):
    return jax.tree.map(lambda new, old: np.where(flag, new, old), double(x, y, z), x)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_only_flagged_rows_change_whatever_their_number(share):
    rng = np.random.default_rng(0)
    flag = rng.random(3 * module.BLOCK + 5) < share
    x = {"sum": rng.integers(0, 9, flag.size).astype(np.int8), "name": rng.random(flag.size).astype(np.float32)}
    y, z = rng.integers(1, 5, flag.size).astype(np.int8), np.float32(2)

    out = jax.jit(jax.vmap(lambda flag, x, y: rarely(flag, double, x, y, z)))(flag, x, y)

    jax.tree.map(np.testing.assert_array_equal, out, expected(flag, x, y, z))


def test_unbatched_and_twice_batched():
    x = {"sum": jnp.int8(1), "name": jnp.float32(3)}
    for flag in (True, False):
        out = rarely(jnp.bool_(flag), double, x, jnp.int8(2), jnp.float32(2))
        assert (int(out["sum"]), float(out["name"])) == ((3, 6.0) if flag else (1, 3.0))

    flags = np.random.default_rng(1).random((3, 100)) < 0.3
    grown = jax.vmap(jax.vmap(lambda flag: rarely(flag, double, x, jnp.int8(2), jnp.float32(2))))(flags)
    np.testing.assert_array_equal(grown["sum"], np.where(flags, 3, 1))


def test_a_loop_inside_ends_row_by_row():
    def count_up(n, limit):
        return jax.lax.while_loop(lambda n: n < limit, lambda n: n + 1, n)

    limits = np.arange(200, dtype=np.int32)
    out = jax.jit(jax.vmap(lambda limit: rarely(limit % 3 == 0, count_up, jnp.int32(0), limit)))(limits)
    np.testing.assert_array_equal(out, np.where(limits % 3 == 0, limits, 0))
