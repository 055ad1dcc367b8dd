import dataclasses
import json
import re
from dataclasses import fields
from functools import cache, partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.conformance import check_agent
from rekindle.agents.mrq import ablations, mrq
from rekindle.agents.mrq import nets as mrq_nets
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.tree import flatten_arrays
from rekindle.core.types import EnvSpec, Past, Sequences
from rekindle.envs import registry
from rekindle.replay import windows
from rekindle.replay.ring import Step

FLAT = EnvSpec("test/flat", 1, {"b": Box((2, 2), -1, 1), "a": Box((3,), -5, 5)}, Box((2,), -2, 2))
CHOICES = dataclasses.replace(FLAT, action=Discrete(3))
PICTURE = EnvSpec("test/picture", 1, {"x": Box((31, 31, 3), 0, 255, "uint8")}, Discrete(3))
TINY = {"warmup": 16, "state_width": 8, "pair_width": 8, "action_width": 4, "hidden": 8, "batch": 6, "capacity": 64,
        "encoder_horizon": 2}  # fmt: skip


def tiny(**settings):
    return mrq.Config(**{**TINY, **settings})


@cache
def begun(spec=FLAT):
    return jax.jit(lambda key: mrq.init(tiny(), key, spec))(jax.random.key(0))


def sequences(spec=FLAT, *lead, seed=0, batch=6):
    """Random windows of five steps; one terminates in its first."""
    rng, shape = np.random.default_rng(seed), (*lead, 5, batch)

    def seen(space):
        x = rng.uniform(max(space.low, -9), space.high, (*lead, 6, batch, *space.shape))
        return jnp.asarray(x, space.dtype)

    discrete = isinstance(spec.action, Discrete)
    action = rng.integers(0, 3, shape, dtype=np.int32) if discrete else rng.uniform(-2, 2, (*shape, 2)).astype("f4")
    over = np.zeros(shape, bool)
    over[..., 0, 0] = True
    reward = rng.normal(size=shape).astype(np.float32)
    return Sequences({n: seen(s) for n, s in spec.obs.items()}, jnp.asarray(action), jnp.asarray(reward),
                     jnp.asarray(over), jnp.zeros((*lead, batch), jnp.int32))  # fmt: skip


@cache
def updating(config):
    return jax.jit(partial(mrq.update, config))


@cache
def preparing(config):
    return jax.jit(partial(mrq.prepare, config))


PAST = Past(jnp.float32(0.5), jnp.array(True))


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        ((17, 6), (3_857_226, 1_751_874, 534_528, 920_832, 296_514, 1_576_962, 528_390)),
        ((11, 3), (3_851_847,)),
        ((27, 8), (3_863_884,)),
        ((376, 17), (4_049_493,)),
        ((223, 38), (3_987_306,)),
        ((9, Box((6,), -1, 1)), (4_156_394,)),
        ((4, Discrete(6)), (4_154_954,)),
        ((4, Discrete(18)), (4_164_182,)),
    ],
    ids=str,
)
def test_parameters_are_as_many_as_counted(spec, sizes):
    """Section 4.7, exactly."""
    shown, action = spec
    space = action if not isinstance(action, int) else Box((action,), -1, 1)
    seen = Box((shown,), -9, 9) if isinstance(action, int) else Box((84, 84, shown), 0, 255, "uint8")
    spec = EnvSpec("test", 1, {"x": seen}, space)
    nets = eqx.filter_eval_shape(lambda key: mrq.init(mrq.Config(), key, spec).nets, jax.random.key(0))
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    encoder = nets.encoder
    pairs = (encoder.action, encoder.first, encoder.rest)
    counted = map(count, (nets, encoder, encoder.features, pairs, encoder.model, nets.values, nets.actor))
    assert tuple(counted)[: len(sizes)] == sizes


