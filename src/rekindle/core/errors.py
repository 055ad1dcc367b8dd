"""The errors a user can meet, each with the exit code the command line returns for it (docs/design.md, commands)."""

import difflib
from collections.abc import Iterable
from typing import Any


class RekindleError(Exception):
    """A failure that one sentence explains: what was expected, what came, where, and the mend."""

    exit_code = 2


class ConfigError(RekindleError):
    """A setting, argument or goal that cannot be used as given."""


class GoalError(ConfigError):
    """Words outside a world's grammar."""


class EnvContractError(RekindleError):
    """An environment that breaks the contract of `envs/base.py`; the message names the likely cause."""

    exit_code = 1


class WorldError(RekindleError):
    """A world that is not compiled failed in the middle of play, or showed what is no number or of another shape."""

    def __init__(self, message: str, spec: Any = None):
        """Say what and where; `spec` is the world's."""
        super().__init__(message)
        self.spec = spec
        self.state: Any = None
        """Of the agent that was trained there, from shortly before; None where nothing was."""
        self.env_steps = 0
        """That it was trained for."""


class AgentContractError(RekindleError):
    """An agent that breaks the contract of `core/types.py`; the message names the likely cause."""

    exit_code = 1


class CheckpointError(RekindleError):
    """A checkpoint or artefact that is missing, damaged or made for something else."""


class DivergedError(RekindleError):
    """A training whose loss is no longer a number; the message says what to change."""


class LibraryError(RekindleError):
    """A library that cannot be read or written."""


class BudgetExceeded(RekindleError):
    """The budget was spent before the goal was reached."""

    exit_code = 3


class ImpossibleGoal(RekindleError):
    """The planner proved that no behaviour reaches the goal."""

    exit_code = 4


class ModelError(RekindleError):
    """A language model that failed or answered outside its schema."""


def within(name: str, value: int, least: int, most: int = 2**31 - 1) -> int:
    """A whole number from `least` to `most`, both included.

    Raises:
        ConfigError: it is not; `name` says which, as the user wrote it.
    """
    if not least <= value <= most:
        bounds = f"at least {least}" if value < least else f"at most {most}"
        raise ConfigError(f"{name} must be {bounds}; got {value}.")
    return value


def in_a_line(error: BaseException) -> str:
    """The type of somebody else's error and what it says, in one line without a full stop, to stand in a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(". ")


def nearest(word: str, known: Iterable[str], *, n: int = 3) -> str:
    """The `n` known words most like `word`, as text for an error message ("a, b or c")."""
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=n, cutoff=0.0)[:n]
    return _or(close)


MOST_NAMED = 40
"""Words in one sentence."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: what is much like it, or else all that is known."""
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return f"did you mean {_or(close)}?" if close else f"known are {', '.join(known[:MOST_NAMED])}{more}."


def _or(words: list[str]) -> str:
    quoted = [repr(w) for w in words]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1] if quoted else "nothing"
