import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy

from rekindle.core.errors import CheckpointError
from rekindle.library import tensors
from rekindle.library.artefact import read_meta, read_policy, save_policy

SPEC = {
    "id": "xland/f0",
    "version": 1,
    "obs": {"view": {"kind": "box", "shape": [3], "low": 0, "high": 1}},
    "action": {"kind": "discrete", "n": 3},
    "players": 1,
    "kind": "jax",
}
ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1, 2], np.int32)}


def save(folder, **changes):
    facts = {"agent": "ppo", "agent_version": 1, "config": {"h": (1, 2)}, "spec": SPEC, "arrays": ARRAYS}
    return save_policy(folder, **{**facts, **changes})


@pytest.fixture
def policy(tmp_path):
    save(tmp_path / "policy", normaliser={"mean": np.float32(0.5)}, card={"score": np.nan}, provenance={"p": 1})
    return tmp_path / "policy"


def edit(policy, **changes):
    path = policy / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip_from_the_policy_or_the_run_folder(policy):
    for folder in (policy, policy.parent):
        meta, arrays = read_policy(folder)
        assert list(arrays) == ["b", "a"]
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)
        assert (meta.agent, meta.config, meta.spec, meta.env_id) == ("ppo", {"h": [1, 2]}, SPEC, "xland/f0")
        assert (meta.normaliser, meta.card, meta.provenance) == ({"mean": 0.5}, {"score": "NaN"}, {"p": 1})
    assert read_meta(policy) == meta


def test_the_bytes_are_those_of_the_safetensors_library():
    rng = np.random.default_rng(0)
    arrays = {f"{d}.{n}é": (rng.random((3, n)) * 2).astype(d) for d in tensors.DTYPES for n in (0, 1, 5)}
    arrays |= {"scalar": np.float32(3)[...], "fortran": np.asfortranarray(rng.random((3, 4)))}
    assert tensors.encode(arrays)[0] == safetensors.numpy.save({n: np.array(x, order="C") for n, x in arrays.items()})


def test_a_better_policy_replaces_the_old_one(policy):
    save(policy, arrays={"w": np.zeros(1)}, agent_version=2)
    meta, arrays = read_policy(policy)
    assert meta.agent_version == 2 and list(arrays) == ["w"]
    assert [p.name for p in policy.parent.iterdir()] == ["policy"]


def test_what_could_not_be_used_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match=r"'w'.*not finite"):
        save(tmp_path / "policy", arrays={"w": np.array([1.0, np.nan])})
    with pytest.raises(CheckpointError, match="spec"):
        save(tmp_path / "policy", spec={"id": "x"})
    with pytest.raises(CheckpointError, match=r"'w'.*complex64"):
        save(tmp_path / "policy", arrays={"w": np.zeros(1, np.complex64)})
    assert list(tmp_path.iterdir()) == []


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no policy.*name a run"):
        read_policy(tmp_path)


@pytest.mark.parametrize(
    ("cut", "words"),
    [(0, "is cut off"), (-8, "SHA-256"), (None, "SHA-256"), (10**5, "is damaged: it has")],
)
def test_weights_that_were_cut_flipped_or_grew(policy, cut, words):
    path = policy / "weights.safetensors"
    data = path.read_bytes()
    if cut is None:
        data = data[:-1] + bytes([data[-1] ^ 1])
    path.write_bytes(data + b"\0" * cut if cut is not None and cut > 0 else data[:cut])
    with pytest.raises(CheckpointError, match=f"{words}.*Copy it again, or train it anew"):
        read_policy(policy)


def test_facts_that_are_damaged_foreign_or_newer(policy):
    whole = (policy / "policy.json").read_text()
    for text, words in [
        (whole[:100], "not JSON.*Copy it again"),
        ("[]", "damaged or foreign"),
        ('{"schema_version": true}', "damaged or foreign"),
        (whole.replace('"agent":', '"agemt":'), "agent"),
        (whole.replace('"discrete"', '"quantum"'), "quantum"),
        (whole.replace('"schema_version": 1', '"schema_version": 99'), "newer rekindle: upgrade"),
    ]:
        (policy / "policy.json").write_text(text)
        with pytest.raises(CheckpointError, match=words) as caught:
            read_policy(policy)
        assert "\n" not in str(caught.value)


def rewrite(policy, arrays, leaves=None):
    """Weights with a right hash and size, but another content than the table's."""
    data = safetensors.numpy.save(arrays)
    (policy / "weights.safetensors").write_bytes(data)
    table = json.loads((policy / "policy.json").read_text())["weights"]
    edit(policy, weights={"sha256": hashlib.sha256(data).hexdigest(), "leaves": leaves or table["leaves"]})


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({**ARRAYS, "b": ARRAYS["b"].T.copy()}, r"leaf 'b' is float32\[3, 2\], its table says float32\[2, 3\]"),
        ({**ARRAYS, "a": ARRAYS["a"].astype(np.uint32)}, r"leaf 'a' is uint32\[2\], its table says int32\[2\]"),
        ({"b": ARRAYS["b"], "c": ARRAYS["a"]}, "leaf 'a' of its table is missing"),
        ({**ARRAYS, "z": np.zeros(1, np.int8)}, "leaf 'z' is not in its table"),
        ({**ARRAYS, "b": np.full((2, 3), np.inf, np.float32)}, "not finite"),
    ],
)
def test_weights_that_differ_from_their_table(policy, arrays, words):
    rewrite(policy, arrays)
    with pytest.raises(CheckpointError, match=words):
        read_policy(policy)


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        ({"name": "b", "dtype": "object", "shape": [1]}, "impossible leaf"),
        ({"name": "b", "dtype": "float32", "shape": [-1]}, "impossible leaf"),
        ({"name": "b", "dtype": "float32", "shape": [10**9, 10**9]}, "at most"),
        ({"name": "b", "dtype": "float32", "shape": [2, 3], "code": "x"}, "code"),
    ],
)
def test_a_table_that_cannot_be(policy, leaf, words):
    rewrite(policy, ARRAYS, [leaf])
    with pytest.raises(CheckpointError, match=words):
        read_policy(policy)


def test_a_table_that_names_a_leaf_twice(policy):
    rewrite(policy, ARRAYS, [{"name": "b", "dtype": "float32", "shape": [1]}] * 2)
    with pytest.raises(CheckpointError, match="twice"):
        read_policy(policy)


def test_a_file_of_something_else(policy):
    data = b"\xff" * (policy / "weights.safetensors").stat().st_size
    (policy / "weights.safetensors").write_bytes(data)
    table = json.loads((policy / "policy.json").read_text())["weights"]
    edit(policy, weights={**table, "sha256": hashlib.sha256(data).hexdigest()})
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_policy(policy)
