"""Editors of benchmarks as text, NAME[:OPTION=VALUE,...], and the ways of editing that a grid makes of them.

`none` has no control. The kinds of `promptweave edit` (replace, refine, auto, flow, inpaint ...) take its options, and
methods that are commands (masactrl, pnp, translate, dds, attend ...) take theirs; all take settings such as steps.
`p2p` is Prompt-to-Prompt as PIE-Bench's published rows ran it: refine, cross 0.4, self 0.6, and where the pair names
the words of the edit, local blend on them and twice the attention to the new one.

The value `pair` stands for what the data set knows: `blend=pair` and `words=pair` are the words of the edit, if it
names any, and `mask=pair` is its mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from promptweave import methods
from promptweave.core.control import Control
from promptweave.core.fields import Command, Listed, options_of
from promptweave.editing.fitting import covered
from promptweave.editing.inversions import json_or_text
from promptweave.editing.masks import FITTED
from promptweave.editing.options import PromptToPrompt
from promptweave.editing.settings import Settings
from promptweave.editing.values import nearest, numeric, read_option
from promptweave.editing.who_reads import ALONE, FIELDS, KINDS
from promptweave.evaluate.edit_pairs import EditPair
from promptweave.methods import LocalBlend, Refine, Reweight, SharedStart
from promptweave.models.base import Model
from promptweave.words.phrases import nouns

PAIR = "pair"
PUBLISHED: dict[str, Any] = {"kind": "refine", "cross": 0.4, "self_attention": 0.6}  # `p2p`
OF_THE_RUN = ("seed", "images", "size", "fit", "keep_original", "truncate")  # settings that all ways of a run share
COMMANDS: dict[str, tuple[Command, type[Control]]] = {
    kind.command.name: (kind.command, kind)
    for kind in vars(methods).values()
    if isinstance(kind, type) and isinstance(getattr(kind, "command", None), Command)
}
NAMES = ("none", "p2p", "auto", *KINDS, *(name for name in COMMANDS if name not in KINDS))
Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Way:
    """One way of editing. `options`: of the editor; `settings`: of the run. `strength`: the value of the grid's axis,
    if there is one axis of numbers."""

    editor: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    strength: float | None = None

    @property
    def shown(self) -> dict[str, Any]:
        """All that was set, as JSON values."""
        return {**self.options, **self.settings}

    @property
    def alone(self) -> bool:
        """Whether it takes one prompt, whose image it generates."""
        return self.editor in COMMANDS and COMMANDS[self.editor][0].prompts == "one"


@dataclass(frozen=True, eq=False)
class Call:
    """What a way asks for a pair: the targets, and `controls`, or options of Prompt-to-Prompt."""

    targets: tuple[str, ...]
    controls: tuple[Control, ...] | None
    options: Mapping[str, Any]


def read_ways(editors: Sequence[str], grid: Grid | None = None) -> list[Way]:
    """All ways of editing: each editor with each combination of the grid's values that it reads.

    Raises ValueError for names, options and values that there are not, and for an axis that no editor reads.
    """
    if not editors:
        raise ValueError(f"A benchmark has at least one editor. There are {', '.join(NAMES)}.")
    bases, grid = [_read(text) for text in editors], grid or {}
    unread = {name for name in grid if not any(_listed(way.editor, name) for way in bases)}
    if unread:
        name = sorted(unread)[0]
        known = [one.name for way in bases for one in _options(way.editor)]
        raise ValueError(f"None of the editors {', '.join(editors)} has the option {name!r}. {nearest(name, known)}")
    ways: list[Way] = []
    for base in bases:
        axes = [(listed, grid[name]) for name in grid if (listed := _listed(base.editor, name)) is not None]
        _check_once([listed.name for listed, _ in axes], base)
        steep = [listed for listed, values in axes if numeric(listed) and len(values) > 1]
        for values in product(*(values for _, values in axes)):
            way = base
            for (listed, _), value in zip(axes, values, strict=True):
                way = _with(way, listed, value)
                if len(steep) == 1 and listed is steep[0] and isinstance(value, int | float):
                    way = replace(way, strength=float(value))
            if way not in ways:
                ways.append(way)
    return ways


def _check_once(axes: Sequence[str], base: Way) -> None:
    """Raise ValueError for an option that is given twice, whatever its spelling."""
    twice = next((name for name in axes if axes.count(name) > 1 or name in base.shown), None)
    if twice is not None:
        raise ValueError(f"{twice} of {base.editor} is given twice, in the grid or beside it. Leave one of them out.")


def split_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Names with options from texts that may hold several, with commas between.

    >>> split_names(["none,replace:cross=0.4,self_attention=0.2:0.6,refine:cross=1"])
    ('none', 'replace:cross=0.4,self_attention=0.2:0.6', 'refine:cross=1')
    """
    found: list[str] = []
    for text in texts:
        for place, part in enumerate(text.split(",")):
            name, equals, _ = part.partition("=")
            if place and equals and ":" not in name:  # another option of the name before
                found[-1] += f",{part}"
            else:
                found.append(part.strip())
    return tuple(found)


