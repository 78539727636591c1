"""Delta Denoising Score (Hertz et al. 2023, arXiv 2304.07090) and Contrastive Denoising Score (arXiv 2311.18608).

The image itself is optimised. A pretrained network scores how a noised latent should change to fit a prompt, and what
is wrong with that score for the target is wrong with it for the source, too, whose image fits its prompt already. With
x the latent of the source, z that of a target (x at first), and in each iteration one time t and one noise n for both,

    x_t = sqrt(a_t) x + sqrt(1 - a_t) n,    z_t = sqrt(a_t) z + sqrt(1 - a_t) n,
    z <- z - rate (e(z_t, target) - e(x_t, source)),    both under guidance (DDS, eq. 3 and 5).

`ContrastiveDenoising` (Nam et al. 2024, section 3.2) also keeps the structure, by a contrastive loss on what the
self-attention layers of the decoder give: a patch of the target is to be more like the same patch of the source than
like its others. With unit features s_i of the source and f_i of the target at `patches` random places,

    L = sum over layers and patch sizes of mean_i -log( exp(s_i f_i / tau) / sum_j exp(s_i f_j / tau) ),
    z <- z - rate ( ... + weight (h w / 2000) dL/dz ),

where h w / 2000 is how their code weighs both terms.

Differs from the authors' code: the rate is per latent cell, 0.0488 as theirs is for 64 x 64; there are so many
iterations as `rounds` times the run's steps, 200 of 50; features are those before the layer's last linear map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Step, is_number
from promptweave.core.control import Control, Hooks, Latents, NoEffect, Predictions, Probe, Run
from promptweave.core.fields import Command, Option
from promptweave.core.site import Site, Sites

RANGE = (0.05, 0.949)  # of the training times that are drawn: 50 to 948 of 1000
TEMPERATURE = 0.07  # tau
SIZES = (1, 2)  # of patches, in positions of a layer
SHARE = 2000  # by which the sum over a latent is weighed, against a loss of features


@dataclass(frozen=True)
class DeltaDenoising(Control):
    """Optimise the image towards each target, without inversion; for diffusion models (Delta Denoising Score).

    `rounds`: iterations for each of the run's steps. `rate`: how far an iteration moves the latents along the
    difference of the predicted noise. Raises ValueError for flow models and on recordings.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"cross"})
    command: ClassVar[Command] = Command(
        "dds",
        "Optimise an image towards another prompt, without inversion (Delta Denoising Score).",
        prompts="targets",
        example='"a photo of a cat on the grass" "a photo of a dog on the grass"',
    )
    needs: ClassVar[frozenset[Literal["noise", "latents", "maps"]]] = frozenset({"latents"})
    rounds: Annotated[int, Option("Iterations for each of the run's steps.", low=1)] = 4
    rate: Annotated[Number, Option("How far an iteration moves the latents.", low=0)] = 0.0488

    def times(self, steps: int, levels: int, seed: int) -> Sequence[int]:
        low, high = (round(part * levels) for part in RANGE)
        drawn = torch.randint(low, high, (steps * self.rounds,), generator=torch.Generator().manual_seed(seed))
        return [int(t) for t in drawn]

    def bind(self, run: Run) -> Hooks:
        self._check(run)
        return _Optimising(self, run)

    def _check(self, run: Run) -> None:
        name = type(self).__name__
        if run.flow:
            raise ValueError(
                f"{name} compares the noise that a diffusion model predicts, and this model is a flow model. Use "
                "FlowEdit (--kind flow)."
            )
        if run.recorded:
            raise ValueError(
                f"{name} compares predictions of the source, which a recording does not hold. Edit the source's prompt "
                "or image instead of the recording."
            )
        if not is_number(self.rate) or self.rate < 0 or self.rounds < 1:
            raise ValueError(
                f"{name} takes a rate of at least 0 and at least one round. Received rate={self.rate}, "
                f"rounds={self.rounds}."
            )
        if self.rate == 0 or len(run.prompts) < 2:
            what, cure = ("a rate of 0", "a larger one") if self.rate == 0 else ("no target prompt", "one")
            raise NoEffect(f"{name} moves targets along a difference of predictions. Received {what}. Give {cure}.")


@dataclass(frozen=True)
class ContrastiveDenoising(DeltaDenoising):
    """As `DeltaDenoising`, with a loss that keeps the structure (Contrastive Denoising Score); for UNets.

    `weight`: of that loss. `patches`: the places that it compares in each layer. Raises what `DeltaDenoising` raises,
    ValueError for networks without self-attention in a decoder, and NoEffect for a weight of 0.
    """

    command: ClassVar[Command] = Command(
        "cds",
        "As dds, with a loss on self-attention that keeps the structure (Contrastive Denoising Score).",
        prompts="targets",
        example='"a photo of a cat on the grass" "a photo of a dog on the grass"',
    )
    weight: Annotated[Number, Option("Weight of the loss that keeps the structure.", low=0)] = 3.0
    patches: Annotated[int, Option("Places that the loss compares in each layer.", low=2)] = 256

    def bind(self, run: Run) -> Hooks:
        self._check(run)
        if not is_number(self.weight) or self.weight < 0 or self.patches < 2:
            raise ValueError(
                "ContrastiveDenoising takes a weight of at least 0 and at least 2 patches. Received "
                f"weight={self.weight}, patches={self.patches}."
            )
        if self.weight == 0:
            raise NoEffect("ContrastiveDenoising with a weight of 0 is DeltaDenoising (dds). Use that, or give more.")
        if not any(site in DECODER for site in run.sites):
            raise ValueError(
                "ContrastiveDenoising reads the self-attention of a UNet's decoder, and this network has none. Use "
                "DeltaDenoising (dds)."
            )
        return _Contrasting(self, run)


