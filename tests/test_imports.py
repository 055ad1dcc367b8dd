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


def test_training_imports_without_the_command_line_plots_and_videos():
    lean = "import rekindle.train.loop, rekindle.agents.registry, rekindle.evaluate.rollout"
    assert not loaded_by(lean) & {"tyro", "rich", "matplotlib", "imageio"}


def test_environments_and_agents_import_without_the_database():
    assert not loaded_by("import rekindle.envs.registry, rekindle.agents.ppo.ppo") & {"sqlalchemy", "pydantic"}


def test_master_stays_a_verb_when_its_module_is_imported_before_or_after():
    first = "import rekindle; rekindle.master; assert callable(rekindle.master)"
    later = "from rekindle.master import Request; import rekindle; assert callable(rekindle.master)"
    for code in (first, later):
        subprocess.run([sys.executable, "-c", code], check=True)
