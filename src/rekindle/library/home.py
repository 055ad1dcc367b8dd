"""Where the library is."""

import os
from pathlib import Path

import platformdirs


def default_home() -> Path:
    """The user's library: `REKINDLE_HOME`, or else the platform's folder for user data."""
    if named := os.environ.get("REKINDLE_HOME"):
        return Path(named).expanduser().absolute()
    return Path(platformdirs.user_data_dir("rekindle"))


def shipped() -> Path:
    """The runs that come with the package: a read-only layer beneath every library."""
    return Path(__file__).parent / "shipped"
