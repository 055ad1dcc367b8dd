"""Makes the golden run of the present schema: `python tests/golden/make.py`. One that is committed is never made again.

A new schema gets a new folder; the old ones must load for ever.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from rekindle.library import artefact, checkpoint, files
from rekindle.library.manifest import SCHEMA_VERSION, Manifest, Parent, Score, write_manifest
from rekindle.library.provenance import Code

FOLDER = Path(__file__).parent / f"schema{SCHEMA_VERSION}" / "20260102-030405-golden-0a1b"
SPEC = {
    "id": "xland/doors-2",
    "version": 1,
    "obs": {
        "view": {"kind": "box", "shape": [5, 5], "low": 0, "high": 1, "dtype": "float32", "set_axis": False},
        "prev_action": {"kind": "discrete", "n": 7, "dtype": "int32"},
    },
    "action": {"kind": "discrete", "n": 7, "dtype": "int32"},
    "players": 1,
    "kind": "jax",
}


def main() -> None:
    """Write the folder; refuse to replace it."""
    if FOLDER.exists():
        raise SystemExit(f"{FOLDER} exists; golden files are never made again, only added.")
    (FOLDER / artefact.FOLDER).parent.mkdir(parents=True)
    try:
        _fill()
    except BaseException:
        shutil.rmtree(FOLDER)
        raise


def _fill() -> None:
    write_manifest(
        FOLDER,
        Manifest(
            kind="train",
            id=FOLDER.name,
            name="golden",
            created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            status="done",
            config={"algorithm": "ppo", "learning_rate": 0.0003, "hidden": [64, 32], "clip": None},
            command=["rekindle", "train", "ppo", "--env", "xland/doors-2"],
            seed=7,
            parents=[
                Parent(id="shipped/f0", role="init", sha256="ab" * 32),
                Parent(id="20260101-000000-a-0001", role="teacher"),
            ],
            code=Code(revision="0" * 40, dirty=True, difference_sha256="cd" * 32),
            versions={"python": "3.11.7", "rekindle": "0.1.0"},
            device="cpu (x86_64, 2 cores)",
            env_id="xland/doors-2",
            env_steps=2048,
            wall_s=1.5,
            scores=[Score(name="score", value=0.5, low=0.25, high=0.75), Score(name="none", value=None)],
            notes="A note, ünicode.",
        ),
    )
    rows = [
        {"env_steps": 1024, "wall_s": 0.5, "episode/return": 0.25, "loss/value": float("nan")},
        {"env_steps": 1536, "wall_s": 0.7, "episode/return": 0.3, "loss/value": 1.0},
        {"env_steps": 2048, "wall_s": 1.5, "episode/return": None, "loss/value": float("inf"), "resumed_from": 1024},
    ]
    for row in rows:
        files.append_line(FOLDER / "metrics.jsonl", row, durable=False)
    files.append_line(
        FOLDER / "decisions.jsonl", {"time": "2026-01-02T03:04:05+00:00", "choose": "train"}, durable=True
    )
    state = {"step": np.int32(3), "key#threefry2x32": np.array([1, 2], np.uint32), "mask": np.array([True, False])}
    checkpoint.save(FOLDER, 2048, {k: np.asarray(v) for k, v in state.items()}, {"wall_s": 1.5, "evaluations": 2})
    artefact.save_policy(
        FOLDER / artefact.FOLDER,
        agent="ppo",
        agent_version=1,
        config={"hidden": [64, 32]},
        spec=SPEC,
        arrays={
            "layers.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 4 - 0.5,
            "layers.0.bias": np.array([1e-30, -2.5], np.float64),
            "half": np.array([[0.5]], np.float16),
            "empty": np.zeros((0, 3), np.int8),
        },
        normaliser={"mean": [0.5], "count": 10},
        card={"score": {"mean": 0.5}},
        provenance={"command": "rekindle train ppo"},
    )


if __name__ == "__main__":
    main()
