"""What a long job is doing and why, on standard error: a line per stage and one that moves while it practises."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console

from rekindle.cli.io import console
from rekindle.train.loop import Progress

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE = 24
"""Points of the small curve."""
SHOWN = {"episode/return": "return {:.2f}/episode, ", "phase/agreement": "agreement {:.2f}, ",
         "trial/reward": "reward {:.2f}/trial, "}  # fmt: skip
"""The first of these metrics that there is, in words."""
PLAIN_EVERY_S = 10.0
"""Where standard error is no terminal, a progress line this often."""


def last_words(metrics: Mapping[str, Any]) -> str:
    """The first metrics of those that there are, at the end; empty where there is none."""
    wanted = {
        "score/normalised": "normalised score {:.2f}, ",
        "score/return": "return of evaluations {:.2f}, ",
        **SHOWN,
    }
    return next((text.format(metrics[name]) for name, text in wanted.items() if name in metrics), "")


class Live:
    """Prints as it goes; a terminal sees one moving line, a file a line every ten seconds."""

    def __init__(self, score: str) -> None:
        """`score` names the metric that is shown, beside `trial/reward` where it is absent."""
        self.console: Console = console()
        self.score, self.curve = score, []
        self.started = self.printed = time.monotonic()
        self.moving = sys.stderr.isatty()

    def stage(self, name: str, text: str) -> None:
        """A stage begins or has something to say."""
        with unheard():
            self._end_line()
            self.console.print(f"[dim]{time.monotonic() - self.started:6.1f}s[/dim] [bold]{name:10}[/bold] ", end="")
            self.console.print(text, highlight=False, markup=False)

    def progress(self, strategy: str, now: Progress) -> None:
        """Practice went on: the curve, the score so far, rate and time left."""
        if self.score in now.metrics:
            self.curve.append(float(now.metrics[self.score]))
        elif not self.curve and "trial/success" in now.metrics:
            self.curve = []
        shown = [(name, text) for name, text in SHOWN.items() if name in now.metrics]
        reward = shown[0][1].format(now.metrics[shown[0][0]]) if shown else ""
        score = f"score {self.curve[-1]:.3f} {spark(self.curve)} " if self.curve else ""
        if now.metrics.get("time/learner_steps", 1) == 0:
            score = "nothing is learnt yet, "
        done, unit = (now.env_steps, "steps") if now.updates is None else (now.updates, "updates")
        pace = f"{done:,} {unit}, {now.steps_per_s:,.0f} {unit}/s, {now.share:.0%}, {now.eta_s:.0f} s left"
        text = f"{strategy} {score}{reward}{pace if done else 'before the first step'}"
        with unheard():
            if self.moving:
                sys.stderr.write(f"\r\x1b[2K       {text[: self.console.width - 8]}")
                sys.stderr.flush()
            elif time.monotonic() - self.printed > PLAIN_EVERY_S:
                self.printed = time.monotonic()
                sys.stderr.write(f"       {text}\n")
                sys.stderr.flush()

    def _end_line(self) -> None:
        if self.moving:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


@contextmanager
def unheard() -> Iterator[None]:
    """Work goes on where nobody listens any more; the console would end the program by itself."""
    with suppress(BrokenPipeError, SystemExit):
        yield


def spark(values: list[float]) -> str:
    """The last values as a line of blocks; the scale is from 0, or the least value, to 1, or the largest value.

    Where some are negative it ends with the largest.
    """
    recent = values[-CURVE:]
    least = min([0.0, *recent])
    top = max([1.0, *recent]) if least == 0.0 else max(recent)
    height = max(top - least, 1e-9)
    return "".join(BLOCKS[min(int((v - least) / height * len(BLOCKS)), len(BLOCKS) - 1)] for v in recent)