def same(a, b):
    a, b = flatten_arrays(a), flatten_arrays(b)
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_what_learns_when():
    """6.11, P10: the encoder alone in `prepare`, critics and policy alone in `update`, targets copied by the former."""
    config, spec = tiny(), FLAT
    state = begun(spec)
    update = updating(config)
    prepare = preparing(config)
    first = prepare(jax.random.key(1), state, sequences(spec, 3), PAST).state
    assert same(first.nets.values, state.nets.values) and same(first.nets.actor, state.nets.actor)
    assert same(first.targets, state.nets)
    for part in ("features", "action", "first", "rest", "model"):
        assert not same(getattr(first.nets.encoder, part), getattr(state.nets.encoder, part))
    second = update(jax.random.key(2), first, sequences(spec)).state
    assert same(second.nets.encoder, first.nets.encoder) and same(second.opts.encoder, first.opts.encoder)
    assert same(second.targets, state.nets)
    assert not same(second.nets.values, first.nets.values) and not same(second.nets.actor, first.nets.actor)
    third = prepare(jax.random.key(3), second, sequences(spec, 3), PAST._replace(reward_size=jnp.array(2.0))).state
    assert same(third.targets, second.nets)
    # 2.4: critics' unit today, and when the targets were trained
    assert [float(s.scale) for s in (state, first, second, third)] == [1.0, 0.5, 0.5, 2.0]
    assert [float(s.target_scale) for s in (state, first, second, third)] == [1.0, 1.0, 1.0, 0.5]


def test_the_policys_step_leaves_the_critics_alone():
    config = tiny()
    state, z = begun(), jnp.asarray(np.random.default_rng(0).normal(size=(6, 8)), jnp.float32)
    step = jax.jit(partial(mrq.policy_step, config))
    nets, opts, _ = step(jax.random.key(1), state.nets, state.opts, z)
    assert same(nets.values, state.nets.values) and same(nets.encoder, state.nets.encoder)
    assert same(opts.values, state.opts.values) and not same(nets.actor, state.nets.actor)


def test_steps_behind_a_termination_teach_nothing():
    config = tiny()
    state, batch = begun(), sequences(FLAT, 2)
    garbage = batch._replace(
        obs=jax.tree.map(lambda x: x.at[:, 2:, 0].add(7.0), batch.obs),
        action=batch.action.at[:, 1:, 0].set(1.0),
        reward=batch.reward.at[:, 1:, 0].set(99.0),
        terminated=batch.terminated.at[:, 1:, 0].set(True),
    )
    prepare, update = preparing(config), updating(config)
    learnt = [prepare(jax.random.key(1), state, b, PAST).state.nets for b in (batch, garbage)]
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), *learnt)
    one, other = (jax.tree.map(lambda x: x[0], b) for b in (batch, garbage))
    learnt = [update(jax.random.key(2), state, b).state.nets for b in (one, other)]
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), *learnt)
    moved = update(jax.random.key(2), state, one._replace(reward=one.reward.at[0, 0].add(9.0))).state.nets
    assert not same(moved.values, learnt[0].values)  # the reward of the termination counts


def test_features_are_of_all_numbers_in_order_and_never_below_minus_one():
    state, rng = begun(), np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(6, *s)), jnp.float32) for s in ((3,), (2, 2)))
    z = state.nets.encoder.features({"b": b, "a": a})
    assert z.shape == (6, 8) and float(z.min()) >= -1.0
    flat = begun(dataclasses.replace(FLAT, id="test/x", obs={"x": Box((7,), -1, 1)}))
    both = jnp.concatenate([a, b.reshape(6, 4)], axis=-1)
    np.testing.assert_allclose(flat.nets.encoder.features({"x": both}), z, atol=1e-6)


