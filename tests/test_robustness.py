"""Killed, crowded, out of disk: what docs/durability.md promises, with real processes and real faults.

`python -m benchmarks.robustness` does the same with many more kills.
"""

import os

import pytest
from benchmarks.robustness import crowd, faults, kill

KILLS = {"master": 1, "evaluate": 2, "train": 3, "export": 4, "gc": 6}


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    compiled = os.environ["JAX_COMPILATION_CACHE_DIR"]
    return kill.Killer(tmp_path_factory.mktemp("kill"), compiled=compiled, timed=False)


@pytest.mark.parametrize("job", KILLS)
def test_a_job_that_is_killed_anywhere_ends_as_if_nothing_had_happened(job, killer):
    """Its weights, scores, steps and curves equal those of the job that nobody killed; nothing is ever half there."""
    outcomes = [killer.kill(job, point) for point in kill.points(KILLS[job], seed=7, by=("file",))]
    assert [problem for outcome in outcomes for problem in outcome.problems] == []
    assert sum(outcome.killed for outcome in outcomes) >= KILLS[job] - 1


def test_the_comparison_sees_a_difference(killer):
    """A job that was resumed to other weights would be told."""
    home = killer.prepare("train")["home"]
    before = kill.left(home)
    (weights,) = home.glob("runs/*/policy/weights*")
    data = weights.read_bytes()
    try:
        weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert kill.whole(home)
    finally:
        weights.write_bytes(data)
    state = sorted(home.glob("runs/*/checkpoints/*/state.safetensors"))[-1]
    data = state.read_bytes()
    try:
        state.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert kill.left(home) != before
    finally:
        state.write_bytes(data)
    assert kill.left(home) == before and kill.whole(home) == []


@pytest.mark.parametrize("index", ["sqlite", "postgresql"])
def test_eight_processes_at_one_library_lose_nothing_and_see_no_lock(index, request, tmp_path):
    url = "" if index == "sqlite" else request.getfixturevalue("postgres_url")
    found = crowd.crowd(tmp_path / "home", processes=8, seconds=5.0, database=url)
    assert found["problems"] == []
    assert found["runs"] >= 8 * crowd.LEAST_TURNS and found["removed"] >= 8


@pytest.mark.parametrize(("fault", "megabytes"), [("full_library", 3), ("full_disk", 6), ("read_only", 64)])
def test_a_disk_that_refuses_is_one_sentence_and_nothing_is_lost(fault, megabytes, tmp_path):
    assert faults.inside_small_disk(fault, tmp_path / "disk", megabytes) == []


@pytest.mark.parametrize("fault", ["jumping_clock", "newer_version"])
def test_a_clock_that_jumps_and_a_newer_version_harm_nothing(fault, tmp_path):
    assert getattr(faults, fault)(str(tmp_path)) == []
