"""Frees what nobody holds: visitors who left, their images and recordings, old files, and memory that is not in use."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import sys
from datetime import datetime
from typing import Any

from promptweave.apps.web.folder import page_folder, trim
from promptweave.apps.web.limits import Limits
from promptweave.apps.web.outbox import Outbox
from promptweave.apps.web.presence import Presence
from promptweave.apps.web.session import Session
from promptweave.apps.web.studio import Studio

PAUSE = 2.0  # seconds
ARENAS = 2  # of the C library's allocator; each keeps what it freed, and there is one for each thread unless limited


class Keeper:
    """A task of a served page. `tidy` is one round of it."""

    def __init__(self, page: Any, studio: Studio, outbox: Outbox, presence: Presence) -> None:
        self.page, self.studio, self.outbox, self.presence = page, studio, outbox, presence
        self.limits: Limits = studio.limits
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Tidy every two seconds, in the loop that serves the page: Gradio's tables belong to it."""
        limit_arenas()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            freed = self.forget()
            await asyncio.to_thread(self.tidy, freed)
            for paths in self.page.temp_file_sets:  # Gradio's notes of what it wrote
                paths.difference_update([path for path in paths if not os.path.exists(path)])

    def forget(self) -> int:
        """Free what is kept for visitors who left; returns their number."""
        sessions, queue = self.page.state_holder.session_data, self.page._queue
        busy = {event.session_hash for event in queue.event_ids_to_events.values() if event.alive}
        left = [visitor for visitor in sessions if visitor not in busy and self._left(visitor)]
        for visitor in left:
            self.free(visitor)
        for kept in (queue.pending_messages_per_session, queue.pending_event_ids_session):  # nobody will read them
            for visitor in [name for name in kept if name not in sessions and name not in busy]:
                kept.pop(visitor, None)
        self.presence.forget_all_but(sessions)
        return len(left)

    def tidy(self, freed: int = 0) -> None:
        """Drop recordings and files that nobody holds, and give memory back."""
        if self.studio.shelf.tidy() or freed:
            gc.collect()
        trim(page_folder(), self.limits.files * 1_000_000, self.limits.age, self.outbox.kept)
        give_back()

    def _left(self, visitor: str) -> bool:
        used = self.page.state_holder.time_last_used.get(visitor)
        quiet = math.inf if used is None else (datetime.now() - used).total_seconds()
        return min(quiet, self.presence.away(visitor)) > self.limits.away  # 0 for whoever is there

    def free(self, visitor: str) -> None:
        """Free what is kept for a visitor, who may come back as a new one."""
        holder = self.page.state_holder
        state = holder.session_data.pop(visitor, None)
        holder.time_last_used.pop(visitor, None)
        held = {id(value) for other in list(holder.session_data.values()) for value in other.state_data.values()}
        for value in state.state_data.values() if state is not None else ():
            if isinstance(value, Session) and id(value) not in held:  # a page that was loaded anew may go on with it
                value.stop.set()


def limit_arenas() -> None:
    """Have all threads share two arenas of memory (glibc only): otherwise each keeps what a run of it has freed."""
    libc = _libc()
    if libc is not None:
        libc.mallopt(-8, ARENAS)  # M_ARENA_MAX


def give_back() -> None:
    """Give the memory that the C library keeps for later back to the system (glibc only)."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)


def _libc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "malloc_trim") else None
    except OSError:  # another C library, such as musl
        return None
