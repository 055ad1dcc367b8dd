from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.replay import mapped
from rekindle.replay import ring as rings
from rekindle.replay.mapped import Mapped
from rekindle.replay.ring import Step

ROWS, STACK = 2, 4


def lived(steps, seed):
    """Steps of two rows with frames, ends and labels, all by chance."""
    rng = np.random.default_rng(seed)
    ended = rng.random((2, steps, ROWS)) < 0.15
    frames = rng.integers(1, 255, (steps, ROWS, 3, 3, 1), dtype=np.uint8)
    return Step(
        {"obs": frames}, rng.integers(0, 9, (steps, ROWS), dtype=np.int32),
        rng.normal(size=(steps, ROWS)).astype(np.float32), ended[0], ended[1] & ~ended[0],
        rng.normal(size=(steps, ROWS, 2)).astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize(("before", "added", "n"), [(0, 9, 1), (0, 40, 3), (7, 3, 3), (7, 9, 3), (30, 40, 1)])
def test_it_gives_what_a_ring_on_the_device_gives(before, added, n, tmp_path, monkeypatch):
    """Every transition that can be drawn, bit for bit: rings that are full or not, and begin with another's steps."""
    monkeypatch.setattr(mapped, "LEAST", 5)
    theirs = rings.in_place(rings.named(lived(before, 1))) if before else None
    every, slots = lived(added, 2), 12
    device = rings.empty(jax.tree.map(lambda x: x[0], every), slots)
    if theirs is not None:
        device = rings.adopted(jax.tree.map(jnp.asarray, theirs), slots)
    host = Mapped(tmp_path / "replay", slots, theirs)
    host.stand_at(host.kept, jax.tree.map(lambda x: x[0], every))
    device = jax.jit(lambda ring, every: jax.lax.scan(lambda ring, step: (rings.add(ring, step), None), ring, every))(
        device, every
    )[0]
    for t in range(added):
        host.write(jax.tree.map(lambda x, t=t: x[t], every))
    oldest = int(device.added) - int(device.filled)
    number = np.arange(oldest, host.added - n).repeat(ROWS)
    index = (number % slots * ROWS + np.tile(np.arange(ROWS), len(number) // ROWS)).astype(np.int32)
    settings = {"n": n, "gamma": 0.9, "stack": STACK}
    wanted = jax.jit(partial(rings.gather, **settings))(device, jnp.asarray(index))
    found = jax.jit(partial(rings.made_of, **settings))(host.window(index, before=STACK - 1, after=n))
    found = found._replace(place=wanted.place)
    whole, goes_on = (np.asarray(x) for x in (wanted.weight > 0, (wanted.weight > 0) & (wanted.discount > 0)))
    assert whole.any()
    for leaf, rows in {"obs": whole, "next_obs": goes_on}.items():
        np.testing.assert_array_equal(getattr(found, leaf)["obs"][rows], getattr(wanted, leaf)["obs"][rows])
    alike = [batch._replace(obs={}, next_obs={}) for batch in (found, wanted)]
    jax.tree.map(np.testing.assert_array_equal, *alike)
    with host.unrolled() as steps:
        jax.tree.map(np.testing.assert_array_equal, steps, rings.to_arrays(rings.unlabelled(device)))
    for number in range(oldest, host.added):
        np.testing.assert_array_equal(host.truncated(number), device.steps.truncated[number % slots])
    assert not host.truncated(-1).any()


def test_adopting_a_stored_replay_copies_nothing_and_writes_nothing_there(tmp_path):
    """Of 64 MiB on the disk nothing is in memory but what is drawn."""
    shape = (4096, ROWS, 64, 64, 2)
    frames = mapped.stored(tmp_path / "obs.npy", np.dtype(np.uint8), shape, (np.full((1, *shape[1:]), 7, np.uint8),))
    small = lived(4096, 3)
    data = rings.in_place(rings.named(small._replace(obs={"obs": frames})))
    assert np.shares_memory(data.steps.obs["obs"], frames)
    host = Mapped(tmp_path / "replay", 5000, data)
    assert host.adopted is data and np.shares_memory(host.adopted.steps.obs["obs"], frames)
    with host.unrolled() as steps:
        assert np.shares_memory(steps["obs.obs"], frames)
    before, like = (tmp_path / "obs.npy").stat().st_mtime_ns, jax.tree.map(lambda x: x[0], data.steps)
    host.stand_at(4096, like)
    host.write(like)
    window = host.window(np.array([0, 2 * 4096], np.int32), before=0, after=0)
    np.testing.assert_array_equal(window.ring.steps.obs["obs"][0], np.full((2, *shape[2:]), 7))
    assert (tmp_path / "obs.npy").stat().st_mtime_ns == before and not frames.flags.writeable
    on_disk = sum(path.stat().st_blocks * 512 for path in (tmp_path / "replay").iterdir())
    assert on_disk < 2**20  # the student's own files are as large as what is in them
