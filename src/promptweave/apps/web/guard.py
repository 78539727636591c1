"""What stands before Gradio: which addresses, origins and routes are answered, and what a request may hold.

Everything here is checked before Gradio reads a request, and so before any work is done for it.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptweave.apps.web.folder import page_folder
from promptweave.apps.web.hosts import Forbidden, Hosts
from promptweave.apps.web.limits import Limits
from promptweave.apps.web.presence import Presence

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

API = "/gradio_api"
READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\w+)?|/(assets|static|svelte)/.+"
    rf"|/logout|{API}/(user|login_check|token|app_id|info|theme\.css|startup-events|queue/status|queue/data)/?"
    rf"|{API}/(heartbeat/[^/]+|call/.+|upload_progress|file=.+)"
)
WRITE = re.compile(rf"/login/?|{API}/(queue/join|call/.+|run/[^/]+|api/[^/]+|upload|component_server|cancel|reset)/?")
RUNS = re.compile(rf"{API}/(queue/join|call/.+)")  # what is queued
MULTIPART = (f"{API}/upload", f"{API}/component_server")
SLACK = 100_000  # bytes of a multipart request beside its file
NUMBERS = 2**63  # whole numbers beyond are refused
DEEP = 32  # levels of a request in JSON
MINUTES = 600  # seconds over which uploads are counted


class Refused(Exception):
    """A request that is not answered: its status and a sentence."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said


