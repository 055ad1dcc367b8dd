"""Fuzzing of everything that reads words, maps and settings from a person or a file.

A target's `check` feeds one input to a reader. The reader may take it; then what it prints must read back to the same
thing. Or it refuses it, with a `RekindleError` of one short line. Anything else is a finding: another exception, a
warning, more than 2 seconds or half a gigabyte for one input. `run("goal", 1000, seed=0, targets=TARGETS)` does a
thousand inputs. The targets are in `fuzz_words.py` and `fuzz_files.py`.
"""

import atexit
import contextlib
import gc
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st

from rekindle.core.errors import RekindleError

T = TypeVar("T")
MAX_MESSAGE = 400
MAX_SECONDS = 2.0
MAX_MEGABYTES = 512
MAX_LENGTH = 20_000
"""Characters of the longest inputs."""
BATCH = 1000
"""Inputs per run of hypothesis: its memory of what it tried grows with them."""
SHRINK_SECONDS = 20.0
MAX_FINDINGS = 10


class Target(NamedTuple):
    """A reader under test. `check` says whether it took the input; it raises if the reader misbehaves."""

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], bool]


class Misbehaviour(Exception):
    """A reader that neither takes an input whole nor refuses it in one short line."""


# --- Checks -----------------------------------------------------------------------------------------------------------


def take(read: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the reader made of its arguments, or None if it refused them well.

    Raises:
        Misbehaviour: it refused them, but not in one short line.
    """
    try:
        return read(*arguments, **options)
    except RekindleError as error:
        refusal(str(error))
        return None


def refusal(message: str) -> None:
    """See that a message is one short line.

    Raises:
        Misbehaviour: it is not.
    """
    if not message.strip():
        raise Misbehaviour("the message is empty")
    if len(message) > MAX_MESSAGE:
        raise Misbehaviour(f"the message has {len(message)} characters: {message[:200]}...")
    if len(message.splitlines()) > 1 or not message.isprintable():
        raise Misbehaviour(f"the message is not one printable line: {message!r}")
    if "Traceback" in message:
        raise Misbehaviour(f"the message holds a traceback: {message}")


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, arrays inside tuples by shape, type and elements."""
    if isinstance(first, np.ndarray | np.generic):
        return first.dtype == second.dtype and np.shape(first) == np.shape(second) and bool(np.all(first == second))
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return first == second


def survives(value: Any, write: Callable[[Any], str], read: Callable[[str], Any]) -> bool:
    """See that a value prints to a canonical text that reads back to it.

    Raises:
        Misbehaviour: it does not.
    """
    printed = write(value)
    again = read(printed)
    if not same(value, again):
        raise Misbehaviour(f"{printed[:200]!r} reads back as something else")
    if write(again) != printed:
        raise Misbehaviour(f"{printed[:200]!r} reads back and prints as {write(again)[:200]!r}")
    return True


def pick(values: Sequence[T]) -> st.SearchStrategy[T]:
    """One of the values; unlike `sampled_from` it does not print them all when something is found."""
    return st.integers(0, len(values) - 1).map(lambda i: values[i])


def run(target_name: str, count: int, seed: int, *, targets: Mapping[str, Target],
        max_seconds: float = MAX_SECONDS) -> dict[str, Any]:  # fmt: skip
    """Feed `count` inputs to a target; the same seed gives the same inputs.

    Args:
        target_name: a key of `targets`.
        count: how many inputs.
        seed: of the inputs.
        targets: the targets to choose from.
        max_seconds: an input that takes longer, twice, is a finding.

    Returns:
        `target`; `inputs`, of which so many were `accepted` and `refused`; `findings`, each the smallest input known to
        do it and what happened, at most ten of different kinds; `seconds` in all, shrinking included; `slowest_s`, the
        time of the slowest input; `peak_rss_mb` of this process so far.
    """
    target, trial = targets[target_name], _Trial(targets[target_name], max_seconds)
    began = time.perf_counter()
    found: dict[str, str] = {}
    for first in range(0, count, BATCH):
        batch_seed = seed * 1_000_003 + first
        size = min(BATCH, count - first)
        seen: dict[str, _Finding] = {}

        def look(value: Any, seen: dict[str, _Finding] = seen) -> None:
            finding = trial(value)
            if finding is not None:
                seen.setdefault(finding.kind, finding)

        _explore(target.inputs, look, size, batch_seed, (Phase.generate,))
        for kind, finding in seen.items():
            if kind not in found and len(found) < MAX_FINDINGS:
                found[kind] = _shrunk(trial, finding, size, batch_seed).text
    return {
        "target": target_name,
        "inputs": trial.accepted + trial.refused + trial.failed,
        "accepted": trial.accepted,
        "refused": trial.refused,
        "findings": list(found.values()),
        "seconds": round(time.perf_counter() - began, 3),
        "slowest_s": round(trial.slowest, 4),
        "peak_rss_mb": round(_peak_mb(), 1),
    }


class _Slow(BaseException):
    """Raised inside a check that takes too long; no reader catches it."""


class _Found(Exception):
    """Tells hypothesis to make an input smaller."""


class _Finding(NamedTuple):
    kind: str
    """Findings of one kind have one cause, most likely: the same exception from the same line."""
    size: int
    text: str
    """The input and what happened."""


class _Trial:
    """Runs checks of one target, counts what comes of them and names what goes wrong."""

    def __init__(self, target: Target, max_seconds: float):
        self.target, self.max_seconds = target, max_seconds
        self.accepted = self.refused = self.failed = 0
        self.slowest = 0.0
        self.counting = True

    def __call__(self, value: Any) -> _Finding | None:
        """What is wrong with what the reader does with an input, or None."""
        accepted, error, seconds = self._once(value)
        if isinstance(error, _Slow):  # the machine may have been busy: what is slow is slow twice
            accepted, error, seconds = self._once(value)
        if self.counting:
            self.slowest = max(self.slowest, seconds)
            self.failed += error is not None
            self.accepted += error is None and accepted
            self.refused += error is None and not accepted
        if error is None:
            return None
        what = repr(value)
        shown = what if len(what) <= 2000 else f"{what[:2000]}..."
        return _Finding(_kind(error), len(what), f"{shown}: {type(error).__name__.lstrip('_')}: {error}"[:4000])

    def _once(self, value: Any) -> tuple[bool, BaseException | None, float]:
        before, began = _peak_mb(), time.perf_counter()
        accepted, error = False, None
        try:
            with _alarm(self.max_seconds), warnings.catch_warnings():
                warnings.simplefilter("error")
                accepted = self.target.check(value)
        except (Exception, _Slow) as raised:
            error = raised.with_traceback(raised.__traceback__)
        seconds = time.perf_counter() - began
        if error is None and seconds > self.max_seconds:
            error = _Slow(f"it took {seconds:.1f} s")
        if error is None and (grown := _peak_mb() - before) > MAX_MEGABYTES:
            error = Misbehaviour(f"it took {grown:.0f} MB")
        return accepted, error, seconds


def _kind(error: BaseException) -> str:
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    line = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}" if step else ""
    if isinstance(error, Misbehaviour):
        line = re.sub(r"\W?\d.*|['\"].*", "", str(error))
    return f"{type(error).__name__} {'' if isinstance(error, _Slow) else line}"


