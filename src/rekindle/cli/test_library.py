import json

import pytest

from rekindle.cli.main import main
from rekindle.library.library import Library
from rekindle.library.run import Run


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))
    return Library.open()


@pytest.fixture
def family(library):
    a = Run.create(library, "train", name="a", config={}, seed=0, env_id="xland/f0")
    a.log(10, {"episode/return": 0.5, "loss/td": float("nan")})
    b = Run.create(library, "train", name="b", config={}, seed=0, parents=[(a.id, "init")])
    return a, b


@pytest.fixture
def answer(capsys):
    def ask(*words, code=0):
        assert main(["library", *words, "--json"]) == code
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return ask


def test_ls_show_and_lineage(family, answer):
    a, b = family
    users = [run for run in answer("ls")["runs"] if not run["id"].startswith("shipped/")]
    assert {run["id"] for run in users} == {a.id, b.id}
    assert [run["id"] for run in answer("ls", "--env", "xland/f0", "--name", "a")["runs"]] == [a.id]
    shown = answer("show", "a")
    assert shown["metrics"]["rows"] == 1 and shown["metrics"]["last"]["loss/td"] == "NaN"
    assert answer("lineage", "b")["parents"] == [
        {"id": a.id, "role": "init", "kept": True, "again": False, "beyond": []}
    ]


def test_rm_verify_and_reindex(family, answer, capsys, tmp_path):
    a, b = family
    assert main(["library", "rm", "a"]) == 2
    assert "--force" in capsys.readouterr().err
    assert answer("rm", "a", "--force") == {"removed": a.id}
    assert answer("verify", b.id) == {"ok": True, "problems": []}
    (tmp_path / "index.sqlite").write_bytes(b"x" * 9999)
    assert main(["library", "ls"]) == 2
    assert "reindex" in capsys.readouterr().err
    assert answer("reindex")["runs"] == 1
    (b.path / "manifest.json").write_text("{")
    assert answer("verify", code=2)["problems"][0]["id"] == b.id


def test_people_get_tables_and_a_sentence_for_what_is_wrong(family, capsys):
    for command in (["ls"], ["show", "a"], ["lineage", "a"], ["verify", "a"], ["reindex"], ["--help"], []):
        assert main(["library", *command]) == 0
        out = capsys.readouterr().out
        assert out.strip() and "Traceback" not in out
    for command in (["lss"], ["ls", "--limit", "0"], ["show", "zzz"], ["rm"]):
        assert main(["library", *command]) == 2
        assert capsys.readouterr().err.count("\n") == 1
