"""`rekindle VERB ...`: finds the command, and turns whatever goes wrong into one sentence and an exit code.

Exit codes: 0 done, 1 a defect of ours, 2 wrong input, 3 budget spent without reaching the goal, 4 impossible,
130 interrupted and resumable. A command is a module `rekindle.cli.<verb>` with `run(argv: list[str]) -> int`; nothing
heavy is imported before one is chosen.
"""

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from rekindle.cli import interrupts
from rekindle.core.errors import RekindleError, did_you_mean

INTERRUPTED = 130
STOPPED = "interrupted; if a run was begun, `rekindle resume` goes on with it."
BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell reports for any program whose reader went away.


class Verb(NamedTuple):
    """A command: where it is, what it does in one line, and whether it runs programs that are worth caching."""

    module: str
    help: str
    compiles: bool = True


VERBS = {
    "master": Verb("rekindle.cli.master", "Give it a goal, in words or as a return; get an agent that reaches it."),
    "train": Verb("rekindle.cli.train", "Train an agent from scratch on an environment."),
    "reincarnate": Verb("rekindle.cli.reincarnate", "Make a new agent from any teacher, then wean it."),
    "resume": Verb("rekindle.cli.resume", "Go on with a run that was interrupted."),
    "evaluate": Verb("rekindle.cli.evaluate", "Score an agent: by its return, or on tasks it has never seen."),
    "report": Verb("rekindle.cli.report", "Write a page of a training, or of several side by side."),
    "library": Verb(
        "rekindle.cli.library", "List, show, draw, verify, export, import or tidy up what was trained.", compiles=False
    ),
    "render": Verb("rekindle.cli.render", "Draw a task, or an episode of it, as a picture or video."),
    "doctor": Verb("rekindle.cli.doctor", "Say what is installed, what is wrong, and the mend.", compiles=False),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code. Only `SystemExit` of a command's own `--help` passes through."""
    args = sys.argv[1:] if argv is None else list(argv)
    if argv is None:
        interrupts.answer(lambda: os._exit(_fail(STOPPED, INTERRUPTED, args)))
    try:
        code = _dispatch(args)
        sys.stdout.flush()
        return code
    except RekindleError as error:
        return _fail(str(error), error.exit_code, args)
    except KeyboardInterrupt as stop:
        if argv is None:  # A second Ctrl-C would end in a traceback of the interpreter's own clean-up.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        message = str(stop.args[0]) if stop.args else STOPPED
        code = _fail(message, INTERRUPTED, args, stop.args[1] if len(stop.args) > 1 else None)
        if argv is None:  # A compilation that goes on in a thread of its own would crash the interpreter's clean-up.
            sys.stdout.flush()
            os._exit(code)
        return code
    except BrokenPipeError:
        # Python flushes stdout once more on its way out; that must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except Exception as error:
        if isinstance(error, ImportError) and _was_interrupted(error):
            return _fail(STOPPED, INTERRUPTED, args)
        if os.environ.get("REKINDLE_DEBUG") == "1":
            traceback.print_exc()
            return 1
        reason = " ".join(str(error).split())
        if isinstance(error, MemoryError) or "out of memory" in reason.lower():
            return _fail(f"not enough memory: {reason[:200].rstrip('.')}. Take smaller settings, such as of widths, "
                         "batch, num_envs or capacity.", 2, args)  # fmt: skip
        short = reason if len(reason) <= 200 else reason[:200] + "..."
        saved = _save_crash(args)
        return _fail(f"a defect of ours, {type(error).__name__}: {short}. The traceback is in {saved}.", 1, args)


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if args[0] in ("-V", "--version"):
        from importlib.metadata import version

        sys.stdout.write(f"rekindle {version('rekindle')}\n")
        return 0
    name, *rest = args
    if name not in VERBS:
        return _fail(f"no command {name!r}; {did_you_mean(name, VERBS)} `rekindle --help` lists them.", 2, args)
    verb = VERBS[name]
    if not verb.compiles or {"-h", "--help"} & set(rest):
        return import_module(verb.module).run(rest)
    from rekindle.core.platform import allow_callbacks, enable_compilation_cache, keep_memory
    from rekindle.library.home import default_home, near

    allow_callbacks()
    keep_memory()
    enable_compilation_cache(near(default_home()))
    command = import_module(verb.module)
    from rekindle.reincarnation.teachers.host import failures_named

    with failures_named():
        return command.run(rest)


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "".join(f"  {name:<{width}}  {verb.help}\n" for name, verb in VERBS.items())
    return (
        "usage: rekindle VERB ...\n\n"
        "Give it a goal, go and make tea, come back to an agent that does it.\n\n"
        f"{verbs}\n"
        "`rekindle VERB --help` explains one. REKINDLE_HOME says where the library is (a folder, or a URL such as\n"
        "s3://bucket/library), REKINDLE_DB where its index is (a PostgreSQL URL; by default SQLite beside the runs).\n"
    )


def _fail(message: str, code: int, args: list[str], facts: Mapping[str, Any] | None = None) -> int:
    """One sentence on standard error and, for a program that reads along, one object with it on standard output."""
    sys.stderr.write(f"rekindle: {message}\n")
    if "--json" in args:
        told = {**(facts or {}), "error": message, "exit_code": code}
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
    return code


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is the cause of an error, as when it hits the loading of a compiled extension."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _save_crash(args: list[str]) -> Path:
    """Write the traceback to the library's home, or where that cannot be written to the folder for temporary files."""
    from rekindle.library.home import default_home, near

    text = f"rekindle {' '.join(args)}\nPython {sys.version}\n\n{traceback.format_exc()}"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    try:
        folder = near(default_home()) / "crashes"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="rekindle-crash-"))
        (folder / name).write_text(text, "utf-8")
    return folder / name


if __name__ == "__main__":
    sys.exit(main())
