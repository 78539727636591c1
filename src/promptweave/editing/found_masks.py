"""Masks that are found instead of drawn: where an edit goes (DiffEdit), and where words of the source attend.

DiffEdit (Couairon et al. 2023, arXiv 2210.11427, section 3.2, step 1) adds noise to the image, lets the network predict
it under the target and under the source, and marks where the two differ. With e the predictions of n noises,

    D = mean over noises and channels of |e(target) - e(source)|;   mask = min(D, c mean(D)) / (c mean(D)) > threshold

Guidance cancels out: it scales D, and with it the mean. Differs from the public code: images do not share a mean; if D
is zero everywhere there is no mask (0 / 0 there); flow models predict velocities, whose difference is used alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from promptweave.core.clock import Number, fraction
from promptweave.core.control import NoEffect
from promptweave.core.fields import Option
from promptweave.core.mask import Mask
from promptweave.core.precision import precision
from promptweave.core.record_maps import RecordedMaps, RecordMaps, refined, self_recorder
from promptweave.core.rows import Layout
from promptweave.editing.inversions import options_in
from promptweave.editing.picture import Given, Picture
from promptweave.editing.recipe import Recipe
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.loop import Job, latent_grid
from promptweave.sampling.noise_levels import masked, noising
from promptweave.sampling.noised_passes import Noising as NoisedPasses
from promptweave.sampling.noised_passes import observe
from promptweave.sampling.passes import Pass, answer
from promptweave.sampling.walk import branches


class MaskFinder:
    """A way to find the mask of an edit of a given image."""

    def find(self, recipe: Recipe, model: Model) -> Mask:
        """The mask of a recipe without controls, as rows of zeros and ones."""
        raise NotImplementedError


class Anywhere(MaskFinder):
    """Stands for a mask that is not found yet, where a recipe is only checked."""

    def find(self, recipe: Recipe, model: Model) -> Mask:
        """All of the image."""
        height, width = latent_grid(model, recipe.size)
        return ((1.0,) * width,) * height


@dataclass(frozen=True)
class DiffEditMask(MaskFinder):
    """Where target and source lead a noised image apart (DiffEdit); for `mask=` of `edit` and `inpaint`.

    `strength`: fraction of the steps whose noise is added. `noises`: how many are averaged. `threshold`: of the
    difference, after it is cut off at `clamp` times its mean. Raises ValueError for values out of range.
    """

    strength: Annotated[Number, Option("Fraction of the steps whose noise is added.", low=0, high=1)] = 0.5
    noises: Annotated[int, Option("How many noises are averaged.", low=1, high=1000)] = 10
    threshold: Annotated[
        Number, Option("Fraction of the cut-off above which a cell is in the mask.", low=0, high=1)
    ] = 0.5
    clamp: Annotated[Number, Option("Cut-off of the difference, in multiples of its mean.", low=0)] = 3.0

    def find(self, recipe: Recipe, model: Model) -> Mask:
        """The mask of a given image, between the source's prompt and the first target; the empty prompt stands for a
        source that has the target's."""
        found = self.difference(recipe, model)
        limit = self.clamp * found.mean()
        if not limit > 0:
            raise NoEffect(
                "DiffEdit's mask is where source and target differ, and the network predicts the same for both. "
                f"Received {recipe.source!r} and {recipe.targets[0]!r}. Give prompts that differ."
            )
        mask = found.clamp(max=limit) / limit > fraction(self.threshold, "threshold of DiffEditMask", below=True)
        if not mask.any():
            raise NoEffect(
                f"DiffEdit's mask is empty with threshold={self.threshold:g} and clamp={self.clamp:g}. Lower them."
            )
        return tuple(map(tuple, mask.double().tolist()))

    @torch.no_grad()
    def difference(self, recipe: Recipe, model: Model) -> Tensor:
        """D of the equations above, [height, width] of the latents."""
        _, clean = _image(recipe, model, "DiffEdit's mask")
        if masked(model) is not None:
            raise ValueError(
                f"DiffEdit's mask is found by a network that reads none, and {model.name} reads one. Find it with an "
                'ordinary model and save it, or use words: mask=WordMask("...") (--mask-words).'
            )
        source, target = recipe.source, recipe.targets[0]
        pair = ("" if source == target else source, target)
        job = Job(
            (target, target), clean, recipe.steps, recipe.guidance, seed=recipe.seed, truncate=recipe.truncate,
            compared=True,
        )  # fmt: skip
        solver = job.solver(model)
        acting = min(int(recipe.steps * fraction(self.strength, "strength of DiffEditMask")), recipe.steps)
        if not acting:
            raise NoEffect(
                f"DiffEdit's mask needs a strength of at least one of the {recipe.steps} steps. "
                f"Received {self.strength:g}."
            )
        step = solver.steps[len(solver.steps) - acting]
        t, levels = solver.calls(step)[0], noising(solver, clean)
        text = model.encode(list(pair), ["", ""], truncate=recipe.truncate)
        layout, strength = Layout(branches(model, 1), 2, 1), torch.full((2,), float(recipe.guidance)).to(clean)
        generator = torch.Generator().manual_seed(recipe.seed)
        total = torch.zeros(clean.shape[-2:], dtype=torch.float64, device=clean.device)
        for _ in range(self.noises):
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            z = solver.scale(levels.noised(clean, step.index, noise), t)
            here = Pass(model, step, text, strength, (), layout)
            output = answer(model, [here.request(z.expand(2, *z.shape), t)])[0]
            total += (output[1] - output[0]).abs().double().mean(0) / self.noises
        return total


