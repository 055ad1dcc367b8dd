"""What the documentation names is there: its commands, and the tests that it points at."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from rekindle.cli import io
from rekindle.cli.main import VERBS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERYWHERE = sorted([*PAGES, *ROOT.glob("*/results/*.md"), *ROOT.glob("benchmarks/*/README.md"),
                     *(ROOT / "src").rglob("README.md")])  # fmt: skip
COMMAND = re.compile(r"(?:\.venv/bin/)?rekindle (.+)$")
WITHIN_A_LINE = re.compile(r"`rekindle ([^`…]* --[^`…]*)`")
"""What is in the text, if it has options: without them it may be a verb that is spoken of."""
TEST = re.compile(r"`([\w./]+\.py)::(\w+)`")
SOURCES = ROOT / "src" / "rekindle"
"""Where a path begins that is not below the repository's root."""


class Understood(BaseException):
    """Its words are understood; what they ask for is not done."""


def commands():
    for page in (*PAGES, *sorted(SOURCES.rglob("README.md"))):
        inside = ""
        for line in page.read_text("utf-8").splitlines():
            if line.startswith("```"):
                inside = "" if inside else line.removeprefix("```") or "sh"
            elif inside == "sh" and (found := COMMAND.match(line)):
                yield found[1]
            elif not inside:
                yield from WITHIN_A_LINE.findall(line)


@pytest.mark.parametrize("line", list(commands()))
def test_commands_are_understood(line, monkeypatch):
    parse = io.parse

    def understood(*given, **named):
        parse(*given, **named)
        raise Understood

    verb, *words = shlex.split(line, comments=True)
    assert verb in VERBS
    module = import_module(VERBS[verb].module)
    for place in (io, module):
        monkeypatch.setattr(place, "parse", understood, raising=False)
    with pytest.raises(Understood):
        module.run(words)


def test_tests_that_are_named_exist():
    named = {(page.name, *found) for page in PAGES for found in TEST.findall(page.read_text("utf-8"))}
    assert len(named) > 30
    missing = [f"{page}: {path}::{test}" for page, path, test in sorted(named) if not is_there(path, test)]
    assert missing == []


@pytest.mark.parametrize("page", EVERYWHERE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    places = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))]
    lost = [place for place in places if place and "://" not in place and not (page.parent / place).exists()]
    assert lost == []


def is_there(path, test):
    files = [folder / path for folder in (ROOT, SOURCES) if (folder / path).is_file()]
    return any(re.search(rf"^def {test}\(", file.read_text("utf-8"), re.MULTILINE) for file in files)
