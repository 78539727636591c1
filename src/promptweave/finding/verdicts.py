"""Who says whether an edit did what was asked, and how much stayed: the world's oracle, CLIP, or the attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from promptweave.core.control import Control, Hooks
from promptweave.core.record_maps import RecordedMaps
from promptweave.editing.recorders import columns
from promptweave.evaluate.judges import Clip
from promptweave.evaluate.metrics import layout, psnr
from promptweave.finding.demands import Demands
from promptweave.view.heat import heat
from promptweave.words import Words
from promptweave.words.edit_kinds import Change, region_words
from promptweave.world.oracle import Oracle, Sight

REGION = 0.3  # fraction of a map's maximum above which a pixel belongs to a word
CELLS = 32  # of the grid of mean colours, to a side
NEAR = 0.5  # of the way to the target without control, at which the maps' judge takes an edit for made
STILL = 1e-4  # a change of cosine similarity below which CLIP sees none
SIDE = 128  # pixels of the oracle's images
ENOUGH = 0.5  # a score above which an edit counts as made


@dataclass(frozen=True, eq=False)
class Look:
    """An image, uint8 [height, width, 3], and the attention maps of its prompt's words, [rows, columns, tokens]."""

    picture: np.ndarray
    maps: Float[Tensor, "rows columns tokens"] | None = None


@dataclass(frozen=True)
class Verdict:
    """`score`: how far the edit is made, 0 to 1, above `ENOUGH` if it is. `kept`: how much of what should stay did."""

    score: int | float
    kept: int | float

    @property
    def enough(self) -> bool:
        """Whether the edit counts as made."""
        return self.score > ENOUGH


@runtime_checkable
class EditJudge(Protocol):
    """Judges edits of one source."""

    @property
    def name(self) -> str:
        """Who it is, as in "made, by the world's oracle"."""
        ...

    @property
    def measure(self) -> str:
        """What `Verdict.kept` is."""
        ...

    @property
    def relative(self) -> bool:
        """Whether scores need the target without control."""
        ...

    @property
    def reads_maps(self) -> bool:
        """Whether looks must have maps."""
        ...

    def judge(self, source: Look, free: Look | None, edits: Sequence[Look]) -> list[Verdict]:
        """The verdict on each edit. `free`: the target without control, if `relative`."""
        ...


@dataclass(frozen=True, eq=False)
class OracleJudge:
    """The oracle of the synthetic world: every thing, colour, background and style that the prompts ask for."""

    oracle: Oracle
    demands: Demands
    name: str = "the world's oracle"
    measure: str = "PSNR of what should stay (dB)"
    relative: bool = False
    reads_maps: bool = False

    def judge(self, source: Look, free: Look | None, edits: Sequence[Look]) -> list[Verdict]:
        """One look of the oracle at all images."""
        before, *after = self._sights([source, *edits])
        return [
            Verdict(self.demands.score(sight), self._kept(source, before, edit, sight))
            for edit, sight in zip(edits, after, strict=True)
        ]

    def _kept(self, source: Look, before: Sight, edit: Look, after: Sight) -> float:
        stays = self.demands.stays(before, after)
        height, width = source.picture.shape[:2]
        region = np.asarray(Image.fromarray(stays).resize((width, height), Image.Resampling.NEAREST))
        found = psnr(source.picture, edit.picture, region if region.any() else None)
        return float(found)

    def _sights(self, looks: Sequence[Look]) -> list[Sight]:
        side = Image.Resampling.BILINEAR
        shown = [np.asarray(Image.fromarray(look.picture).resize((SIDE, SIDE), side)) for look in looks]
        return self.oracle.look(np.stack(shown))


@dataclass(frozen=True, eq=False)
class Regions:
    """Where an edit should change nothing, by the maps of the words that change: `old` and `new` are their columns
    in the recorded maps of the source and of the target. `kind` is the kind of edit."""

    kind: str
    old: tuple[int, ...]
    new: tuple[int, ...]

    @property
    def measure(self) -> str:
        """The name of what `kept` gives."""
        return "correlation of the edges" if self.kind == "style" else "PSNR outside the words' regions (dB)"

    def kept(self, source: Look, edit: Look) -> float:
        """PSNR outside the words' regions in both images; for a style the correlation of the edges, -1 to 1."""
        if self.kind == "style":
            return layout(source.picture, edit.picture)
        outside = ~self.inside(source, edit)
        return float(psnr(source.picture, edit.picture, outside if outside.any() else None))

    def inside(self, source: Look, *targets: Look) -> np.ndarray:
        """Where the words look in any of the images, bool [height, width]."""
        return np.any([self._of(source, self.old), *(self._of(look, self.new) for look in targets)], 0)

    def _of(self, look: Look, tokens: tuple[int, ...]) -> np.ndarray:
        height, width = look.picture.shape[:2]
        if look.maps is None or not tokens:
            return np.zeros((height, width), bool)
        return heat(look.maps[..., list(tokens)].sum(-1), (width, height)) > REGION


