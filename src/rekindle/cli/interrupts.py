"""Ctrl-C that is answered while a program is compiled, when nothing of Python's runs for half a minute or more."""

import signal
import socket
import sys
import time
from collections.abc import Callable
from threading import Thread

QUIET_S = 1.0
"""A command that has stopped by then needs no word."""
GRACE_S = 3.0
"""What a second Ctrl-C leaves it, to say itself how to go on."""
STOPPING = "\nrekindle: stopping as soon as what runs is done and saved; Ctrl-C again stops at once.\n"


def answer(end: Callable[[], None]) -> None:
    """Say that the first Ctrl-C was heard, and end the process after the second, whatever else it does.

    From the main thread. What handles the signal otherwise goes on doing so.

    Args:
        end: ends the process; called in another thread.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    Thread(target=_listen, args=(reader, writer, end), daemon=True).start()


def _listen(reader: socket.socket, writer: socket.socket, end: Callable[[], None]) -> None:
    """With the writer, so that it stays open."""
    for wait, then in ((QUIET_S, lambda: _say(STOPPING)), (GRACE_S, end)):
        while reader.recv(1)[0] not in (signal.SIGINT, signal.SIGTERM):
            continue
        time.sleep(wait)
        then()


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
