"""Progress of long work."""

import os
import sys

from rekindle.cli import io
from rekindle.cli.live import BLOCKS, Live, spark
from rekindle.train.loop import Progress


def test_work_goes_on_where_nobody_listens_any_more(monkeypatch):
    """As behind `| head`, or when a connection drops."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        io.console.cache_clear()
        live = Live("trial/reward")
        before = live.printed = live.printed - 60
        live.progress("training", Progress(1, 0.5, 1.0, 1.0, {"trial/reward": 0.5}))
        live.stage("done", "and kept")
        assert live.printed > before and live.curve == [0.5]
        io.console.cache_clear()
        monkeypatch.undo()
        try:
            gone.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), writer)


def test_curves_of_negative_returns_rise():
    low, middle, high = (BLOCKS.index(block) for block in spark([-1500.0, -800.0, -150.0]))
    assert (low, high) == (0, len(BLOCKS) - 1) and low < middle < high
    assert spark([0.0, 0.5, 1.0]) == BLOCKS[0] + BLOCKS[len(BLOCKS) // 2] + BLOCKS[-1]
