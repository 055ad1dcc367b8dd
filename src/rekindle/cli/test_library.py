import json
from xml.etree import ElementTree

import pytest

from rekindle.cli.main import main
from rekindle.library.library import Library
from rekindle.library.manifest import Parent
from rekindle.library.run import Run
from rekindle.library.test_artefact import save


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


def test_pins_gc_export_and_import(family, answer, tmp_path, monkeypatch):
    a, b = family
    save(a.path / "policy")
    a.finish("done")
    b.finish("done")
    assert answer("pin", "b") == {"pinned": b.id}
    assert [run["id"] for run in answer("ls")["runs"] if run["pinned"]] == [b.id]
    assert answer("gc", "--older-than", "0d", "--dry-run")["waste"] == []
    assert answer("unpin", "b") == {"unpinned": b.id}
    dry = answer("gc", "--older-than", "0d", "--dry-run")
    assert [(one["what"], one["id"]) for one in dry["waste"]] == [("run", b.id)] and dry["bytes"] > 0
    assert len(answer("ls", "--kind", "train")["runs"]) == 3
    assert answer("gc", "--older-than", "0d") == {**dry, "dry_run": False}
    made = answer("export", "a", "--output", str(tmp_path / "a.rekindle"))
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path / "there"))
    kept = answer("import", str(tmp_path / "a.rekindle"), "--sha256", made["sha256"])
    assert kept == {"id": a.id, "new": True, "kin": 0} and answer("verify")["ok"]
    (tmp_path / "b.rekindle").write_bytes((tmp_path / "a.rekindle").read_bytes()[:-9])
    assert "cut off" in answer("import", str(tmp_path / "b.rekindle"), code=2)["error"]


def test_curves_of_one_run_or_of_several(family, answer, capsys):
    a, b = family
    for step in range(20, 1020, 10):
        a.log(step, {"episode/return": step / 1000, "note": "warm"})
    b.log(10, {"episode/return": -1.0})
    both = answer("curve", "--metric", "episode/return")["curves"]
    assert {curve["id"]: len(curve["points"]) for curve in both} == {a.id: 101, b.id: 1}
    (some,) = answer("curve", "a", "--metric", "episode/return", "--points", "5")["curves"]
    assert some["points"][0] == [10, 0.5] and some["points"][-1] == [1010, 1.01] and len(some["points"]) == 5
    assert main(["library", "curve", "a", "--metric", "episode/return"]) == 0
    assert "▁" in (page := capsys.readouterr().out) and "1.01" in page
    for metric, words in (("episode/returns", "'episode/return'"), ("note", "no run here has the metric 'note'")):
        assert words in answer("curve", "a", "--metric", metric, code=2)["error"]


def test_a_family_is_drawn_into_a_file(family, answer, tmp_path):
    a, b = family
    told = answer("lineage", "b", "--svg", str(tmp_path / "family.svg"))
    page = ElementTree.fromstring((tmp_path / "family.svg").read_bytes())
    texts = [node.text for node in page.iter("{http://www.w3.org/2000/svg}text")]
    assert told["svg"].endswith("family.svg") and {a.id, b.id, "init"} <= set(texts)


def test_reproduce_says_what_to_type_and_takes_no_command_from_a_manifest(library, capsys):
    order = {"agent": "ppo", "settings": {"gamma": 0.9, "memory": "gru"}, "env": "xland/f0", "budget": "1m",
             "curriculum": "doors", "init": None, "min_trials": 1, "max_trials": 4, "chunk_updates": 8}  # fmt: skip
    run = Run.create(library, "train", name="t", config=order, seed=3, parents=[Parent(id="shipped/x", role="init")])
    run.update(command=["rm", "-rf", "/"])
    assert main(["library", "show", run.id, "--reproduce"]) == 0
    page = capsys.readouterr().out
    command = "rekindle train ppo --env xland/f0 --budget 1m --seed 3 --curriculum doors --trials 1-4 --set gamma=0.9"
    assert command in page and "--set memory=gru" in page and "rm -rf" not in page
    assert "# made from shipped/x (init)" in page
    asked = Run.create(library, "master", name="m", config={"goal": "hold; rm"}, seed=0)
    assert main(["library", "show", asked.id, "--reproduce"]) == 0
    assert all(line.startswith(("#", "git ")) for line in capsys.readouterr().out.splitlines())


def test_a_table_shows_the_newest_and_says_how_many_more(library, capsys):
    for i in range(53):
        Run.create(library, "evaluate", name=f"r{i}", config={}, seed=0).finish("done")
    assert main(["library", "ls", "--kind", "evaluate"]) == 0
    page = capsys.readouterr().out
    assert len([line for line in page.splitlines() if " evaluate " in line]) == 50 and "and 3 more" in page
    assert main(["library", "ls", "--kind", "evaluate", "--limit", "60"]) == 0
    assert "more" not in capsys.readouterr().out


def test_a_run_that_was_killed_is_called_so_and_one_that_goes_on_is_not(family, capsys):
    a, _ = family
    with a.held():
        main(["library", "ls", "--name", "a"])
    main(["library", "ls", "--name", "a"])
    running, killed = capsys.readouterr().out.split("id ")[1:]
    assert "running" in running and "killed" in killed


@pytest.mark.parametrize("words", [["gc", "--older-than", "yesterday"], ["curve", "--limit", "0"], ["import", "none"],
                                   ["export", "b"], ["ls", "--status", "asleep"], ["unpin", "a"]])  # fmt: skip
def test_wrong_words_are_one_sentence(words, family, capsys):
    assert main(["library", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("rekindle: ") and said.count("\n") == 1


def test_the_list_says_what_a_student_came_to(library, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    run = Run.create(library, "train", name="student", config={}, seed=0, env_id="test/any")
    run.update(scores=[{"name": "return", "value": 16.75, "episodes": 64}, {"name": "normalised return", "value": 0.5}])
    run.finish("done")
    assert main(["library", "ls", "--name", "student"]) == 0
    assert "return 16.75" in capsys.readouterr().out
