"""What an image shows, as the source prompt of its edits."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path

from promptweave.core.typed import checked
from promptweave.editing.picture import Given, Picture
from promptweave.editing.settings import Fit
from promptweave.models.base import Model
from promptweave.models.embedded import NAMES
from promptweave.models.image_to_text import NoCaptioner, cached, caption_of
from promptweave.world.described import described
from promptweave.world.oracle import ORACLE, Oracle

WORLD = (128, 128)  # pixels of the images that the oracle reads
SHOWN = (384, 384)  # of those that captioning models are shown; their processors scale them
BY_ORACLE = "the oracle of the embedded world"


@checked
def caption(
    image: Given | Picture,
    *,
    model: Model | str = "toybox",
    captioner: Path | str | None = None,
    fit: Fit | None = None,
) -> str:
    """Say what an image shows, as the source prompt of its edits: `edit(caption(photo), target, image=photo)`.

    `captioner`: an image-to-text model, as a folder or a name in the local cache (BLIP, BLIP-2, GIT, Florence-2).
    Without one, an embedded `model` has the oracle of its world, which names one or two things, their colours, the
    place and the style in that world's words; for any other model a usual captioning model is taken from the cache.
    Nothing is downloaded. `fit`: as in `edit`. Raises NoCaptioner, which says what to type instead.
    """
    return captioned(image, model if isinstance(model, str) else model.name, captioner, fit)[0]


def captioned(
    image: Given | Picture, model: str, captioner: Path | str | None = None, fit: Fit | None = None
) -> tuple[str, str]:
    """A caption, and who gave it."""
    name = captioner
    if name is None and model in NAMES:
        seen = described(_oracle().look(Picture.of(image, WORLD, fit).pixels()[None].copy())[0])
        if seen is None:
            raise NoCaptioner(
                f"{BY_ORACLE[0].upper()}{BY_ORACLE[1:]} sees none of its things in this image. Type what it shows as "
                "the source prompt, such as 'a photo of a cat on the grass'."
            )
        return seen, BY_ORACLE
    name = name or cached()
    if name is None:
        raise NoCaptioner(
            "No image-to-text model is on this machine, and none is downloaded. Type what the image shows as the "
            "source prompt, such as 'a photo of a cat on the grass', or name the folder of a model that says it "
            "(captioner=..., --captioner FOLDER)."
        )
    shown = Picture.of(image, SHOWN, fit or "stretch").image()
    return caption_of(shown, name), str(name)


@lru_cache(1)
def _oracle() -> Oracle:
    return Oracle.load(Path(str(resources.files("promptweave.world").joinpath(ORACLE))))
