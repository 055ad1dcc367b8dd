"""What a run was made with: the code's revision and difference, library versions, the device, the command."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_LIBRARIES = ("rekindle", "jax", "jaxlib", "equinox", "optax", "numpy", "safetensors", "gymnasium")


class Code(BaseModel):
    """The state of the source tree; all None and False outside a git checkout."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    revision: str | None = None
    dirty: bool = False
    """Whether the tree differed from the revision, untracked files included."""
    difference_sha256: str | None = None
    """SHA-256 of `git diff HEAD` and of the untracked files, where the tree differed."""


RESULTS = tuple(
    f":(exclude,glob){place}/**" for place in ("benchmarks/*/cells", "benchmarks/*/results", "docs/results")
)
"""What running code writes; it does not change what the code does."""


@functools.cache
def code() -> Code:
    """The state of the checkout that this package is imported from, as it was on the first call; results aside."""
    source = Path(__file__).resolve().parents[2]
    top = _git(source, "rev-parse", "--show-toplevel")
    if top is None or source != Path(os.fsdecode(top).strip()) / "src":
        return Code()
    root = source.parent
    revision = _git(root, "rev-parse", "--verify", "-q", "HEAD")
    difference = _git(root, "diff", "HEAD", "--binary", "--", ".", *RESULTS) if revision else b""
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", ".", *RESULTS)
    if difference is None or untracked is None:
        return Code(revision=revision.decode().strip() if revision else None, dirty=True)
    digest = hashlib.sha256(difference)
    for name in filter(None, untracked.split(b"\0")):
        digest.update(name)
        if (path := root / os.fsdecode(name)).is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    dirty = bool(difference or untracked)
    return Code(
        revision=revision.decode().strip() if revision else None,
        dirty=dirty,
        difference_sha256=digest.hexdigest() if dirty else None,
    )


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


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
