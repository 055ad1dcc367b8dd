"""A teacher that is not in the library, by what a user types.

A policy's folder of our own, a zip of Stable-Baselines3, an ONNX file, or `module:function`.
"""

import hashlib
import math
import os
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rekindle.core.errors import ConfigError
from rekindle.core.extras import from_here
from rekindle.core.spaces import Box, Discrete, Space, is_vectors
from rekindle.core.types import EnvSpec
from rekindle.library import artefact, bundle, dataset, files
from rekindle.reincarnation.teachers import host, stable_baselines

PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_foreign(which: str) -> bool:
    """Whether that is no agent of a library."""
    return which.endswith((".zip", ".onnx")) or PLACE.fullmatch(which) is not None or folder_of(which) is not None


def folder_of(which: str) -> Path | None:
    """The folder of a policy of our own that a path leads to, itself or by the run folder that it is in; or None.

    Ids and names of runs are no paths, unless a slash or a dot says so.
    """
    if os.sep not in which and not which.startswith("."):
        return None
    path = Path(os.path.abspath(which))
    places = (path, path / artefact.FOLDER)
    return next((place for place in places if os.path.isfile(place / artefact.FACTS)), None)


def replay_of(policy: Path) -> Path | None:
    """The replay beside a policy's folder, or None."""
    beside = policy.parent / dataset.FOLDER
    return beside if (beside / dataset.FACTS).is_file() else None


def settled(which: str, runs: Path) -> str:
    """The same from whatever folder it is read: paths as absolute ones, and those into a library's `runs` as ids."""
    folder = folder_of(which)
    if folder is not None and folder.parent.parent == Path(os.path.abspath(runs)):
        return folder.parent.name
    is_file = which.endswith((".zip", ".onnx")) and os.path.isfile(which)
    return os.path.abspath(which) if is_file or folder is not None else which


def refuse_path(which: str) -> None:
    """ConfigError where a path leads to nothing, or to something that is no teacher yet."""
    if os.path.isabs(which) and not os.path.exists(which):
        raise ConfigError(f"there is no teacher in {which} (any more); bring it back, or begin anew.")
    if which.endswith(bundle.EXTENSION) and os.path.isfile(which):
        raise a_bundle(which)
    if os.path.isdir(which) and (os.sep in which or which.startswith(".")):
        raise ConfigError(
            f"{which} holds no policy: there is neither {artefact.FACTS} in it nor {artefact.FOLDER}/{artefact.FACTS}. "
            "Give a policy's folder, or a run's."
        )


def a_bundle(which: str) -> ConfigError:
    """Of a file that has to be verified before anything in it is used."""
    return ConfigError(
        f"{which} is a bundle; `rekindle library import {which}` verifies it and says the id to give here."
    )


def executes(which: str, *, trust: bool) -> bool:
    """Whether loading a foreign teacher executes what its maker wrote."""
    if folder_of(which) is not None or which.endswith(".onnx"):
        return False
    return trust or not which.endswith(".zip")


def fingerprint(which: str) -> str | None:
    """By which one knows a foreign teacher again, as a SHA-256; None where there is nothing to take it of.

    Of a file itself; of a folder the facts, which hold hashes of the weights and the steps; of a function the file of
    its module, not what that imports.
    """
    if (policy := folder_of(which)) is not None:
        replay = replay_of(policy)
        facts = [policy / artefact.FACTS, *([] if replay is None else [replay / dataset.FACTS])]
        return hashlib.sha256("".join(map(files.sha256, facts)).encode()).hexdigest()
    path = Path(which)
    if not which.endswith((".zip", ".onnx")):
        from_here()
        try:
            found = find_spec(which.partition(":")[0])
        except (ImportError, AttributeError, ValueError):
            return None
        path = Path((found and found.origin) or which)
    return files.sha256(path) if path.is_file() else None


def load(which: str, spec: EnvSpec, *, trust: bool = False, valued: bool = False) -> Any:
    """A teacher that is not of our own making, as a policy for an environment.

    Args:
        which: the path of a file, or a place.
        spec: of the environment.
        trust: whether a zip may be loaded by Stable-Baselines3 itself, which executes what is in it.
        valued: whether the numbers of an ONNX file or a function are action values; else they are logits.

    Raises:
        ConfigError, CheckpointError: it cannot be read, or was made for another environment; both are named.
    """
    space = spec.action
    if not (isinstance(space, Discrete) or is_vectors(space)):
        raise ConfigError(f"teachers make choices, or give vectors from -x to x; {spec.id} takes {space!r}.")
    if not which.endswith((".zip", ".onnx")):
        return host.checked(host.from_name(which), sample(spec), space, valued=valued, what=which)
    path = Path(which)
    if not path.is_file():
        raise ConfigError(f"no teacher {which!r}: there is no such file.")
    if which.endswith(".onnx"):
        return host.checked(host.from_onnx(path), sample(spec), space, valued=valued, what=which)
    if bundle.looks_like_one(path):
        raise a_bundle(which)
    if trust:
        scores = host.from_stable_baselines(path)
        return host.checked(scores, sample(spec), space, valued=False, what=which)
    policy = stable_baselines.read(path)
    policy = policy.facing(refuse_other(policy.facts, spec, which))
    return policy if isinstance(space, Discrete) else replace(policy, reach=space.high)


def size_of(space: Space) -> int:
    """Of a vector."""
    assert isinstance(space, Box)
    return math.prod(space.shape)


def sample(spec: EnvSpec) -> dict[str, np.ndarray]:
    """Two observations of nothing."""
    return {name: np.zeros((2, *space.shape), space.dtype) for name, space in spec.obs.items()}  # pyright: ignore


def refuse_other(facts: stable_baselines.Facts, spec: EnvSpec, which: str) -> tuple[int, ...]:
    """The shape of what the environment shows.

    Raises:
        ConfigError: the teacher sees or does something else than the environment has; names both.
    """
    space = spec.action
    here = f"{space.n} actions" if isinstance(space, Discrete) else f"actions of {size_of(space)} numbers"
    there = f"actions of {facts.actions} numbers" if facts.vectors else f"{facts.actions} actions"
    if there != here:
        raise ConfigError(f"the teacher {which} has {there}, {spec.id} has {here}.")
    shown = [tuple(getattr(space, "shape", ())) for space in spec.obs.values()]
    turned = [(*shape[-1:], *shape[:-1]) for shape in shown]
    if len(shown) != 1 or facts.shape not in (*shown, *turned):
        seen = " and ".join(str(list(shape)) for shape in shown)
        raise ConfigError(f"the teacher {which} sees {list(facts.shape)}, {spec.id} shows {seen}.")
    return shown[0]
