"""What the index of a library holds and where it lies, apart from the database that holds it."""

from pathlib import Path
from typing import NamedTuple

FILE = "index.sqlite"


class Row(NamedTuple):
    """What the index knows of one run folder."""

    id: str
    stamp: str
    """Changes whenever the folder's facts do."""
    kind: str | None = None
    env_id: str | None = None
    name: str | None = None
    manifest: str | None = None
    """`manifest.json` as text, None where it is damaged."""
    policy: str | None = None
    """`policy.json` as text, without its weights' table; None without a policy or where it is damaged."""
    problem: str | None = None
    """Why the folder cannot be used."""


def remove(path: Path) -> None:
    """Delete an index with what SQLite keeps beside it."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
