"""What checking many recipes against one model computes once: words of prompts, layers of the network, its state."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from PIL import Image

from promptweave.models.base import Model

PROMPTS = 256  # whose words are kept: a line reads its own several times, and neighbours often share them
SMALL = 2**22  # pixels: larger images are read whole
TURNED = 0x0112  # the tag of EXIF rotation, above 4 for images that are stored sideways


class Remembering:
    """A model that computes only once what does not depend on a run; all else is the model's own."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.words = lru_cache(PROMPTS)(model.words)
        self.sites, self.map_grid, self.map_sites = cache(model.sites), cache(model.map_grid), cache(model.map_sites)
        self.blocks, self.check = cache(model.blocks), cache(model.check)
        self.device, self.dtype, self.scheduler, self.guided = model.device, model.dtype, model.scheduler, model.guided
        self.default_size, self.factor, self.channels = model.default_size, model.factor, model.channels
        self.multiple, self.defaults, self.reading = model.multiple, model.defaults, model.reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def remembering(model: Model) -> Model:
    """The model, for many checks in a row."""
    return cast(Model, Remembering(model))


def stand_in(path: Path) -> Image.Image | Path:
    """An empty image of the shape of the one in a file, of which only the header is read; that of no image is itself.

    Raises FileNotFoundError for a missing file.
    """
    try:
        with Image.open(path) as image:
            turned = Image.Image.getexif(image).get(TURNED, 1)  # that of PNG files would decode the image
            size = image.size if turned <= 4 else image.size[::-1]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no image at {path}. Give the path of a PNG, JPEG or WebP file.") from error
    except Exception:  # the reader of images says what is wrong with it
        return path
    return _empty(size) if size[0] * size[1] <= SMALL else path


@lru_cache(8)
def _empty(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size)
