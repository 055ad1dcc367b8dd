"""What a student is taught by: the teacher and the steps that an order names, and whether they suit its world."""

from pathlib import Path
from typing import Any

import numpy as np

from rekindle.agents.registry import Loaded, load
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Discrete, Space
from rekindle.core.types import EnvSpec
from rekindle.envs import registry
from rekindle.library.artefact import read_policy
from rekindle.library.dataset import FOLDER, Dataset, read_dataset
from rekindle.library.library import Library
from rekindle.library.manifest import FILE as MANIFEST
from rekindle.library.manifest import read_manifest
from rekindle.library.records import Record
from rekindle.library.run import Run
from rekindle.reincarnation.teachers import load as teachers
from rekindle.replay import ring as rings
from rekindle.replay.ring import Ring
from rekindle.train.order import AnyMade, Order, made_by_options


def pool_of_run(record: Record) -> Any:
    """The options that a run's environment was made with."""
    return record.manifest.config.get("pool", {})


def taught_by(order: Order, made: AnyMade, library: Library, run: Run) -> tuple[Any, Ring | None, Loaded | None]:
    """The teacher, its replay if it kept one, and what it is in the library if it is from there.

    Raises:
        ConfigError, CheckpointError: it was made for another environment, or cannot be read.
    """
    given = None if order.data is None else kept_steps(library.find(order.data), order, made, run)
    policy, loaded, record = teacher_of(order, made, library, run)
    if given is None and record is not None and (record.path / FOLDER).is_dir():
        given = kept_steps(record, order, made, run)
    folder = None if record is not None else teachers.folder_of(str(order.teacher))
    if given is None and folder is not None and (beside := teachers.replay_of(folder)) is not None:
        given = fitting(read_dataset(beside), order, made, whose=f"the replay in {beside}")
    return policy, given, loaded


def rows_kept(order: Order, library: Library, teacher: Record | None = None) -> int | None:
    """Worlds side by side that the steps are of which a student is given; None where there are none."""
    if order.data is not None:
        folder: Path | None = library.find(order.data).fetch(FOLDER)
    elif teacher is not None:
        folder = teacher.path / FOLDER if (teacher.path / FOLDER).is_dir() else None
    else:
        beside = teachers.folder_of(str(order.teacher))
        folder = None if beside is None else teachers.replay_of(beside)
    return None if folder is None else read_dataset(folder).arrays["reward"].shape[1]


def teacher_of(order: Order, made: AnyMade, library: Library, run: Run) -> tuple[Any, Loaded | None, Record | None]:
    """The teacher; what it is in the library, and where, if it is from there.

    Raises:
        ConfigError, CheckpointError: it was made for another environment, or cannot be read.
    """
    assert order.teacher is not None
    if teachers.is_foreign(order.teacher):
        if order.teacher_sha256 not in (None, teachers.fingerprint(order.teacher)):
            raise ConfigError(f"the teacher {order.teacher} is another one than when this began; begin anew.")
        return *foreign(order.teacher, order, made), None
    teachers.refuse_path(order.teacher)
    record = library.find(order.teacher)
    refuse_mere_data(record)
    refuse_replaced(run, "teacher", record.id, record.row.weights)
    loaded = load(record.fetch("policy"), env_spec=made.spec)
    refuse_other_world(loaded.spec, pool_of_run(record), order, made, "the teacher")
    return loaded.policy, loaded, record


def settings_of(which: str, algorithm: str, library: Library) -> dict[str, Any]:
    """The settings of a teacher of this algorithm, for a student that goes on with its network; {} of any other."""
    which = teachers.settled(which, library.runs_folder)
    folder = teachers.folder_of(which)
    if folder is None and not teachers.is_foreign(which):
        teachers.refuse_path(which)
        folder = library.find(which).fetch("policy")
    if folder is None or not folder.is_dir():
        return {}
    meta = read_policy(folder).meta
    return dict(meta.config) if meta.agent == algorithm else {}


def foreign(which: str, order: Order, made: AnyMade) -> tuple[Any, Loaded | None]:
    """A teacher that is not in the library; and what it is, if it is of our own making.

    Raises:
        ConfigError, CheckpointError: it was made for another environment, or cannot be read.
    """
    folder = teachers.folder_of(which)
    if folder is None:
        return teachers.load(which, made.spec, trust=order.trust, valued=order.valued), None
    loaded = load(folder, env_spec=made.spec)
    refuse_other_world(loaded.spec, pool_of_policy(folder, loaded, order), order, made, "the teacher")
    return loaded.policy, loaded


