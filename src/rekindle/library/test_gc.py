"""What is waste and what is not: never what a run that can be resumed was made from."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.library import files, gc
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.library.test_artefact import save

NOW = timedelta(0)


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "home", shipped=tmp_path / "none")


def make(library, name, *, kind="train", status="done", policy=True, parents=(), config=None, value=1.0, **card):
    run = Run.create(library, kind, name=name, config=config or {}, seed=0, parents=parents)
    if policy:
        save(run.path / "policy", arrays={"w": np.full(3, value, np.float32)}, card=card)
    run.finish(status)
    return run


def removed(library, **options):
    return {(one.what, one.id) for one in gc.collect(library, older_than=options.get("older_than", NOW))}


def test_policies_stay_and_checkpoints_of_what_is_done_go(library):
    run = make(library, "a")
    run.save_checkpoint(5, {"w": np.zeros(100)}, {})
    going = make(library, "b", status="interrupted")
    going.save_checkpoint(5, {"w": np.zeros(100)}, {})
    (waste,) = gc.plan(library, older_than=NOW)
    assert (waste.what, waste.id) == ("checkpoints", run.id) and waste.nbytes > 400
    assert run.latest_checkpoint() is not None
    assert removed(library) == {("checkpoints", run.id)} and run.latest_checkpoint() is None
    assert going.latest_checkpoint() is not None and library.verify() == [] and removed(library) == set()


def test_runs_with_nothing_to_reuse_go_when_they_are_old_enough(library):
    nothing, failed = make(library, "a", policy=False), make(library, "b", policy=False, status="failed")
    kept = make(library, "c", policy=False, status="failed")
    kept.save_checkpoint(5, {"w": np.zeros(1)}, {})
    score = make(library, "d", kind="evaluate", policy=False)
    assert removed(library, older_than=timedelta(days=1)) == set()
    assert removed(library) == {("run", nothing.id), ("run", failed.id)}
    assert {r.id for r in library.runs()} == {kept.id, score.id}
    assert library.remembered(nothing.id).name == "a"


def test_of_equal_answers_the_newest_stays(library):
    first, second = (make(library, "a", kind="master", goal="g") for _ in range(2))
    other, unequal = make(library, "b", kind="master", goal="h"), make(library, "c", kind="master", goal="g", value=2.0)
    third = make(library, "d", kind="master", goal="g")
    library.pin(first.id)
    assert removed(library) == {("run", second.id)}
    assert {r.id for r in library.runs()} == {first.id, other.id, unequal.id, third.id}


def test_what_a_process_is_at_work_on_is_left_alone(library):
    run = make(library, "a", policy=False)
    with run.held():
        assert library.is_being_written(run.id) and removed(library) == set()
    assert removed(library) == {("run", run.id)}


def test_remains_of_dead_writers_go_and_those_of_living_ones_stay(library):
    dead = library.runs_folder / f"{files.TEMPORARY}x-{files.machine()}-4194305-00000000"
    dead.mkdir()
    (dead / "part").write_text("half")
    with files.new_folder(library.runs_folder / "living") as living:
        assert removed(library) == {("leftover", str(dead))}
        assert living.is_dir() and not dead.exists()
        (living / "x").write_text("")


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["done", "interrupted", "failed", "running"]),
            st.booleans(),
            st.sets(st.integers(0, 9), max_size=3),
            st.booleans(),
            st.sampled_from(["train", "master"]),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_a_run_that_can_be_resumed_never_loses_a_parent(tmp_path_factory, family):
    library = Library(tmp_path_factory.mktemp("home"), shipped=tmp_path_factory.mktemp("none"))
    made: list[Run] = []
    for status, policy, parents, pinned, kind, by_config in family:
        chosen = [made[i % len(made)].id for i in parents if made]
        config = {"init": chosen[0]} if chosen and by_config else {}
        named = [] if by_config else [(parent, "init") for parent in dict.fromkeys(chosen)]
        name = f"r{len(made)}"
        run = make(library, name, status=status, policy=policy, parents=named, config=config, kind=kind, goal="g")
        made.append(run)
        if pinned:
            library.pin(run.id)
    gc.collect(library, older_than=NOW)
    there = {record.id for record in library.runs()}
    for run, (status, _, _, pinned, _, _) in zip(made, family, strict=True):
        if pinned:
            assert run.id in there
        if run.id in there and status != "done":
            named = {run.manifest.config["init"]} if run.manifest.config else set()
            assert {parent.id for parent in run.manifest.parents} | named <= there
    weights = {library.find(run.id).row.weights for run in made if run.id in there} - {None}
    assert bool(weights) == any(policy for _, policy, *_ in family), "the only policy of some weights went"
    assert gc.plan(library, older_than=NOW) == []
