"""Arms in processes of their own, which take turns."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from benchmarks.dqn_speed.arms import ARMS
from rekindle.core.platform import keep_memory

PROCESSES = get_context("spawn")


@contextmanager
def working(arm: str, steps: int) -> Iterator[Connection]:
    """An arm in a process of its own, so that no library's threads stand in the way of another's.

    It says how long it took to make ready, or what it lacks; then for every number of seconds its speed; None ends it.
    """
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=work, args=(arm, steps, there), daemon=True)
    process.start()
    there.close()
    try:
        yield here
        with suppress(BrokenPipeError):  # of one that lacks something
            here.send(None)
    finally:
        here.close()
        process.join()


def turn(arm: Connection, seconds: float) -> float:
    """Steps per second of an arm that is ready; the others wait."""
    arm.send(seconds)
    return arm.recv()


def work(arm: str, steps: int, asked: Connection) -> None:
    """What the process of an arm does."""
    keep_memory()
    try:
        ready = ARMS[arm](steps)
    except ImportError as error:
        return asked.send(str(error))
    asked.send(ready.compile_s)
    while (seconds := asked.recv()) is not None:
        asked.send(ready.run(seconds))
