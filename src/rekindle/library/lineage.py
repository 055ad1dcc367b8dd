"""Family trees of runs: what each was made from, and what was made from it."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from rekindle.library.manifest import Manifest
from rekindle.library.records import Record
from rekindle.library.rows import Link

Known = Mapping[str, tuple[Manifest | None, bool]]
"""By id: the facts of a run as far as they are known, and whether it is kept."""


class Kin(NamedTuple):
    """A run in a family tree, and those beyond it."""

    id: str
    role: str
    """What the parent was to the child."""
    manifest: Manifest | None
    """Its facts; None where nothing is known of it here but its id."""
    kept: bool
    """Whether the run itself is in this library."""
    beyond: "tuple[Kin, ...]"
    again: bool = False
    """It stands elsewhere in this tree with what lies beyond it."""


class Lineage(NamedTuple):
    """What a run was made from, and what was made from it."""

    record: Record
    parents: tuple[Kin, ...]
    children: tuple[Kin, ...]


def family(
    id: str,
    facts_of: Callable[[list[str]], Known],
    links_of: Callable[[list[str], Known], Iterable[Link]],
    *,
    up: bool,
) -> tuple[Kin, ...]:
    """Parents' parents (`up`) or children's children of `id`; what is met again is shown without what lies beyond it.

    Args:
        id: of the run.
        facts_of: what is known of some runs.
        links_of: the links that lead from some runs, of which so much is known.
        up: which way.
    """
    links: dict[str, list[tuple[str, str]]] = {}
    known: dict[str, tuple[Manifest | None, bool]] = {}
    frontier = [id]
    while frontier:
        known |= facts_of(frontier)
        for link in links_of(frontier, known):
            here, there = (link.child, link.parent) if up else (link.parent, link.child)
            links.setdefault(here, []).append((there, link.role))
        frontier = sorted({other for one in frontier for other, _ in links.get(one, [])} - known.keys())
    shown = {id}

    def beyond(one: str) -> tuple[Kin, ...]:
        kin: list[Kin] = []
        for other, role in sorted(set(links.get(one, []))):
            manifest, kept = known[other]
            again = other in shown and bool(links.get(other))
            shown.add(other)
            kin.append(Kin(other, role, manifest, kept, () if again else beyond(other), again))
        return tuple(kin)

    return beyond(id)
