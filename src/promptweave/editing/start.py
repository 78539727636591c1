"""The start of a run: seeded noise, a recording, or what the inversion of an input image found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from promptweave.core.clock import Step
from promptweave.core.control import Control, FirstPass
from promptweave.core.precision import precision
from promptweave.core.rows import NotRecorded, Row
from promptweave.core.site import Site
from promptweave.editing.inversions import read_inversion
from promptweave.editing.picture import Picture
from promptweave.editing.recipe import Recipe
from promptweave.inversion import Inverted
from promptweave.inversion.inverting import Task, found
from promptweave.methods import Inpaint
from promptweave.models.base import Model
from promptweave.sampling.loop import decode, noise_for
from promptweave.sampling.recording import Track
from promptweave.sampling.walk import Progress


@dataclass(eq=False)
class Held:
    """A given image in the place of row 0 (`sampling.passes.Source`): `clean` latents and its pixels, uint8
    [1, height, width, 3]. Nothing is computed for it."""

    clean: torch.Tensor
    pictures: np.ndarray

    def latents(self, index: int) -> torch.Tensor:
        return self.clean

    def row(self, step: Step, call: int, site: Site) -> Row:
        raise NotRecorded("The source is the given image alone, whose attention nobody asked for.")


@dataclass(frozen=True, eq=False)
class Start:
    """`noise` [images, channels, h, w], the inversion of the source's image, and what is known of it before the run.

    `recorded`: the source comes from a recording, so that nothing has to keep it on its path. `held`: what stands in
    for a source whose attention nobody reads.
    """

    noise: torch.Tensor
    inverted: Inverted | None = None
    first_pass: FirstPass | None = None
    recorded: bool = False
    held: Held | None = None

    @property
    def controls(self) -> tuple[Control, ...]:
        """The controls that the inversion puts before all others."""
        if self.inverted is None:
            return ()
        return self.inverted.further if self.recorded else self.inverted.controls


def start(
    recipe: Recipe,
    model: Model,
    source: Track | None = None,
    progress: Progress | None = None,
    *,
    inverted: Inverted | None = None,
    watched: bool = False,
) -> Start:
    """The start of a recipe's run.

    `source`: the recording of its source, if there is one. `inverted`: the inversion of its image, if it is known.
    `watched`: whether recorders read the source's attention.

    An input image is inverted under the source's prompt. Controls that start from the image itself (FlowEdit) need no
    inversion.
    """
    picture = recipe.root.picture
    if picture is None:
        return Start(noise_for(model, recipe.seed, recipe.images, recipe.size))
    known = None if inverted is None else inverted.on(model.device)
    if source is not None:
        return Start(source.latents(0), known, recorded=True)
    shown = read(model, picture)
    latents = model.to_latent(shown)
    if any("noise" not in control.needs for control in recipe.controls):
        first = FirstPass(latents.to(model.device), picture=shown)
        unread = not watched and all(isinstance(control, Inpaint) for control in recipe.controls)
        held = Held(first.latents, picture.pixels()[None]) if unread else None
        return Start(noise_for(model, recipe.seed, recipe.images, recipe.size), first_pass=first, held=held)
    if known is not None:
        return Start(known.noise, known)
    made = invert_latents(recipe, model, latents, progress)
    return Start(made.noise, made)


def invert_latents(recipe: Recipe, model: Model, latents: torch.Tensor, progress: Progress | None = None) -> Inverted:
    """What a recipe's inversion finds for the latents of its image. Raises CannotInvert."""
    task = Task(
        model, latents, recipe.source, recipe.steps, recipe.guidance, recipe.negative, recipe.seed, progress,
        recipe.truncate,
    )  # fmt: skip
    return found(read_inversion(recipe.inversion), task)


def read(model: Model, picture: Picture) -> torch.Tensor:
    """An input image as models read it, [1, height, width, 3] from 0 to 1."""
    return torch.from_numpy(picture.pixels().copy())[None].to(precision(model.dtype)) / 255


def reproduced(model: Model, recipe: Recipe) -> np.ndarray | None:
    """The input image of a recipe as the autoencoder alone makes it, uint8 [height, width, 3]; None without one."""
    picture = recipe.root.picture
    return None if picture is None else decode(model, model.to_latent(read(model, picture))[None])[0, 0]
