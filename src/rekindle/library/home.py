"""Where the library is, and where its index is."""

import hashlib
import os
from pathlib import Path

import platformdirs

from rekindle.core.errors import ConfigError


def default_home() -> str:
    """The user's library: `REKINDLE_HOME`, a folder or any fsspec URL, or else the platform's folder for user data."""
    return os.environ.get("REKINDLE_HOME") or platformdirs.user_data_dir("rekindle")


def is_remote(home: str | os.PathLike[str]) -> bool:
    """Whether a home is a URL of something else than this machine's disks."""
    return "://" in os.fspath(home) and not os.fspath(home).startswith(("file://", "local://"))


def near(home: str | os.PathLike[str]) -> Path:
    """The folder on this machine: the home itself, or the cache of a remote one."""
    text = os.fspath(home)
    if is_remote(text):
        return Path(platformdirs.user_cache_dir("rekindle")) / hashlib.sha256(text.encode()).hexdigest()[:16]
    path = text.removeprefix("file://").removeprefix("local://")
    if not path.strip():
        raise ConfigError(f"REKINDLE_HOME takes a folder or a URL; got {text!r}.")
    try:
        return Path(path).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"REKINDLE_HOME={text!r} cannot be used: {error}.") from None


def database() -> str | None:
    """`REKINDLE_DB`, the URL of the index; None for SQLite beside the runs."""
    return os.environ.get("REKINDLE_DB") or None


def shipped() -> Path:
    """The runs that come with the package: a read-only layer beneath every library."""
    return Path(__file__).parent / "shipped"
