"""Every way of editing that benchmarks measure, once: from what is known of an edit to the controls that make it.

The tables of the benchmarks are derived from `EDITORS`: the editors of drawn images (`drawn_swaps`), the sweeps over a
method's main strength (`swept`), the costs of a step (`bench_costs`) and the editors of flow models (`bench_editors`).
Editors as text, with all options (`field_editors`), come from the options of `promptweave edit` and of the commands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from promptweave.core.control import Control, NoEffect
from promptweave.methods import (
    Consist,
    ContrastiveDenoising,
    DeltaDenoising,
    DirectEdit,
    FlowEdit,
    Inpaint,
    KVEdit,
    LocalBlend,
    MasaCtrl,
    Pix2PixZero,
    PlugAndPlay,
    Replace,
    SemanticGuidance,
    SharedStart,
    UniEdit,
)

SEGA_STRENGTH = 4.0  # of the new thing, and minus it of the old one
WHOLE = ((1.0, 1.0), (1.0, 1.0))  # a mask
Rows = tuple[int, ...] | None  # targets; None: all


@dataclass(frozen=True)
class Known:
    """What is known of an edit: the prompts, the word of what changes and of what it becomes, and where both are.

    `old`: "" where the source's prompt has no word for it. `region`: makes the mask.
    """

    source: str
    target: str
    old: str = ""
    new: str = ""
    region: Callable[[], Any] | None = None

    @property
    def word(self) -> str:
        """The word of the source for what changes. Raises NoEffect if there is none."""
        if not self.old:
            raise NoEffect("The source's prompt has no word for what changes.")
        return self.old

    @property
    def mask(self) -> Any:
        """The mask of what changes. Raises NoEffect if it is not known."""
        if self.region is None:
            raise NoEffect("Nothing is known of where the edit is.")
        return self.region()


@dataclass(frozen=True)
class Editor:
    """A way to edit an image. `make(known, rows, **options)`: its controls for the targets at these rows.

    `joint`: for networks with joint attention (True), for the others (False) or for both (None). `own_prompt`: the
    target has the source's prompt, and the controls change it. `alone`: it has a run of its own, since it acts on all
    targets. `inversion`: what an input image is inverted by, unless a benchmark varies it; None: the editor starts from
    the image itself.
    """

    make: Callable[..., tuple[Control, ...]]
    joint: bool | None = None
    own_prompt: bool = False
    alone: bool = False
    inversion: str | None = "direct"

    def controls(self, known: Known, rows: Rows = None, **options: Any) -> tuple[Control, ...]:
        """The controls."""
        return self.make(known, rows, **options)

    def prompt(self, known: Known) -> str:
        """The target's prompt."""
        return known.source if self.own_prompt else known.target

    def fits(self, joint: bool) -> bool:
        """Whether it can be used with networks of a kind."""
        return self.joint in (None, joint)

    def with_(self, inversion: str | None = None, **options: Any) -> Editor:
        """The same with options of its controls, or on another inversion."""
        return replace(self, make=partial(self.make, **options), inversion=inversion or self.inversion)


def _injected(
    known: Known, rows: Rows, kind: Callable[..., Control] = Replace, joint: float = 0.6, **windows: Any
) -> tuple[Control, ...]:
    return (kind(targets=rows, joint=joint, **windows),)


def _blended(known: Known, rows: Rows, word: str = "", threshold: float = 0.3, **more: Any) -> tuple[Control, ...]:
    region = LocalBlend(word or (known.old, known.new), threshold=threshold, targets=rows)
    return (*_injected(known, rows, **more), region)


def _guided(
    known: Known, rows: Rows, strength: float = SEGA_STRENGTH, sentences: bool = False, away: bool = True
) -> tuple[Control, ...]:
    """Semantic guidance to the new thing and away from the old one, by their nouns or by the prompts."""
    new, old = (known.target, known.source) if sentences else (f"a {known.new}", f"a {known.old}")
    return (SemanticGuidance({new: strength, **({old: -strength} if away else {})}, targets=rows),)


def _plain(kind: Callable[..., Control]) -> Callable[..., tuple[Control, ...]]:
    """A control that acts on all targets."""
    return lambda known, rows, **options: (kind(**options),)


def _of_rows(kind: Callable[..., Control]) -> Callable[..., tuple[Control, ...]]:
    """A control that acts on its rows."""
    return lambda known, rows, **options: (kind(targets=rows, **options),)


PLAIN, INJECTED, BLENDED = "no control", "Prompt-to-Prompt", "Prompt-to-Prompt, blend"
EDITORS: dict[str, Editor] = {
    PLAIN: Editor(lambda known, rows: ()),
    INJECTED: Editor(_injected),
    BLENDED: Editor(_blended),
    "shared start": Editor(_of_rows(SharedStart)),
    "MasaCtrl": Editor(_of_rows(MasaCtrl), joint=False),
    "Plug-and-Play": Editor(_of_rows(PlugAndPlay), joint=False),
    # Sentences that have the thing at the prompt's place, as its docs advise; its gradients pass through all rows.
    "pix2pix-zero": Editor(
        lambda known, rows, **options: (Pix2PixZero((known.source,), (known.target,), targets=rows, **options),),
        joint=False, own_prompt=True, alone=True,
    ),
    "SEGA": Editor(_guided, joint=False, own_prompt=True),
    "DDS": Editor(_plain(DeltaDenoising), joint=False, alone=True, inversion=None),
    "CDS": Editor(_plain(ContrastiveDenoising), joint=False, alone=True, inversion=None),
    "Consist": Editor(
        lambda known, rows, **options: (Consist(known.word, targets=rows, **options),), joint=True
    ),
    "DirectEdit": Editor(_of_rows(DirectEdit), joint=True, inversion=DirectEdit.inversion),
    "DirectEdit, blend": Editor(
        lambda known, rows: (DirectEdit(targets=rows), LocalBlend(known.word, targets=rows)),
        joint=True, inversion=DirectEdit.inversion,
    ),
    "UniEdit": Editor(_plain(UniEdit), joint=True, alone=True, inversion=UniEdit.inversion),
    "KV-Edit, word": Editor(
        lambda known, rows, **options: (KVEdit(words=known.word, **options),), joint=True, alone=True
    ),
    "KV-Edit, mask": Editor(
        lambda known, rows, **options: (KVEdit(known.mask, **options),), joint=True, alone=True
    ),
    "FlowEdit": Editor(_plain(FlowEdit), joint=True, alone=True, inversion=None),
    "inpainting": Editor(
        lambda known, rows, **options: (Inpaint(known.mask, **options),), alone=True, inversion=None
    ),
    "re-noising": Editor(
        lambda known, rows, **options: (Inpaint(WHOLE, **options),), alone=True, inversion=None
    ),
}  # fmt: skip
DRAWN = {  # those that are measured on drawn images, by the kind of network
    False: (PLAIN, INJECTED, BLENDED, "MasaCtrl", "Plug-and-Play", "pix2pix-zero", "SEGA"),
    True: (PLAIN, INJECTED, BLENDED, "Consist", "DirectEdit", "DirectEdit, blend", "UniEdit", "KV-Edit, word",
           "KV-Edit, mask", "FlowEdit"),
}  # fmt: skip
