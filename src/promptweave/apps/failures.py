"""Errors become one message and an exit code."""

from __future__ import annotations

import difflib
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from cyclopts import (
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from promptweave.apps.terminal import FAILURE, INTERRUPTED, USAGE
from promptweave.core.shown import LONGEST, harmless, shown

USUAL = warnings.formatwarning
ALIKE = 0.7  # of the letters, for an option that may have been meant
INTERRUPTION = "Interrupted. Nothing was written by halves; jobs and trainings continue from what is done."


def explain(error: BaseException) -> int:
    """Print what went wrong, and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return fail(INTERRUPTION, INTERRUPTED)
    if isinstance(error, CycloptsError):
        return fail(misused(error), USAGE)
    if (
        isinstance(error, MemoryError)
        or "out of memory" in str(error).lower()
        or "can't allocate memory" in str(error).lower()
    ):
        return fail(
            "The machine is out of memory. Make smaller or fewer images: --size, --images, fewer targets.", FAILURE
        )
    if isinstance(error, ValueError | OSError | TypeError | ImportError):
        prefix = (
            "" if type(error).__module__ == "builtins" else f"{type(error).__name__}: "
        )  # the library's own errors are in docs/errors.md
        lost = isinstance(error, FileNotFoundError) and "No such file" in str(error)  # in the system's words
        return fail(f"{prefix}{error}{f'. Check the path; it is read from {Path.cwd()}.' if lost else ''}", USAGE)
    if os.environ.get("PROMPTWEAVE_DEBUG"):
        raise error
    return fail(
        f"{type(error).__name__}: {error}\nThis is a bug in promptweave. Set PROMPTWEAVE_DEBUG=1 to see where.", FAILURE
    )


def misused(error: CycloptsError) -> str:
    """The message for an invalid command line, with a pointer to its help."""
    chain = " ".join(("promptweave", *(error.command_chain or ())))
    message = str(error)
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.keyword is None:
        named = error.argument.name
        message = f"{chain} needs {named}: {error.argument.parameter.help} Received none."
    if isinstance(error, RepeatArgumentError):
        message = f"{error.token.keyword} takes one value. Received two. Give it once."
    if isinstance(error, UnusedCliTokensError):
        spare = ", ".join(shown(token) for token in error.unused_tokens or ())
        message = f"{chain} takes no further argument. Received {spare}. Quote texts of several words."
    if isinstance(error, UnknownOptionError) and (error.token.keyword or error.token.value).startswith("--"):
        message = unknown(error)
    return f"{message} See {chain} --help."


def unknown(error: UnknownOptionError) -> str:
    """An option that no command has, and the one that may have been meant: the dashes all options share say nothing."""
    given = str(error.token.keyword or error.token.value).partition("=")[0]
    known = [name for each in error.argument_collection for name in each.names if name.startswith("--")]
    begun = [name[2:] for name in known if name.startswith(f"{given}-")]
    near = begun or difflib.get_close_matches(given[2:], [name[2:] for name in known], n=1, cutoff=ALIKE)
    return f"Unknown option: {given[:LONGEST]}." + (f" Did you mean --{near[0]}?" if near else "")


def speak() -> None:
    """Print any text on any terminal, and the library's own warnings as the sentences that they are."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where the terminal's encoding lacks a character
    warnings.formatwarning = _sentence


def _sentence(message: Warning | str, category: type[Warning], *place: Any, **line: Any) -> str:
    own = category.__module__.startswith("promptweave")
    return f"{message}\n" if own else USUAL(message, category, *place, **line)


def fail(message: str, code: int) -> int:
    """Print to standard error, and return the exit code."""
    print(harmless(message), file=sys.stderr)
    return code
