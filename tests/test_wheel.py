"""The wheel holds the package, what it needs at run time, and nothing else; and it runs where the sources are not."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("pip", reason="the environment was made without pip")
    out = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (built,) = out.glob("rekindle-*.whl")
    return built


def test_it_holds_the_sources_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    needed = {
        path.relative_to(source).as_posix()
        for path in (source / "rekindle").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(("test_", "conftest", "."))
    }
    assert needed <= names
    assert not [name for name in names if Path(name).name.startswith(("test_", "conftest"))]
    assert all(name.startswith("rekindle/") or ".dist-info/" in name for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_runs_from_elsewhere(wheel, tmp_path):
    target = tmp_path / "site"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import rekindle; assert rekindle.__file__.startswith(sys.path[0]), rekindle.__file__\n"
        "from rekindle.cli.main import main; sys.exit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: rekindle VERB" in done.stdout
