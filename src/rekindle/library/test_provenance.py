"""What a run says of the code it was made with: enough to put the tree back as it was."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import json, sys
from rekindle.library import provenance
patch = provenance.patch()
sys.stdout.buffer.write(json.dumps(provenance.code().model_dump()).encode() + b"\\n" + (patch or b""))
"""


def git(folder, *words):
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, env=os.environ | identity)
    return done.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path):
    """A checkout of a small copy of the package: enough of it to ask for its provenance."""
    source = Path(__file__).parents[1]
    tree = tmp_path / "tree"
    for name in ("__init__.py", "core/__init__.py", "library/__init__.py", "library/provenance.py"):
        (tree / "src" / "rekindle" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, tree / "src" / "rekindle" / name)
    (tree / ".gitignore").write_text("__pycache__/\nsecret\n")
    git(tmp_path, "init", "-q", str(tree))
    git(tree, "add", "--all")
    git(tree, "commit", "-qm", "first")
    return tree


def told(tree):
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, check=True, capture_output=True, cwd=tree)
    facts, _, patch = done.stdout.partition(b"\n")
    return json.loads(facts), patch


def test_a_clean_tree_is_its_revision(checkout):
    assert told(checkout) == (
        {"revision": git(checkout, "rev-parse", "HEAD"), "dirty": False, "difference_sha256": None},
        b"",
    )


def test_the_difference_puts_the_tree_back_untracked_files_included(checkout, tmp_path):
    (checkout / "src" / "rekindle" / "core" / "__init__.py").write_text("changed = 1\n")
    (checkout / "src" / "rekindle" / "new.bin").write_bytes(bytes(range(256)))
    (checkout / "secret").write_text("ignored by git, so it stays home")
    (checkout / "benchmarks" / "x" / "results").mkdir(parents=True)
    (checkout / "benchmarks" / "x" / "results" / "cpu.json").write_text("{}")
    before = git(checkout, "status", "--porcelain"), git(checkout, "count-objects")
    facts, patch = told(checkout)
    assert facts["dirty"] and facts["difference_sha256"] == hashlib.sha256(patch).hexdigest()
    assert (git(checkout, "status", "--porcelain"), git(checkout, "count-objects")) == before, (
        "the checkout was touched"
    )
    assert b"ignored by git" not in patch and b"cpu.json" not in patch
    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(checkout), str(again))
    (tmp_path / "code.patch").write_bytes(patch)
    git(again, "apply", str(tmp_path / "code.patch"))
    assert (again / "src" / "rekindle" / "core" / "__init__.py").read_text() == "changed = 1\n"
    assert (again / "src" / "rekindle" / "new.bin").read_bytes() == bytes(range(256))
    assert told(again)[0] == facts


def test_a_large_difference_is_kept_as_its_hash(checkout):
    (checkout / "large.bin").write_bytes(os.urandom(2**21))
    facts, patch = told(checkout)
    assert facts["dirty"] and len(facts["difference_sha256"]) == 64 and patch == b""