def pool_of_policy(folder: Path, loaded: Loaded, order: Order) -> Any:
    """The options that a policy's environment was made with; those of the order where neither its run nor it says."""
    if (folder.parent / MANIFEST).is_file():
        return read_manifest(folder.parent).config.get("pool", {})
    return loaded.artefact.meta.provenance.get("options", order.pool)


def kept_steps(record: Record, order: Order, made: AnyMade, run: Run) -> Ring:
    """The replay of a run; see `fitting`.

    Raises:
        ConfigError: it is of another world, or shows or takes something else, or was replaced.
        CheckpointError: there is none, or it cannot be read.
    """
    data = read_dataset(record.fetch(FOLDER))
    refuse_replaced(run, "replay", record.id, data.meta.steps.sha256)
    return fitting(data, order, made, whose=f"the replay of {record.id}")


def fitting(data: Dataset, order: Order, made: AnyMade, *, whose: str) -> Ring:
    """Steps for a world; one that is not written in JAX reads them in their own file.

    Raises:
        ConfigError: they are of another world, or show or take something else.
    """
    there = EnvSpec.from_json(data.meta.spec)
    if there.kind == "jax" or (isinstance(made, registry.Hosted) and registry.is_hosted(there.id)):
        refuse_other_world(there, data.meta.recipe.get("options", order.pool), order, made, whose)
    here = {f"obs.{name}": space for name, space in made.spec.obs.items()} | {"action": made.spec.action}
    seen = {f"obs.{name}": space for name, space in there.obs.items()} | {"action": there.action}
    for name in sorted(here | seen):
        if _form(seen.get(name)) != _form(here.get(name)):
            raise ConfigError(
                f"{whose} has {seen.get(name)!r} for {name!r}, {made.spec.id} has {here.get(name)!r}; take another."
            )
    if there.stack != made.spec.stack:
        raise ConfigError(f"{whose} has pictures of {there.stack} frames, {made.spec.id} of {made.spec.stack}.")
    typed = {name: data.arrays[name].astype(_type(space), copy=False) for name, space in here.items()}
    arrays = data.arrays | typed
    return rings.in_place(arrays) if isinstance(made, registry.Hosted) else rings.from_arrays(arrays)


def _form(space: Space | None) -> tuple[Any, ...]:
    """By which steps of other worlds fit: what there is to choose from, the shape, and the sort of number."""
    if isinstance(space, Discrete):
        return (space.n,)
    return () if space is None else (getattr(space, "shape", None), _type(space).kind)


def _type(space: Space) -> np.dtype:
    return np.dtype(getattr(space, "dtype", "object"))


def refuse_mere_data(record: Record) -> None:
    """ConfigError where a run that is to teach holds no policy."""
    if record.policy is None and not record.fetch("policy").is_dir():
        mend = "give it as --data beside a teacher that does" if record.manifest.kind == "dataset" else "take another"
        raise ConfigError(f"{record.id} holds no policy, so it cannot teach; {mend}.")


def refuse_replaced(run: Run, role: str, id: str, sha256: str | None) -> None:
    """ConfigError where a parent is not what it was when the run began."""
    for parent in run.manifest.parents:
        if parent.role == role and parent.sha256 != sha256:
            raise ConfigError(f"the {role} {id} was replaced since this began; begin anew.")


def refuse_other_world(there: EnvSpec, pool: Any, order: Order, made: AnyMade, what: str) -> None:
    """ConfigError, with both values, where a teacher or data are of another world, or of other options of it."""
    was, here = (f"{spec.id}, version {spec.version}" for spec in (there, made.spec))
    if was != here:
        raise ConfigError(f"{what} was made for {was}; the student is to act in {here}.")
    usual = registry.defaults(order.env) if made_by_options(order.env) else {}
    if made_by_options(order.env) and usual | dict(pool) != usual | order.pool:
        shown = [", ".join(f"{n}={v}" for n, v in o.items()) or "no options" for o in (dict(pool), order.pool)]
        raise ConfigError(f"{what} was made with {shown[0]} of {made.spec.id}, the student with {shown[1]}.")
