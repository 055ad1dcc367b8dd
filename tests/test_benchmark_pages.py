from benchmarks import docs


def test_ends_of_an_interval_join_their_column():
    rows = [{"worlds": 8, "speed": 1234567.0, "speed_low": 1e6, "speed_high": 2e6}, {"worlds": 16, "ratio": 0.12345}]
    assert docs.table(rows).splitlines() == [
        "| worlds | speed | ratio |",
        "| --- | --- | --- |",
        "| 8 | 1,230,000 [1,000,000, 2,000,000] |  |",
        "| 16 |  | 0.123 |",
    ]


def test_a_section_has_bars_numbers_and_tables():
    bar = {"name": "S1.rules1", "value": 3.0, "low": 2.5, "high": 4.0, "bar": 2.0, "ok": True, "asks": "interval ≥ 2"}
    result = {"preset": "cpu", "machine": "a machine", "revision": "abc", "seeds": [0, 1],
              "values": {"games": 12, "speed": [{"worlds": 8}]}, "bars": [bar]}  # fmt: skip
    text = docs.section(result)
    assert "Machine: a machine. Revision: abc. Seeds: 0, 1." in text
    assert "| S1.rules1 | 3 [2.5, 4] | interval ≥ 2 | yes |" in text
    assert "| games | 12 |" in text
    assert text.endswith("### speed\n\n| worlds |\n| --- |\n| 8 |")


def test_curves_are_drawn_above_their_numbers():
    rows = [{"method": method, "phase": phase, "steps": steps, "score": 0.5, "score_low": 0.4, "score_high": 0.6}
            for method in ("mine", "yours") for phase, steps in (("offline", 10), ("online", 20))]  # fmt: skip
    result = {"preset": "cpu", "machine": "a machine", "revision": "abc", "seeds": [0], "bars": [],
              "values": {"some_curves": rows}}  # fmt: skip
    text = docs.section(result, "part", "study")
    assert "![some_curves](images/study-cpu-part-some-curves.svg)\n\n<details>" in text
    assert "| mine | offline | 10 | 0.5 [0.4, 0.6] |" in text
    image = docs.drawn("Study: some curves", rows).decode()
    assert all(word in image for word in ("Study: some curves", ">mine<", ">yours<", "normalised score"))
    assert [curve.x for curve in docs.lines(rows, "score", 10)] == [[0, 20], [0, 20]]


def test_what_was_published_is_a_line_of_its_own():
    rows = [
        {"task": "walker", "steps": steps, "return": 3.0, "published": known} for steps, known in ((5, None), (9, 4.0))
    ]
    ours, theirs = docs.lines(rows, "return", 0)
    assert (ours.label, ours.x, ours.y, ours.low) == ("ours", [5, 9], [3.0, 3.0], None)
    assert (theirs.label, theirs.x, theirs.y) == ("published", [9], [4.0])


def test_a_page_says_what_has_not_been_measured(tmp_path):
    def unmeasured(name, *results):
        study = tmp_path / name
        (study / "results").mkdir(parents=True, exist_ok=True)
        for result in results:
            (study / "results" / f"{result}.json").write_text(f'{{"preset": "{result.partition("-")[0]}"}}')
        return docs.unmeasured(study).removeprefix("## Not measured yet\n\n")

    assert unmeasured("foundation") == "Preset cpu: everything. Preset gpu: everything."
    assert unmeasured("foundation", "cpu-f0", "cpu-f0t") == "Preset cpu: f0-visible, doors-4. Preset gpu: everything."
    assert unmeasured("foundation", "gpu") == "Preset cpu: f0-visible, doors-4."
    assert unmeasured("foundation", "cpu") == "Nothing is left."
    assert unmeasured("startup", "cpu-short") == "Preset cpu: answers. Preset gpu: everything."
    assert unmeasured("atari", "cpu") == "Preset gpu: everything."  # which has no parts
