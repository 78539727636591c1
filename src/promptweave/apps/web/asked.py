"""What a visitor's fields ask for at an event: the source, the edit, and the settings of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from promptweave.apps.web.method_form import read_form
from promptweave.apps.web.offered import EDIT, methods
from promptweave.apps.web.settings import OWN_SIZE, Form, Mask, shaped, spec_of
from promptweave.apps.web.word_sliders import read_words
from promptweave.editing.settings import Settings
from promptweave.editing.values import size_of


class Asked:
    """What the fields of the page hold, by name (`layout.FIELDS`)."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)

    def __getitem__(self, name: str) -> Any:
        """What a field holds. Raises KeyError for one that the event does not read."""
        return self.values[name]

    @property
    def prompt(self) -> str:
        return self["prompt"] or ""

    @property
    def target(self) -> str:
        return self["target"] or ""

    @property
    def seed(self) -> int:
        return int(self["seed"] or 0)

    @property
    def steps(self) -> int:
        return int(self["steps"])

    @property
    def spec(self) -> str:
        """The inversion of input images. Raises ValueError for options that it does not have."""
        return spec_of(self["inversion"], self["tuning"])

    @property
    def images(self) -> int:
        """The number of sources to generate."""
        return int(self["images"] or 1)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels; None for the model's own. Raises ValueError for what is no size."""
        text = (self["size"] or "").strip()
        return None if text in ("", OWN_SIZE) else size_of(text.replace("×", "x").replace(" ", ""), "The size")

    @property
    def settings(self) -> Settings:
        """How the source is generated, or inverted."""
        negative = (self["negative"] or "").strip() or None
        return Settings(
            guidance=self["guidance"], size=self.size, negative=negative, truncate=bool(self["truncate"])
        )  # fmt: skip

    @property
    def of_upload(self) -> Settings:
        """The settings for an image that is opened."""
        more, given = shaped(self["shape"], bool(self["keep"])), self.settings
        if more.size == "auto" and given.size is not None:
            raise ValueError(
                f"An image that keeps its shape has a size of its own. Received the size {self['size']}, too. "
                f"Choose another way to open the image, or the size {OWN_SIZE!r}."
            )
        return replace(given, size=more.size or given.size, fit=more.fit, keep_original=more.keep_original)

    @property
    def method(self) -> tuple[str, dict[str, Any]]:
        """The chosen method and its fields. Raises ValueError for what is no form."""
        return read_form(self["own"])

    @property
    def form(self) -> Form:
        """The settings of the edit. Raises ValueError for sliders that hold no numbers, and for other methods."""
        name, fields = self.method
        if name not in methods() or methods()[name].kind is None:
            raise ValueError(f"Sweeps and searches are of {EDIT}, and the method is {name}. Choose {EDIT}.")
        strengths, windows = read_words(self["strengths"])
        return Form(
            self.target, self["cross"], self["self"], self["joint"], weights=strengths, windows=windows,
            blend=tuple(self["blend"] or ()), threshold=self["threshold"], mask=painted(self["mask"]),
            subtract=tuple(self["subtract"] or ()), method=name, more=methods()[name].read(fields),
        )  # fmt: skip


def painted(drawn: Any) -> Mask | None:
    """The painted region as zeros and ones, at most 256 cells a side; None if nothing is painted."""
    layers = [layer for layer in (drawn or {}).get("layers", []) if layer is not None]
    if not layers:
        return None
    alpha = np.max([np.asarray(layer.convert("RGBA"))[..., 3] for layer in layers], 0)
    if not alpha.any():
        return None
    small = Image.fromarray(alpha)
    small.thumbnail((256, 256))
    return tuple(tuple(float(v) for v in row) for row in (np.asarray(small) > 127))
