"""A visitor of the web page without a browser: the requests that the page's own script would send."""

from __future__ import annotations

import io
import json
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from PIL import Image

THINGS = ("cat", "dog", "lion", "fox", "rabbit", "bear")
RIDDEN = ("bike", "car", "boat")
PATIENCE = 300.0  # seconds for an answer
EDITS = 6  # of a visit


class Unanswered(RuntimeError):
    """The page answered with an error."""


class Visitor:
    """One open tab. `values`: what its fields hold, by label; `close` is what a closed tab does."""

    def __init__(self, url: str, luck: random.Random) -> None:
        import httpx

        self.url, self.luck, self.hash = url.rstrip("/"), luck, uuid4().hex
        self.client: Any = httpx.Client(timeout=PATIENCE, trust_env=False)
        self.client.get(self.url + "/").raise_for_status()
        config = self.client.get(f"{self.url}/config").json()
        self.parts = {part["id"]: part for part in config["components"]}
        self.events = {event["api_name"]: event for event in config["dependencies"]}
        self.values: dict[str, Any] = {}
        self.painted: bytes = b""
        self.wire = _connected(self.url, f"/gradio_api/heartbeat/{self.hash}")
        self.heart = Thread(target=self._beat, daemon=True)
        self.heart.start()
        self.call("open")

    def close(self) -> None:
        """End all connections, as a closed tab does."""
        with suppress(OSError):
            self.wire.shutdown(socket.SHUT_RDWR)
        self.wire.close()
        self.client.close()
        self.heart.join(10)

    def call(self, name: str, given: Mapping[str, Any] | None = None, data: Any = None) -> Any:
        """Fire an event of the page, and fetch the pictures of its answer. Raises Unanswered."""
        event = self.events[name]
        inputs = [self._value(self.parts[part], {**self.values, **(given or {})}) for part in event["inputs"]]
        body = {"data": inputs, "fn_index": event["id"], "session_hash": self.hash, "event_data": data}
        if not event["queue"]:
            return self._seen(self._answer(self.client.post(f"{self.url}/gradio_api/run/predict", json=body)))
        self._answer(self.client.post(f"{self.url}/gradio_api/queue/join", json=body))
        output, done = None, False
        with self.client.stream(
            "GET", f"{self.url}/gradio_api/queue/data", params={"session_hash": self.hash}
        ) as answer:
            for message in _messages(answer.iter_lines()):
                if message["msg"] in ("process_generating", "process_completed"):
                    output = message["output"]
                    self._seen(output)
                if message["msg"] == "process_completed":
                    done = bool(message["success"])
                    break
        if not done:
            raise Unanswered(str(output))
        return output

    def paint(self) -> None:
        """Paint a region: its pictures are sent before each edit that follows."""
        image = Image.new("RGBA", (512, 512))
        x, y = self.luck.randrange(400), self.luck.randrange(400)
        image.paste((13, 148, 136, 255), (x, y, x + 100, y + 100))
        written = io.BytesIO()
        image.save(written, "PNG")
        self.painted = written.getvalue()

    def work(self, again: Event) -> None:
        """What somebody does in a few minutes: a picture, edits, maps, a sweep, a report, a step back."""
        luck = self.luck
        thing, ridden = luck.choice(THINGS), luck.choice(RIDDEN)
        self.values = {"Source prompt": f"a photo of a {thing} riding a {ridden}", "Seed": luck.randrange(10_000)}
        self.call("type")
        self.call("generate_1")
        for number in range(EDITS):
            if again.is_set():
                return
            self.values["Edited prompt"] = f"a photo of a {luck.choice(THINGS)} riding a {luck.choice(RIDDEN)}"
            self.values |= {"Words": round(luck.random(), 2), "Shapes": round(luck.random(), 2)}
            self.call("type")
            if number == EDITS // 2:
                self.paint()
            try:
                self.call("edit_1")
            except Unanswered:  # prompts may be drawn equal
                continue
            if number % 4 == 1:
                self.call("look", {"Choose a word to see its attention map": "riding"})
        if again.is_set():
            return
        self.call("sweep_1", {"Words (cross-attention): columns": "0, 0.8", "Shapes (self-attention): rows": "0, 0.4"})
        self.call("report")
        self.call("undo")
        self.call("further")

    def _value(self, part: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        props = part["props"]
        if part["type"] == "state":
            return None
        if part["type"] == "imageeditor":
            return self._blobs(part["id"]) if self.painted else None
        return given.get(props.get("label"), props.get("value"))

    def _blobs(self, part: int) -> dict[str, Any]:
        name = uuid4().hex
        for kind in ("background", "layer", "composite"):
            fields = {"component_id": str(part), "session_hash": self.hash, "fn_name": "accept_blobs"}
            more = {"type": kind, "index": "0" if kind == "layer" else "null", "id": name}
            sent = self.client.post(
                f"{self.url}/gradio_api/component_server", data={**fields, **more},
                files={"file": ("blob", self.painted, "image/png")},
            )  # fmt: skip
            self._answer(sent)
        return {"background": None, "layers": [], "composite": None, "id": name}

    def _answer(self, answer: Any) -> Any:
        if answer.status_code != 200:
            raise Unanswered(f"{answer.status_code} {answer.text[:200]}")
        return answer.json()

    def _seen(self, output: Any) -> Any:
        """Fetch the files that an answer shows, as a browser does."""
        for url in _urls(output):
            self.client.get(url if url.startswith("http") else self.url + url)
        return output

    def _beat(self) -> None:
        """Keep the connection open by which the page knows that the tab is."""
        with suppress(OSError):
            while self.wire.recv(4096):
                pass


def _connected(url: str, path: str) -> socket.socket:
    """A connection that has asked for `path`."""
    parts = urlsplit(url)
    wire = socket.create_connection((parts.hostname, parts.port or 80))
    wire.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    return wire


def _messages(lines: Iterator[str]) -> Iterator[Any]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def _urls(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        found = value.get("url")
        if isinstance(found, str) and "/file=" in found:
            yield found
        for part in value.values():
            yield from _urls(part)
    elif isinstance(value, list):
        for part in value:
            yield from _urls(part)
