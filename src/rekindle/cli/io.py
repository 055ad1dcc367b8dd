"""What every command shares: reading its options, progress on standard error, one JSON object on standard output."""

import contextlib
import functools
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import tyro
from rich.console import Console

from rekindle.core.errors import ConfigError, did_you_mean

Options = TypeVar("Options")

_STYLE = (tyro.conf.FlagCreatePairsOff,)
_PLAINER = (
    (r"^Error parsing (\S+): ", r"\1: "),
    (r"invalid literal for int\(\) with base 10: ", "expected a whole number; got "),
    (r"could not convert string to float: ", "expected a number; got "),
    (r"^Missing from [^:]*: (\S+)", r"\1 is missing:"),
    (r"no type matching \{None\}\|FLOAT could be instantiated from \[(.*?)\]\..*", r"expected a number; got \1"),
    (r"no type matching \{None\}\|INT could be instantiated from \[(.*?)\]\..*", r"expected a whole number; got \1"),
    (r" \(required\)", ""),
)


@functools.cache
def console() -> Console:
    """The one console: rich, on standard error, so that standard output stays for results; a file gets whole lines."""
    return Console(stderr=True, soft_wrap=not sys.stderr.isatty())


def emit_json(obj: Mapping[str, Any]) -> None:
    """Print one JSON object as a line of its own on standard output; a command's last word under `--json`.

    Raises:
        ValueError: it holds NaN or an infinity, which are no JSON.
    """
    sys.stdout.write(json.dumps(obj, allow_nan=False, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def parse(options: type[Options], argv: Sequence[str], prog: str, description: str | None = None) -> Options:
    """Read a dataclass from the command line; `--help` prints rich help and exits 0.

    Every field becomes an option, its docstring the help. `tyro.conf.Positional[T]` makes it positional,
    `tyro.conf.UseAppendAction[tuple[str, ...]]` an option that may be repeated; a `bool` is a flag without a value.

    Args:
        options: the dataclass.
        argv: what came after the verb.
        prog: as usage shows it, such as "rekindle train".
        description: shown above the options; by default the class docstring.

    Raises:
        ConfigError: an unknown option, a missing or a wrong value; one sentence that names it and the nearest known.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            found, unknown = tyro.cli(
                options, args=argv, prog=prog, description=description, return_unknown_args=True, config=_STYLE
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(f"{_sentence(complaint.getvalue())} See `{prog} --help`.") from None
    if unknown:
        raise ConfigError(_unknown(unknown, options, prog))
    return found


def _sentence(box: str) -> str:
    """What tyro says in a box, as one line: the part above the first rule, without the frame."""
    rows = [line.strip("│ \t") for line in box.splitlines() if line.startswith("│")]
    body = rows[: next((i for i, row in enumerate(rows) if row.startswith("──")), len(rows))]
    text = " ".join(" ".join(body).split())
    for pattern, plain in _PLAINER:
        text = re.sub(pattern, plain, text)
    return text if text.endswith(".") else f"{text}."


def _unknown(tokens: Sequence[str], options: type, prog: str) -> str:
    option = next((token for token in tokens if token.startswith("-")), None)
    if option is None:
        return f"{tokens[0]!r} is one argument too many; words that belong together need quotes. See `{prog} --help`."
    name = option.partition("=")[0]
    return f"no option {name!r}; {did_you_mean(name, _known(options))} See `{prog} --help`."


def _known(options: type) -> set[str]:
    """The long options of a dataclass, as its help lists them: aliases and nested names included."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--help"], config=_STYLE)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", page.getvalue())
    return set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", plain))
