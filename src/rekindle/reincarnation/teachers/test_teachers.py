"""Networks rebuilt from names and shapes, against the same arithmetic in NumPy; functions, and what does not fit."""

import json
import zipfile
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.errors import CheckpointError, ConfigError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec
from rekindle.reincarnation.phases import says
from rekindle.reincarnation.teachers import host, load, stable_baselines
from rekindle.reincarnation.teachers.stable_baselines import Facts, rebuilt

PUSH = EnvSpec("test/push", 1, {"x": Box((4,), -1, 1)}, Box((2,), -2.0, 2.0))
FLAT = EnvSpec("test/flat", 1, {"x": Box((4,), -1, 1)}, Discrete(3))
RNG = np.random.default_rng(0)


def layer(name, *shape):
    return {f"{name}.weight": RNG.normal(size=shape).astype(np.float32) / 3,
            f"{name}.bias": RNG.normal(size=shape[0]).astype(np.float32)}  # fmt: skip


def act(policy, x, explore=False):
    start = jnp.ones(len(x), bool)
    return policy.act(jax.random.key(0), (), {"x": jnp.asarray(x)}, start, explore=explore)


def test_an_actor_of_dense_layers_is_rebuilt(tmp_path):
    weights = {**layer("mlp_extractor.policy_net.0", 8, 4), **layer("mlp_extractor.policy_net.2", 6, 8),
               **layer("mlp_extractor.value_net.0", 8, 4), **layer("action_net", 3, 6),
               **layer("value_net", 1, 6)}  # fmt: skip
    policy = rebuilt(weights, Facts((4,), False, 3, None), tmp_path)
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    h = x
    for name in ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2"):
        h = np.tanh(h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
    logits = h @ weights["action_net.weight"].T + weights["action_net.bias"]
    out = act(policy, x)
    np.testing.assert_allclose(out.extras.logits, logits, atol=1e-5)
    np.testing.assert_array_equal(out.action, logits.argmax(-1))
    np.testing.assert_allclose(says(out.extras), jax.nn.log_softmax(logits), atol=1e-5)
    assert len(set(np.asarray(act(policy, np.zeros((50, 4), np.float32), explore=True).action))) > 1


@pytest.mark.parametrize("kind", ["TD3", "SAC", "PPO"])
def test_actors_of_vectors_are_rebuilt(tmp_path, kind):
    """Those of TD3 and SAC are squashed, those of PPO are cut off."""
    names = {"TD3": ("actor.mu.0", "actor.mu.2"), "SAC": ("actor.latent_pi.0", "actor.mu"),
             "PPO": ("mlp_extractor.policy_net.0", "action_net")}[kind]  # fmt: skip
    weights = {**layer(names[0], 8, 4), **layer(names[1], 2, 8), **layer("critic.qf0.0", 8, 6),
               "log_std": np.zeros(2, np.float32)}  # fmt: skip
    if kind == "SAC":
        weights |= layer("actor.log_std", 2, 8)
    facts = Facts((4,), False, 2, None, ((-2.0, -1.0), (2.0, 3.0)))
    load.refuse_other(facts, PUSH, "a.zip")
    policy = replace(rebuilt(weights, facts, tmp_path), reach=2.0)
    x = 3 * RNG.normal(size=(50, 4)).astype(np.float32)
    h = x @ weights[f"{names[0]}.weight"].T + weights[f"{names[0]}.bias"]
    h = np.tanh(h) if kind == "PPO" else np.maximum(h, 0)
    h = h @ weights[f"{names[1]}.weight"].T + weights[f"{names[1]}.bias"]
    wanted = np.clip((h - [0, 1]), -2, 2) if kind == "PPO" else 2 * np.tanh(h)
    out = act(policy, x)
    np.testing.assert_allclose(out.action, wanted, atol=1e-5)
    np.testing.assert_allclose(out.extras.mean, wanted / 2, atol=1e-5)
    with pytest.raises(ConfigError, match=r"has actions of 2 numbers, test/flat has 3 actions"):
        load.refuse_other(facts, FLAT, "a.zip")


def pushes(obs):
    return 2.5 * obs["x"][:, :2]


def pushes_too_hard(obs):
    return 2.5 + obs["x"][:, :2]


def test_a_function_may_say_vectors_which_are_cut_off():
    teacher = host.checked(pushes, load.sample(PUSH), PUSH.action, valued=False, what="pushes")
    x = np.array([[0.1, -0.2, 0, 0], [1.0, -1.0, 0, 0]], np.float32)
    out = jax.jit(lambda x: act(teacher, x))(x)
    np.testing.assert_allclose(out.action, [[0.5, -1.0], [2.0, -2.0]], atol=1e-6)
    np.testing.assert_allclose(says(out.extras), out.action / 2)
    with pytest.raises(ConfigError, match=r"\[2, 2\] finite numbers; got float64\[2, 3\]"):
        host.checked(by_sum, load.sample(PUSH), PUSH.action, valued=False, what="by_sum")
    with pytest.raises(ConfigError, match=r"says 2.5; the numbers of a vector lie from -1"):
        host.checked(pushes_too_hard, load.sample(PUSH), PUSH.action, valued=False, what="hard")
    with pytest.raises(ConfigError, match="--valued is for teachers that say a number"):
        host.checked(pushes, load.sample(PUSH), PUSH.action, valued=True, what="pushes")


def test_a_teacher_is_known_again_by_its_fingerprint(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    policy, replay = tmp_path / "run" / "policy", tmp_path / "run" / "replay"
    places = {str(tmp_path / "run"): policy / "policy.json", f"{policy}/": replay / "dataset.json",
              "known_again:f": tmp_path / "known_again.py", str(tmp_path / "a.zip"): tmp_path / "a.zip"}  # fmt: skip
    for file in places.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")
    before = {which: load.fingerprint(which) for which in places}
    assert None not in before.values()
    for which, file in places.items():
        assert load.is_foreign(which) and load.fingerprint(which) == before[which]
        file.write_text("x = 2\n")
        assert load.fingerprint(which) != before[which]
        file.write_text("x = 1\n")
    assert not load.executes(str(policy), trust=True) and load.executes("known_again:f", trust=False)
    assert load.fingerprint("no_such.module:f") is None and load.fingerprint("nowhere.zip") is None


@pytest.mark.parametrize(("shape", "turned"), [((6, 6, 2), True), ((2, 6, 6), False), ((6, 6, 6), True)])
def test_action_values_of_pictures_are_rebuilt(tmp_path, shape, turned):
    """A convolution without padding on channels first, whichever way the world shows them, also as many as pixels."""
    channels = shape[-1] if turned else shape[0]
    weights = {**layer("q_net.features_extractor.cnn.0", 5, channels, 3, 3),
               **layer("q_net.features_extractor.linear.0", 7, 80),
               **layer("q_net.q_net.0", 3, 7), **layer("q_net_target.q_net.0", 3, 7)}  # fmt: skip
    policy = rebuilt(weights, Facts(shape, False, 3, None), tmp_path).facing(shape)
    x = RNG.integers(0, 256, (4, *shape)).astype(np.uint8)
    seen = np.moveaxis(x, -1, 1) if turned else x
    kernel = weights["q_net.features_extractor.cnn.0.weight"]
    patches = np.stack([[seen[:, :, i : i + 3, j : j + 3] for j in range(4)] for i in range(4)])  # [4, 4, B, C, 3, 3]
    h = np.einsum("ijbcxy,ocxy->boij", patches, kernel)
    h = np.maximum(h + weights["q_net.features_extractor.cnn.0.bias"][None, :, None, None], 0).reshape(4, -1)
    name = "q_net.features_extractor.linear.0"
    h = np.maximum(h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], 0)
    q = h @ weights["q_net.q_net.0.weight"].T + weights["q_net.q_net.0.bias"]
    np.testing.assert_allclose(act(policy, x).extras.q, q, rtol=1e-4)


@pytest.mark.parametrize(("seen", "turned"), [((3, 8, 6), True), ((8, 6, 3), False)])
def test_pictures_are_turned_for_dense_networks_where_they_were(tmp_path, seen, turned):
    """Stable-Baselines3 turns pictures of bytes for any network, and says by its space whether it did."""
    weights = layer("q_net.q_net.0", 3, 8 * 6 * 3)
    policy = rebuilt(weights, Facts(seen, True, 3, None), tmp_path).facing((8, 6, 3))
    x = RNG.integers(0, 256, (4, 8, 6, 3)).astype(np.uint8)
    flat = (np.moveaxis(x, -1, 1) if turned else x).reshape(4, -1) / 255.0
    q = flat @ weights["q_net.q_net.0.weight"].T + weights["q_net.q_net.0.bias"]
    np.testing.assert_allclose(act(policy, x).extras.q, q, atol=1e-4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"observation_space": {"spaces": {}}, "action_space": {"n": "3"}}, "other spaces than a box of observations"),
        ({"observation_space": {"_shape": [4]}, "action_space": {"n": "3", "start": "1"}}, "actions that begin at 1"),
    ],
)
def test_what_is_wrong_with_a_zip_is_said_whole(tmp_path, data, message):
    """However long its path is, and not as if its weights were unsafe."""
    path = tmp_path / ("long" * 40 + ".zip")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", json.dumps(data))
        file.writestr("policy.pth", b"")
    with pytest.raises(ConfigError, match=message) as error:
        stable_baselines.read(path)
    assert "safely" not in str(error.value)


