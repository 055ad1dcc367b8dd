import os
import subprocess
import sys

import pytest

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
