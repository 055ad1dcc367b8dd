"""A page of facts, tables and plots in the report's style, for runs that no goal in words began."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rekindle.library import files
from rekindle.report.html import Ancestor, Picture, templates


class Fact(NamedTuple):
    """A number or word in large letters."""

    name: str
    value: str
    detail: str = ""


class Table(NamedTuple):
    """Rows of words; the first of each is its name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """Everything that it can show; whatever is absent is left out."""

    title: str
    lead: str = ""
    facts: tuple[Fact, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: Mapping[str, Picture] = field(default_factory=dict)
    """By title."""
    notes: tuple[str, ...] = ()
    lineage: Ancestor | None = None
    code: str = ""
    """What can be done next, on the command line."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    created: str = ""


def write_page(path: Path, page: Page) -> None:
    """Write it, whole or not at all.

    Raises:
        LibraryError: the folder is missing or refuses.
    """
    files.write_text(Path(path), render_page(page))


def render_page(page: Page) -> str:
    """The page as text."""
    return templates().get_template("page.html.jinja").render(page=page)