@pytest.mark.parametrize(
    ("weights", "facts", "message"),
    [
        ({"lstm_actor.weight_ih_l0": np.zeros((4, 4), np.float32)}, Facts((4,), False, 3, None), "not known"),
        ({**layer("action_net", 3, 9)}, Facts((4,), False, 3, None), r"do not fit observations of \[4\]"),
        ({**layer("action_net", 2, 4)}, Facts((4,), False, 3, None), "for 2 actions, its space has 3"),
        ({**layer("action_net", 3, 4)}, Facts((4,), False, 3, "Mish"), "uses Mish; known are"),
    ],
)
def test_networks_that_are_not_known_are_refused(tmp_path, weights, facts, message):
    with pytest.raises((ConfigError, CheckpointError), match=message):
        rebuilt(weights, facts, tmp_path)


def test_spaces_that_differ_are_named_with_both_values():
    with pytest.raises(ConfigError, match=r"has 2 actions, test/flat has 3"):
        load.refuse_other(Facts((4,), False, 2, None), FLAT, "a.zip")
    with pytest.raises(ConfigError, match=r"sees \[5\], test/flat shows \[4\]"):
        load.refuse_other(Facts((5,), False, 3, None), FLAT, "a.zip")


def by_sum(obs):
    return np.stack([obs["x"].sum(-1), -obs["x"].sum(-1), np.zeros(len(obs["x"]))], axis=-1)


