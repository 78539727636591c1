"""What a model attends to in an image that exists: noise is added to it at chosen times, and passes are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import torch

from promptweave.core.clock import Number
from promptweave.core.control import Control, Run
from promptweave.core.fields import Option
from promptweave.core.precision import precision
from promptweave.editing.edit import run
from promptweave.editing.recipe import Recipe
from promptweave.editing.recorders import bound
from promptweave.editing.result import Result
from promptweave.editing.settings import Settings
from promptweave.editing.who_reads import Unread
from promptweave.models.base import Model
from promptweave.sampling.loop import Sample, latent_grid
from promptweave.sampling.noised_passes import NOISES, TIMES, Noising, observe
from promptweave.sampling.walk import Progress


@dataclass(frozen=True)
class NoisedPasses:
    """How an image is looked at without inversion. None: `TIMES` and `NOISES`."""

    times: Annotated[
        tuple[Number, ...] | None,
        Option(
            "With --image: how much noise is added, such as 0.3,0.5: fractions of the training times, averaged. "
            "[0.7,0.5,0.3]",
            low=0, group="Image", metavar="FRACTIONS",
        ),
    ] = None  # fmt: skip
    noises: Annotated[
        int | None, Option("With --image: noises for each of the times, averaged. [2]", low=1, group="Image")
    ] = None

    def noising(self, seed: int = 0) -> Noising:
        """The passes. Raises ValueError for times outside [0, 1)."""
        noises = NOISES if self.noises is None else self.noises
        return Noising(TIMES if self.times is None else tuple(self.times), noises, seed)

    def given(self) -> list[str]:
        """The options that were given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


def noising_of(
    passes: NoisedPasses, settings: Settings, network: Model, *, image: bool, inversion: str | None
) -> Noising | None:
    """The passes over a given image; None for a run, of a generated image or along an inversion.

    Raises Unread for options that the other way reads.
    """
    asked = passes.given()
    if asked and not image:
        raise Unread(f"{asked[0]} is about an input image, and there is none. Give an image, or leave {asked[0]} out.")
    if asked and inversion is not None:
        raise Unread(
            f"{asked[0]} is about noise that is added to an image; along an inversion none is. Received both "
            f"{asked[0]} and inversion={inversion!r}. Leave one of them out."
        )
    if not image or inversion is not None:
        return None
    unread = {"steps": settings.steps, "negative": settings.negative or None}
    unread |= {"guidance": settings.guidance} if network.guided else {}
    for name, value in unread.items():
        if value is not None:
            raise Unread(
                f"Nothing reads {name} here: noise is added to the image, and each pass is a single conditional one. "
                f'Leave {name} out, or look along an inversion: inversion="direct" (--inversion direct).'
            )
    return passes.noising(settings.seed or 0)


def bound_to(recipe: Recipe, network: Model, noising: Noising | None) -> Run:
    """What recorders know of a run, or of the passes over its image."""
    whole = bound(recipe, network)
    return whole if noising is None else noising.run(whole)


def noised_result(
    recipe: Recipe, network: Model, noising: Noising, watch: Sequence[Control], progress: Progress | None = None
) -> Result:
    """The passes over a recipe's image under recorders, as the result of a run whose image is the given one."""
    picture = recipe.root.picture
    assert picture is not None
    here = bound_to(recipe, network, noising)
    hooks = tuple(control.bind(here) for control in watch)
    pixels = picture.pixels()
    shown = torch.from_numpy(pixels.copy())[None].to(precision(network.dtype)) / 255
    latents = network.to_latent(shown)
    observe(
        network, recipe.source, latents, noising, hooks, guidance=recipe.guidance, picture=shown,
        truncate=recipe.truncate, progress=progress,
    )  # fmt: skip
    report = {"picture": {"times": list(noising.times), "noises": noising.noises, **picture.report()}}
    made = Sample(latents[None].cpu(), pixels[None, None], here, hooks)
    grid = latent_grid(network, recipe.size)
    return Result(recipe, made, None, report, network.fingerprint(), grid)


def run_or_look(
    recipe: Recipe, network: Model, noising: Noising | None, watch: Sequence[Control], progress: Progress | None
) -> Result:
    """The run of a recipe under recorders, or the passes over its image."""
    if noising is None:
        return run(recipe, network, watch=watch, progress=progress)
    return noised_result(recipe, network, noising, watch, progress)