def test_the_model_is_unrolled_on_its_own_raw_predictions():
    """P10: step by step, by hand, against the loss."""
    config, batch = tiny(), sequences()
    state = begun()
    encoder, targets = state.nets.encoder, state.targets
    total, metrics = mrq.encoder_loss(config, mrq.PARTS, encoder, targets, batch, jnp.array(True))
    at = lambda t: {name: x[t] for name, x in batch.obs.items()}  # noqa: E731
    z, alive, dynamics = encoder.features(at(0)), jnp.ones(6), 0.0
    for t in range(2):
        said = encoder.predict(encoder.join(z, encoder.read(batch.action[t] / 2.0)))
        z = said[:, 1:9]
        dynamics += float(jnp.mean(alive[:, None] * (z - targets.encoder.features(at(t + 1))) ** 2))
        alive = alive * (1.0 - batch.terminated[t].astype(jnp.float32))
    assert float(metrics.dynamics_loss) == pytest.approx(dynamics, rel=1e-5) and float(z.min()) < -1.0
    parts = metrics.dynamics_loss + 0.1 * metrics.reward_loss + 0.1 * metrics.terminal_loss
    assert float(total) == pytest.approx(float(parts), rel=1e-5)


def test_evaluation_draws_discrete_actions_from_the_policy_or_takes_the_best():
    """6.8, P14: frequencies are softmax(logits)."""
    state, obs = begun(CHOICES), jax.tree.map(lambda x: x[0, :1], sequences(CHOICES).obs)
    obs = jax.tree.map(lambda x: jnp.repeat(x, 20_000, axis=0), obs)
    act = lambda config, **how: mrq.act(config, jax.random.key(1), state, (), obs, jnp.ones(20_000, bool), **how)  # noqa: E731
    logits = jnp.array([1.0, 2.0, 3.0])
    last = state.nets.actor.net.layers[-1]
    state = eqx.tree_at(lambda s: s.nets.actor.net.layers[-1], state, eqx.tree_at(
        lambda layer: (layer.weight, layer.bias), last, (jnp.zeros_like(last.weight), logits)))  # fmt: skip
    drawn = act(tiny(), explore=False)
    np.testing.assert_allclose(np.bincount(drawn.action) / 20_000, [0.090031, 0.244728, 0.665241], atol=0.012)
    np.testing.assert_allclose(drawn.extras.logits[0], logits, atol=1e-6)
    assert (act(tiny(eval_discrete="greedy"), explore=False).action == 2).all()


def test_exploration_is_random_before_the_first_update_and_then_noisy():
    config, batch = tiny(), sequences()
    state, obs = begun(), jax.tree.map(lambda x: jnp.repeat(x[0, :1], 5000, axis=0), batch.obs)
    act = jax.jit(partial(mrq.act, config), static_argnames="explore")
    start = jnp.ones(5000, bool)
    cold = np.asarray(act(jax.random.key(1), state, (), obs, start, explore=True).action)
    assert np.abs(cold).max() <= 2.0 and cold.std() == pytest.approx(4 / 12**0.5, rel=0.05)
    calm = act(jax.random.key(1), state, (), obs, start, explore=False)
    assert float(jnp.ptp(calm.action, axis=0).max()) == 0.0
    np.testing.assert_allclose(calm.action, 2.0 * calm.extras.mean, rtol=1e-6)
    last = state.nets.actor.net.layers[-1]
    middling = eqx.tree_at(lambda layer: layer.weight, last, jnp.zeros_like(last.weight))
    warm = eqx.tree_at(lambda s: s.nets.actor.net.layers[-1], state._replace(warm=jnp.array(True)), middling)
    noisy = np.asarray(act(jax.random.key(3), warm, (), obs, start, explore=True).action)
    np.testing.assert_allclose(noisy.std(axis=0), 2.0 * 0.2, rtol=0.05)
    assert np.abs(noisy.mean(axis=0)).max() < 0.03


