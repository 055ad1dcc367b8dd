import base64
import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from rekindle.core.errors import ConfigError
from rekindle.report import html
from rekindle.report.html import (
    Ancestor,
    Decision,
    Picture,
    Recalled,
    ReportData,
    data_uri,
    render_report,
    themed,
    write_report,
)
from rekindle.report.plots import Curve, learning_plot
from rekindle.report.video import encode_video

HOSTILE = "<script>alert('x')</script>\"><img src=http://evil.example/x onerror=alert(1)>"


def whole(words: str = "plain") -> ReportData:
    film = encode_video([np.full((16, 16, 3), 30 * i, np.uint8) for i in range(4)])
    plot = Picture(learning_plot([Curve(words, [0, 1], [0, 1]), Curve("b", [0, 1], [1, 0])], title=words), words)
    return ReportData(
        goal=words, verdict="mastered", reason=words, rules=(words,), score=0.88,
        score_low=0.84, score_high=0.91, target=0.8, episodes=256, strategy=words, env_steps=184_320, wall_s=74.0,
        video=Picture(film, words),
        adaptation=plot, learning=plot,
        figures=(plot,), recalled=(Recalled(words, words, 0.5, 0.4, 0.6, words, words),),
        decisions=(Decision(words, words, words, (words,), words, True, 3.0), Decision(words, succeeded=False)),
        lineage=Ancestor(words, words, words, (Ancestor(words, parents=(Ancestor(words),)),)), code=words,
        provenance={words: words}, created=words,
    )  # fmt: skip


class Page(HTMLParser):
    """Collects tags and the addresses that they would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "poster", "data", "action")]
        assert not any(k.startswith("on") for k, _ in attrs)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("words", ["plain", HOSTILE])
def test_the_report_holds_everything_and_fetches_nothing(words):
    page = Page(render_report(whole(words)))
    assert page.open == [], "every tag is closed"
    assert len(page.addresses) == 4 and all(address.startswith("data:") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert page.tags.count("img") == 3 and page.tags.count("video") == 1


def test_hostile_words_are_shown_as_words():
    text = render_report(whole(HOSTILE))
    assert "<script" not in text and "&lt;script&gt;" in text
    for address in Page(text).addresses:
        assert b"<script" not in base64.b64decode(address.split(",")[1])


def test_style_fetches_nothing():
    style = re.search(r"<style>(.*?)</style>", render_report(whole()), re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert "prefers-color-scheme: dark" in style[1]


def test_sections_appear_with_their_data_only():
    titles = ["Watch it", "How it adapts", "How it learnt", "What was recalled", "What was decided", "Lineage"]
    titles += ["Use the agent", "Provenance"]
    full = render_report(whole())
    bare = render_report(ReportData(goal="hold yellow sphere", verdict="impossible", reason="None lies in the world."))
    assert all(title in full for title in titles)
    assert not any(title in bare for title in titles)
    assert "Impossible" in bare and "None lies in the world." in bare and "hold yellow sphere" in bare
    assert Page(bare).tags.count("section") == 0


@pytest.mark.parametrize(
    "missing", ["score_low", "score_high", "target", "episodes", "wall_s", "env_steps", "strategy"]
)
def test_any_part_may_be_missing(missing):
    data = dataclasses.replace(whole(), **{missing: "" if missing == "strategy" else None})
    assert Page(render_report(data)).open == []


def test_numbers_are_right():
    text = render_report(whole())
    for part in ("0.88", "0.84 to 0.91", "184,320", "1 min 14 s", "256 episodes"):
        assert part in text
    assert html.gauge(whole()) == {"low": 84.0, "high": 91.0, "score": 88.0, "target": 80.0, "one": 100.0}
    assert [html.duration(s) for s in (0.44, 59.0, 60.0, 200.0, 3900.0)] == [
        "0.4 s",
        "59 s",
        "1 min",
        "3 min 20 s",
        "1 h 5 min",
    ]
    assert [html.number(n) for n in (999, 12_345, 1_230_000, 98e6)] == ["999", "12,345", "1.23 M", "98 M"]
    assert html.score(None) == "–"


def test_a_gauge_never_leaves_its_scale():
    data = ReportData("g", "improved", score=1.2, score_low=-0.1, score_high=1.4, target=0.8)
    assert all(0 <= value <= 100 for value in html.gauge(data).values())


def test_plots_take_the_colours_of_a_dark_page():
    svg = themed(learning_plot([Curve("a", [0, 1], [0, 1])]))
    assert b"prefers-color-scheme:dark" in svg and b"var(--c0)" in svg
    assert svg.index(b"<style>") > svg.index(b"<svg")


def test_only_pictures_are_embedded():
    with pytest.raises(ConfigError, match="SVG, PNG"):
        data_uri(b"MZ\x90\x00 not a picture")


def test_it_is_written_whole(tmp_path):
    write_report(tmp_path / "report.html", whole())
    assert (tmp_path / "report.html").read_text() == render_report(whole())
    assert len(list(tmp_path.iterdir())) == 1
