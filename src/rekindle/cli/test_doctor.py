import json

import pytest

from rekindle.cli import doctor
from rekindle.library import rows


@pytest.fixture
def look(capsys, monkeypatch, tmp_path):
    """Run the doctor on a library in `tmp_path/home`; its exit code and what it found."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path / "home"))

    def run():
        code = doctor.run(["--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_sound_machine_is_well_and_nothing_is_made(look, tmp_path):
    code, said = look()
    assert code == 0 and said["ok"] and said["problems"] == []
    assert {"python", "rekindle", "jax", "device", "library", "index", "ffmpeg"} <= set(said["found"])
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_a_file_is_named_with_the_mend(look, tmp_path):
    (tmp_path / "home").write_text("")
    code, said = look()
    assert code == 2 and not said["ok"]
    assert all(str(tmp_path / "home") in problem["problem"] for problem in said["problems"])
    assert "REKINDLE_HOME" in said["problems"][0]["problem"]


def test_a_damaged_index_is_found_with_the_command_that_mends_it(look, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / rows.FILE).write_bytes(b"no database" * 1000)
    code, said = look()
    (problem,) = said["problems"]
    assert code == 2 and problem["what"] == "index" and "rekindle library reindex" in problem["problem"]


def test_a_missing_ffmpeg_is_found(look, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/no/such/ffmpeg")
    code, said = look()
    (problem,) = said["problems"]
    assert code == 2 and problem["what"] == "ffmpeg" and "pip install" in problem["problem"]


def test_a_missing_requirement_is_found(look, monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: ["no-such-thing>=1", "x; extra == 'y'"])
    code, said = look()
    (problem,) = said["problems"]
    assert code == 2 and problem["what"] == "no-such-thing" and "pip install 'no-such-thing>=1'" in problem["problem"]


def test_a_full_disk_is_found(look, monkeypatch, tmp_path):
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 2**80)
    code, said = look()
    assert code == 2 and [problem["what"] for problem in said["problems"]] == ["free space"]


def test_the_page_for_people_ends_with_the_verdict(capsys):
    assert doctor.run([]) == 0
    page = capsys.readouterr().out
    assert "jax" in page and page.rstrip().endswith("All is well.")
