from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.networks.memory import MEMORIES, make_memory, num_parameters, width_for
from rekindle.networks.transformer_xl import TransformerXL, waves

T, B, N, D = 24, 3, 5, 8
SIZES = {"layers": 2, "heads": 2, "slots": 4}


def made(name, **sizes):
    return make_memory(name, jax.random.key(0), N, D, **{**SIZES, **sizes})


def inputs(steps=T):
    return jax.random.normal(jax.random.key(1), (steps, B, N))


def starts(*at, steps=T):
    start = jnp.zeros((steps, B), bool)
    for step, row in at:
        start = start.at[step, row].set(True)
    return start


STARTS = starts((0, 0), (0, 1), (0, 2), (7, 1), (13, 0), (14, 0))


@jax.jit
def one_by_one(memory, carry, x, start):
    def step(carry, now):
        carry, out = memory(carry, now[0][None], now[1][None])
        return carry, out[0]

    return jax.lax.scan(step, carry, (x, start))


@jax.jit
def windowed(memory, carry, x, start):
    return memory(carry, x, start)


@pytest.mark.parametrize("name", MEMORIES)
def test_actor_steps_equal_learner_windows(name):
    memory, x = made(name), inputs()
    carry, want = one_by_one(memory, memory.init_carry(B), x, STARTS)
    for cut in (7,):
        first, begun = windowed(memory, memory.init_carry(B), x[:cut], STARTS[:cut])
        last, ended = windowed(memory, first, x[cut:], STARTS[cut:])
        np.testing.assert_allclose(jnp.concatenate([begun, ended]), want, atol=1e-5)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), last, carry)


@pytest.mark.parametrize("name", MEMORIES)
def test_earlier_episodes_are_forgotten_and_the_present_one_is_not(name):
    memory, x = made(name), inputs(20)
    start = starts((0, 0), (0, 1), (0, 2), (9, 1), steps=20)
    out = windowed(memory, memory.init_carry(B), x, start)[1]
    moved = windowed(memory, memory.init_carry(B), x.at[8].add(1.0), start)[1]
    np.testing.assert_array_equal(out[9:, 1], moved[9:, 1])
    assert np.abs(out[9:12, [0, 2]] - moved[9:12, [0, 2]]).max(axis=(0, 2)).min() > 1e-4


@pytest.mark.parametrize(("layers", "every"), [(1, 1), (3, 1)])
def test_the_horizon_is_layers_times_slots(layers, every):
    memory = TransformerXL(jax.random.key(0), N, D, layers=layers, heads=2, slots=4, every=every)
    horizon, x = 4 * layers, inputs()
    out = windowed(memory, memory.init_carry(B), x, starts())[1]
    moved = windowed(memory, memory.init_carry(B), x.at[2].add(3.0), starts())[1]
    changed = np.abs(out - moved).max(axis=(1, 2)) > 0
    assert changed[2 : 3 + horizon].all()
    assert not changed[:2].any() and not changed[3 + horizon :].any()


def test_the_skip_memory_reaches_four_times_as_far():
    memory, x = TransformerXL(jax.random.key(0), N, D, layers=1, heads=2, slots=4, every=4), inputs()
    out = one_by_one(memory, memory.init_carry(B), x, starts())[1]
    for at, reaches in ((4, [4, *range(5, 21)]), (5, [5])):  # step 4 is written, step 5 is not
        moved = one_by_one(memory, memory.init_carry(B), x.at[at].add(3.0), starts())[1]
        assert np.flatnonzero(np.abs(out - moved).max(axis=(1, 2)) > 0).tolist() == reaches


def test_the_store_keeps_every_eighth_state():
    memory, x = made("gru+attention", slots=2), inputs()
    carry, out = one_by_one(memory, memory.init_carry(B), x, starts())
    np.testing.assert_array_equal(carry.past[:, 0], out[16])
    np.testing.assert_array_equal(carry.past[:, 1], out[8])
    assert carry.filled.tolist() == [2] * B


def test_attention_equals_the_equations():
    memory = TransformerXL(jax.random.key(0), N, 4, layers=1, heads=2, slots=4)
    bias = jax.random.normal(jax.random.key(3), (2, 2, 2))
    block = eqx.tree_at(lambda b: (b.content_bias, b.distance_bias), memory.blocks[0], tuple(bias))
    memory = eqx.tree_at(lambda m: m.blocks[0], memory, block)
    x = np.asarray(inputs(3)[:, :1] @ memory.enter.weight)
    norm = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    q, k, v = (np.asarray(norm @ w.weight).reshape(3, 2, 2) for w in (block.query, block.key, block.value))
    r = np.asarray(block.distance(waves(jnp.arange(3)[None], 4)))[0].reshape(3, 2, 2)
    read = np.zeros((3, 2, 2))
    for i in range(3):
        for head in range(2):
            score = [
                (q[i, head] @ k[j, head] + q[i, head] @ r[i - j, head] + bias[0, head] @ k[j, head]
                 + bias[1, head] @ r[i - j, head]) / np.sqrt(2) for j in range(i + 1)
            ]  # fmt: skip
            weight = np.exp(score) / np.exp(score).sum()
            read[i, head] = sum(w * v[j, head] for j, w in enumerate(weight))
    y = x[:, 0] + read.reshape(3, 4) @ np.asarray(block.out.weight)
    norm = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    gated = np.asarray(jax.nn.gelu(norm @ block.gate.weight)) * np.asarray(norm @ block.up.weight)
    y = y + gated @ np.asarray(block.down.weight)
    out = memory(memory.init_carry(1), inputs(3)[:, :1], jnp.zeros((3, 1), bool))[1]
    np.testing.assert_allclose(out[:, 0], (y - y.mean(-1, keepdims=True)) / y.std(-1, keepdims=True), atol=1e-4)


def test_refreshed_memories_follow_the_weights():
    memory = made("transformer-xl")
    carry, _ = windowed(memory, memory.init_carry(B), inputs(), STARTS)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), memory.refresh(carry), carry)
    other = jax.tree.map(lambda w: w * 1.1, memory)
    x, start = inputs(2)[:1], starts(steps=1)
    want = windowed(other, carry, inputs(2), starts(steps=2))[1][0]
    np.testing.assert_allclose(one_by_one(other, other.refresh(carry), x, start)[1][0], want, atol=1e-5)
    assert np.abs(one_by_one(other, carry, x, start)[1][0] - want).max() > 1e-4


@pytest.mark.parametrize("name", MEMORIES)
def test_widths_are_solved_for_equal_parameters(name):
    budget = num_parameters(make_memory("transformer-xl", jax.random.key(0), 64, 64))
    width = width_for(name, 64, budget)
    assert abs(num_parameters(make_memory(name, jax.random.key(0), 64, width)) / budget - 1) < 0.06


def test_unusable_sizes_are_refused():
    with pytest.raises(ConfigError, match="multiple of its heads=3; got 8"):
        made("transformer-xl", heads=3)
    with pytest.raises(ConfigError, match="no memory 'lstm'"):
        made("lstm")
