"""The editor in which a region is painted: Gradio's, but what visitors send is bounded before it is kept or decoded."""

from __future__ import annotations

from threading import Lock
from typing import Any

import gradio as gr
from gradio.components.base import server

from promptweave.apps.web.uploads import BadUpload, decoded

SIDE = 2048  # pixels of a painted picture, whose canvas is smaller
BYTES = 8_000_000  # of one picture
ROOM = 64_000_000  # bytes of all pictures that were sent and not yet read
TABS = 256  # that may have sent some
KINDS = ("background", "layer", "composite")


def painting(**options: Any) -> gr.ImageEditor:
    """An image editor with one layer; `options`: those of Gradio's.

    Its two functions that take what visitors send are replaced in the object. A class of our own would have Gradio
    write a file into the package.
    """
    editor = gr.ImageEditor(**options)
    sent = Sent(editor)
    setattr(editor, "preprocess", sent.read)  # noqa: B010 - methods, for a type checker
    setattr(editor, "accept_blobs", sent.keep)  # noqa: B010
    return editor


class Sent:
    """What was painted: sent by the browser before the edit that reads it."""

    def __init__(self, editor: gr.ImageEditor) -> None:
        self.waiting = editor.blob_storage
        self._accept = editor.accept_blobs
        self._lock = Lock()

    def read(self, payload: Any) -> Any:
        """The pictures as Pillow images: background and layer; the composite is not read."""
        if payload is None:
            return None
        with self._lock:
            source = payload if payload.id is None else self.waiting.pop(payload.id, None)
        if source is None:
            return {"background": None, "layers": [], "composite": None}
        layers = [layer for layer in source.layers or [] if layer is not None]
        if len(layers) > 1:
            raise gr.Error(
                f"A painted region has one layer. Received {len(layers)}. Reload the page.", print_exception=False
            )
        try:
            return {"background": _image(source.background), "layers": [*map(_image, layers)], "composite": None}
        except BadUpload as error:
            raise gr.Error(str(error), print_exception=False) from None

    @server
    def keep(self, data: Any) -> None:
        """Keep a painted picture until the edit for which it was sent. What breaks the bounds is not kept."""
        about, files = data.data, data.files
        kind, place, name = about.get("type"), str(about.get("index")), str(about.get("id"))
        if len(files) != 1 or len(files[0][1]) > BYTES or kind not in KINDS or len(name) > 100:
            return
        if kind == "layer" and place != "0":
            return
        with self._lock:
            self._accept(data)
            while sum(map(_size, self.waiting.values())) > ROOM or len(self.waiting) > TABS:
                self.waiting.pop(next(iter(self.waiting)))


def _image(file: Any) -> Any:
    if file is None:
        return None
    return decoded(file if isinstance(file, bytes) else file.path, most_bytes=BYTES, most_pixels=SIDE * SIDE)[0]


def _size(blobs: Any) -> int:
    return sum(len(part) for part in (blobs.background, blobs.composite, *blobs.layers) if part is not None)
