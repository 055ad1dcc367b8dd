import io
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from rekindle.report.plots import (
    PALETTE,
    Curve,
    Panel,
    adaptation_plot,
    compounding_plot,
    joined_plot,
    learning_plot,
    profile_plot,
    ratio_plot,
)

K = [1, 2, 3, 5]
AGENT = Curve("agent", K, [0.4, 0.6, 0.7, 0.8], [0.3, 0.5, 0.6, 0.7], [0.5, 0.7, 0.8, 0.9])
STEPS = np.linspace(0, 1e6, 10)
PLOTS = {
    "learning": (lambda form: learning_plot([AGENT._replace(x=STEPS[:4])], target=0.8, form=form), "environment steps"),
    "adaptation": (lambda form: adaptation_plot(AGENT, [Curve("random", [1], [0.1])], form=form), "trials"),
    "compounding": (lambda form: compounding_plot({"growing": [[5, 2, 1], [4, 2, 2]]}, form=form), "goals so far"),
    "joined": (
        lambda form: joined_plot(
            [Panel("score", [AGENT._replace(x=[-50, 0, 50, 100])], 1.0), Panel("loss", [AGENT])],
            title="Both",
            offline_updates=100,
            form=form,
        ),
        "updates on the teacher's data, then environment steps",
    ),
    "profile": (lambda form: profile_plot([AGENT], form=form), "share of runs"),
    "ratio": (lambda form: ratio_plot(["9 rules"], [12.0], low=[11], high=[13], bars=[10], form=form), "peer = 1"),
}


def words(svg: bytes) -> str:
    return " ".join(element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_is_made_in_both_forms_with_its_words(name):
    make, expected = PLOTS[name]
    svg, png = make("svg"), make("png")
    assert expected in words(svg)
    assert Image.open(io.BytesIO(png)).convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    assert svg == make("svg"), "the same numbers give the same bytes"


def test_bands_targets_and_labels_are_drawn():
    plain = learning_plot([Curve("a", STEPS, STEPS)])
    banded = learning_plot([Curve("a", STEPS, STEPS, STEPS - 1, STEPS + 1), Curve("b", STEPS, STEPS)], target=0.8)
    assert plain.count(b"<path") < banded.count(b"<path")
    assert "target 0.8" in words(banded) and "target" not in words(plain)
    assert PALETTE[1].lower().encode() in banded.lower()


def test_a_baseline_of_one_number_spans_all_trials():
    svg = adaptation_plot(AGENT, [Curve("random", [1], [0.1])])
    assert "random" in words(svg) and "agent" in words(svg)
    assert svg != adaptation_plot(AGENT, [Curve("random", [1], [0.3])])


def test_costs_are_summed_up_goal_by_goal():
    svg = compounding_plot({"scratch": [1e6, 1e6, 1e6, 1e6]})
    assert "4M" in words(svg)
    assert compounding_plot({"a": [1, 10, 100]}, log=True) != compounding_plot({"a": [1, 10, 100]})


def test_labels_of_users_stand_as_they_are():
    assert "a $5 <b> & c" in words(learning_plot([Curve("a $5 <b> & c", STEPS, STEPS), Curve("$x$", STEPS, STEPS)]))


def test_the_global_style_is_left_alone():
    before = dict(mpl.rcParams)
    learning_plot([AGENT])
    assert dict(mpl.rcParams) == before
