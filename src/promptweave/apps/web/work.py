"""A run in the thread of all runs, with its progress and its outcome."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

from torch import Tensor

from promptweave.apps.web.session import Cancelled, Session
from promptweave.models.switched import stoppable

PAUSE = 0.3  # seconds between two progress reports


@dataclass(frozen=True, eq=False)
class Look:
    """Steps done, total steps, and the latents of the last prompt."""

    done: int
    count: int
    latents: Tensor | None


class Work:
    """`for look in work` yields progress; then `value` is the outcome. Leaving the loop early stops the run."""

    def __init__(self, session: Session, action: Callable[[Any], Any]) -> None:
        self.session, self.action = session, action
        self.value: Any = None
        self.error: Exception | None = None
        self.latest: Look | None = None
        self.ended, self.left = Event(), Event()

    def __iter__(self) -> Iterator[Look]:
        self.session.stop.clear()
        self.session.studio.begin(self._run)
        shown: Look | None = None
        try:
            while not self.ended.wait(PAUSE):
                if self.latest is not None and self.latest is not shown:
                    shown = self.latest
                    yield shown
        finally:  # where it is not at its end, the visitor has left; the server's loop, which closes it, must not wait
            self.left.set()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        def watch(done: int, count: int, z: Tensor | None) -> None:
            if self.left.is_set():
                raise Cancelled("Stopped. Nothing was changed.")
            latents = None if z is None else z[-1, 0].detach().clone()
            self.latest = Look(done, count, latents)

        def stop() -> None:  # steps alone would not do: one step of some methods is hundreds of passes
            if self.left.is_set() or self.session.stop.is_set():
                raise Cancelled("Stopped. Nothing was changed.")

        try:
            with stoppable(stop):
                self.value = self.action(watch)
        except Exception as error:
            self.error = error
        finally:
            self.ended.set()


def sentence(error: Exception) -> str:
    """The message for an error. Those of other libraries go to the terminal only: they may reveal private data."""
    if isinstance(error, Cancelled) or (isinstance(error, ValueError) and type(error).__module__ != "builtins"):
        return str(error)
    if isinstance(error, ValueError) and _ours(error):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "The machine is out of memory. Ask for fewer steps or a smaller grid."
    traceback.print_exception(error, file=sys.stderr)
    return f"This is a bug in promptweave ({type(error).__name__}). Your settings are kept; the terminal has details."


def _ours(error: Exception) -> bool:
    """Whether the error was raised by code of promptweave."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "promptweave" in frames[-1].filename.replace("\\", "/").split("/")
