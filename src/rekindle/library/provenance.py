"""What a run was made with: the code's revision and difference, library versions, the device, the command."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_LIBRARIES = ("rekindle", "jax", "jaxlib", "equinox", "optax", "numpy", "safetensors", "gymnasium")


class Code(BaseModel):
    """The state of the source tree; all None and False outside a git checkout."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40,64}$")
    dirty: bool = False
    """Whether the tree differed from the revision, untracked files included."""
    difference_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the difference, as `git diff --binary` shows it with the untracked files added; None if none."""


RESULTS = tuple(
    f":(exclude,glob){place}" for place in ("benchmarks/*/cells/**", "benchmarks/*/results/**", "docs/results/**",
                                            "**/.env*", "**/*.pem", "**/*.key", "**/*secret*", "**/*credential*")
)  # fmt: skip
"""What does not change what the code does: what running it writes, and what by its name is a secret."""
PATCH = "code.patch"
"""The file in a run folder that holds the difference; `git apply` puts it back."""
MAX_PATCH_BYTES = 2**20
"""A larger difference is kept as its hash alone."""


def code() -> Code:
    """The state of the checkout that this package is imported from, as it was on the first call; results aside."""
    return _state()[0]


def patch() -> bytes | None:
    """The difference of that state from its revision, for `git apply`; None without one, or if it is too large."""
    difference = _state()[1]
    return difference if difference is not None and len(difference) <= MAX_PATCH_BYTES else None


@functools.cache
def _state() -> tuple[Code, bytes | None]:
    source = Path(__file__).resolve().parents[2]
    top = _git(source, "rev-parse", "--show-toplevel")
    if top is None or source != Path(os.fsdecode(top).strip()) / "src":
        return Code(), None
    root = source.parent
    head = _git(root, "rev-parse", "--verify", "-q", "HEAD")
    revision = head.decode().strip() if head else None
    changed = _git(root, "status", "--porcelain", "-z", "--untracked-files=all", "--", ".", *RESULTS)
    if changed == b"":
        return Code(revision=revision), None
    difference = _difference(root, revision)
    digest = None if difference is None else hashlib.sha256(difference).hexdigest()
    return Code(revision=revision, dirty=True, difference_sha256=digest), difference


def _difference(root: Path, revision: str | None) -> bytes | None:
    """Everything that differs, untracked files included, through an index and an object store that are thrown away."""
    objects = _git(root, "rev-parse", "--git-path", "objects")
    if objects is None:
        return None
    with tempfile.TemporaryDirectory(prefix="rekindle-git-") as scratch:
        there = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(root / os.fsdecode(objects).strip()),
        }
        tree = revision or "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name of the empty tree
        read = _git(root, "read-tree", tree, **there)
        added = None if read is None else _git(root, "add", "--all", "--", ".", *RESULTS, **there)
        return None if added is None else _git(root, "diff", "--cached", "--binary", tree, **there)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a training computes."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device() -> str:
    """The device that computes: JAX's, if JAX is loaded; else the processor. Loads nothing."""
    host = f"{platform.machine()}, {os.cpu_count()} cores"
    if (jax := sys.modules.get("jax")) is None:
        return f"cpu ({host})"
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind} ({host})"


def command() -> list[str]:
    """The command line of this process, with the program's name alone."""
    return [Path(sys.argv[0]).name or "python", *sys.argv[1:]]


def _git(folder: Path, *arguments: str, **environment: str) -> bytes | None:
    try:
        return subprocess.run(
            ["git", "-C", folder, *arguments],
            capture_output=True,
            check=True,
            timeout=20,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", **environment},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
