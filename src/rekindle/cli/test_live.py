"""Progress of long work."""

import os
import sys

from rekindle.cli import io
from rekindle.cli.live import Live
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