DECODER = Sites("self", places=("up",))


class _Optimising(Hooks):
    def __init__(self, control: DeltaDenoising, run: Run) -> None:
        self.control, self.schedule = control, run.schedule()
        self.clean = None if run.first_pass is None else run.first_pass.latents
        self.generators = [torch.Generator().manual_seed(run.seed + image) for image in range(run.images)]
        self.before: Tensor | None = None
        self.noise: Tensor | None = None
        self.slope: Tensor | None = None  # of a further loss

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        assert self.clean is not None  # sampling gives it before the first step
        x, level = self.clean.to(z), self.schedule.level(step.t)
        self.before = torch.cat([x[None], x.expand(len(z) - 1, *x.shape) if step.index == 0 else z[1:]])
        draws = [torch.randn(x.shape[1:], generator=g, dtype=torch.float32) for g in self.generators]
        noised = level**0.5 * self.before + (1 - level) ** 0.5 * torch.stack(draws).to(x)
        self.slope = self.further(noised, level, probe)
        return noised

    def further(self, noised: Latents, level: float, probe: Probe) -> Tensor | None:
        """The gradient of a further loss by the clean latents."""
        return None

    def prediction(self, step: Step, made: Predictions) -> Latents:
        a, kind = self.schedule.level(step.t), self.schedule.prediction
        if kind == "epsilon":
            self.noise = made.guided
        elif kind == "v_prediction":
            self.noise = a**0.5 * made.guided + (1 - a) ** 0.5 * made.latents
        else:
            self.noise = (made.latents - a**0.5 * made.guided) / (1 - a) ** 0.5
        return made.guided

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        assert self.before is not None and self.noise is not None
        slope = self.noise - self.noise[:1]
        if self.slope is not None:
            slope = slope + self.slope
        moved = self.before[1:] - self.control.rate * slope[1:].to(self.before)
        return torch.cat([self.before[:1], moved])

    def report(self) -> dict[str, Any]:
        return {"rounds": self.control.rounds}


class _Contrasting(_Optimising):
    def __init__(self, control: ContrastiveDenoising, run: Run) -> None:
        super().__init__(control, run)
        self.weight, self.patches = control.weight, control.patches
        self.places = torch.Generator().manual_seed(run.seed)

    def further(self, noised: Latents, level: float, probe: Probe) -> Tensor | None:
        def losses(found: Mapping[Site, Tensor]) -> Tensor:
            return sum_of([self._layer(site, rows) for site, rows in found.items()])

        _, slope = probe.output_gradient(noised, DECODER, losses)
        cells = noised.shape[-2] * noised.shape[-1]
        return self.weight * cells / SHARE * level**0.5 * slope.to(noised)

    def _layer(self, site: Site, rows: Float[Tensor, "prompts images tokens dim"]) -> Float[Tensor, ""]:
        """The loss of a layer, all targets and images together: each depends on its own latents only."""
        made: list[Tensor] = []
        for size in SIZES:
            if min(site.grid) < size:
                continue
            grid = pooled(rows, site.grid, size)
            here = torch.randperm(grid.shape[-2], generator=self.places)[: self.patches].to(rows.device)
            made += [
                patch_loss(grid[0, image, here].detach(), grid[row, image, here])
                for row in range(1, len(grid))
                for image in range(grid.shape[1])
            ]
        return sum_of(made)


def pooled(
    rows: Float[Tensor, "prompts images tokens dim"], grid: tuple[int, int], size: int
) -> Float[Tensor, "prompts images patches dim"]:
    """Unit features of patches of `size` x `size` positions."""
    prompts, images, _, dim = rows.shape
    found = rows.transpose(-1, -2).reshape(prompts * images, dim, *grid)
    found = F.avg_pool2d(found, size) if size > 1 else found
    return F.normalize(found.reshape(prompts, images, dim, -1).transpose(-1, -2), dim=-1)


def patch_loss(source: Float[Tensor, "patches dim"], target: Float[Tensor, "patches dim"]) -> Float[Tensor, ""]:
    """The contrastive loss of unit features: a source's patch is to recognise the same patch of the target.

    >>> import math
    >>> same = torch.eye(3, dtype=torch.float64)
    >>> round(float(patch_loss(same, same)), 8) == round(math.log(1 + 2 * math.exp(-1 / TEMPERATURE)), 8)
    True
    """
    scores = source @ target.T / TEMPERATURE
    return F.cross_entropy(scores, torch.arange(len(source), device=source.device))


def sum_of(values: Sequence[Tensor]) -> Tensor:
    """The sum of losses."""
    return torch.stack(list(values)).sum()
