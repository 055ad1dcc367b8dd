"""The command line as a person meets it: help, wrong words, wrong options, and what it says when something breaks."""

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from rekindle.cli import io, main
from rekindle.core.errors import BudgetExceeded, ConfigError, ImpossibleGoal


@dataclass(frozen=True)
class Options:
    """Options of a command."""

    goal: tyro.conf.Positional[str]
    """What to reach."""
    rule: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A rule; may be repeated."""
    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Where to start."""
    kind: Literal["one", "two"] = "one"
    """Which."""
    trials: int = 1
    """How many."""
    json: bool = False
    """Print JSON."""


def read(*argv: str) -> Options:
    return io.parse(Options, argv, "rekindle try")


@pytest.fixture
def command(monkeypatch):
    """Make `rekindle try` do what the test says."""

    def install(run):
        module = type("command", (), {"run": staticmethod(run)})
        monkeypatch.setitem(main.VERBS, "try", main.Verb("try", "Try.", compiles=False))
        monkeypatch.setattr(main, "import_module", lambda name: module)

    return install


def raising(error):
    def run(argv):
        raise error

    return run


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(argv, capsys):
    assert main.main(argv) == 0
    page = capsys.readouterr().out
    assert all(f"  {name} " in page and verb.help in page for name, verb in main.VERBS.items())


@pytest.mark.parametrize("name", sorted(main.VERBS))
def test_every_command_explains_itself(name, capsys):
    assert callable(import_module(main.VERBS[name].module).run)
    try:
        assert main.main([name, "--help"]) == 0
    except SystemExit as stop:
        assert stop.code in (0, None)
    assert f"rekindle {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(main.VERBS))
def test_every_command_refuses_an_option_it_does_not_have(name, capsys):
    assert main.main([name, "--no-such-option"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("rekindle: ") and said.count("\n") == 1


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    assert main.main(["mastr", "hold yellow sphere"]) == 2
    said = capsys.readouterr().err
    assert "'mastr'" in said and "'master'" in said and said.count("\n") == 1


def test_arguments_reach_the_command_and_its_code_returns(command):
    seen = []
    command(lambda argv: seen.extend(argv) or 3)
    assert main.main(["try", "a", "--b"]) == 3 and seen == ["a", "--b"]


@pytest.mark.parametrize(("error", "code"), [(ConfigError, 2), (BudgetExceeded, 3), (ImpossibleGoal, 4)])
def test_a_known_failure_is_one_line_and_its_exit_code(error, code, command, capsys):
    command(raising(error("say this.")))
    assert main.main(["try"]) == code
    assert capsys.readouterr().err == "rekindle: say this.\n"


def test_with_json_a_failure_is_an_object_too(command, capsys):
    command(raising(ConfigError("say this.")))
    assert main.main(["try", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"error": "say this.", "exit_code": 2}


def test_an_interruption_says_how_to_go_on(command, capsys):
    command(raising(KeyboardInterrupt()))
    assert main.main(["try"]) == 130
    said = capsys.readouterr().err
    assert "rekindle resume" in said and said.count("\n") == 1


def test_a_defect_leaves_its_traceback_in_a_file_and_one_line_that_names_it(command, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))
    monkeypatch.delenv("REKINDLE_DEBUG", raising=False)
    command(raising(ZeroDivisionError("by\nnothing")))
    assert main.main(["try", "--now"]) == 1
    said = capsys.readouterr().err
    (crash,) = (tmp_path / "crashes").iterdir()
    assert said.count("\n") == 1 and "ZeroDivisionError: by nothing" in said and str(crash) in said
    text = crash.read_text()
    assert "Traceback" in text and "rekindle try --now" in text


def test_a_defect_is_saved_elsewhere_if_the_library_cannot_be_written(command, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("REKINDLE_DEBUG", raising=False)
    monkeypatch.setattr(main.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    command(raising(ZeroDivisionError("x")))
    assert main.main(["try"]) == 1
    crash = Path(capsys.readouterr().err.split()[-1].removesuffix("."))
    assert crash.parent == tmp_path and "Traceback" in crash.read_text()


def test_the_debug_switch_shows_the_traceback(command, capsys, monkeypatch):
    monkeypatch.setenv("REKINDLE_DEBUG", "1")
    command(raising(ZeroDivisionError("x")))
    assert main.main(["try"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_options_are_read():
    options = read("hold", "--rule", "a", "--rule", "b", "--from", "there", "--trials", "3", "--json")
    assert options == Options("hold", ("a", "b"), "there", trials=3, json=True)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["hold", "--trails", "3"], ["'--trails'", "'--trials'"]),
        (["hold", "--form=x"], ["'--form'", "'--from'"]),
        (["hold", "--trials", "many"], ["--trials", "'many'", "whole number"]),
        (["hold", "--kind", "three"], ["--kind", "'three'", "'one', 'two'"]),
        (["hold", "--trials"], ["--trials"]),
        (["hold", "yellow"], ["'yellow'", "quotes"]),
        ([], ["missing", "What to reach"]),
    ],
)
def test_a_wrong_option_is_one_sentence_that_names_it(argv, words):
    with pytest.raises(ConfigError) as refused:
        read(*argv)
    said = str(refused.value)
    assert all(word in said for word in words) and "`rekindle try --help`" in said
    assert "\n" not in said and "│" not in said


def test_the_help_of_a_command_shows_the_docstrings_and_exits_0(capsys):
    with pytest.raises(SystemExit) as stop:
        read("--help")
    assert stop.value.code in (0, None)
    page = capsys.readouterr().out
    assert "What to reach." in page and "--rule" in page and "--no-json" not in page


def test_json_is_one_line_on_standard_output(capsys):
    io.console().print("progress")
    io.emit_json({"goal": "hold é", "score": 0.5})
    streams = capsys.readouterr()
    assert streams.out == '{"goal": "hold é", "score": 0.5}\n'


def test_json_refuses_what_json_cannot_say():
    with pytest.raises(ValueError):
        io.emit_json({"score": float("nan")})
