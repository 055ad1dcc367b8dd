"""The machine beneath: what JAX keeps between processes, and what a process keeps."""

import ctypes
import os
from pathlib import Path


def enable_compilation_cache(home: Path) -> bool:
    """Keep compiled programs under `home/compiled`, so that a program compiled once starts at once the next time.

    Every program is kept that took at least 0.2 s to compile. A folder that `JAX_COMPILATION_CACHE_DIR` names wins.

    Args:
        home: the library's home, made if it is missing.

    Returns:
        Whether the folder can be written; if not, nothing is kept and `rekindle doctor` says so.
    """
    import jax

    named: str | None = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    folder = Path(named or home / "compiled")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return True


def allow_callbacks() -> None:
    """Let programs on a single processor core ask functions in Python, such as a foreign teacher.

    JAX's own pool has a thread for every core; a program that waits for an answer takes one, and with no other left the
    question itself is never copied. Has to be called before the first device is used.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1:
        os.environ.setdefault("PJRT_NPROC", "2")


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, for its next allocation; the command line does.

    GNU's allocator gives everything of more than 32 MiB back to the system at once and asks for it again at the next
    update, page by page. The price: the process stays as large as it once was, and arrays of zeros take their memory
    before they are written. So `import rekindle` leaves it alone.

    Returns:
        Whether it does; not where the allocator is another, or where `MALLOC_` variables, `GLIBC_TUNABLES` or
        `LD_PRELOAD` say what is wanted, as `MALLOC_TRIM_THRESHOLD_=131072` does.
    """
    if any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim_threshold, mmap_max = -1, -4
    return bool(set_option(trim_threshold, -1) and set_option(mmap_max, 0))
