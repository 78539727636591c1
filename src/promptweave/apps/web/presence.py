"""Who is there: a tab holds a connection open, its heartbeat; a call has a caller who waits for the answer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container
from threading import Lock

from gradio.context import LocalContext


def gone() -> Callable[[], bool]:
    """Whether whoever asked for the run that this thread begins has left; Gradio's queue notices it."""
    blocks, number = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = None if blocks is None or number is None else blocks._queue.event_ids_to_events.get(number)
    return lambda: event is not None and not event.alive


class Presence:
    """The heartbeats by session hash. `away` says for how long a visitor has had none."""

    def __init__(self) -> None:
        self._there: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self._lock = Lock()

    def come(self, visitor: str) -> None:
        """A heartbeat has begun."""
        with self._lock:
            self._there[visitor] += 1
            self._since.pop(visitor, None)

    def leave(self, visitor: str) -> None:
        """A heartbeat has ended."""
        with self._lock:
            self._there[visitor] -= 1
            if self._there[visitor] <= 0:
                del self._there[visitor]
                self._since[visitor] = time.monotonic()

    def away(self, visitor: str) -> float:
        """Seconds without a heartbeat; those of a visitor who never had one begin with the first question."""
        with self._lock:
            if self._there.get(visitor, 0) > 0:
                return 0.0
            return time.monotonic() - self._since.setdefault(visitor, time.monotonic())

    def forget_all_but(self, visitors: Container[str]) -> None:
        """Forget when others left."""
        with self._lock:
            self._since = {name: since for name, since in self._since.items() if name in visitors}

    def __len__(self) -> int:
        return len(self._there)
