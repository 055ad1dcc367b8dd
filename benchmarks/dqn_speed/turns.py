"""Arms in processes of their own, which take turns."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from benchmarks.dqn_speed.arms import ARMS
from rekindle.core.platform import keep_memory

PROCESSES = get_context("spawn")
"""New ones: of a fork, JAX's threads would be missing, and the ends of all pipes be open twice."""
PATIENCE = 30.0
"""Seconds that an arm has to end in."""


class Arm:
    """One that is ready, in its process; or what it lacks."""

    def __init__(self, name: str, connection: Connection):
        """Wait until it is ready."""
        self.name, self._connection = name, connection
        said = self._said()
        self.lacks, self.compile_s = (said, 0.0) if isinstance(said, str) else ("", float(said))

    def run(self, seconds: float) -> float:
        """Steps per second over at least so long, while the other arms wait."""
        self._connection.send(seconds)
        return float(self._said())

    def _said(self) -> float | str:
        try:
            return self._connection.recv()
        except (EOFError, ConnectionError):
            raise SystemExit(f"the arm {self.name} ended by itself; what it said stands above.") from None


@contextmanager
def working(name: str, steps: int) -> Iterator[Arm]:
    """An arm in a process of its own, so that no library's threads stand in the way of another's."""
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=work, args=(name, steps, there), daemon=True)
    process.start()
    there.close()
    try:
        yield Arm(name, here)
    finally:
        here.close()
        process.join(PATIENCE)
        process.kill()


def work(name: str, steps: int, asked: Connection) -> None:
    """What the process of an arm does: it says how long making ready took, or what it lacks; then speeds, if asked."""
    keep_memory()
    try:
        ready = ARMS[name](steps)
    except ImportError as error:
        return asked.send(f"{error}; pip install -e '.[gym,bench]'")
    asked.send(ready.compile_s)
    with suppress(EOFError, ConnectionError):  # nobody asks any more
        while True:
            asked.send(ready.run(asked.recv()))
