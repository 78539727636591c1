"""The controls that the options of an edit ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from promptweave.core.clock import Number, Span
from promptweave.core.control import Control, NoEffect
from promptweave.core.fields import Option
from promptweave.editing.recipe import Recipe
from promptweave.methods import Consist, FlowEdit, LocalBlend, Refine, Replace, Reweight, SharedStart
from promptweave.models.base import Model
from promptweave.words import WordNotFound, Words, suggest

Kind = Literal["auto", "replace", "refine", "flow", "consist"]
Combine = Literal["intersection", "union"]


@dataclass(frozen=True)
class PromptToPrompt:
    """What can be asked of an edit by words. An option that is None is left to the control that reads it."""

    kind: Annotated[
        Kind,
        Option(
            "How the target is edited: replace (word swap), refine (added phrase), auto (whichever the prompts look "
            "like); for Stable Diffusion 3 and FLUX also flow (FlowEdit) and consist (keep all but what blend names).",
            group="What changes",
        ),
    ] = "auto"
    cross: Annotated[
        Span | Mapping[str, Span],
        Option(
            "Fraction or range of the steps in which the source's cross-attention is used; also word by word.",
            low=0, high=1, metavar="[WORD=]FRACTION",
        ),
    ] = 0.8  # fmt: skip
    self_attention: Annotated[
        Span,
        Option(
            "Fraction or range of the steps in which the source's self-attention is used.",
            low=0, high=1, flag="--self", metavar="FRACTION",
        ),
    ] = 0.4  # fmt: skip
    self_grid: Annotated[
        int | None,
        Option(
            "Pixels of the largest self-attention map that is used. [a quarter of the latent's sides]",
            low=1, group="Advanced",
        ),
    ] = None  # fmt: skip
    joint: Annotated[
        Span,
        Option(
            "Fraction or range of the steps in which the source's image tokens are used, in networks of joint "
            "attention.",
            low=0, high=1, metavar="FRACTION",
        ),
    ] = 0.2  # fmt: skip
    blocks: Annotated[
        tuple[str, ...] | None,
        Option("Name of a joint-attention layer to act in. [all]", group="Advanced", flag="--block", metavar="NAME"),
    ] = None
    weights: Annotated[
        Mapping[str, Number] | None,
        Option(
            "Factor on the attention that a word gets.",
            group="What changes", flag="--weight", short="w", metavar="WORD=FACTOR",
        ),
    ] = None  # fmt: skip
    blend: Annotated[
        Sequence[str] | str, Option("Word in whose region alone the image may change.", group="Where", metavar="WORD")
    ] = ()
    subtract: Annotated[
        Sequence[str] | str, Option("Word whose region must not change.", group="Where", metavar="WORD")
    ] = ()
    threshold: Annotated[
        Number,
        Option("Fraction of a map's maximum above which it belongs to the region.", low=0, high=1, group="Where"),
    ] = 0.3
    blend_start: Annotated[
        Number, Option("Fraction of the steps before the local blend.", low=0, high=1, group="Where")
    ] = 0.2
    mask: Annotated[
        Sequence[Sequence[float]] | None,
        Option("Drawn region in which the image may change: white, or 1.", low=0, high=1, group="Where"),
    ] = None
    combine: Annotated[
        Combine,
        Option("How the mask and the region of the words are combined.", group="Where"),
    ] = "intersection"
    shared_start: Annotated[
        Number | None, Option("Fraction of the steps that all prompts have in common.", low=0, high=1)
    ] = None
    strength: Annotated[
        Number | None, Option("Of kind flow: fraction of the steps that act. [as published]", low=0, high=1)
    ] = None
    source_guidance: Annotated[
        Number | None, Option("Of kind flow: guidance of the source. [as published]", low=0, group="Advanced")
    ] = None
    target_guidance: Annotated[
        Number | None, Option("Of kind flow: guidance of the targets. [as published]", low=0, group="Advanced")
    ] = None
    structure: Annotated[
        Number, Option("Of kind consist: fraction of the steps in which the object's shape is kept.", low=0, high=1)
    ] = 0.3
    reference_compat: Annotated[bool, Option("Maps, windows and regions of the authors' code.", group="Advanced")] = (
        False
    )


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
