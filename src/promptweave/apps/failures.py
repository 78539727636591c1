"""Errors as one message and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from promptweave.apps.terminal import FAILURE, INTERRUPTED, USAGE


def explain(error: Exception) -> int:
    """Say what went wrong, and give the exit code."""
    if isinstance(error, typer.Abort):
        return fail("Interrupted. Nothing was written.", INTERRUPTED)
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error, click's or typer's own
        usage: Any = error
        usage.show()
        return usage.exit_code
    if (
        isinstance(error, MemoryError)
        or "out of memory" in str(error).lower()
        or "can't allocate memory" in str(error).lower()
    ):
        return fail(
            "The machine is out of memory. Make smaller or fewer pictures: --size, --images, fewer targets.", FAILURE
        )
    if isinstance(error, ValueError | OSError | TypeError | ImportError):
        prefix = (
            "" if type(error).__module__ == "builtins" else f"{type(error).__name__}: "
        )  # ours are in docs/errors.md
        return fail(f"{prefix}{error}", USAGE)
    if os.environ.get("PROMPTWEAVE_DEBUG"):
        raise error
    return fail(
        f"{type(error).__name__}: {error}\nThis is a defect of promptweave. PROMPTWEAVE_DEBUG=1 shows where.", FAILURE
    )


def fail(message: str, code: int) -> int:
    """Print on standard error, and give the exit code."""
    print(message, file=sys.stderr)
    return code
