import os
import subprocess
import sys

import pytest

from rekindle.core.platform import SMALL_LOOPS

FAULTS = """
import resource, sys
import numpy as np
from rekindle.core.platform import keep_memory
kept = keep_memory() if sys.argv[1] == "keep" else None
for round in range(9):
    np.ones(2**23)  # 64 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt if round == 0 else before
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*words, **variables):
    """What `keep_memory` says, and pages that were asked for after the first of nine large arrays."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))
    } | variables
    done = subprocess.run([sys.executable, "-c", FAULTS, *words], env=env, capture_output=True, text=True, check=True)
    said, number = done.stdout.split()
    return said, int(number)


@pytest.mark.skipif(sys.platform != "linux", reason="another allocator")
def test_what_is_freed_is_kept_for_the_next_array():
    given_back, (said, kept) = faults("leave")[1], faults("keep")
    assert said == "True"
    assert kept < 0.2 * given_back
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
    assert faults("keep", GLIBC_TUNABLES="glibc.malloc.mmap_max=65536")[0] == "False"


LOOPS = """
import sys
from rekindle.core.platform import join_small_loops
joined = join_small_loops() if sys.argv[1] == "join" else None
import jax
program = jax.jit(lambda key: jax.random.bits(key, (32,))).lower(jax.random.key(0)).compile()
print(joined, "small_call" in program.as_text(), int(program(jax.random.key(0)).sum()))
"""


def loops(word, **variables):
    """What `join_small_loops` says, whether the loop of the random bits is one kernel, and their sum."""
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | variables
    done = subprocess.run([sys.executable, "-c", LOOPS, word], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_loops_over_a_batch_of_random_bits_are_one_kernel_unless_the_user_says_otherwise(tmp_path):
    assert loops("leave")[:2] == ["None", "False"]
    assert loops("join")[:2] == ["True", "True"]
    assert loops("join")[2] == loops("leave")[2]
    assert loops("join", XLA_FLAGS=SMALL_LOOPS) == loops("join")
    own = "--xla_backend_extra_options=xla_not_an_option=1"  # nor does XLA mind one that it does not know
    assert loops("join", XLA_FLAGS=own)[:2] == ["True", "True"]
    assert loops("join", XLA_FLAGS=SMALL_LOOPS.replace("4096", "64"))[:2] == ["True", "False"]
    (tmp_path / "flags").write_text("--xla_cpu_enable_fast_math=false")
    assert loops("join", XLA_FLAGS=str(tmp_path / "flags"))[:2] == ["False", "False"]
    assert SMALL_LOOPS in os.environ["XLA_FLAGS"]  # where tests run, by conftest.py
