"""Datasets to and from Minari: the steps of a run as whole episodes, and episodes as the steps of a run.

Minari keeps of an episode one observation more than actions, ours only what was acted on. So on the way out the last
observation of an episode is there twice: nothing may follow a termination, and after a time limit its value stands for
the one that was not kept, as in our own returns. Where the steps end in the middle of an episode, it is cut off by a
time limit. On the way in, the observation that nobody acted on is left out, and episodes follow each other in one row.

Loads no JAX. Needs the extra: `pip install -e '.[minari]'`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rekindle.core.errors import ConfigError, LibraryError, RekindleError
from rekindle.core.extras import optional
from rekindle.core.spaces import newest_of, space_from_json, space_to_json
from rekindle.library import files
from rekindle.library.artefact import whole_spec
from rekindle.library.dataset import FOLDER, Dataset, check_steps, save_dataset
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.library.store import make_folders

ID = r"([A-Za-z0-9_][A-Za-z0-9_-]*/)*[A-Za-z0-9_][A-Za-z0-9_-]*-v[0-9]{1,6}"
OWN = "rekindle"
"""Where in Minari's facts ours are: the environment's spec, and how the steps came about."""
REPEATED = (
    "The last observation of an episode repeats the one before it: what was seen after an end was not kept. An episode "
    "that was going on when the steps ended is truncated there; the first ones may have begun before."
)


class Episode(NamedTuple):
    """T steps, and T + 1 observations."""

    obs: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class Written(NamedTuple):
    """What Minari has now."""

    id: str
    path: Path
    episodes: int
    steps: int


class Found(NamedTuple):
    """Steps of a dataset of Minari's, as `save_dataset` takes them."""

    spec: dict[str, Any]
    arrays: dict[str, np.ndarray]
    recipe: dict[str, Any]


def cut(arrays: Mapping[str, np.ndarray]) -> Iterator[Episode]:
    """The episodes in steps of rows, `[T, B, ...]`, row by row."""
    over = arrays["terminated"] | arrays["truncated"]
    for row in range(over.shape[1]):
        begin = 0
        for end in (*(np.flatnonzero(over[:, row]) + 1), len(over)):
            if end > begin:
                yield _episode({name: array[begin:end, row] for name, array in arrays.items()})
            begin = end


def _episode(steps: Mapping[str, np.ndarray]) -> Episode:
    obs = {n.removeprefix("obs."): np.concatenate([x, x[-1:]]) for n, x in steps.items() if n.startswith("obs.")}
    terminated, truncated = np.array(steps["terminated"]), np.array(steps["truncated"])
    truncated[-1] |= not terminated[-1]
    return Episode(obs, np.array(steps["action"]), np.array(steps["reward"]), terminated, truncated)