def test_pictures_are_shifted_in_learning_and_not_in_acting():
    config, state, batch = tiny(), begun(PICTURE), sequences(PICTURE)
    features, actor, start = state.nets.encoder.features, state.nets.actor, jnp.ones(6, bool)
    shifted = [mrq.shifted(jax.random.key(seed), features, batch).obs["x"] for seed in (1, 2)]
    assert shifted[0].shape == batch.obs["x"].shape and (shifted[0] != shifted[1]).any()
    policy = mrq.MRQPolicy(features, actor, config)
    obs = jax.tree.map(lambda x: x[0], batch.obs)
    said = [policy.act(jax.random.key(seed), (), obs, start, explore=True).extras.logits for seed in (1, 2)]
    np.testing.assert_array_equal(*said)

    def learn(key):
        keys = jax.random.split(key)
        prepared = mrq.prepare(config, keys[0], state, jax.tree.map(lambda x: x[None], batch), PAST).state
        return mrq.update(config, keys[1], prepared, batch).state

    assert eqx.tree_equal(jax.eval_shape(learn, jax.random.key(3)), jax.eval_shape(lambda: state))
    both = {"x": PICTURE.obs["x"], "n": Box((2,), -1, 1)}
    with pytest.raises(ConfigError, match="one picture alone; test/picture shows x, n"):
        mrq.init(config, jax.random.key(0), dataclasses.replace(PICTURE, obs=both))
    for shape in ((84, 84), (84, 84, 1, 4)):
        grey = dataclasses.replace(PICTURE, obs={"x": Box(shape, 0, 255, "uint8")})
        with pytest.raises(ConfigError, match=r"shows x as \[84, 84.*GrayscaleObservation\(keep_dim=True\)"):
            mrq.init(config, jax.random.key(0), grey)


@pytest.mark.parametrize("high", [1, 255])
def test_small_pictures_are_numbers_from_0_to_1(high):
    small = dataclasses.replace(PICTURE, obs={"x": Box((10, 10, 4), 0, high, "uint8"), "n": Box((2,), -9, 9)})
    picture = jnp.asarray(np.random.default_rng(0).integers(0, high + 1, (5, 10, 10, 4)), jnp.uint8)
    rest = jnp.arange(10.0).reshape(5, 2)
    features = begun(small).nets.encoder.features
    flat = jnp.concatenate([rest, picture.reshape(5, -1) / high], axis=-1)
    wanted = mrq.elu(mrq_nets.normalise(features.net(flat, mrq.elu)))
    np.testing.assert_allclose(features({"x": picture, "n": rest}), wanted, rtol=1e-5, atol=1e-6)
    assert features.picture is None


def test_conforms():
    spec = dataclasses.replace(CHOICES, obs={"n": Discrete(4), "a": Box((3,), -1, 1)})
    check_agent(mrq.make(tiny(eval_discrete="greedy", value_rate=3e-3)), spec)


def test_the_encoder_learns_first_and_as_often_as_the_rest():
    """6.9 and P19, with a replay: after K updates, period * ceil(K / period) of the encoder, of places."""
    config = tiny(period=5, encoder_updates=5)
    agent, fetched = mrq.make(config), []
    needs, state = agent.needs, begun(CHOICES)
    assert (needs.kind, needs.length, needs.n_step) == ("sequence", 3, 3)
    assert (needs.prepare_period, needs.prepare_batches, needs.true_ends) == (5, 5, True)
    step = Step({n: jnp.ones((1, *s.shape)) for n, s in CHOICES.obs.items()}, jnp.zeros(1, jnp.int32), jnp.ones(1),
                jnp.zeros(1, bool), jnp.zeros(1, bool))  # fmt: skip
    replay = windows.empty(step, 64)
    for _ in range(20):
        replay = windows.add(replay, step, step.obs, horizon=needs.length)

    @jax.jit
    def prepare(key, state):
        draw_key, key = jax.random.split(key)
        places = windows.draw(draw_key, replay, needs.prepare_batches, needs.batch)
        fetch = partial(windows.gather, replay, length=needs.length)
        return agent.prepare(key, state, places, windows.past(replay), fetch=fetch)

    @jax.jit
    def update(key, state):
        draw_key, key = jax.random.split(key)
        return agent.update(key, state, windows.sample(draw_key, replay, needs.batch, length=needs.length))

    for number in range(11):
        keys = jax.random.split(jax.random.key(number))
        if int(state.updates) % needs.prepare_period == 0:
            state = prepare(keys[0], state).state
            fetched.append(int(state.opts.encoder[0].count))
        result = update(keys[1], state)
        replay, state = windows.revise(replay, jnp.zeros(6, jnp.int32), result.priorities), result.state
    assert fetched == [5, 10, 15] and int(state.updates) == 11
    assert float(state.scale) == 1.0 and result.priorities.shape == (6,) and (result.priorities >= 1).all()


