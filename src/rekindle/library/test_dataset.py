import numpy as np
import pytest

from rekindle.core.errors import CheckpointError
from rekindle.library.dataset import STEPS, read_dataset, save_dataset

SPEC = {"id": "test/x", "version": 1, "players": 1, "kind": "jax", "action": {"kind": "discrete", "n": 2},
        "obs": {"x": {"kind": "box", "shape": [3], "low": 0, "high": 255, "dtype": "uint8"}}}  # fmt: skip


def arrays(**changes):
    steps = {"obs.x": np.arange(24, dtype=np.uint8).reshape(4, 2, 3), "action": np.ones((4, 2), np.int32),
             "reward": np.zeros((4, 2), np.float32), "terminated": np.zeros((4, 2), bool),
             "truncated": np.zeros((4, 2), bool)}  # fmt: skip
    return {name: x for name, x in (steps | changes).items() if x is not None}


def test_what_is_kept_comes_back_without_a_copy(tmp_path):
    save_dataset(tmp_path / "replay", spec=SPEC, arrays=arrays(), recipe={"run": "a"})
    for folder in (tmp_path, tmp_path / "replay"):
        data = read_dataset(folder)
        assert data.transitions == 8 and data.meta.recipe == {"run": "a"}
        for name, x in arrays().items():
            np.testing.assert_array_equal(data.arrays[name], x)
            assert not data.arrays[name].flags.writeable and data.arrays[name].base is not None
    save_dataset(tmp_path / "replay", spec=SPEC, arrays=arrays(action=np.zeros((4, 2), np.int32)))
    assert not read_dataset(tmp_path).arrays["action"].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": np.full((4, 2), np.nan, np.float32)}, "'reward' holds numbers that are not finite"),
        ({"action": None}, "'action' is missing"),
        ({"obs.x": None}, "there is no observation"),
        ({"obs.x": np.zeros((3, 2, 3), np.uint8)}, r"'obs.x' is \[3, 2, 3\], the rewards are \[4, 2\]"),
        ({"truncated": np.zeros((4, 2), np.int8)}, "'truncated' is int8, expected bool"),
        ({"reward": np.zeros(4, np.float32)}, "one number for each step and row"),
        ({"reward": np.zeros((4, 2), np.int32)}, "rewards are int32, expected float32"),
        ({"obs.x": np.zeros((4, 2, 5), np.uint8)}, r"'obs.x' is uint8\[5\] in each step, in .* spec it is uint8\[3\]"),
        ({"obs.x": np.zeros((4, 2, 3), np.float32)}, r"'obs.x' is float32\[3\] in each step"),
        ({"obs.y": np.zeros((4, 2, 3), np.uint8)}, r"'obs.y' is uint8\[3\], in the environment's spec it is None"),
        ({"obs.x": None, "obs.y": np.zeros((4, 2, 3), np.uint8)}, "'obs.x' is nothing, in the .* spec it is Box"),
        ({"action": np.full((4, 2), 2, np.int32)}, r"'action' holds numbers that Discrete\(n=2"),
    ],
)
def test_what_is_no_replay_is_refused(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        save_dataset(tmp_path / "replay", spec=SPEC, arrays=arrays(**changes))
    assert not (tmp_path / "replay").exists()


def test_a_damaged_or_missing_replay_is_an_error_with_its_mend(tmp_path):
    with pytest.raises(CheckpointError, match="holds no dataset"):
        read_dataset(tmp_path)
    save_dataset(tmp_path / "replay", spec=SPEC, arrays=arrays())
    file = tmp_path / "replay" / STEPS
    whole = file.read_bytes()
    file.write_bytes(whole[:30])
    with pytest.raises(CheckpointError, match=r"cut off.*Copy it again, or collect it anew"):
        read_dataset(tmp_path)
    file.write_bytes(whole[:-1] + b"\1")
    with pytest.raises(CheckpointError, match=r"damaged.*Copy it again, or collect it anew"):
        read_dataset(tmp_path)
