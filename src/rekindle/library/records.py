"""What a library says of a run and of a policy: facts at once, bytes when they are asked for."""

import functools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rekindle.library import artefact, store
from rekindle.library.manifest import Manifest, now
from rekindle.library.rows import Link, Row
from rekindle.library.verify import facts_of

SHIPPED = "shipped/"
"""How the ids of runs begin that came with the package."""


@dataclass(frozen=True)
class Record:
    """One kept run: its facts at once, its bytes when they are asked for."""

    row: Row
    place: store.Store | Path = field(compare=False, repr=False)
    """The store that holds it, or the folder itself where it came with the package."""

    @property
    def id(self) -> str:
        """As `rekindle library ls` shows it."""
        return self.row.id

    @functools.cached_property
    def manifest(self) -> Manifest:
        """Its facts."""
        return Manifest.model_validate_json(self.row.manifest or "")

    @functools.cached_property
    def policy(self) -> dict[str, Any] | None:
        """`policy.json` without the table of its weights; None if the run kept no policy."""
        return None if self.row.policy is None else json.loads(self.row.policy)

    @property
    def location(self) -> str:
        """Folder or URL, for people; nothing is fetched."""
        return str(self.place) if isinstance(self.place, Path) else self.place.location(self.id)

    @property
    def path(self) -> Path:
        """The whole run on this machine, fetched if it is elsewhere; to read."""
        return self.fetch()

    @property
    def is_shipped(self) -> bool:
        """Whether it came with the package."""
        return self.id.startswith(SHIPPED)

    def fetch(self, part: str = "") -> Path:
        """A file or folder of it on this machine, fetched if it is elsewhere; to read."""
        return self.place / part if isinstance(self.place, Path) else self.place.fetch(self.id, part)


@dataclass(frozen=True)
class Prior:
    """A policy that can be reused."""

    id: str
    """Of its run."""
    name: str
    env_id: str
    agent: str
    begun: str
    """When its run began, ISO 8601 in UTC: sorts by time."""
    sha256: str
    """Of its weights."""
    spec: str
    """Hash of what it was made for."""
    goal: str
    """What it is an answer to, from its card; empty if nothing."""
    is_foundation: bool
    """Whether its card says that it is good for many goals."""
    facts: str = field(repr=False)
    """The score card, as JSON."""
    place: store.Store | Path = field(compare=False, repr=False)
    """The store that holds its run, or the policy's folder itself."""

    @functools.cached_property
    def card(self) -> dict[str, Any]:
        """The score card: what was measured, how, and what came out."""
        return json.loads(self.facts)

    @property
    def created(self) -> datetime:
        """When its run began."""
        return datetime.fromisoformat(self.begun)

    @property
    def path(self) -> Path:
        """The policy's folder on this machine, fetched if it is elsewhere; for `read_policy`."""
        return self.place if isinstance(self.place, Path) else self.place.fetch(self.id, artefact.FOLDER)


class Problem(NamedTuple):
    """Something in the library that cannot be used, and the mend."""

    id: str
    text: str


def prior_of(row: Row, place: store.Store | Path) -> Prior:
    """The policy of a run that kept one; `place` as in `Prior`."""
    return Prior(
        row.id,
        row.name or "",
        row.env_id or "",
        row.agent or "",
        row.created or "",
        row.weights or "",
        row.spec or "",
        row.goal or "",
        bool(row.foundation),
        row.card or "{}",
        place,
    )


def prior_in(folder: Path) -> Prior:
    """The policy in a folder of its own, outside any library.

    Raises:
        CheckpointError: as `read_meta`.
    """
    meta = artefact.read_meta(folder)
    id = str(meta.provenance.get("run") or f"policy-{meta.weights.sha256[:12]}")
    goal, is_foundation = str(meta.card.get("goal", "")), bool(meta.card.get("foundation"))
    return Prior(id, folder.name, meta.env_id, meta.agent, now().isoformat(), meta.weights.sha256, meta.spec_sha256,
                 goal, is_foundation, json.dumps(meta.card), folder)  # fmt: skip


def read_row(folder: Path, id: str, stamp: str, *, own_id: bool = False) -> tuple[Row, list[Link]]:
    """The facts of one folder; damage is written down, and left out of every answer but `verify`'s."""
    facts = facts_of(folder)
    if facts.manifest is None:
        return Row(id, stamp, problem=facts.problem), []
    if own_id and facts.manifest.id != id:
        return Row(id, stamp, problem=f"{folder} holds run {facts.manifest.id}; rename the folder to that."), []
    manifest, meta = facts.manifest, facts.policy
    row = Row(
        id,
        stamp,
        manifest.kind,
        manifest.env_id,
        manifest.name,
        manifest.status,
        manifest.created.astimezone(UTC).isoformat(),
        manifest.model_dump_json(),
        problem=facts.problem,
    )
    if meta is not None:
        row = row._replace(
            agent=meta.agent,
            spec=meta.spec_sha256,
            weights=meta.weights.sha256,
            goal=goal if isinstance(goal := meta.card.get("goal"), str) else None,
            foundation="yes" if meta.card.get("foundation") else None,
            card=json.dumps(meta.card),
            policy=json.dumps(meta.model_dump(mode="json", exclude={"weights"})),
        )
    words = {name: text.replace("\0", "?") for name, text in row._asdict().items() if text}  # no database takes a 0
    return row._replace(**words), [Link(id, parent.id, parent.role.replace("\0", "?")) for parent in manifest.parents]