def test_a_policy_is_taken_over_and_a_phase_begins_anew():
    config, agent = tiny(), mrq.make(tiny())
    state = updating(config)(jax.random.key(1), begun(), sequences()).state
    adopt = jax.jit(lambda key, policy: mrq.adopt(config, key, FLAT, policy))
    adopted = adopt(jax.random.key(2), agent.policy(state))
    assert same(agent.policy(adopted), agent.policy(state)) and same(adopted.targets, adopted.nets) and adopted.warm
    assert not same(adopted.nets.values, state.nets.values) and not same(adopted.nets.encoder, state.nets.encoder)
    kept, forgot = (agent.restart(state, optimiser=fresh) for fresh in (False, True))
    assert same(kept.targets, state.nets) and same(kept.opts, state.opts) and not same(forgot.opts, state.opts)
    assert kept.target_scale == state.scale


@pytest.mark.parametrize("name", sorted(ablations.VARIANTS))
def test_every_ablation_fits_together(name):
    """Section 4.6: each row can be traced through both kinds of learning, and gives a state like the one before."""
    agent = ablations.make_variant(name, tiny())

    def learn(key):
        keys = jax.random.split(key, 3)
        state = agent.init(keys[0], FLAT)
        batches = jax.tree.map(lambda x: jnp.repeat(x[None], agent.needs.prepare_batches, axis=0), sequences())
        prepared = agent.prepare(keys[1], state, batches, PAST).state
        return state, agent.update(keys[2], prepared, sequences()).state

    before, after = jax.eval_shape(learn, jax.random.key(0))
    assert jax.tree.structure(before) == jax.tree.structure(after) and eqx.tree_equal(before, after)
    model, values = jax.tree.leaves(before.nets.encoder.model), before.nets.values
    assert (len(model), model[-1].shape) == (
        6 if name == "deep_model" else 2,
        (10 if name == "squared_reward" else 74,),
    )
    assert len(jax.tree.leaves(values)) == (4 if name in ("linear_value", "revert") else 16)
    assert agent.needs.n_step == (1 if name == "one_step" else 3)
    assert agent.needs.length == (3 if name != "one_step" else 2)
    assert agent.needs.prepare_batches == (0 if name == "no_model" else 250)


def test_what_ablations_exchange():
    at = lambda name: mrq.PARTS._replace(**ablations.VARIANTS[name].parts)  # noqa: E731
    q, error = jnp.array([[1.0, 2.0], [3.0, 0.5]]), jnp.array([3.0, -0.5])
    np.testing.assert_allclose(at("no_min").lower(q), [2.0, 1.25])
    np.testing.assert_allclose(mrq.PARTS.lower(q), [1.0, 0.5])
    np.testing.assert_allclose(at("no_lap").priority(tiny(), error), [1.0, 1.0])
    np.testing.assert_allclose(at("no_lap").value_error(q), q**2)
    assert float(at("no_reward_scale").scale(jnp.array(7.0))) == 1.0 and float(mrq.PARTS.scale(jnp.array(7.0))) == 7.0
    said, reward = jnp.array([[[2.0], [0.5]]]), jnp.array([[1.0, 0.5]])
    np.testing.assert_allclose(at("squared_reward").reward_error(tiny(), said, reward), [[1.0, 0.0]])


