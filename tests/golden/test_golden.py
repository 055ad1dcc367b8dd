"""Runs and policies of every schema load for ever, with exactly the values that were written."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from rekindle.core.types import EnvSpec
from rekindle.library.artefact import read_policy
from rekindle.library.library import Library
from rekindle.library.run import Run

ID = "20260102-030405-golden-0a1b"


@pytest.fixture
def library(tmp_path):
    shutil.copytree(Path(__file__).parent / "schema1", tmp_path / "runs")
    return Library.open(tmp_path)


def test_policy_of_schema_1(library):
    (prior,) = [p for p in library.priors() if not p.id.startswith("shipped/")]
    assert (prior.id, prior.env_id, prior.agent, prior.card) == (ID, "xland/doors-2", "ppo", {"score": {"mean": 0.5}})
    meta, arrays = read_policy(prior.path)
    expected = {
        "layers.0.weight": np.array([[-0.5, -0.25, 0.0], [0.25, 0.5, 0.75]], np.float32),
        "layers.0.bias": np.array([1e-30, -2.5], np.float64),
        "half": np.array([[0.5]], np.float16),
        "empty": np.zeros((0, 3), np.int8),
    }
    assert list(arrays) == list(expected)
    for name, value in expected.items():
        assert arrays[name].dtype == value.dtype and arrays[name].shape == value.shape
        assert arrays[name].tobytes() == value.tobytes()
    assert (meta.agent_version, meta.config, meta.normaliser) == (1, {"hidden": [64, 32]}, {"mean": [0.5], "count": 10})
    assert meta.provenance == {"command": "rekindle train ppo"}
    spec = EnvSpec.from_json(meta.spec)
    assert spec.obs["view"].shape == (5, 5) and spec.action.n == 7 and EnvSpec.from_json(spec.to_json()) == spec


def test_run_of_schema_1(library):
    run = Run.open(library, "golden")
    facts = run.manifest
    assert (facts.id, facts.kind, facts.status, facts.seed, facts.env_steps, facts.wall_s) == (
        ID, "train", "done", 7, 2048, 1.5,
    )  # fmt: skip
    assert facts.created.isoformat() == "2026-01-02T03:04:05+00:00" and facts.notes == "A note, ünicode."
    assert facts.config == {"algorithm": "ppo", "learning_rate": 0.0003, "hidden": [64, 32], "clip": None}
    assert [(p.id, p.role) for p in facts.parents] == [("shipped/f0", "init"), ("20260101-000000-a-0001", "teacher")]
    assert [(s.name, s.value, s.low) for s in facts.scores] == [("score", 0.5, 0.25), ("none", None, None)]
    first, second = run.metrics()
    assert math.isnan(first.pop("loss/value"))
    assert first == {"env_steps": 1024, "wall_s": 0.5, "episode/return": 0.25}
    assert second == {"env_steps": 2048, "wall_s": 1.5, "episode/return": None, "loss/value": math.inf}
    assert run.decisions() == [{"time": "2026-01-02T03:04:05+00:00", "choose": "train"}]
    step, arrays, meta = run.latest_checkpoint()
    assert step == 2048 and meta == {"wall_s": 1.5, "evaluations": 2}
    assert arrays["step"] == 3 and arrays["step"].dtype == np.int32 and arrays["step"].shape == ()
    assert arrays["key#threefry2x32"].tolist() == [1, 2] and arrays["mask"].tolist() == [True, False]
    assert library.verify(ID) == []
