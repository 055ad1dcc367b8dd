import json

import pytest
from PIL import Image

from rekindle.cli.render import Options, draw, run
from rekindle.core.errors import ConfigError, GoalError

TASK = """
goal: hold yellow sphere
rule: [hidden] near(me, black cube) -> yellow sphere
objects: black cube
steps: 5
world:
######
#.>.0#
######
"""


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "task.txt"
    path.write_text(TASK)
    return str(path)


def test_a_task_in_a_file_becomes_a_picture_or_an_episode(task, tmp_path):
    still = draw(Options(task, tmp_path / "a.png", cell=16))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and picture.width > 6 * 16 and still["frames"] == 1
    film = draw(Options(task, tmp_path / "a.mp4", trials=2, cell=16))
    assert film["frames"] == 2 * (5 + 1) and len(film["rewards"]) == 2
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"


def test_a_task_for_two_is_known_by_its_map_and_a_family_by_its_id(tmp_path):
    (tmp_path / "task.txt").write_text(TASK.replace("#.>.0#", "#N>.0#").replace("[hidden]", "[hidden from partner]"))
    film = draw(Options(str(tmp_path / "task.txt"), tmp_path / "a.gif", cell=16))
    assert film["frames"] == 5 + 1 and len(film["rewards"]) == 1
    assert draw(Options("xland/probe-pass-over-the-wall", tmp_path / "b.png", cell=16))["frames"] == 1


def test_the_same_seed_draws_the_same_picture_of_an_environment(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 2)):
        draw(Options("xland/doors-2", tmp_path / f"{name}.png", seed=seed, cell=16))
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_boards_of_zeros_and_ones_are_drawn_too(tmp_path):
    film = draw(Options("gymnax/Catch-bsuite", tmp_path / "a.gif", policy="noop", cell=4))
    assert film["frames"] == 10 and [abs(reward) for reward in film["rewards"]] == [1.0]
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.size == (20, 40)


@pytest.mark.usefixtures("drawing")
def test_bodies_are_drawn_without_a_display(tmp_path, monkeypatch):
    from rekindle.envs.host import dmc

    monkeypatch.setattr(dmc, "LONGEST", 3)
    film = draw(Options("dmc/walker-stand", tmp_path / "a.gif"))
    assert film["frames"] == 1 + 3 and film["rewards"][0] > 0
    draw(Options("HalfCheetah-v5", tmp_path / "b.png", policy="noop"))
    for name in ("a.gif", "b.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (480, 480) and len(set(picture.convert("L").tobytes())) > 50


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"task": "gymnax/CartPole-v1"}, ConfigError, "gymnax/CartPole-v1 cannot be drawn"),
        ({"task": "gymnax/Catch-bsuite", "trials": 2}, ConfigError, "--trials is for worlds of xland"),
        ({"out": "a.bmp"}, ConfigError, "a.bmp"),
        ({"trials": 0}, ConfigError, "got 0"),
        ({"cell": 4}, ConfigError, "got 4"),
        ({"fps": -1.0}, ConfigError, "got -1.0"),
        ({"task": "missing.txt"}, ConfigError, "no file"),
        ({"task": "xland/dors-2"}, ConfigError, "doors-2"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(task, tmp_path, changed, error, message):
    options = {"task": task, "out": "a.png", **changed}
    with pytest.raises(error, match=message):
        draw(Options(**{**options, "out": tmp_path / options["out"]}))
    assert [path.name for path in tmp_path.iterdir()] == ["task.txt"]


def test_a_wrong_word_is_named(tmp_path):
    (tmp_path / "task.txt").write_text(TASK.replace("yellow sphere\nrule", "yelow sphere\nrule"))
    with pytest.raises(GoalError, match="yelow"):
        draw(Options(str(tmp_path / "task.txt"), tmp_path / "a.png"))


def test_it_is_a_command(task, tmp_path, capsys):
    assert run([task, "-o", str(tmp_path / "a.webp"), "--policy", "noop", "--cell", "16", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"path": str(tmp_path / "a.webp"), "frames": 1, "rewards": [0.0]}
    assert "wrote" in said.err
