"""What the index of a library holds, apart from the database that holds it."""

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
    status: str | None = None
    created: str | None = None
    """ISO 8601, in UTC."""
    manifest: str | None = None
    """`manifest.json` as text, None where it is damaged."""
    agent: str | None = None
    spec: str | None = None
    """Hash of what the policy was made for: equal for policies of one environment."""
    weights: str | None = None
    """SHA-256 of the policy's weights."""
    goal: str | None = None
    """What the policy is an answer to, from its card."""
    foundation: str | None = None
    """Not empty if its card says that it is good for many goals."""
    card: str | None = None
    """The policy's score card as JSON."""
    policy: str | None = None
    """`policy.json` as text, without its weights' table; None without a policy or where it is damaged."""
    problem: str | None = None
    """Why the folder cannot be used."""


class Link(NamedTuple):
    """One line of a family tree."""

    child: str
    parent: str
    role: str