def _shrunk(trial: _Trial, first: _Finding, size: int, seed: int) -> _Finding:
    """The finding with the smallest input that hypothesis comes to; the same seed leads there again."""
    best, until = first, time.perf_counter() + SHRINK_SECONDS

    def look(value: Any) -> None:
        nonlocal best
        finding = trial(value) if time.perf_counter() < until else None
        if finding is not None and finding.kind == first.kind:
            best = min(best, finding, key=lambda found: found.size)
            raise _Found

    trial.counting = False
    with contextlib.suppress(Exception):  # that it was found, or no longer is once the time is up
        _explore(trial.target.inputs, look, size, seed, (Phase.generate, Phase.shrink))
    trial.counting = True
    return best


def _explore(inputs: st.SearchStrategy[Any], look: Callable[[Any], None], count: int, seed: int,
             phases: tuple[Phase, ...]) -> None:  # fmt: skip
    settings = hypothesis.settings(max_examples=count, deadline=None, database=None, phases=phases, print_blob=False,
                                   suppress_health_check=list(HealthCheck), verbosity=Verbosity.quiet,
                                   report_multiple_bugs=False)  # fmt: skip
    hypothesis.seed(seed)(settings(hypothesis.given(inputs)(lambda value: look(value))))()


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `_Slow` inside what runs longer; only the main thread can, elsewhere it is measured afterwards.

    Garbage is collected afterwards, too: an alarm that rings inside a callback of the collector would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    armed = True

    def ring(number: int, frame: FrameType | None) -> None:
        if armed:
            raise _Slow(f"it was stopped after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    gc.disable()
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def scratch() -> str:
    """A folder for the files of inputs, in memory where there is such a place; gone when the process ends."""
    global _scratch
    if _scratch is None:
        _scratch = tempfile.mkdtemp(prefix="rekindle-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
    return _scratch


_scratch: str | None = None
