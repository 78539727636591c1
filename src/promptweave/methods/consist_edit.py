"""ConsistEdit: Highly Consistent and Precise Training-free Visual Editing (Yin et al. 2025, arXiv 2510.17803).

Joint attention is controlled at the image tokens alone. The mask K is 1 outside the object and 0 on it; it comes from
the source's word maps, averaged over the controlled layers and all steps. For image tokens, in both halves of guidance,

    q, k <- q_s, k_s in the first fraction `structure` of the steps, then K q_s + (1 - K) q_t, K k_s + (1 - K) k_t;
    v <- K v_s + (1 - K) v_t in every step.

Text tokens are never changed. FLUX is controlled in its single blocks only, Stable Diffusion 3 in all joint blocks.

Differs from the authors' code: the mask stays on the token grid (theirs goes through an image); both passes use the
same attention kernel by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step, Window, fraction
from promptweave.core.control import Control, Hooks, NoEffect, Run
from promptweave.core.fields import Option
from promptweave.core.roles import joint_layers, joint_names
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites
from promptweave.core.targets import SOURCE, chosen

INSTEAD = "Replace or Refine with LocalBlend"  # in networks without joint attention

Keep = Float[Tensor, "images tokens"]


@dataclass(frozen=True)
class Consist(Control):
    """Keep the source outside the object that `words` of the source prompt name; for SD3 and FLUX (ConsistEdit).

    `structure`: fraction of the steps that keep the object's shape; 1 suits a change of colour or material, 0.3 one of
    kind or style. `threshold`: the level of the words' map, scaled to [0, 1], above which a token belongs to the
    object. `blocks`: names or roles (`core.roles`) of the joint layers to control. Raises ValueError for models without
    joint attention, and NoEffect without a word.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"joint"})
    needs: ClassVar[frozenset[Literal["noise", "latents", "maps"]]] = frozenset({"noise", "latents", "maps"})
    words: Annotated[
        tuple[str, ...] | str,
        Option("Word of the source whose object may change.", group="Where", flag="--word", metavar="WORD"),
    ] = ()
    structure: Annotated[
        int | float, Option("Fraction of the steps in which the object's shape is kept.", low=0, high=1)
    ] = 0.3
    threshold: Annotated[
        int | float,
        Option(
            "Level of the words' map, scaled to [0, 1], above which a token belongs to the object.",
            low=0,
            high=1,
            group="Where",
        ),
    ] = 0.1
    blocks: Annotated[
        tuple[str, ...] | None,
        Option(
            "Name or role (masked, global, vital) of joint layers to act in. [all, or the single blocks of FLUX]",
            group="Advanced",
            flag="--block",
            metavar="NAME",
        ),
    ] = None
    targets: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        joint_names(run, "Consist", INSTEAD)
        if run.recorded:
            raise ValueError(
                "Consist first generates the source alone and reads maps that a recording does not hold. Edit the "
                "source's prompt or image instead of the recording."
            )
        fraction(self.threshold, "threshold of Consist", below=True)
        window = Window.of(self.structure, "structure of Consist")
        words = (self.words,) if isinstance(self.words, str) else self.words
        tokens = [token for word in words for token in run.words[SOURCE].find(word)]
        if not tokens:
            raise NoEffect("Consist needs a word of the source that names what may change. Received none.")
        wanted = self._controlled(run)
        keep = None
        if run.first_pass is not None:
            if run.first_pass.maps is None:
                raise ValueError(
                    "Consist reads the maps of a source generated from noise, and another control starts from a given "
                    "image itself. Use one of the two."
                )
            seen = run.first_pass.maps
            parts = [seen.mean(0, name) for name in wanted] if seen.by_site else [seen.mean(0)]
            maps = torch.stack(parts).mean(0)[..., tokens].sum(-1)
            keep = outside(maps, self.threshold).to(run.device, run.dtype)
        return _Keeping(window, keep, frozenset(wanted), chosen(self.targets, run))

    def first_pass_sites(self, run: Run) -> Sites:
        """The controlled layers, whose maps give the mask."""
        return Sites("joint", names=self._controlled(run))

    def _controlled(self, run: Run) -> tuple[str, ...]:
        if self.blocks:
            return joint_layers(self.blocks, run, "Consist")
        names = joint_names(run, "Consist", INSTEAD)
        return tuple(name for name in names if "single" in name) or names


def outside(maps: Float[Tensor, "images height width"], threshold: int | float) -> Keep:
    """K: 1 where a word's map, scaled to [0, 1], is at most the threshold."""
    flat = maps.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return 1 - ((flat - low) / (high - low).clamp(min=1e-12) > threshold).to(flat.dtype)


def mix(site: Site, own: Tensor, source: Tensor, share: Float[Tensor, "images 1 tokens 1"]) -> Tensor:
    """For image tokens, the mixture share * source + (1 - share) * own; for text tokens, `own`."""
    return site.with_image(own, site.of_image(own).lerp(site.of_image(source), share))


@dataclass
class _Keeping(Hooks):
    window: Window
    keep: Keep | None
    names: frozenset[str]
    rows: tuple[int, ...]
    steps: set[int] = field(default_factory=set[int])
    sites: set[str] = field(default_factory=set[str])

    def state(self, step: Step) -> bool:
        return step in self.window

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if site.name not in self.names:
            return rows
        assert self.keep is not None and site.image is not None  # sampling gives the mask before the first step
        self.steps.add(step.index)
        self.sites.add(site.name)
        keep = self.keep[:, None, :, None]
        whole = torch.ones_like(keep) if step in self.window else keep
        for branch in rows.layout.branches:
            source = rows[branch][SOURCE]
            for row in self.rows:
                own = rows[branch][row]
                q, k = (mix(site, a, b, whole) for a, b in ((own.q, source.q), (own.k, source.k)))
                rows = rows.put(branch, row, q=q, k=k, v=mix(site, own.v, source.v, keep))
        return rows

    def report(self) -> dict[str, Any]:
        area = [] if self.keep is None else [float((1 - self.keep).mean())]
        return {"joint_steps": len(self.steps), "joint_sites": len(self.sites), "edit_area": area}
