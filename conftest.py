"""How every test runs: strict JAX, run-time shape checks, and a library and a compilation cache of its own.

Shape and type annotations of the package are checked by jaxtyping and beartype (`--jaxtyping-packages` in
pyproject.toml, which instruments the package before any of it is imported).
"""

import os
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import AssertionRewritingHook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_scratch = tempfile.TemporaryDirectory(prefix="rekindle-tests-", ignore_cleanup_errors=True)
os.environ["REKINDLE_HOME"] = str(Path(_scratch.name) / "home")
# Sub-processes of tests inherit the cache by name; programs that several tests compile are compiled once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(_scratch.name) / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("PJRT_NPROC", str(max(os.cpu_count() or 1, 2)))  # as core/platform.py, which is not imported yet

import jax  # noqa: E402  (reads the environment when it is imported)

STRICT = {
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_debug_key_reuse": True,
}
PACKAGE = Path(__file__).parent / "src"

# The checks of shapes would otherwise also load the test modules inside the package, and lose pytest's explanations.
sys.meta_path.sort(key=lambda finder: not isinstance(finder, AssertionRewritingHook))


@pytest.fixture(autouse=True)
def strict_jax(request):
    """Refuse implicit promotion, except in tests of or beside libraries that do it themselves, and reuse of keys.

    Keys are only checked in the package's own tests: a check at every call of a program costs a whole run, on worlds
    that are not compiled, more than the run itself.
    """
    flags = STRICT | {"jax_debug_key_reuse": PACKAGE in request.path.parents}
    if request.node.get_closest_marker("foreign_numerics"):
        flags |= {"jax_numpy_rank_promotion": "allow", "jax_numpy_dtype_promotion": "standard"}
    before = {name: getattr(jax.config, name) for name in flags}
    for name, value in flags.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def postgres_url():
    """A real PostgreSQL, empty at first; whoever shares it takes a library of its own in it."""
    from benchmarks.servers import postgres

    with postgres() as url:
        yield url


@pytest.fixture(scope="session")
def s3_server():
    """The environment of a real server that speaks S3."""
    from benchmarks.servers import s3

    with s3() as environment:
        yield environment


@pytest.fixture
def s3_url(s3_server, monkeypatch):
    """A place of its own in a bucket, reachable from this process and its children."""
    from benchmarks.servers import BUCKET

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def drawing():
    """That MuJoCo draws; a test of its pictures is left out only where nothing is installed that can."""
    pytest.importorskip("dm_control")
    from rekindle.envs import registry
    from rekindle.envs.host import mujoco

    registry.host("dmc/cartpole-balance")  # loads what draws, if anything does
    if os.environ.get(mujoco.RENDERER) == mujoco.NO_RENDERER:
        pytest.skip(mujoco.MEND)
