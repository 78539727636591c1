"""The controls that the options of an edit ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from promptweave.core.control import Control, NoEffect
from promptweave.methods import LocalBlend, Refine, Replace, Reweight, SharedStart
from promptweave.models.base import Model
from promptweave.recipe import Recipe
from promptweave.words import suggest

Kind = Literal["auto", "replace", "refine"]
Number = int | float
Span = Number | tuple[Number, Number]


def build_controls(
    model: Model,
    recipe: Recipe,
    kind: Kind,
    cross: Any,
    self_attention: Any,
    self_grid: int | None,
    joint: Span,
    blocks: tuple[str, ...] | None,
    weights: Mapping[str, Number],
    blend: Sequence[str] | str,
    subtract: Sequence[str] | str,
    threshold: Number,
    blend_start: Number,
    mask: Any,
    combine: Literal["intersection", "union"],
    shared_start: Number | None,
    reference_compat: bool,
) -> list[Control]:
    """The controls of an edit: injection for each target, then weights, then the local blend."""
    words = [model.words(prompt) for prompt in recipe.prompts]
    groups: dict[type[Replace] | type[Refine], list[int]] = {}
    for row, target in enumerate(words[1:], 1):
        found = suggest(words[0], target)
        if found == "same" and not weights:
            raise NoEffect(
                f"Target {row} says the same as the source, {recipe.source!r}. Change a word or give a weight."
            )
        group = Refine if kind == "refine" or (kind == "auto" and found == "refine") else Replace
        groups.setdefault(group, []).append(row)
    controls: list[Control] = []
    for group, rows in groups.items():
        chosen = None if len(groups) == 1 else tuple(rows)
        controls.append(group(cross, self_attention, self_grid, chosen, reference_compat, joint, blocks))
    if weights:
        controls.append(Reweight(dict(weights)))
    if shared_start is not None:
        controls.append(SharedStart(shared_start))
    if blend or mask is not None:
        names, without = ((w,) if isinstance(w, str) else tuple(w) for w in (blend, subtract))
        drawn = None if mask is None else tuple(tuple(float(v) for v in row) for row in mask)
        controls.append(
            LocalBlend(
                names,
                without,
                threshold,
                start=blend_start,
                mask=drawn,
                combine=combine,
                reference_compat=reference_compat,
            )
        )
    return controls