def regions_of(found: Change, source: Words, target: Words) -> Regions:
    """The regions of a change: of the words that go, in the source, and of those that come, in the target; for a colour
    of the thing that has it."""
    region = region_words(found, target)
    sides = (source, (*region, *found.old)), (target, (*region, *found.new))
    return Regions(found.kind, *(_columns(words, names) for words, names in sides))


def _columns(words: Words, names: Sequence[str]) -> tuple[int, ...]:
    """The places of words among the recorded columns of a prompt; a word that the prompt lacks has none."""
    kept = columns(words)
    found: dict[int, None] = {}
    for name in names:
        with suppress(ValueError):
            found |= dict.fromkeys(words.find(name))
    return tuple(kept.index(token) for token in found if token in kept)


def looked(pictures: np.ndarray, hooks: Sequence[Hooks], watch: Sequence[Control], prompt: int) -> Look:
    """What a judge sees of prompt 0 or of the last one (-1), of images [prompts, images, height, width, 3]. Recorders
    come last among the hooks: the maps of all prompts, and then the targets' own before the edit."""
    recorders = [hook for hook in hooks[len(hooks) - len(watch) :] if isinstance(hook, RecordedMaps)]
    if not recorders:
        return Look(pictures[prompt, 0])
    recorder = recorders[0 if prompt == 0 else -1]
    return Look(pictures[prompt, 0], recorder.maps.total(prompt % len(pictures))[0].float().cpu())


@dataclass(frozen=True, eq=False)
class MapsJudge:
    """The attention maps alone: how much of the change that the target makes without control the edit makes, where the
    changed words look. For networks and words that no other judge knows.

    The score is 1 minus the distance of the edit to the target without control, over the source's distance to it, in
    the mean colours of a grid; one of `NEAR` counts as made.
    """

    regions: Regions
    name: str = "the attention maps"
    relative: bool = True
    reads_maps: bool = True

    @property
    def measure(self) -> str:
        """What `Verdict.kept` is."""
        return self.regions.measure

    def judge(self, source: Look, free: Look | None, edits: Sequence[Look]) -> list[Verdict]:
        """Each edit against the source and the target without control."""
        assert free is not None
        return [Verdict(self._made(source, free, edit), self.regions.kept(source, edit)) for edit in edits]

    def _made(self, source: Look, free: Look, edit: Look) -> float:
        region = self.regions.inside(source, edit, free)
        before, wanted, found = (_coarse(look.picture, region) for look in (source, free, edit))
        way = float(np.linalg.norm(wanted - before))
        near = 1 - float(np.linalg.norm(wanted - found)) / way if way else 0.0
        return float(np.interp(near, (0, NEAR, 1), (0, ENOUGH, 1)))


@dataclass(frozen=True, eq=False)
class ClipJudge:
    """CLIP: how far the image's similarity to the target's prompt went from the source's to that of the target without
    control; half the way counts as made. `clip`: `evaluate.judges.Clip`; `prompt`: the target's."""

    clip: Clip
    prompt: str
    regions: Regions
    name: str = "CLIP"
    relative: bool = True
    reads_maps: bool = True

    @property
    def measure(self) -> str:
        """What `Verdict.kept` is."""
        return self.regions.measure

    def judge(self, source: Look, free: Look | None, edits: Sequence[Look]) -> list[Verdict]:
        """Each edit against the source and the target without control."""
        assert free is not None
        text = self.clip.text(self.prompt)
        before, wanted, *found = (float(self.clip.image(look.picture) @ text) for look in (source, free, *edits))
        way = wanted - before
        shares = [0.0 if abs(way) < STILL else (value - before) / way for value in found]
        return [
            Verdict(float(np.clip(share, 0, 1)), self.regions.kept(source, edit))
            for share, edit in zip(shares, edits, strict=True)
        ]


def _coarse(picture: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The mean colours [cells, 3] of a region, on a grid of CELLS x CELLS; of the whole image if it is empty."""
    small = np.asarray(Image.fromarray(picture).resize((CELLS, CELLS), Image.Resampling.BOX)).astype(float)
    inside = np.asarray(Image.fromarray(region).resize((CELLS, CELLS), Image.Resampling.NEAREST))
    return small[inside] if inside.any() else small.reshape(-1, 3)
