"""Runs that wait in the page's queue: a visitor is told how many come first, and may give them up."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.context import LocalContext

from promptweave.apps.web.session import Session
from promptweave.apps.web.words import note_html

NETWORK = "network"  # the queue of what computes
STOPPED = "Stopped. Nothing was changed."


class Waiting:
    """The handlers. `tick` is called every second while a visitor has runs."""

    def __init__(self, page: gr.Blocks, parts: Any) -> None:
        self.page, self.parts = page, parts
        self._left: set[str] = set()  # runs that wait and were given up

    def begin(self, request: gr.Request) -> dict[Any, Any]:
        """On asking for a run: it may be stopped, and its place is told at once, and watched."""
        begun = {self.parts.clock: gr.Timer(active=True), self.parts.stop: gr.update(interactive=True)}
        others = [event for event in (*self._waiting(), *self._running()) if event.session_hash != request.session_hash]
        return {**begun, self.parts.status: note_html(said(len(others)))} if others else begun

    def tick(self, request: gr.Request) -> dict[Any, Any]:
        """Say how many runs come before the visitor's first; with no runs left, there is nothing to stop."""
        visitor = str(request.session_hash)
        waiting, running = self._waiting(), self._running()
        own = (n for n, event in enumerate(waiting) if event.session_hash == visitor and event._id not in self._left)
        place = next(own, None)
        if any(event.session_hash == visitor for event in running):
            return {self.parts.clock: gr.skip()}
        if place is None:
            return {self.parts.clock: gr.Timer(active=False), self.parts.stop: gr.update(interactive=False)}
        return {self.parts.status: note_html(said(place + len(running)))}

    def give_up(self, session: Session, visitor: str) -> bool:
        """Have the waiting runs of a visitor end when their turn comes; whether there were any."""
        waiting = [event._id for event in self._waiting() if event.session_hash == visitor]
        session.skipped.update(waiting)
        self._left = {event._id for event in self._waiting()} & {*self._left, *waiting}
        return bool(waiting)

    def _waiting(self) -> list[Any]:
        found = self.page._queue.event_queue_per_concurrency_id.get(NETWORK)
        return [] if found is None else list(found.queue)

    def _running(self) -> list[Any]:
        jobs = [event for some in self.page._queue.active_jobs if some for event in some]
        return [event for event in jobs if event.concurrency_id == NETWORK and event.alive]


def given_up(session: Session) -> bool:
    """Whether the run that begins in this thread was given up while it waited."""
    number = LocalContext.event_id.get(None)
    if number not in session.skipped:
        return False
    session.skipped.discard(number)
    return True


def said(count: int) -> str:
    """The place of a run, as a sentence."""
    if count == 0:
        return "Waiting: yours is the next run."
    return f"Waiting: {count} run{'s come' if count > 1 else ' comes'} before yours."
