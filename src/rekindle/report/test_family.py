from xml.etree import ElementTree

from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.report.family import family_svg

SVG = "{http://www.w3.org/2000/svg}"


def test_a_family_with_a_diamond_a_lost_parent_and_names_that_are_markup(tmp_path):
    library = Library(tmp_path, shipped=tmp_path / "none")
    a = Run.create(library, "train", name="<script>&\x1b[31m", config={}, seed=0)
    b, c = (Run.create(library, "train", name=name, config={}, seed=0, parents=[(a.id, "init")]) for name in "bc")
    d = Run.create(library, "train", name="d", config={}, seed=0,
                   parents=[(b.id, "teacher"), (c.id, "replay"), ("gone", "init")])  # fmt: skip
    e = Run.create(library, "train", name="e", config={}, seed=0, parents=[(d.id, "init")])
    page = ElementTree.fromstring(family_svg(library.lineage(d.id)))
    groups = page.findall(f"{SVG}g")
    texts = [node.text for node in page.iter(f"{SVG}text")]
    assert len(groups) == 6 and [g.get("class") for g in groups].count("gone") == 1
    assert {a.id, b.id, c.id, d.id, e.id, "gone", "<script>&?[31m", "teacher", "replay"} <= set(texts)
    assert len(page.findall(f"{SVG}path")) == 6
    x = {g.findall(f"{SVG}text")[1].text: int(g.find(f"{SVG}rect").get("x")) for g in groups}
    assert x[a.id] < x[b.id] == x[c.id] < x[d.id] < x[e.id]


def test_a_deep_family_of_diamonds_is_small(tmp_path):
    """Two parents each, twelve generations: every run stands once, not two thousand times."""
    library = Library(tmp_path, shipped=tmp_path / "none")
    layer = [Run.create(library, "train", name="x", config={}, seed=0) for _ in range(2)]
    for _ in range(12):
        parents = [(run.id, "init") for run in layer]
        layer = [Run.create(library, "train", name="x", config={}, seed=0, parents=parents) for _ in range(2)]
    page = ElementTree.fromstring(family_svg(library.lineage(layer[0].id)))
    assert len(page.findall(f"{SVG}g")) == 25 and len(page.findall(f"{SVG}path")) == 46