def test_what_the_model_has_to_predict_in_ablations():
    """Whose features, and whether the encoder that learns is moved by them."""
    state, obs = begun(), jax.tree.map(lambda x: x[1], sequences().obs)
    learnt = eqx.tree_at(lambda e: e.features.net.layers[0].bias, state.nets.encoder, jnp.ones(8))

    @jax.jit
    def goals(encoder):
        made = [
            v.parts["dynamics_target"]
            for v in map(ablations.VARIANTS.get, ("pair_target", "no_target_encoder", "revert"))
        ]
        slopes = [eqx.filter_grad(lambda e, g=g: jnp.sum(g(e, state.targets, obs)))(encoder) for g in made]
        size = [sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(slope)) for slope in slopes]
        z, old = encoder.features(obs), state.targets
        expected = (ablations.pair_after(old.encoder, old, obs), z, ablations.pair_after(encoder, old, obs))
        return size, [jnp.max(jnp.abs(g(encoder, old, obs) - x)) for g, x in zip(made, expected, strict=True)]

    slopes, gaps = goals(learnt)
    assert [float(x) > 0 for x in slopes] == [False, True, True] and max(float(x) for x in gaps) < 1e-5


def test_without_a_model_the_critics_move_the_encoder():
    agent = ablations.make_variant("no_model", tiny())
    after = jax.jit(agent.update)(jax.random.key(1), begun(), sequences()).state.nets
    for part in ("features", "action", "first", "rest"):
        assert not same(getattr(after.encoder, part), getattr(begun().nets.encoder, part))
    assert not same(after.values, begun().nets.values) and not same(after.actor, begun().nets.actor)


def test_pairs_after_are_those_of_the_policys_own_action():
    for spec, bent in ((FLAT, jnp.tanh), (CHOICES, lambda x: jax.nn.one_hot(jnp.argmax(x, axis=-1), 3))):
        nets, obs = begun(spec).nets, jax.tree.map(lambda x: x[0], sequences(spec).obs)
        z = nets.encoder.features(obs)
        expected = nets.encoder.join(z, nets.encoder.read(bent(nets.actor(z))))
        np.testing.assert_allclose(ablations.pair_after(nets.encoder, nets, obs), expected, atol=1e-6)


def test_unknown_ablations_and_nonsense_are_refused():
    with pytest.raises(ConfigError, match=r"no variant 'no_mn'; .*no_min"):
        ablations.make_variant("no_mn", tiny())
    with pytest.raises(ConfigError, match="state_width and pair_width must be the same; got 8 and 9"):
        ablations.make_variant("revert", tiny(pair_width=9))
    with pytest.raises(ConfigError, match=r"batch must be at least 1; got 0; .*odd .*got 4; n_step must be one of"):
        mrq.Config(batch=0, bins=4, n_step="right")
    small = mrq.Config(**mrq.PRESETS["small"])
    assert (small.state_width, small.hidden, small.action_width, small.batch) == (128, 128, 64, 128)


def test_a_config_is_json_and_back():
    config = tiny(n_step="pre_release", terminal_obs="compat")
    data = json.loads(json.dumps({field.name: getattr(config, field.name) for field in fields(config)}))
    assert mrq.Config(**data) == config and not mrq.make(config).needs.true_ends


def test_the_readme_explains_every_metric_setting_and_variant():
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    metrics = {*mrq.Metrics._fields, *mrq.EncoderMetrics._fields}
    assert explained == metrics | {field.name for field in fields(mrq.Config)} | set(ablations.VARIANTS)
    for field in fields(mrq.Config):
        assert re.search(rf"^\| `{field.name}` \| {re.escape(str(field.default))} \|", text, flags=re.MULTILINE)