def joined(episodes: Iterable[Episode], spec: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """So many steps of episodes, one after the other in one row: `[steps, 1, ...]`, in the types of the spec.

    Raises:
        LibraryError: episodes that are not as the spec says, or more or fewer steps.
    """
    stack = spec.get("stack", 1)
    spaces = {f"obs.{name}": newest_of(space_from_json(space), stack) for name, space in spec["obs"].items()}
    spaces["action"] = space_from_json(spec["action"])
    form = {name: (getattr(space, "shape", ()), getattr(space, "dtype", "")) for name, space in spaces.items()}
    form |= {"reward": ((), "float32"), "terminated": ((), "bool"), "truncated": ((), "bool")}
    arrays = {name: np.empty((steps, 1, *shape), dtype) for name, (shape, dtype) in form.items()}
    at = 0
    for number, episode in enumerate(episodes):
        length = len(episode.reward)
        if at + length > steps:
            raise LibraryError(f"there are more than the {steps} steps that its facts promise.")
        parts = episode._asdict() | {f"obs.{name}": x[:length] for name, x in episode.obs.items()}
        for name, (shape, dtype) in form.items():
            part = np.asarray(parts[name]) if name in parts else np.zeros(0)
            if part.shape != (length, *shape) or not np.can_cast(part.dtype, dtype, "same_kind"):
                raise LibraryError(
                    f"episode {number} has {part.dtype}{list(part.shape)} for {name!r}, expected "
                    f"{dtype}{[length, *shape]}."
                )
            arrays[name][at : at + length, 0] = part
        at += length
        if length:
            arrays["truncated"][at - 1] |= ~arrays["terminated"][at - 1]
    if at != steps or steps == 0:
        raise LibraryError(f"there are {at} steps, its facts promise {steps}.")
    return arrays


def write(id: str, data: Dataset, *, run: str, algorithm: str | None) -> Written:
    """Steps of a run as a dataset of Minari's on this machine, whole or not at all; pictures without loss.

    Args:
        id: NAMESPACE/NAME-v0.
        data: the steps.
        run: whose they are.
        algorithm: what acted.

    Raises:
        ConfigError: no such name can be, there is one, or Minari is not installed.
        LibraryError: the disk refuses.
    """
    minari, path = _minari(id)
    if path.exists():
        raise ConfigError(f"Minari has a dataset {id} already; choose another name, or the next version.")
    buffers, storages, namespaces = map(_part, ("data_collector.episode_buffer", "dataset.minari_storage", "namespace"))
    from rekindle.envs.gymnasium_spaces import to_space

    spec: dict[str, Any] = dict(data.meta.spec)
    stack = spec.get("stack", 1)
    shown = {name: to_space(newest_of(space_from_json(space), stack)) for name, space in spec["obs"].items()}
    is_plain = list(shown) == ["obs"]
    own = {"run": run, "spec": spec, "recipe": data.meta.recipe, "final_observation": "repeated"}
    facts = {"dataset_id": id, "minari_version": minari.__version__, "description": REPEATED, OWN: own}
    facts |= {} if algorithm is None else {"algorithm_name": algorithm}
    namespace = id.rpartition("/")[0]
    make_folders(path.parent)
    if namespace and namespace not in namespaces.list_local_namespaces():
        namespaces.create_namespace(namespace)
    with files.new_folder(path) as folder:
        space = shown["obs"] if is_plain else _dictionary(shown)
        action = to_space(space_from_json(spec["action"]))
        storage = storages.MinariStorage.new(folder / "data", space, action, jpeg_encoding=False)
        storage.update_metadata(facts)
        storage.update_episodes(
            buffers.EpisodeBuffer(
                observations=episode.obs["obs"] if is_plain else episode.obs,
                actions=episode.action,
                rewards=episode.reward,
                terminations=episode.terminated,
                truncations=episode.truncated,
            )
            for episode in cut(data.arrays)
        )
        counted = (int(storage.total_episodes), int(storage.total_steps))
    for left in files.abandoned(path.parent):
        files.remove(left)
    return Written(id, path, *counted)


def read(id: str) -> Found:
    """A dataset of Minari's on this machine, as steps of one row.

    Raises:
        ConfigError: there is none, or its spaces are none that we have.
        LibraryError: it is damaged, or not as its own facts say.
    """
    minari, path = _minari(id)
    if not (path / "data").is_dir():
        raise ConfigError(f"Minari has no dataset {id} in {path.parent}; `minari download {id}` fetches a public one.")
    try:
        kept = minari.load_dataset(id)
        facts = kept.storage.metadata
        spec = _spec(id, kept, facts.get(OWN))
        return Found(spec, joined(_episodes(kept), spec, int(kept.total_steps)), _recipe(id, kept, facts))
    except RekindleError as error:
        raise type(error)(f"Minari's dataset {id} cannot be used: {error}") from None
    except Exception as error:  # it and the libraries below raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise LibraryError(f"Minari cannot read {id}: {reason}; fetch or make it again.") from None


def keep(library: Library, id: str) -> tuple[str, int]:
    """A dataset of Minari's as a run of the library, of kind `dataset`; its id, and its steps.

    Raises:
        ConfigError, LibraryError: as `read`.
        CheckpointError: its numbers are not finite, or no such action can be; nothing is kept then.
    """
    found = read(id)
    check_steps(found.arrays, found.spec, f"Minari's dataset {id}")
    name = id.rpartition("/")[2]
    run = Run.create(library, "dataset", name=name, config={"minari": id}, seed=None, env_id=found.spec["id"])
    with run.held():
        try:
            save_dataset(run.path / FOLDER, spec=found.spec, arrays=found.arrays, recipe=found.recipe)
        except Exception as error:
            run.fail(str(error))
            raise
        transitions = int(found.arrays["reward"].size)
        run.finish("done", env_steps=transitions)
    return run.id, transitions


def _episodes(kept: Any) -> Iterator[Episode]:
    for one in kept.iterate_episodes():
        obs = one.observations if isinstance(one.observations, dict) else {"obs": one.observations}
        yield Episode(obs, one.actions, one.rewards, one.terminations, one.truncations)


def _spec(id: str, kept: Any, own: Any) -> dict[str, Any]:
    """That of the environment: as we wrote it, else made of Minari's spaces."""
    from gymnasium import spaces

    from rekindle.envs.gymnasium_spaces import from_space

    if isinstance(own, dict) and isinstance(own.get("spec"), dict):
        try:
            return whole_spec(own["spec"])
        except ValueError as error:
            raise LibraryError(f"its spec is damaged: {error}.") from None
    shown = kept.observation_space
    named = shown.spaces if isinstance(shown, spaces.Dict) else {"obs": shown}
    env = f"gymnasium/{kept.env_spec.id}" if kept.env_spec is not None else f"minari/{id}"
    version = env.rpartition("-v")[2]
    return {
        "id": env,
        "version": int(version) if version.isdigit() else 0,
        "obs": {name: space_to_json(from_space(space, id)) for name, space in named.items()},
        "action": space_to_json(from_space(kept.action_space, id)),
        "players": 1,
        "kind": "host",
    }


def _recipe(id: str, kept: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Where it comes from; what we wrote of it comes back."""
    own = facts.get(OWN)
    told = own.get("recipe") if isinstance(own, dict) else None
    said = {name: str(facts[name])[:200] for name in ("algorithm_name", "code_permalink") if name in facts}
    found = {"minari": id, "minari_version": str(kept.minari_version), "episodes": int(kept.total_episodes), **said}
    return {**(told if isinstance(told, dict) else {}), **found}


def _dictionary(shown: Mapping[str, Any]) -> Any:
    from gymnasium import spaces

    return spaces.Dict(dict(shown))


def _minari(id: str) -> tuple[Any, Path]:
    """The library, and where it keeps the dataset of this name."""
    if not re.fullmatch(ID, id):
        raise ConfigError(f"a dataset of Minari is called NAMESPACE/NAME-v0; got {id[:80]!r}.")
    optional("h5py", what="Minari's format", extra="minari")
    return _part(), _part("storage.datasets_root_dir").get_dataset_path(id)


def _part(name: str = "") -> Any:
    """The library, or a module of it."""
    return optional(f"minari.{name}" if name else "minari", what="Minari's format", extra="minari")