def first_action(obs):
    return np.zeros(len(obs["x"]), np.int64)


def wrong_shape(obs):
    return np.zeros((len(obs["x"]), 2))


def failing(obs):
    raise KeyError("y")


def test_a_function_is_asked_inside_a_compiled_program():
    teacher = host.checked(by_sum, load.sample(FLAT), FLAT.action, valued=True, what="by_sum")
    x = RNG.normal(size=(7, 6, 4)).astype(np.float32)

    def walk(x):
        return jax.lax.scan(lambda c, row: (c, act(teacher, row).extras.q), 0, x)[1]

    np.testing.assert_allclose(jax.jit(walk)(x)[..., 0], x.sum(-1), atol=1e-5)
    actor = host.checked(first_action, load.sample(FLAT), FLAT.action, valued=True, what="first_action")
    said = act(actor, x[0]).extras
    assert said.q is None
    np.testing.assert_allclose(jax.nn.softmax(said.logits)[0], [0.99, 0.005, 0.005], atol=1e-5)


def beyond(obs):
    return np.full(len(obs["x"]), 3)


def below(obs):
    return np.full(len(obs["x"]), -1)


def between(obs):
    return np.full(len(obs["x"]), 0.7)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (wrong_shape, r"got float64\[2, 2\]"),
        (failing, "fails on a batch.*KeyError: 'y'"),
        (beyond, "mine says action 3; the world has actions 0 to 2"),
        (below, "says action -1"),
        (between, "says action 0.7"),
    ],
)
def test_a_function_that_says_something_else_is_refused(function, message):
    with pytest.raises(ConfigError, match=message):
        host.checked(function, load.sample(FLAT), FLAT.action, valued=False, what="mine")


