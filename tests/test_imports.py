"""What importing costs: milliseconds, and no device. Each check runs in a process of its own."""

import subprocess
import sys

import pytest

import rekindle

HEAVY = ("jax", "numpy", "equinox", "tyro", "rich", "sqlalchemy", "matplotlib", "pydantic", "imageio")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages a fresh process has loaded after running `code`."""
    probe = f"{code}\nimport sys\nsys.stdout.write('\\nloaded: ' + ' '.join(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import rekindle; rekindle.__version__; dir(rekindle)") == set()


@pytest.mark.parametrize("argument", ["--help", "--version", "no-such-verb"])
def test_the_top_of_the_command_line_loads_nothing_heavy(argument):
    assert loaded_by(f"from rekindle.cli.main import main; main([{argument!r}])") == set()


def test_the_probe_sees_what_is_loaded():
    assert loaded_by("import numpy") == {"numpy"}


@pytest.mark.parametrize("name", [name for name in rekindle.__all__ if name != "__version__"])
def test_every_public_verb_exists(name):
    assert callable(getattr(rekindle, name))


def test_an_unknown_name_lists_the_public_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'mak'.*make"):
        rekindle.mak  # noqa: B018


def test_training_imports_without_the_command_line_the_database_plots_and_videos():
    lean = "import rekindle.train.session, rekindle.agents.registry, rekindle.evaluate.rollout"
    assert not loaded_by(lean) & {"tyro", "rich", "sqlalchemy", "matplotlib", "imageio"}


def test_a_run_is_opened_and_finished_without_the_database(tmp_path):
    code = f"""
from pathlib import Path
from rekindle.library.library import Library
from rekindle.library.run import Run
run = Run.create(Library.open(Path({str(tmp_path)!r})), "train", name="lean", config={{}}, seed=0)
run.log(1, {{"loss": 0.5}})
run.finish("done")
"""
    assert "sqlalchemy" not in loaded_by(code)


def test_environments_and_agents_import_without_the_database():
    assert not loaded_by("import rekindle.envs.registry, rekindle.agents.ppo.ppo") & {"sqlalchemy", "pydantic"}


def test_master_stays_a_verb_when_its_module_is_imported_before_or_after():
    first = "import rekindle; rekindle.master; assert callable(rekindle.master)"
    later = "from rekindle.master import Request; import rekindle; assert callable(rekindle.master)"
    for code in (first, later):
        subprocess.run([sys.executable, "-c", code], check=True)
