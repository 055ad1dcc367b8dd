"""Ctrl-C is answered while the main thread is in code that no handler can reach."""

import signal
import subprocess
import sys
import time

BUSY = """
import hashlib, os, signal, sys
from rekindle.cli import interrupts
signal.signal(signal.SIGINT, lambda number, frame: None)
interrupts.QUIET_S, interrupts.GRACE_S = 0.05, 0.05
interrupts.answer(lambda: os._exit(130))
print("busy", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
print("done", flush=True)
"""


def busy(rounds):
    process = subprocess.Popen([sys.executable, "-c", BUSY.format(rounds=rounds)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "busy\n"
    time.sleep(0.1)
    return process


def test_the_first_is_said_to_be_heard_and_the_second_ends_it():
    process = busy(10**9)  # many minutes
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n" and "Ctrl-C again stops at once" in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "done" not in process.communicate()[0]


def test_after_the_first_alone_it_goes_on_to_its_own_end():
    process = busy(10**6)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "done" in out