@pytest.mark.parametrize("how", ["jit", "filter_jit"])
def test_a_teacher_that_fails_later_is_named_whatever_the_runtime_calls_it(how):
    answers = [np.zeros(2, int), np.array([0, 5])]
    teacher = host.checked(lambda obs: answers.pop(0), load.sample(FLAT), FLAT.action, valued=False, what="mine")
    compiled = {"jit": jax.jit, "filter_jit": eqx.filter_jit}[how](lambda x: act(teacher, x).action)
    with pytest.raises(ConfigError, match=r"^the teacher mine says action 5"), host.failures_named():
        jax.block_until_ready(compiled(np.zeros((2, 4), np.float32)))


def test_a_bundle_of_another_name_is_told_from_a_teacher(tmp_path):
    path = tmp_path / "given.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("rekindle.json", "{}")
    with pytest.raises(ConfigError, match=f"{path} is a bundle; `rekindle library import {path}`"):
        load.load(str(path), FLAT)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("no_such_module:f", "no teacher 'no_such_module:f'.*It takes module:function"),
        ("math:pi", "math:pi is no function, but float"),
        ("nowhere.zip", "no teacher 'nowhere.zip': there is no such file"),
    ],
)
def test_teachers_that_are_not_there_are_named(which, message):
    assert load.is_foreign(which)
    with pytest.raises(ConfigError, match=message):
        load.load(which, FLAT)


def test_names_of_runs_are_not_foreign():
    assert not any(map(load.is_foreign, ("20261126-054856-dqn", "shipped/foundation", "C:/runs/x")))


def test_the_json_of_a_zip_says_what_is_seen_and_done(tmp_path):
    space = {"dtype": "uint8", "_shape": [10, 10, 4], "high": "[[[255 255]]]"}
    data = {"observation_space": space, "action_space": {"n": "3", "start": "0"},
            "policy_kwargs": {"activation_fn": "<class 'torch.nn.modules.activation.ReLU'>"}}  # fmt: skip
    assert stable_baselines._facts(data, tmp_path) == Facts((10, 10, 4), True, 3, "ReLU")
    kept = {**data, "policy_kwargs": {**data["policy_kwargs"], "normalize_images": False}}
    assert not stable_baselines._facts(kept, tmp_path).bytes
    box = {"_shape": [2], "start": None, "low": "[-2.  -1.5]", "high": "[2. 1e+01]"}
    vectors = {**data, "action_space": box}
    found = Facts((10, 10, 4), True, 2, "ReLU", ((-2.0, -1.5), (2.0, 10.0)))
    assert stable_baselines._facts(vectors, tmp_path) == found
    for bad, message in (("[2. ...]", "say all 2 bounds"), ("[-3. 2.]", "actions without an end"),
                         ("[inf inf]", "say all 2 bounds")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            stable_baselines._facts({**data, "action_space": {**box, "high": bad}}, tmp_path)
    with pytest.raises(ConfigError, match="explores by gSDE"):
        stable_baselines._facts({**vectors, "use_sde": True}, tmp_path)
    with pytest.raises(ConfigError, match="other spaces than a box"):
        stable_baselines._facts({**data, "action_space": {"_shape": [2, 2]}}, tmp_path)
