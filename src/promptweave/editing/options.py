"""The controls that the options of an edit ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from promptweave.core.clock import Number, Span
from promptweave.core.control import Control, NoEffect
from promptweave.editing.recipe import Recipe
from promptweave.methods import Consist, FlowEdit, LocalBlend, Refine, Replace, Reweight, SharedStart
from promptweave.models.base import Model
from promptweave.words import WordNotFound, Words, suggest

Kind = Literal["auto", "replace", "refine", "flow", "consist"]


@dataclass(frozen=True)
class Options:
    """What can be asked of an edit, as `edit` explains it; `controls` replaces everything else."""

    kind: Kind = "auto"
    cross: Span | Mapping[str, Span] = 0.8
    self_attention: Span = 0.4
    self_grid: int | None = None
    joint: Span = 0.2
    blocks: tuple[str, ...] | None = None
    weights: Mapping[str, Number] | None = None
    blend: Sequence[str] | str = ()
    subtract: Sequence[str] | str = ()
    threshold: Number = 0.3
    blend_start: Number = 0.2
    mask: Sequence[Sequence[float]] | None = None
    combine: Literal["intersection", "union"] = "intersection"
    shared_start: Number | None = None
    strength: Number | None = None
    source_guidance: Number | None = None
    target_guidance: Number | None = None
    structure: Number = 0.3
    controls: Sequence[Control] | None = None
    reference_compat: bool = False


def build_controls(model: Model, recipe: Recipe, options: Options) -> tuple[Control, ...]:
    """The controls of an edit: injection for each target, then weights, then the local blend."""
    if options.controls is not None:
        return tuple(options.controls)
    o = options
    words = [model.words(prompt) for prompt in recipe.prompts]
    groups: dict[type[Replace] | type[Refine], list[int]] = {}
    for row, target in enumerate(words[1:], 1):
        found = suggest(words[0], target)
        if found == "same" and not o.weights:
            raise NoEffect(
                f"Target {row} says the same as the source, {recipe.source!r}. Change a word or give a weight."
            )
        group = Refine if o.kind == "refine" or (o.kind == "auto" and found == "refine") else Replace
        groups.setdefault(group, []).append(row)
    if o.kind == "consist":  # the words are those of the object, whose region the control itself keeps to
        return (Consist((o.blend,) if isinstance(o.blend, str) else tuple(o.blend), o.structure, blocks=o.blocks),)
    controls: list[Control] = []
    if o.kind == "flow":
        controls.append(FlowEdit(o.strength, source_guidance=o.source_guidance, target_guidance=o.target_guidance))
        groups = {}
    for group, rows in groups.items():
        chosen = None if len(groups) == 1 else tuple(rows)
        cross = _windows_of(o.cross, words, rows)
        controls.append(group(cross, o.self_attention, o.self_grid, chosen, o.reference_compat, o.joint, o.blocks))
    if o.weights:
        weights = dict(o.weights)
        controls.append(Reweight(weights, o.cross, reference_compat=True) if o.reference_compat else Reweight(weights))
    if o.shared_start is not None:
        controls.append(SharedStart(o.shared_start))
    if o.blend or o.mask is not None:
        names, without = ((w,) if isinstance(w, str) else tuple(w) for w in (o.blend, o.subtract))
        drawn = None if o.mask is None else tuple(tuple(float(v) for v in row) for row in o.mask)
        controls.append(
            LocalBlend(
                names,
                without,
                o.threshold,
                start=o.blend_start,
                mask=drawn,
                combine=o.combine,
                reference_compat=o.reference_compat,
            )
        )
    return tuple(controls)


def _windows_of(
    cross: Span | Mapping[str, Span], words: Sequence[Words], rows: Sequence[int]
) -> Span | Mapping[str, Span]:
    """The windows of some targets: without the words that other targets alone have."""
    if not isinstance(cross, Mapping):
        return cross
    having = {word: {row for row, target in enumerate(words) if row and _has(target, word)} for word in cross}
    return {word: span for word, span in cross.items() if not having[word] or having[word] & set(rows)}


def _has(words: Words, word: str) -> bool:
    """Whether a prompt has a word; of one that it has twice the controls complain."""
    try:
        words.find(word)
    except WordNotFound:
        return False
    except ValueError:
        return True
    return True