@dataclass(eq=False)
class Guard:
    """ASGI middleware around Gradio's application. `queue`: gives Gradio's queue once the page is served."""

    app: App
    limits: Limits
    hosts: Hosts
    presence: Presence
    queue: Callable[[], Any]
    begin: Callable[[], None]  # in the loop that serves the page
    sent: dict[str, deque[tuple[float, int]]] = field(default_factory=dict[str, deque[tuple[float, int]]])

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                self.begin()
                await self.app(scope, receive, send)
            return  # there are no web sockets
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                more = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        try:
            await self._answer(scope, receive, sending)
        except Refused as refused:
            if not begun:
                await _say(sending, refused)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, reads = str(scope["path"]), scope["method"] in ("GET", "HEAD")
        try:
            self.hosts.check(headers)
        except Forbidden as error:
            raise Refused(403, str(error)) from None
        if not (READ if reads else WRITE).fullmatch(path):
            raise Refused(404, "The page has no such address. Open it at /.")
        if path.startswith(f"{API}/file="):
            own_file(path.removeprefix(f"{API}/file="))
        if path.startswith(f"{API}/heartbeat/"):
            visitor = path.rpartition("/")[2]
            self.presence.come(visitor)
            try:
                await self.app(scope, receive, send)
            finally:
                self.presence.leave(visitor)
        elif reads:
            await self.app(scope, receive, send)
        elif path.rstrip("/") in MULTIPART:
            await self.app(scope, self._counted(scope, receive, headers.get("content-length", "")), send)
        else:
            data = await self._body(receive)
            if data and not path.startswith("/login"):
                body = read_body(data, self.limits)
                if RUNS.match(path):
                    self._has_room(scope, body)
            await self.app(scope, _again(data, receive), send)

    async def _body(self, receive: Receive) -> bytes:
        data = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "The request ended early. Send it again.")
            data += message.get("body", b"")
            if len(data) > self.limits.body:
                raise Refused(413, f"A request may have at most {self.limits.body / 1e6:g} MB. Send less.")
            if not message.get("more_body"):
                return data

    def _counted(self, scope: MutableMapping[str, Any], receive: Receive, length: str) -> Receive:
        """The body of an upload, refused beyond the bytes of one, and of all those of its address."""
        most, address, total = self.limits.upload_bytes + SLACK, (scope.get("client") or ("",))[0], 0
        too_long = Refused(413, f"An upload may have at most {self.limits.upload} MB. Send a smaller file.")
        if length.isdecimal() and int(length[:20]) > most:
            raise too_long
        counts = str(scope["path"]).startswith(f"{API}/upload")

        async def counting() -> Message:
            nonlocal total
            message = await receive()
            size = len(message.get("body", b""))
            total += size
            if total > most:
                raise too_long
            if counts:
                self._sent(address, size)
            return message

        return counting

    def _sent(self, address: str, size: int) -> None:
        now, sent = time.monotonic(), self.sent.setdefault(address, deque())
        sent.append((now, size))
        while sent and now - sent[0][0] > MINUTES:
            sent.popleft()
        if sum(bytes for _, bytes in sent) > self.limits.uploads * 1_000_000:
            raise Refused(429, f"{self.limits.uploads} MB in ten minutes are the most to upload. Wait a little.")
        if len(self.sent) > 1000:
            del self.sent[next(iter(self.sent))]

    def _has_room(self, scope: MutableMapping[str, Any], body: Any) -> None:
        """Refuse a run of a visitor, or of an address, that has its share of the queue."""
        visitor = body.get("session_hash") if isinstance(body, dict) else None
        address = (scope.get("client") or ("",))[0]
        queue = self.queue()
        events = [event for part in queue.event_queue_per_concurrency_id.values() for event in part.queue]
        own = sum(1 for event in events if event.session_hash == visitor)
        near = sum(1 for event in events if event.request.client and event.request.client.host == address)
        for count, most in ((own, self.limits.share), (near, max(self.limits.share, self.limits.queue // 2))):
            if count >= most:
                raise Refused(429, f"{most} of your runs wait already. Wait until one is done.")
        if len(events) >= self.limits.queue:
            raise Refused(503, f"{self.limits.queue} runs wait already, the most that this page takes. Try it later.")


def own_file(text: str) -> None:
    """Raise Refused unless the path is that of a file in the page's own folder."""
    refused = Refused(403, "The page shows its own files only. Use the addresses that it gives.")
    if re.match(r"[\w+.-]+:", text.lstrip("/")) or text.startswith("//") or "\\" in text or "\0" in text:
        raise refused
    try:
        root, path = page_folder().resolve(), Path(text)
        plain = path.is_absolute() and path.is_relative_to(root) and ".." not in path.parts
        if not plain or path.resolve() != path or not path.is_file() or path.name.startswith("."):
            raise refused
    except (OSError, ValueError):
        raise refused from None


def read_body(data: bytes, limits: Limits) -> Any:
    """A request in JSON. Raises Refused for what is not strict JSON, for endless numbers, for texts longer than a
    prompt may be, and for files that are not the page's own, addresses of others among them."""

    def whole(text: str) -> int:
        if len(text) > 20 or abs(int(text)) >= NUMBERS:
            raise ValueError(text)
        return int(text)

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(text)
        return value

    try:
        body = json.loads(data, parse_int=whole, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError) as error:
        raise Refused(
            400, "A request is JSON with finite numbers. This one is not. See the page's documentation."
        ) from (error)
    for part, level in walked(body):
        if level > DEEP:
            raise Refused(400, f"A request may have {DEEP} levels. Send less.")
        if isinstance(part, str) and len(part) > max(limits.characters, 1000):
            raise Refused(
                413, f"This page allows at most {limits.characters} characters for a text. Received {len(part)}. "
                "Send a shorter one.",
            )  # fmt: skip
        if isinstance(part, dict) and isinstance(part.get("path"), str):
            own_file(part["path"])
    return body


def walked(value: Any) -> Iterator[tuple[Any, int]]:
    """All values within one, with their depth."""
    todo = [(value, 0)]
    while todo:
        part, level = todo.pop()
        yield part, level
        inner: Collection[Any] = (
            [*part, *part.values()] if isinstance(part, dict) else part if isinstance(part, list) else ()
        )
        todo += [(one, level + 1) for one in inner]


def _again(data: bytes, receive: Receive) -> Receive:
    """A body that was read, once more."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": data, "more_body": False}

    return once


async def _say(send: Send, refused: Refused) -> None:
    data = json.dumps({"detail": refused.said}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    with suppress(OSError):
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": data})