def read_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Axes as text, OPTION=VALUE,VALUE,...

    >>> read_grid(["cross=0.2,0.8", "joint=0.4"])
    {'cross': [0.2, 0.8], 'joint': [0.4]}
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not all(part.strip() for part in values.split(",")) or name.strip() in found:
            raise ValueError(
                f"An axis of the grid is written OPTION=VALUE,VALUE,..., each option once. Received {text!r}."
            )
        found[name.strip()] = [_value(part.strip()) for part in values.split(",")]
    return found


def call_of(way: Way, pair: EditPair, model: Model) -> Call:
    """What a way asks for a pair. Raises ValueError where the pair lacks what it needs."""
    options = {name: value for name, value in way.options.items()}
    before, after = pair.words
    words = tuple(dict.fromkeys(before if way.editor in ALONE else (*before, *after)))  # ALONE look at the source only
    for name in ("blend", "words"):
        if options.get(name) == PAIR:
            options = {
                **{key: value for key, value in options.items() if key != name},
                **({name: words} if words else {}),
            }
    if options.get("mask") == PAIR:
        if pair.mask is None:
            raise ValueError(f"{pair.name} has no mask, which mask=pair asks for. Leave it out, or use other data.")
        options["mask"] = _reduced(pair.mask(), model)
    if way.editor == "none":
        return Call((pair.target,) if pair.target else (), (), {})
    if way.editor not in COMMANDS:
        return Call((pair.target,), None, _asked(way.editor, options, pair, words, model))
    command, kind = COMMANDS[way.editor]
    if command.prompts in ("same", "repeated"):
        if way.editor == "translate":
            options = {"source": (pair.source,), "target": (pair.target,), **options}
        return Call(command.targets(pair.source, options), (kind(**options),), {})
    if way.editor == "attend" and "words" not in options:
        options["words"] = tuple(nouns(model.words(pair.source).prompt))
    return Call(() if way.alone else (pair.target,), (kind(**options),), {})


def _reduced(mask: np.ndarray, model: Model) -> np.ndarray:
    """A mask with no more cells than a recipe keeps of it, or the model makes pixels."""
    longest = min(FITTED, *model.default_size)
    height, width = (max(1, round(side * longest / max(mask.shape))) for side in mask.shape)
    return mask if max(mask.shape) <= longest else covered(mask, (height, width))


def _asked(
    editor: str, options: dict[str, Any], pair: EditPair, words: tuple[str, ...], model: Model
) -> dict[str, Any]:
    """The options of `edit`."""
    if editor != "p2p":
        return {**({} if editor == "auto" else {"kind": editor}), **options}
    joint = any(site.kind == "joint" for site in model.sites((8, 8)))
    usual = {"kind": "refine"} if joint else PUBLISHED
    region = {"blend": words, "weights": {pair.words[1][0]: 2.0}} if words and not joint else {}
    return {**usual, **region, **options}


def _read(text: str) -> Way:
    name, _, options = text.strip().partition(":")
    if name not in NAMES:
        raise ValueError(f"There is no editor {name!r}. {nearest(name, NAMES)}")
    way = Way(name)
    for part in filter(None, (part.strip() for part in options.split(","))):
        option, equals, value = part.partition("=")
        listed = _listed(name, option.strip())
        if listed is None or not equals:
            known = [one.flag[2:] for one in _options(name)]
            raise ValueError(
                f"The options of an editor are written NAME:OPTION=VALUE,OPTION=VALUE. Received {part!r} of {name}. "
                f"{nearest(option, known)}"
            )
        way = _with(way, listed, _value(value.strip()))
    return way


def _value(text: str) -> Any:
    """A value of an option: JSON, a range 0.2:0.8, or text."""
    begin, colon, end = (json_or_text(part) for part in text.partition(":"))
    return (begin, end) if colon and not isinstance(begin, str) and not isinstance(end, str) else json_or_text(text)


def _with(way: Way, listed: Listed, value: Any) -> Way:
    """A way with an option set."""
    if not (value == PAIR and listed.name in ("blend", "words", "mask")):
        value = read_option(listed, value, f"{way.editor}: ")
    if listed in options_of(Settings):
        return replace(way, settings={**way.settings, listed.name: value})
    return replace(way, options={**way.options, listed.name: value})


def _options(editor: str) -> list[Listed]:
    """The options of an editor, and the settings that may differ between ways."""
    if editor == "none":
        own: list[Listed] = []
    elif editor in COMMANDS:
        own = list(options_of(COMMANDS[editor][1]))
    else:
        kind = KINDS.get(editor, Refine)
        readers = (kind,) if editor in ALONE else (kind, Reweight, SharedStart, LocalBlend)
        read = {name for reader in readers for name in FIELDS[reader]}
        own = [one for one in options_of(PromptToPrompt) if one.name in read]
    return [*own, *(one for one in options_of(Settings) if one.name not in OF_THE_RUN)]


def _listed(editor: str, name: str) -> Listed | None:
    """An option of an editor by its name or by its flag without dashes."""
    wanted = name.replace("-", "_")
    return next((one for one in _options(editor) if wanted in (one.name, one.flag[2:].replace("-", "_"))), None)
