"""Policy artefacts: a folder with the facts in `policy.json`, the numbers in `weights.safetensors`, and no code.

A policy that replaces another has its weights beside the old ones, in a file named by their hash, until `policy.json`
speaks of them: at every moment one of the two policies is there, whole.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from rekindle.core.errors import CheckpointError, LibraryError, RekindleError
from rekindle.core.spaces import space_from_json
from rekindle.library import files, tensors
from rekindle.library.manifest import SCHEMA_VERSION, validated

FOLDER = "policy"
FACTS = "policy.json"
WEIGHTS = "weights.safetensors"
_MEND = "Copy it again, or train it anew."


def whole_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` itself, if an `EnvSpec` can be made of it; otherwise ValueError."""
    for name, kind in {"id": str, "version": int, "obs": dict, "action": dict, "players": int, "kind": str}.items():
        if not isinstance(spec.get(name), kind):
            raise ValueError(f"{name!r} must be of type {kind.__name__}")
    stack = spec.get("stack", 1)
    if not isinstance(stack, int) or isinstance(stack, bool) or stack < 1:
        raise ValueError(f"'stack' must be a number of frames, 1 or more, not {stack!r:.40}")
    try:
        for space in [*spec["obs"].values(), spec["action"]]:
            shape = getattr(space_from_json(space), "shape", ())
            if len(shape) == 3 and shape[2] % stack:
                raise ValueError(f"a picture of {shape[2]} channels is not made of {stack} frames")
    except (RekindleError, AttributeError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"a space is damaged ({str(error)[:120]})") from None
    return spec


class PolicyMeta(BaseModel):
    """What `policy.json` says. Any change of the fields is a new schema version; old ones stay readable."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    agent: str = Field(min_length=1)
    """Name of the algorithm that learnt it, as in `agents/<name>`."""
    agent_version: int = Field(ge=1)
    """Of the algorithm's networks: other numbers do not fit these weights."""
    config: dict[str, JsonValue]
    spec: dict[str, JsonValue]
    """`EnvSpec.to_json()` of the environment that it acts in."""
    normaliser: JsonValue = None
    weights: tensors.Table
    card: dict[str, JsonValue] = {}
    """The score card: what was measured, how, and what came out."""
    provenance: dict[str, JsonValue] = {}

    @field_validator("spec")
    @classmethod
    def _spec_is_whole(cls, spec: dict[str, Any]) -> dict[str, Any]:
        return whole_spec(spec)

    @property
    def spec_sha256(self) -> str:
        """Equal for policies that were made for the same environment."""
        return hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()

    @property
    def env_id(self) -> str:
        """Id of the environment that it acts in."""
        return str(self.spec["id"])


class PolicyArtefact(NamedTuple):
    """A policy as facts and named arrays; `agents.load` makes it act."""

    meta: PolicyMeta
    arrays: dict[str, np.ndarray]


def save_policy(
    folder: Path,
    *,
    agent: str,
    agent_version: int,
    config: Mapping[str, Any],
    spec: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    normaliser: Any = None,
    card: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> PolicyMeta:
    """Write a policy to `folder` (a run's `policy/`), whole or not at all; one that is there is replaced.

    Args:
        folder: its parent must exist.
        agent: name of the algorithm.
        agent_version: version of its networks, from 1.
        config: its configuration as JSON data.
        spec: `EnvSpec.to_json()`.
        arrays: weights by name, as `flatten_arrays` gives them; all finite.
        normaliser: statistics of the observations or rewards as JSON data, or None.
        card: scores, as JSON data.
        provenance: where it comes from, as JSON data.

    Raises:
        CheckpointError: weights that are not finite, or facts that could not be read back.
        LibraryError: the disk refuses.
    """
    tensors.check_finite(arrays, f"the policy for {folder}")

    data, table = tensors.encode(arrays)
    said = {
        "schema_version": SCHEMA_VERSION,
        "agent": agent,
        "agent_version": agent_version,
        "config": config,
        "spec": spec,
        "normaliser": normaliser,
        "weights": table.model_dump(),
        "card": card or {},
        "provenance": provenance or {},
    }
    meta = validated(PolicyMeta, files.plain(said), f"the facts for {folder}", CheckpointError)
    if not (folder / FACTS).exists():
        with files.new_folder(folder, replace=True) as new:
            files.write_bytes(new / WEIGHTS, data)
            files.write_json(new / FACTS, meta.model_dump(mode="json"))
        return meta
    _replace(folder, meta, data)
    return meta


def _replace(folder: Path, meta: PolicyMeta, data: bytes) -> None:
    """First the new weights beside the old, then the facts that speak of them, then the old weights go."""
    name = _named(meta.weights)
    files.write_bytes(folder / name, data)
    files.write_json(folder / FACTS, meta.model_dump(mode="json"))
    for old in folder.glob("weights*.safetensors"):
        if old.name != name:
            with contextlib.suppress(FileNotFoundError):
                old.unlink()
    files.sweep(folder)


def read_meta(folder: Path) -> PolicyMeta:
    """The facts of a policy, its weights unread. `folder` is the policy's, or the run's around it.

    Raises:
        CheckpointError: missing, damaged, foreign, or of a newer schema; the message has the mend.
    """
    path = policy_folder(folder) / FACTS
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no policy ({FACTS} is missing); name a run that finished a training.")
    try:
        data = files.read_json(path)
    except LibraryError as error:
        raise CheckpointError(f"{error} {_MEND}") from None
    return validated(PolicyMeta, data, path, CheckpointError)


def read_policy(folder: Path) -> PolicyArtefact:
    """A policy whose hash, table, dtypes, sizes and finite weights were checked. `folder` as in `read_meta`.

    Raises:
        CheckpointError: missing, damaged, foreign, or of a newer schema; the message has the mend.
    """
    while True:
        meta = read_meta(folder)
        weights = weights_file(folder, meta)
        try:
            arrays = tensors.read_tensors(weights, meta.weights)
            tensors.check_finite(arrays, str(weights))
            return PolicyArtefact(meta, arrays)
        except CheckpointError as error:
            if read_meta(folder) == meta:  # otherwise a better one replaced it in the meantime
                raise CheckpointError(f"{error} {_MEND}") from None


def weights_file(folder: Path, meta: PolicyMeta) -> Path:
    """Where the weights are that `meta` speaks of. `folder` as in `read_meta`."""
    named = policy_folder(folder) / _named(meta.weights)
    return named if named.exists() else policy_folder(folder) / WEIGHTS


def policy_folder(folder: Path) -> Path:
    """`folder`, or the `policy` folder in it if that is what it is the run folder of."""
    inner = folder / FOLDER
    return inner if not (folder / FACTS).exists() and inner.is_dir() else folder


def _named(table: tensors.Table) -> str:
    return f"weights-{table.sha256[:16]}.safetensors"