@pytest.mark.parametrize("spec", [FLAT, CHOICES], ids=["vectors", "choices"])
def test_the_critics_target_is_what_target_nets_say_in_todays_unit(spec):
    """2.7, by hand: (R + gamma^3 r' min(Q'_1, Q'_2)(z', a' + clipped noise)) / r; the nets are not their targets."""
    config = tiny(target_noise=0.9)
    state = updating(config)(jax.random.key(5), begun(spec), sequences(spec)).state
    state = preparing(config)(jax.random.key(6), state, sequences(spec, 2), PAST).state
    state = updating(config)(jax.random.key(7), state, sequences(spec)).state  # the critics have left their targets
    state = state._replace(scale=jnp.float32(0.5), target_scale=jnp.float32(0.2))
    batch = sequences(spec, seed=3)
    reward, terminated = np.asarray(batch.reward[:3]), np.asarray(batch.terminated[:3])
    after = jax.tree.map(lambda x: x[3], batch.obs)
    found = jax.jit(partial(mrq.value_target, config, mrq.PARTS))(
        jax.random.key(8), state, batch.reward[:3], batch.terminated[:3], after
    )

    targets, (soft_key, noise_key) = state.targets, jax.random.split(jax.random.key(8))
    z = targets.encoder.features(after)
    plain = targets.actor(z)
    noise, half = jax.random.normal(noise_key, plain.shape), 0.5 if spec is CHOICES else 1.0
    noise = np.clip(0.9 * half * noise, -0.3 * half, 0.3 * half)
    if spec is CHOICES:
        soft = jax.nn.softmax((plain + jax.random.gumbel(soft_key, plain.shape)) / 10.0)
        action = np.eye(3, dtype=np.float32)[np.argmax(soft + noise, axis=1)]
    else:
        action = np.clip(np.tanh(plain) + noise, -1.0, 1.0)
    pair = targets.encoder.join(z, targets.encoder.read(jnp.asarray(action)))
    value = np.min([critic(pair, mrq.elu)[:, 0] for critic in targets.values], axis=0)
    for row in range(6):
        earned, goes_on = 0.0, 1.0
        for i in range(3):
            earned += 0.99**i * goes_on * reward[i, row]
            goes_on *= 1.0 - terminated[i, row]
        wanted = (earned + goes_on * 0.99**3 * 0.2 * value[row]) / 0.5
        np.testing.assert_allclose(found[row], wanted, rtol=1e-4, atol=1e-5)


def test_frames_from_before_an_episode_are_its_first_one():
    """As in the replay: Atari's worlds show them black."""
    one, two, black = (np.full((2, 1, 3, 3, 1), x, np.uint8) for x in (5, 9, 0))
    stacks = [(black, black, one), (black, one, two), (one, two, black), (black, black, black)]
    wanted = [(one, one, one), (one, one, two), (one, two, black), (black, black, black)]
    for shown, filled in zip(stacks, wanted, strict=True):
        shown, filled = (np.concatenate([x[0] for x in frames], axis=-1) for frames in (shown, filled))
        np.testing.assert_array_equal(mrq_nets.first_repeated(jnp.asarray(shown), 3), filled)
    colours = np.concatenate([np.zeros((1, 3, 3, 2)), np.ones((1, 3, 3, 2)) * [3, 4]], axis=-1).astype(np.uint8)
    assert mrq_nets.first_repeated(jnp.asarray(colours), 2)[0, 0, 0].tolist() == [3, 4, 3, 4]


def test_what_atari_shows_at_first_is_seen_as_the_replay_keeps_it():
    world = registry.host("ALE/Pong-v5").open(1)
    shown = [world.reset(0)["obs"]] + [world.step(np.zeros(1, np.int32)).obs["obs"] for _ in range(4)]
    world.close()
    frames = [x[..., -1:] for x in shown]
    for number, stack in enumerate(shown):
        kept = np.concatenate([frames[max(number - back, 0)] for back in (3, 2, 1, 0)], axis=-1)
        np.testing.assert_array_equal(mrq_nets.first_repeated(jnp.asarray(stack), 4), kept)
    assert not shown[0][..., 0].any()  # so that there is something to be filled
