"""The report of a run: one HTML file with everything in it, that opens anywhere and fetches nothing."""

import base64
import re
from dataclasses import dataclass, field
from importlib.resources import files as resources
from pathlib import Path
from typing import Literal

import jinja2

from rekindle.core.errors import ConfigError
from rekindle.library import files
from rekindle.library.lineage import Kin
from rekindle.report import plots

Verdict = Literal["mastered", "improved", "not_mastered", "impossible"]
_VERDICT_WORDS: dict[str, str] = {
    "mastered": "Mastered",
    "improved": "Improved, not mastered",
    "not_mastered": "Not mastered",
    "impossible": "Impossible",
}
_MEDIA = ((b"\x89PNG", "image/png"), (b"GIF8", "image/gif"), (b"\xff\xd8", "image/jpeg"))
DARK_PLOT = {
    plots.INK: "#e9e7e2",
    plots.SOFT: "#a4a7b4",
    plots.GRID: "#3a3d48",
    plots.PALETTE[0]: "#4aa8e8",
    plots.PALETTE[1]: "#f0803c",
    plots.PALETTE[2]: "#2cc096",
}
"""The colours that plots take on a dark page."""


@dataclass(frozen=True)
class Picture:
    """A plot (SVG, PNG) or a video (MP4, GIF) with a sentence beneath."""

    data: bytes
    caption: str = ""


@dataclass(frozen=True)
class Recalled:
    """A prior that the library offered."""

    name: str
    kind: str
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    cost: str = ""
    """What using it would take, in words."""
    why: str = ""


@dataclass(frozen=True)
class Decision:
    """One choice, written down before it was carried out."""

    choice: str
    reason: str = ""
    expected: str = ""
    """Expected cost and result."""
    alternatives: tuple[str, ...] = ()
    outcome: str = ""
    succeeded: bool | None = None
    at_s: float | None = None
    """Seconds since the start."""


@dataclass(frozen=True)
class Ancestor:
    """A node of the lineage, with what it came from."""

    name: str
    role: str = ""
    detail: str = ""
    parents: tuple["Ancestor", ...] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything the report can show; whatever is absent is left out."""

    goal: str
    verdict: Verdict
    reason: str = ""
    """Why this verdict, in a sentence."""
    rules: tuple[str, ...] = ()
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    """Last-trial score over the planner's, or whatever `unit` says, with its 95 % interval."""
    unit: str = "planner = 1"
    """What a score is, in a word or two."""
    least: float = 0.0
    """Where the scale of scores begins."""
    target: float | None = None
    episodes: int | None = None
    """Fresh episodes behind the score."""
    strategy: str = ""
    env_steps: int | None = None
    wall_s: float | None = None
    video: Picture | None = None
    adaptation: Picture | None = None
    learning: Picture | None = None
    figures: tuple[Picture, ...] = ()
    """Further plots."""
    recalled: tuple[Recalled, ...] = ()
    decisions: tuple[Decision, ...] = ()
    lineage: Ancestor | None = None
    code: str = ""
    """How to use the agent, in Python."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Command, seed, versions and the like, in the order to show them."""
    created: str = ""


def write_report(path: Path, data: ReportData) -> None:
    """Write the report, whole or not at all.

    Raises:
        LibraryError: the folder is missing or refuses.
    """
    files.write_text(Path(path), render_report(data))


def render_report(data: ReportData) -> str:
    """The page as text."""
    template = templates().get_template("report.html.jinja")
    return template.render(report=data, verdict_words=_VERDICT_WORDS[data.verdict], gauge=gauge(data))


def templates() -> jinja2.Environment:
    """The pages of this package; all words are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: resources("rekindle.report").joinpath(name).read_text("utf-8")),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, duration=duration, score=score, data_uri=data_uri, is_video=_is_mp4)
    return environment


def ancestor(kin: Kin) -> Ancestor:
    """A run of a family tree with what it came from."""
    return Ancestor(kin.id, kin.role, kin.manifest.name if kin.manifest else "", tuple(map(ancestor, kin.beyond)))


def gauge(data: ReportData) -> dict[str, float] | None:
    """Where score, interval and target lie on the scale, in per cent of its width; None without a score."""
    if data.score is None:
        return None
    low = data.score if data.score_low is None else data.score_low
    high = data.score if data.score_high is None else data.score_high
    ends = [high, data.target or 0.0]
    top = max(1.0, *ends) if data.least == 0.0 else max(ends)
    parts = {"low": low, "high": high, "score": data.score, "target": data.target, "one": 1.0}
    span = max(top - data.least, 1e-9)
    return {name: round(100 * min(max((v - data.least) / span, 0.0), 1.0), 2) for name, v in parts.items()
            if v is not None}  # fmt: skip


def score(value: float | None) -> str:
    """A score with two decimals."""
    return "–" if value is None else f"{value:.2f}"


def number(value: float) -> str:
    """A count, rounded for reading: 12,345 or 1.2 M."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Seconds for reading: 0.4 s, 42 s, 3 min 20 s, 1 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def data_uri(data: bytes) -> str:
    """The bytes as an address that holds them; what kind they are is read from their beginning."""
    if _is_mp4(data):
        kind = "video/mp4"
    elif b"<svg" in data[:2000]:
        data, kind = themed(data), "image/svg+xml"
    else:
        kind = next((kind for start, kind in _MEDIA if data.startswith(start)), "")
    if not kind:
        raise ConfigError(
            f"a picture of the report must be SVG, PNG, JPEG, GIF or MP4; got bytes that begin {data[:8]!r}."
        )
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _is_mp4(data: bytes) -> bool:
    return data[4:8] == b"ftyp"


def themed(svg: bytes) -> bytes:
    """A plot of ours that turns light on a dark page: its neutral colours become variables of its own style sheet."""
    text = svg.decode()
    names = {colour: f"--c{i}" for i, colour in enumerate(DARK_PLOT)}
    for colour, name in names.items():
        text = re.sub(colour, f"var({name})", text, flags=re.IGNORECASE)
    light = "".join(f"{name}:{colour};" for colour, name in names.items())
    dark = "".join(f"{names[colour]}:{shade};" for colour, shade in DARK_PLOT.items())
    style = (
        f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
        "text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif!important}"
        "</style>"
    )
    return re.sub(r"(<svg\b[^>]*>)", lambda match: match[1] + style, text, count=1).encode()