@dataclass(frozen=True)
class WordMask(MaskFinder):
    """Where words of the source's prompt attend in the given image; for `mask=`.

    Their maps are multiplied once by the image's attention to itself, which spreads them over what looks alike, and
    scaled from 0 at their minimum to 1. `words`: one or several, whose regions are joined. `maps`: of six passes over
    the noised image, or of a run along its inversion. `grow`: cells of the latents by which the mask is widened.
    """

    words: tuple[str, ...] | str
    threshold: Annotated[Number, Option("Height of a scaled map above which a cell is in.", low=0, high=1)] = 0.4
    maps: Annotated[
        Literal["noised", "inversion"], Option("Maps of the noised image, or along its inversion.")
    ] = "noised"  # fmt: skip
    grow: Annotated[int, Option("Cells of the latents by which the mask is widened.", low=0, high=64)] = 0

    def find(self, recipe: Recipe, model: Model) -> Mask:
        """The mask of a given image whose prompt is the recipe's source."""
        shown, latents = _image(recipe, model, "The mask of words")
        threshold = fraction(self.threshold, "threshold of WordMask", below=True)
        named = (self.words,) if isinstance(self.words, str) else self.words
        if not named:
            raise NoEffect("The mask of words needs a word of the source's prompt. Received none.")
        if self.maps not in ("noised", "inversion") or isinstance(self.grow, bool) or not 0 <= self.grow <= 64:
            raise ValueError(
                'WordMask takes maps "noised" or "inversion", and a whole number of cells to grow by, 0 to 64. '
                f"Received maps={self.maps!r}, grow={self.grow!r}."
            )
        words = model.words(recipe.source)
        tokens = [words.find(word) for word in named]
        kept = tuple(sorted({token for each in tokens for token in each}))
        cross, own = self._recorded(replace(recipe, targets=(), controls=()), model, kept, shown, latents)
        heat = torch.stack([cross[..., [kept.index(token) for token in each]].sum(-1) for each in tokens], -1)
        heat = refined(heat, own, 1).movedim(-1, 0)
        low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
        heat = (heat - low) / (high - low).clamp_min(torch.finfo(heat.dtype).tiny)
        size = (latents.shape[-2], latents.shape[-1])
        found = (F.interpolate(heat[:, None], size=size, mode="bilinear") > threshold).any(0)[0]
        if not found.any():
            raise NoEffect(f"The mask of {', '.join(named)} is empty with threshold={self.threshold:g}. Lower it.")
        wide = F.max_pool2d(found.double()[None, None], 2 * self.grow + 1, 1, self.grow)[0, 0]
        return tuple(map(tuple, wide.tolist()))

    def _recorded(
        self, recipe: Recipe, model: Model, tokens: tuple[int, ...], shown: Tensor, latents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The maps [height, width, tokens] of tokens of the source, and self-attention [height, width, pixels]."""
        from promptweave.editing.edit import run
        from promptweave.editing.recorders import bound

        here, noising = bound(recipe, model), NoisedPasses(seed=recipe.seed)
        watch = [RecordMaps(columns=(tokens,), prompts=(0,)), self_recorder(here)]
        if self.maps == "inversion":
            seen = run(recipe, model, watch=watch, compared=True).watched
        else:
            seen = [control.bind(noising.run(here)) for control in watch]
            observe(
                model, recipe.source, latents, noising, seen, guidance=recipe.guidance, picture=shown,
                truncate=recipe.truncate,
            )  # fmt: skip
        maps = [hook.maps.total(0)[0] for hook in seen if isinstance(hook, RecordedMaps)]
        kind = torch.promote_types(maps[0].dtype, torch.float32)
        return maps[0].to(kind), maps[1].to(kind)


def _image(recipe: Recipe, model: Model, who: str) -> tuple[Tensor, Tensor]:
    """The given image as the model reads it, and its latents. Raises ValueError if there is none."""
    picture = recipe.root.picture
    if picture is None:
        raise ValueError(f"{who} is that of a given image. Received none. Give image=... (--image), or a drawn mask.")
    shown = torch.from_numpy(picture.pixels().copy())[None].to(precision(model.dtype)) / 255
    return shown, model.to_latent(shown).to(model.device)


def finder_of(given: Any) -> MaskFinder | None:
    """The way to find a mask that stands in the place of one: itself, or "diffedit[:OPTION=VALUE,...]"."""
    if isinstance(given, MaskFinder):
        return given
    if not isinstance(given, str) or given.partition(":")[0] != "diffedit":
        return None
    return DiffEditMask(**options_in(given.partition(":")[2], DiffEditMask, "diffedit", "a way to find a mask"))


def find_mask(
    image: Given | Picture,
    source: str,
    target: str,
    finder: MaskFinder,
    *,
    model: Model | str = "toybox",
    **options: Any,
) -> Mask:
    """The mask alone, to look at or to save (see `DiffEditMask`); options are those of `Settings`."""
    from promptweave.editing.plan import recipe_for

    network = load_cached(model) if isinstance(model, str) else model
    return finder.find(recipe_for(network, source, (target,), image=image, **options), network)
