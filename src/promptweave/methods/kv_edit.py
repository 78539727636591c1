"""KV-Edit: Training-Free Image Editing for Precise Background Preservation (Zhu et al. 2025, arXiv 2502.17363).

A mask M divides the image into foreground, which may change, and background. In the last fraction `strength` of the
steps, starting from the source's latent, with the source's keys and values of the background in every layer,

    k_t, v_t <- k_s, v_s    for the image's tokens that lie outside M altogether,
    z_t <- z_s              in the cells outside M, after each step,

so that outside M the latents are the source's to the last bit, and inside the target sees the source's background. The
paper computes the foreground's tokens alone; those of the background, computed here with the others, are read by none,
as their keys and values are replaced in each layer.

With `reinitialise` the foreground starts from new noise n' in place of the source's own n, z <- z_s + s (n' - n) at the
level s, so that nothing of the old object remains.

Differs from the authors' code: keys and values are those of the source's row at the same step, in each half of the
guidance those of the same half; a cell belongs to M if more than half of it does (theirs: if any of it does); new noise
takes the place of the old (theirs is added to the image's latent: the same for a straight path); their attention mask
during inversion, and their scale of the background's logits, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from promptweave.core.clock import Number, Step, fraction
from promptweave.core.control import Control, Hooks, NoEffect, Probe, Run
from promptweave.core.fields import Option
from promptweave.core.kept import NOTHING, Kept
from promptweave.core.mask import check_covers, finer, on_grid
from promptweave.core.roles import joint_layers, joint_names
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites
from promptweave.core.targets import SOURCE
from promptweave.methods.local_blend import region as where

LEVEL = 1000  # a flow model's time divided by the fraction of noise in the latent
Region = Bool[Tensor, "images rows columns"]


@dataclass(frozen=True)
class KVEdit(Control):
    """Change the image inside a mask alone, beside the source's background; for Stable Diffusion 3 and FLUX (KV-Edit).

    `mask`: a drawn mask [height, width] of zeros and ones, as nested tuples; or `words` of the source prompt, whose
    map, smoothed as for `LocalBlend`, exceeds `threshold` times its maximum there; of both what they have in common.
    `strength`: fraction of the steps that act, the last ones. `reinitialise`: start inside from new noise. `blocks`:
    names or roles (`core.roles`) of the joint layers that keep the background; None: all layers. Raises ValueError for
    models without joint attention, NoEffect without a mask or a word, and if no step acts.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"joint"})
    mask: Annotated[
        tuple[tuple[float, ...], ...] | None,
        Option(
            "Drawn region in which the image may change (white, or 1).", low=0, high=1, group="Where", metavar="FILE",
            mask=True,
        ),
    ] = None  # fmt: skip
    words: Annotated[
        tuple[str, ...] | str,
        Option("Word of the source whose object may change.", group="Where", flag="--word", metavar="WORD"),
    ] = ()
    threshold: Annotated[
        Number,
        Option(
            "Fraction of the words' map's maximum above which the image may change.", low=0, high=1,
            group="Where",
        ),
    ] = 0.3  # fmt: skip
    strength: Annotated[Number, Option("Fraction of the steps that act, the last ones.", low=0, high=1)] = 24 / 28
    reinitialise: Annotated[bool, Option("Start inside the mask from new noise instead of the source's latent.")] = (
        False
    )
    blocks: Annotated[
        tuple[str, ...] | None,
        Option(
            "Name or role (masked, global, vital) of joint layers that keep the background. [all]",
            group="Advanced",
            flag="--block",
            metavar="NAME",
        ),
    ] = None

    @property
    def needs(self) -> frozenset[Literal["noise", "latents", "maps"]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The noise, and for a region of words the maps."""
        return frozenset({"noise", "maps"}) if self.words else frozenset({"noise"})

    def bind(self, run: Run) -> Hooks:
        joint_names(run, "KVEdit", "LocalBlend with a mask")
        fraction(self.threshold, "threshold of KVEdit", below=True)
        acting = round(fraction(self.strength, "strength of KVEdit") * run.steps)
        if not acting:
            raise NoEffect(
                f"KVEdit needs a strength that covers at least one of the {run.steps} steps. "
                f"Received strength={self.strength}."
            )
        if len(run.prompts) < 2:
            raise NoEffect("KVEdit needs a target prompt. Received the source alone.")
        if run.recorded and not self._one_half(run):
            raise ValueError(
                "KVEdit reads both halves of the source's guidance, and a recording holds the conditional one. "
                f"Received guidance {run.guidance:g}. Record with guidance 1, or edit without a recording."
            )
        names = joint_layers(self.blocks, run, "KVEdit") if self.blocks else tuple(site.name for site in run.sites)
        begin = run.steps - acting
        return _Keeping(
            region=self._region(run),
            names=frozenset(names),
            begin=begin,
            first_step=begin if run.pinned and not run.recorded else 0,
            rows=range(1, len(run.prompts)),
            generators=[torch.Generator().manual_seed(run.seed + image) for image in range(run.images)],
            reinitialise=self.reinitialise,
            drawn=self.mask,
        )

    def first_pass_sites(self, run: Run) -> Sites:
        """The layers that localise words best."""
        return run.map_sites

    def reads(self, run: Run) -> Kept:
        begin = 1 - round(self.strength * run.steps) / run.steps
        largest = max((site.queries for site in run.sites if site.kind == "self"), default=0)
        return replace(NOTHING, joint=(begin, 1.0), self_attention=(begin, 1.0), self_grid=largest, values=True)

    def recordable(self, run: Run) -> bool:
        return not self.words and self._one_half(run)

    @staticmethod
    def _one_half(run: Run) -> bool:
        """Whether there is no unconditional half of guidance, of which a recording holds nothing."""
        return not run.guided or run.guidance == 1

    def idle(self, run: Run) -> bool:
        return not round(self.strength * run.steps)

    def unread(self, run: Run) -> dict[str, str]:
        return {} if self.words else {"threshold": "for a region of words: name them in blend"}

    def _region(self, run: Run) -> Region | None:
        """Where the image may change, on the latent's grid; None before the first pass."""
        words = (self.words,) if isinstance(self.words, str) else self.words
        words = tuple(word for word in words if word)
        drawn = None
        if self.mask is not None:
            check_covers(self.mask, run.latent_grid, "KVEdit")
            drawn = on_grid(self.mask, run.latent_grid, run.device)[None]
        if not words and drawn is not None:
            return drawn
        if not words:
            raise NoEffect(
                "KVEdit needs to know where the image may change. Received neither a mask nor a word. Give mask, or "
                "blend, a word of the source."
            )
        tokens = [token for word in words for token in run.words[SOURCE].find(word)]
        if run.recorded:
            raise ValueError(
                "KVEdit finds the region of words by generating the source first, and this source is a recording. Give "
                "a mask instead of words, or edit the source's prompt or image."
            )
        if run.first_pass is None:
            return None
        if run.first_pass.maps is None:
            raise ValueError(
                "KVEdit reads the maps of a source generated from noise, and another control starts from a given image "
                "itself. Use one of the two, or give a mask."
            )
        seen = run.first_pass.maps
        best = [site for site in run.sites if site in run.map_sites]
        parts = [seen.mean(SOURCE, site.name) for site in best] if seen.by_site else [seen.mean(SOURCE)]
        maps = torch.stack(parts).mean(0)[..., tokens].sum(-1)
        region = where(maps, run.latent_grid, self.threshold, soft=True).to(run.device)
        region = region if drawn is None else region & drawn
        if not region.any():
            raise NoEffect(
                f"KVEdit changes what lies in the mask and in the region of {', '.join(words)}, which have nothing in "
                "common here. Draw the mask over it, or leave the words out."
            )
        return region


def tokens_of(region: Region, grid: tuple[int, int]) -> Bool[Tensor, "images 1 tokens 1"]:
    """The image's tokens of which any cell is in the region."""
    found = F.adaptive_max_pool2d(region.float()[:, None], grid) > 0.5
    return found.flatten(2)[..., None]


@dataclass(kw_only=True)
class _Keeping(Hooks):
    region: Region | None
    names: frozenset[str]
    begin: int
    first_step: int
    rows: range
    generators: list[torch.Generator]
    reinitialise: bool
    drawn: tuple[tuple[float, ...], ...] | None = None
    noise: Tensor | None = None
    inside: dict[tuple[int, int], Tensor] = field(default_factory=dict[tuple[int, int], Tensor])
    steps: set[int] = field(default_factory=set[int])

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        if self.noise is None:
            self.noise = z[-1]  # that of the run; no row has moved yet
        if step.index > self.begin:
            return z
        source = z[SOURCE]
        begun = source
        if step.index == self.begin and self.reinitialise:
            for generator in self.generators:  # the first draw is the run's own noise
                torch.randn(source.shape[1:], generator=generator, dtype=torch.float32)
            fresh = torch.stack([torch.randn(source.shape[1:], generator=g) for g in self.generators]).to(source)
            begun = self._blended(source, source + step.t / LEVEL * (fresh - self.noise))
        return torch.cat([source[None], begun.expand(len(z) - 1, *source.shape)])

    def state(self, step: Step) -> bool:
        return step.index >= self.begin

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if site.name not in self.names or step.index < self.begin:
            return rows
        self.steps.add(step.index)
        if site.grid not in self.inside:
            assert self.region is not None  # sampling makes the first pass before the first step
            self.inside[site.grid] = tokens_of(self.region, site.grid)
        inside = self.inside[site.grid]
        for branch in rows.layout.branches:
            source = rows[branch][SOURCE]
            k, v = site.of_image(source.k), site.of_image(source.v)
            for row in self.rows:
                own = rows[branch][row]
                rows = rows.put(
                    branch, row,
                    k=site.with_image(own.k, torch.where(inside, site.of_image(own.k), k)),
                    v=site.with_image(own.v, torch.where(inside, site.of_image(own.v), v)),
                )  # fmt: skip
        return rows

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        return torch.cat([z[:1], self._blended(z[SOURCE], z[1:])])

    def _blended(self, source: Tensor, edited: Tensor) -> Tensor:
        assert self.region is not None
        return torch.where(self.region[:, None], edited, source)

    def confined(self, row: int) -> Region | None:
        if row not in self.rows or self.region is None or self.drawn is None:
            return self.region if row in self.rows else None
        return finer(self.region, self.drawn)

    def report(self) -> dict[str, Any]:
        area = [] if self.region is None else [float(self.region.float().mean())]
        return {"joint_steps": len(self.steps), "joint_sites": len(self.names), "edit_area": area}
