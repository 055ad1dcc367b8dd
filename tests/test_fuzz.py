"""Every reader takes or refuses whatever comes; and the harness that says so finds a reader that does not."""

import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from benchmarks.robustness import fuzz
from benchmarks.robustness.fuzz_files import file_targets
from benchmarks.robustness.fuzz_words import TARGETS
from hypothesis import strategies as st

from rekindle.core.errors import ConfigError

COUNT = 400


@pytest.mark.parametrize("name", [*TARGETS, "manifest", "policy", "curves", "import"])
def test_a_reader_takes_or_refuses_what_comes(name):
    # Shapes are checked while the tests run, beside other tests: what takes the study 2 s may take longer here.
    result = fuzz.run(name, COUNT, seed=1, targets=TARGETS | file_targets(), max_seconds=10.0)
    assert result["findings"] == []
    assert result["inputs"] == COUNT == result["accepted"] + result["refused"]
    assert min(result["accepted"], result["refused"]) > COUNT // 20, "inputs of one sort only"


def crashes(text: str) -> bool:
    int(text.count("x") * "1" or "1", 10 if "xx" not in text else 1)
    return True


def refuses(message: str):
    def read(text: str) -> None:
        raise ConfigError(message.format(text))

    return lambda text: fuzz.take(read, text) is not None


def warns(text: str) -> bool:
    if "x" in text:
        warnings.warn("a warning", RuntimeWarning, stacklevel=2)
    return True


def forgets(text: str) -> bool:
    return fuzz.survives(text, lambda value: value.replace("x", "y"), lambda printed: printed)


@pytest.mark.parametrize(
    ("check", "found"),
    [
        (crashes, "'xx': ValueError: int() base must be"),
        (refuses("two\nlines"), "'': Misbehaviour: the message is not one printable line: 'two\\nlines'"),
        (refuses("{0:.0}"), "'': Misbehaviour: the message is empty"),
        (refuses("x" * 401), "'': Misbehaviour: the message has 401 characters: xxx"),
        (refuses("Traceback (most recent call last)"), "'': Misbehaviour: the message holds a traceback"),
        (warns, "'x': RuntimeWarning: a warning"),
        (forgets, "'x': Misbehaviour: 'y' reads back as something else"),
    ],
)
def test_the_harness_finds_a_reader_that_misbehaves_and_the_smallest_input_for_it(check, found):
    planted = {"planted": fuzz.Target("planted", st.text("axz", max_size=20), check)}
    result = fuzz.run("planted", 60, seed=0, targets=planted)
    assert len(result["findings"]) == 1
    assert result["findings"][0].startswith(found)
    assert result["inputs"] == 60 > result["accepted"] + result["refused"]


def test_the_harness_stops_a_reader_that_sleeps():
    def sleeps(text: str) -> bool:
        try:
            time.sleep(30 * len(text))
        except Exception:  # not the alarm
            time.sleep(30)
        return True

    planted = {"planted": fuzz.Target("planted", st.sampled_from(("", "x")), sleeps)}
    result = fuzz.run("planted", 2, seed=0, targets=planted, max_seconds=0.2)
    assert result["findings"] == ["'x': Slow: it was stopped after 0.2 s"] and result["accepted"] == 1


def test_outside_the_main_thread_a_reader_that_sleeps_is_found_afterwards():
    planted = {"planted": fuzz.Target("planted", st.just("x"), lambda text: time.sleep(0.3) is None)}
    with ThreadPoolExecutor() as pool:
        result = pool.submit(fuzz.run, "planted", 1, 0, targets=planted, max_seconds=0.2).result()
    assert len(result["findings"]) == 1 and result["findings"][0].startswith("'x': Slow: it took 0.3")


def test_what_was_slow_once_is_no_finding():
    naps = [0.3]
    planted = {
        "planted": fuzz.Target("planted", st.just("x"), lambda text: time.sleep(naps.pop() if naps else 0) is None)
    }
    assert fuzz.run("planted", 1, seed=0, targets=planted, max_seconds=0.2)["findings"] == []


def test_the_harness_finds_a_reader_that_takes_too_much_memory(monkeypatch):
    """The peak grows once: what is found then cannot be found again."""
    peak = [100.0]
    monkeypatch.setattr(fuzz, "_peak_mb", lambda: peak[0])

    def grows(text: str) -> bool:
        peak[0] = max(peak[0], 700.0 * len(text))
        return True

    planted = {"planted": fuzz.Target("planted", st.sampled_from(("", "x")), grows)}
    assert fuzz.run("planted", 2, seed=0, targets=planted)["findings"] == ["'x': Misbehaviour: it took 600 MB"]


def test_a_good_reader_has_no_findings():
    planted = {"planted": fuzz.Target("planted", st.text("axz"), lambda text: "x" in text)}
    result = fuzz.run("planted", 100, seed=0, targets=planted)
    assert result["findings"] == [] and result["inputs"] == result["accepted"] + result["refused"] == 100
    assert result["target"] == "planted" and result["slowest_s"] < 1 and result["peak_rss_mb"] > 10


def test_different_defects_are_different_findings():
    def check(text: str) -> bool:
        if len(text) > 3:
            raise KeyError(text)
        return crashes(text)

    planted = {"planted": fuzz.Target("planted", st.text("axz", max_size=20), check)}
    found = fuzz.run("planted", 100, seed=0, targets=planted)["findings"]
    assert len(found) == 2 and any("KeyError" in text for text in found) and any("ValueError" in text for text in found)


def test_the_same_seed_gives_the_same_inputs():
    def inputs(seed: int) -> list[str]:
        seen: list[str] = []
        planted = {"planted": fuzz.Target("planted", st.text(), lambda text: not seen.append(text))}
        fuzz.run("planted", 50, seed, targets=planted)
        return seen

    assert inputs(3) == inputs(3) != inputs(4)
