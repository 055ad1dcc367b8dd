import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete, MultiDiscrete, Text
from rekindle.core.types import EnvSpec
from rekindle.envs import registry
from rekindle.networks import encoders
from rekindle.networks.encoders import NODES, FlatEncoder, TaskGridEncoder, TileEncoder, TypeMemory, make_encoder

SPEC = registry.make("xland/f0").spec
TYPES, T, B, WIDTH = 12, 4, 3, 16
PERMUTATION = np.random.default_rng(1).permutation(TYPES)


def things(rng, shape) -> np.ndarray:
    """Random (shape, colour) pairs: object types, me, nobody, and hidden objects."""
    table = [(s, c) for c in (1, 2, 3) for s in (1, 2, 3, 4)] + [(5, 0), (0, 0), (7, 4), (8, 5), (11, 8)]
    return np.array(table, np.int8)[rng.integers(len(table), size=shape)]


def observations(seed: int = 0) -> dict:
    """[T, B] observations of valid codes, of rules too: visible, in part hidden, wholly hidden, and absent."""
    rng = np.random.default_rng(seed)
    view = np.zeros((T, B, 9, 9, 2), np.int8)
    objects = rng.random((T, B, 9, 9)) < 0.3
    view[..., 0] = np.where(objects, rng.integers(5, 9, objects.shape), rng.choice([0, 1, 2, 3, 4, 9], objects.shape))
    view[..., 1] = np.where(objects, rng.integers(1, 4, objects.shape), 0)
    rules = np.concatenate(
        [
            rng.integers(0, 2, (T, B, 4, 1)),
            rng.integers(1, 7, (T, B, 4, 1)),
            things(rng, (T, B, 4, 5)).reshape(T, B, 4, 10),
        ],
        axis=-1,
    )
    rules[:, :, 2] = [2] + [0] * 11
    rules[:, :, 3] = 0
    goal = [np.zeros((T, B, 1)), rng.integers(1, 5, (T, B, 1)), things(rng, (T, B, 2)).reshape(T, B, 4)]
    hand = things(rng, (T, B))
    hand[hand[..., 1] == 0] = 0
    obs = {
        "view": view,
        "heading": rng.integers(0, 4, (T, B)).astype(np.int8),
        "hand": np.where(hand[..., :1] <= 4, hand, 0).astype(np.int8),
        "goal": np.concatenate(goal, -1).astype(np.int8),
        "rules": rules.astype(np.int8),
        "prev_action": rng.integers(0, 8, (T, B)).astype(np.int32),
        "prev_reward": rng.random((T, B)).astype(np.float32),
        "trial": rng.random((T, B, 11)).astype(np.float32),
    }
    assert {n: x.shape[2:] for n, x in obs.items()} == {n: s.shape for n, s in SPEC.obs.items()}
    return jax.tree.map(jnp.asarray, obs)


