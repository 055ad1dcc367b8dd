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
    bar = {"name": "S1.rules1", "value": 3.0, "low": 2.5, "high": 4.0, "bar": 2.0, "ok": True}
    result = {"preset": "cpu", "machine": "a machine", "revision": "abc", "seeds": [0, 1],
              "values": {"games": 12, "speed": [{"worlds": 8}]}, "bars": [bar]}  # fmt: skip
    text = docs.section(result)
    assert "Machine: a machine. Revision: abc. Seeds: 0, 1." in text
    assert "| S1.rules1 | 3 [2.5, 4] | 2 | yes |" in text
    assert "| games | 12 |" in text
    assert text.endswith("### speed\n\n| worlds |\n| --- |\n| 8 |")
