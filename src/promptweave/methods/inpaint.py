"""Inpainting by latents that are blended at every step, with a network that knows no mask (Blended Latent Diffusion,
Avrahami et al. 2022, arXiv 2206.02779, algorithm 1), and RePaint's resampling (Lugmayr et al. 2022, arXiv 2201.09865).

With the latent x of the image, a mask m, and q_t the forward process, which mixes an image with noise n:

    z_t <- m z_t + (1 - m) q_t(x, n)     after each step;   at the end the latents outside the mask are x itself.

The targets start from noise, or with a `strength` below 1 from the noised image. RePaint goes back `jump` steps
(z_{t+j} = q(z_{t+j} | z_t), fresh noise) and makes them again, `resamplings` times in all, which lets the inside see
the outside.

A network that was trained to inpaint reads the mask and the image around it beside the latents
(`models.mask_channels`); its latents are not blended unless `blended` says so.

Row 0 is the source, held at q_t(x, n), so attention can be taken from it by controls to the right.

Differs from the authors' codes: around the mask each step has the noise of its own level (Blended Latent Diffusion:
that of the step before) and the same n throughout, so that the two parts belong to one image, unless `fresh`; latents
are not decoded and optimised for each image (their section 4.2), for pixels outside can be put back as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from promptweave.core.clock import Number, Step, fraction
from promptweave.core.control import Control, Hooks, NoEffect, Probe, Run
from promptweave.core.fields import Option
from promptweave.core.kept import NOTHING, Kept
from promptweave.core.mask import check_covers, on_grid
from promptweave.core.noising import Noising
from promptweave.core.targets import SOURCE, chosen


def jumps(count: int, jump: int, resamplings: int) -> list[int]:
    """The indices of a run of `count` steps in the order in which RePaint makes them (its appendix, "jump length").

    >>> jumps(5, 2, 2)
    [0, 1, 2, 1, 2, 3, 4, 3, 4]
    """
    again = dict.fromkeys(range(0, count - jump, jump), resamplings - 1)
    order, left = list[int](), count  # steps that are left
    while left > 0:
        order.append(count - left)
        left -= 1
        if again.get(left, 0) > 0:
            again[left] -= 1
            left += jump
    return order


@dataclass(frozen=True)
class Inpaint(Control):
    """Regenerate what a mask covers, and keep the rest of the image (blended latents).

    `mask`: [height, width] of zeros and ones, as nested tuples (`editing.masks.read_mask`). `strength`: fraction of the
    steps that are run, the last ones, from the noised image; 1: all, from noise. `resamplings`: how often RePaint makes
    `jump` steps; 1: no resampling. `fresh`: new noise around the mask in every step; None: with resampling only.
    `blended`: blend latents; None: unless the network reads the mask. Raises ValueError for parameters out of range,
    resampling with a solver that cannot go back, and a network that reads a mask without a given image; NoEffect
    without a mask, or if no step is run.
    """

    needs: ClassVar[frozenset[Literal["noise", "latents", "maps"]]] = frozenset({"latents"})
    mask: Annotated[
        tuple[tuple[float, ...], ...] | None,
        Option("Region that is regenerated (white, or 1).", low=0, high=1, group="Where", metavar="FILE", mask=True),
    ] = None
    strength: Annotated[
        Number,
        Option("Fraction of the steps that are run, from the noised image; 1: all, from noise.", low=0, high=1),
    ] = 1.0
    resamplings: Annotated[
        int, Option("How often each jump is made, RePaint's resampling; 1: none (published: 10).", low=1, high=1000)
    ] = 1
    jump: Annotated[
        int, Option("Steps of a jump back, with resamplings.", low=1, high=10_000, group="Advanced")
    ] = 10  # fmt: skip
    fresh: Annotated[
        bool | None, Option("New noise around the mask in every step. [with resamplings]", group="Advanced")
    ] = None
    blended: Annotated[
        bool | None,
        Option("Blend latents at every step. [unless the network reads the mask itself]", group="Advanced"),
    ] = None
    targets: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        rows = chosen(self.targets, run)
        if self.mask is None:
            raise NoEffect(
                "Inpaint regenerates what a mask covers. Received no mask. Give mask=..., a file or an array that is "
                "white where the image may change (--mask, --mask-words)."
            )
        check_covers(self.mask, run.latent_grid, "Inpaint")
        acting = min(int(run.steps * fraction(self.strength, "strength of Inpaint")), run.steps)
        if not acting:
            raise NoEffect(
                f"Inpaint needs a strength that covers at least one of the {run.steps} steps. "
                f"Received {self.strength:g}."
            )
        for name in ("resamplings", "jump"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} of Inpaint is a whole number from 1. Received {value!r}.")
        assert run.noising is not None  # every run of a model says so
        noising = run.noising()
        order = jumps(acting, self.jump, self.resamplings)
        if len(order) > acting and not noising.rewinds:
            raise ValueError(
                "Resampling goes back to earlier steps, and this solver remembers what it predicted on the way. "
                f"Received resamplings={self.resamplings}. Load the model with the scheduler ddim or euler "
                "(--scheduler ddim), or leave resamplings out."
            )
        if self.resamplings > 1 and len(order) == acting:
            raise NoEffect(
                f"Resampling needs more steps than jump. Received jump={self.jump} and {acting} steps that are run. "
                "Choose a smaller jump."
            )
        blended = run.masked is None if self.blended is None else self.blended
        if run.masked is None and not blended:
            raise NoEffect(
                "This network reads no mask, so latents must be blended. Received blended=False. Leave it out, or load "
                "an inpainting model."
            )
        more = None
        if run.masked is not None and run.first_pass is not None:
            if run.first_pass.picture is None:
                raise ValueError(
                    "An inpainting model reads the image around the mask, so it needs a given one. Received none. "
                    "Give image=... (--image)."
                )
            more = run.masked(run.first_pass.picture, on_grid(self.mask, _size(self.mask)))
        return _Inpainting(
            rows, on_grid(self.mask, run.latent_grid, run.device), noising, order, run.steps - acting, blended,
            self.resamplings > 1 if self.fresh is None else self.fresh, _generators(run),
            None if run.first_pass is None else run.first_pass.latents, more, on_grid(self.mask, _size(self.mask)),
        )  # fmt: skip

    def reads(self, run: Run) -> Kept:
        return NOTHING

    def unread(self, run: Run) -> Mapping[str, str]:
        return {} if self.resamplings > 1 else {"jump": "for resampling: give resamplings above 1"}


def _size(mask: Sequence[Sequence[float]]) -> tuple[int, int]:
    return len(mask), len(mask[0])


def _generators(run: Run) -> list[torch.Generator]:
    """The generators of further noise, one for each image, after the starting noise that they would draw first."""
    made = [torch.Generator().manual_seed(run.seed + image) for image in range(run.images)]
    assert run.noising is not None
    shape = run.noising().noise.shape[1:]
    for generator in made:
        torch.randn(shape, generator=generator)
    return made


class _Inpainting(Hooks):
    def __init__(
        self,
        rows: tuple[int, ...],
        mask: Bool[Tensor, "height width"],
        noising: Noising,
        order: list[int],
        first_step: int,
        blended: bool,
        fresh: bool,
        generators: list[torch.Generator],
        clean: Tensor | None,
        more: Tensor | None,
        drawn: Bool[Tensor, "rows columns"],
    ) -> None:
        self.rows, self.mask, self.noising, self.order, self.first_step = list(rows), mask, noising, order, first_step
        self.blended, self.fresh, self.generators, self.clean, self.more = blended, fresh, generators, clean, more
        self.drawn = drawn  # the mask, finer than the latents
        self.at: int | None = None  # the step whose latents the run has
        self.start: Tensor | None = None  # the starting noise, on the device
        self.steps = 0

    def visits(self, steps: Sequence[Step]) -> Sequence[Step]:
        at = {step.index: step for step in steps}
        order = [self.first_step + index for index in self.order]
        ahead = [step for step in steps if step.index < self.first_step]  # none: the run begins at `first_step`
        return [*ahead, *(at[index] for index in order if index in at)]

    def channels(self) -> Tensor | None:
        return self.more

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        z = z.clone()
        if self.at is None and self.first_step:
            z[self.rows] = self._image(step.index, z).expand_as(z[self.rows])
        elif self.at is not None and step.index < self.at:
            z[self.rows] = self.noising.back(z[self.rows], self.at, step.index, self._drawn(z))
        z[SOURCE] = self._image(step.index, z)
        return z

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        z, self.at = z.clone(), step.index + 1
        self.steps += 1
        z[SOURCE] = around = self._image(self.at, z, self._drawn(z) if self.fresh else None)
        if self.blended:
            z[self.rows] = torch.where(self.mask, z[self.rows], around)
        return z

    def _image(self, index: int, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """The image, with the noise that latents have before a step."""
        assert self.clean is not None  # sampling gives it before the first step
        if self.start is None:
            self.start = self.noising.noise.to(z)
        return self.noising.noised(self.clean.to(z), index, self.start if noise is None else noise)

    def _drawn(self, z: Tensor) -> Tensor:
        """Fresh noise, the same for all prompts."""
        return torch.stack([torch.randn(z.shape[2:], generator=g) for g in self.generators]).to(z)

    def confined(self, row: int) -> Bool[Tensor, "images rows columns"] | None:
        return self.drawn[None].expand(len(self.generators), -1, -1) if row in self.rows else None

    def report(self) -> dict[str, Any]:
        covered = float(self.mask.float().mean())
        return {"latent_steps": self.steps, "mask_area": {row: [covered] for row in self.rows}}