def renamed(obs: dict) -> dict:
    """Every object type under another name, wherever it occurs."""

    def pairs(x: np.ndarray, first_shape: int) -> np.ndarray:
        shape, colour = x[..., 0] - first_shape, x[..., 1] - 1
        is_object = (shape >= 0) & (shape < 4) & (colour >= 0) & (colour < 3)
        new = PERMUTATION[np.where(is_object, colour * 4 + shape, 0)]
        return np.where(is_object[..., None], np.stack([new % 4 + first_shape, new // 4 + 1], -1), x).astype(np.int8)

    obs = {n: np.array(x) for n, x in obs.items()}
    for name, skip in (("goal", 2), ("rules", 2), ("hand", 0)):
        x = obs[name]
        told = pairs(x[..., skip:].reshape(*x.shape[:-1], -1, 2), 1).reshape(*x.shape[:-1], -1)
        obs[name] = np.concatenate([x[..., :skip], told], axis=-1)
    obs["view"] = pairs(obs["view"], 5)
    return jax.tree.map(jnp.asarray, obs)


@pytest.fixture(scope="module")
def nets():
    encoder_key, types_key = jax.random.split(jax.random.key(0))
    return TaskGridEncoder(encoder_key, SPEC, WIDTH), TypeMemory(types_key, SPEC, WIDTH)


@eqx.filter_jit
def both(nets, obs, start, h):
    out, nodes = nets[0](obs)
    return out, nodes, *nets[1](h, nodes, obs, start)


def encode(nets, obs, start=None, h=None):
    """Vectors, meanings, type memory after the last step, and the view read in its light."""
    h = nets[1].init_carry(B) if h is None else h
    return jax.device_get(both(nets, obs, jnp.zeros((T, B), bool) if start is None else start, h))


def test_names_of_object_types_mean_nothing_by_themselves(nets):
    encoder, types = nets
    order = np.arange(NODES)
    order[PERMUTATION] = np.arange(TYPES)  # the new name at `order[i]` is of the old type i
    permuted = eqx.tree_at(lambda e: e.identity, encoder, encoder.identity[order])
    h = jax.random.normal(jax.random.key(1), (B, NODES, 8))
    out, nodes, memory, read = encode(nets, observations(), h=h)
    out_2, nodes_2, memory_2, read_2 = encode((permuted, types), renamed(observations()), h=h[:, order])
    np.testing.assert_allclose(out_2, out, atol=1e-5)
    np.testing.assert_allclose(read_2, read, atol=1e-5)
    np.testing.assert_allclose(nodes_2, nodes[:, :, order], atol=1e-5)
    np.testing.assert_allclose(memory_2, memory[:, order], atol=1e-5)
    other = encode(nets, renamed(observations()), h=h[:, order])[0]
    assert np.abs(other - out).max() > 1e-3  # without the renamed identities it is another world


def test_the_number_of_rules_may_differ(nets):
    obs = observations()
    more = {**obs, "rules": jnp.concatenate([obs["rules"], jnp.zeros((T, B, 5, 12), jnp.int8)], axis=2)}
    for a, b in zip(encode(nets, obs), encode(nets, more), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_order_of_rules_means_nothing(nets):
    obs = observations()
    shuffled = {**obs, "rules": obs["rules"][:, :, [2, 0, 3, 1]]}
    np.testing.assert_allclose(encode(nets, shuffled)[0], encode(nets, obs)[0], atol=1e-5)


def test_a_hidden_rule_is_not_an_absent_one(nets):
    obs = observations()
    hidden, absent = (jnp.zeros((T, B, 4, 12), jnp.int8).at[:, :, 0, 0].set(sign) for sign in (2, 0))
    one, none = (encode(nets, {**obs, "rules": rules}) for rules in (hidden, absent))
    np.testing.assert_array_equal(one[1], none[1])  # it names no type, so that no type means anything else for it
    told = obs["rules"].at[:, :, 1:].set(0)
    placed = told.at[:, :, 0, 4:6].set(jnp.array([7, 4], jnp.int8))
    a, b = (encode(nets, {**obs, "rules": rules}) for rules in (told, placed))
    assert all(np.isfinite(x).all() for x in b) and (a[1] != b[1]).any()


def test_nodes_by_hand():
    pairs = [(0, 0), (1, 1), (4, 1), (1, 2), (4, 3), (5, 0), (6, 0), (7, 4), (10, 7), (12, 9)]
    shape, colour = np.array(pairs).T
    found = encoders.node(jnp.asarray(shape), jnp.asarray(colour)).tolist()
    assert found == [NODES, 0, 3, 4, 11, 12, 13, 14, 17, 17]
    assert not encoders.one_node(jnp.array(NODES)).any()
    view = jnp.array([[[[5, 1], [8, 3]], [[9, 0], [2, 0]]]], jnp.int8)
    assert encoders.seen_nodes(view).tolist() == [[[0, 11], [NODES, NODES]]]


def test_rows_and_steps_do_not_leak(nets):
    obs, other = observations(), observations(1)
    h = jax.random.normal(jax.random.key(1), (B, NODES, 8))
    mixed = {n: x.at[:, 1].set(other[n][:, 1]) for n, x in obs.items()}
    out, nodes, memory, read = encode(nets, obs, h=h)
    out_2, nodes_2, memory_2, read_2 = encode(nets, mixed, h=h)
    for a, b, rows in ((out, out_2, 1), (nodes, nodes_2, 1), (read, read_2, 1), (memory, memory_2, 0)):
        np.testing.assert_array_equal(np.delete(a, 1, rows), np.delete(b, 1, rows))
        assert (a != b).any()
    later = {n: x.at[2:].set(other[n][2:]) for n, x in obs.items()}
    np.testing.assert_array_equal(encode(nets, later, h=h)[3][:2], read[:2])


def test_the_type_memory_is_emptied_at_starts(nets):
    obs = observations()
    start = jnp.zeros((T, B), bool).at[2, 0].set(True)
    h = jax.random.normal(jax.random.key(1), (B, NODES, 8))
    reset, kept = encode(nets, obs, start, h), encode(nets, obs, None, h)
    np.testing.assert_array_equal(reset[3][:, 1:], kept[3][:, 1:])
    assert (reset[2][0] != kept[2][0]).any()
    shifted = encode(nets, {n: jnp.roll(x, -2, axis=0) for n, x in obs.items()})
    np.testing.assert_allclose(reset[3][2:, 0], shifted[3][: T - 2, 0], atol=1e-5)


def test_the_encoder_follows_from_the_spec():
    flat = EnvSpec("t", 1, {"b": Discrete(3), "a": Box((2,), 0, 1), "c": MultiDiscrete((2, 2))}, Discrete(2))
    encoder = make_encoder(jax.random.key(0), flat, 8)
    assert isinstance(encoder, FlatEncoder) and isinstance(make_encoder(jax.random.key(0), SPEC, 8), TaskGridEncoder)
    obs = {"a": jnp.ones((5, 2)), "b": jnp.zeros(5, jnp.int32), "c": jnp.ones((5, 2), jnp.int32)}
    out, none = encoder(obs)
    by_hand = jnp.array([1.0, 1, 1, 0, 0, 0, 1, 0, 1]) @ encoder.layer.weight
    np.testing.assert_allclose(out, jnp.broadcast_to(jax.nn.relu(by_hand), (5, 8)), atol=1e-5)
    assert none is None
    with pytest.raises(ConfigError, match="'words' is Text"):
        make_encoder(jax.random.key(0), EnvSpec("t", 1, {"words": Text()}, Discrete(2)), 8)


def tile_observations(spec: EnvSpec, seed: int = 0) -> dict:
    """[T, B] random observations of a MiniGrid spec."""
    rng = np.random.default_rng(seed)
    obs = {
        "tiles": np.stack([rng.integers(0, 13, (T, B, 5, 5)), rng.integers(0, 12, (T, B, 5, 5))], -1).astype(np.uint8),
        "heading": rng.integers(0, 4, (T, B)).astype(np.int8),
        "goal": rng.integers(1, 12, (T, B, 5)).astype(np.uint8),
        "rules": rng.integers(1, 12, (T, B, 4, 7)).astype(np.uint8),
        "prev_action": rng.integers(0, 7, (T, B)).astype(np.int32),
        "prev_reward": rng.random((T, B)).astype(np.float32),
        "trial": rng.random((T, B, 11)).astype(np.float32),
    }
    return {name: jnp.asarray(obs[name]) for name in spec.obs}


TOLD = registry.make("minigrid/x-small", show_task=True).spec


def test_tiles_are_read_by_position_and_colour():
    encoder = make_encoder(jax.random.key(0), TOLD, WIDTH)
    assert isinstance(encoder, TileEncoder) and [len(c.weight) for c in encoder.convolutions] == [128, 64, 128]
    obs = tile_observations(TOLD)
    before, nodes = encoder(obs)
    assert before.shape == (T, B, WIDTH) and nodes is None
    for channel in (0, 1):
        other = (obs["tiles"][2, 1, 2, 2, channel] + jnp.uint8(1)) % jnp.uint8(12)
        changed = obs["tiles"].at[2, 1, 2, 2, channel].set(other)
        after, _ = encoder({**obs, "tiles": changed})
        assert (np.any(after != before, axis=-1) == (np.arange(T * B).reshape(T, B) == 2 * B + 1)).all()


def test_goal_and_rules_are_read_where_they_are_shown_and_padding_is_not():
    encoder, obs = make_encoder(jax.random.key(0), TOLD, WIDTH), tile_observations(TOLD)
    before, _ = encoder(obs)
    longer = jnp.pad(obs["rules"], ((0, 0), (0, 0), (0, 3), (0, 0)))
    np.testing.assert_allclose(encoder({**obs, "rules": longer})[0], before, atol=1e-5)
    assert np.any(encoder({**obs, "rules": obs["rules"].at[..., 0].set(1)})[0] != before)
    assert np.any(encoder({**obs, "goal": obs["goal"].at[..., 3].set(1)})[0] != before)
    hidden = registry.make("minigrid/x-small").spec
    assert encoder(obs)[0].shape == make_encoder(jax.random.key(0), hidden, WIDTH)(tile_observations(hidden))[0].shape


def test_a_small_view_has_fewer_convolutions():
    spec = registry.make("minigrid/x-small", view=3).spec
    encoder = make_encoder(jax.random.key(0), spec, WIDTH)
    assert isinstance(encoder, TileEncoder) and len(encoder.convolutions) == 2
    obs = tile_observations(spec)
    assert encoder({**obs, "tiles": obs["tiles"][:, :, 2:, 1:4]})[0].shape == (T, B, WIDTH)
