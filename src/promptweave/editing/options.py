"""The options of a Prompt-to-Prompt edit, the controls that they request, and which control reads which option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from promptweave.core.clock import LARGEST, Number, Span
from promptweave.core.control import Control, NoEffect
from promptweave.core.fields import Option
from promptweave.editing.recipe import Recipe
from promptweave.editing.settings import RunOptions
from promptweave.editing.usual_strengths import PUBLISHED, Strengths, usual_strengths
from promptweave.editing.values import read_options
from promptweave.editing.who_reads import ALONE, FIELDS, KINDS, WHOLE
from promptweave.methods import Inpaint, LocalBlend, Refine, Replace, Reweight, SharedStart
from promptweave.models.base import Model
from promptweave.sampling.noise_levels import masked
from promptweave.words import WordNotFound, Words, suggest
from promptweave.words.edit_kinds import weighted_words

Kind = Literal[
    "auto", "replace", "refine", "flow", "consist", "uniedit", "directedit", "kvedit", "dds", "cds", "inpaint"
]  # fmt: skip
Combine = Literal["intersection", "union"]


@dataclass(frozen=True)
class PromptToPrompt:
    """The options of a Prompt-to-Prompt edit. None stands for the default of the control that reads the option."""

    kind: Annotated[
        Kind,
        Option(
            "How: replace (word swap), refine (added phrase), auto (whichever the prompts look like); for Stable "
            "Diffusion 3 and FLUX also flow (FlowEdit), consist, uniedit, directedit and kvedit (keep all but blend or "
            "mask), for the others dds and cds; inpaint regenerates the region of the mask.",
            group="What changes",
        ),
    ] = "auto"
    cross: Annotated[
        Span | Mapping[str, Span] | None,
        Option(
            "Fraction or range of the steps in which the source's cross-attention is used; also per word. [by the kind "
            "of edit: 0.8, for a background or an added thing less]",
            low=0, high=1, metavar="[WORD=]FRACTION",
        ),
    ] = None  # fmt: skip
    self_attention: Annotated[
        Span | None,
        Option(
            "Fraction or range of the steps in which the source's self-attention is used. [by the kind of edit: 0.4 or "
            "less]",
            low=0, high=1, metavar="FRACTION",
        ),
    ] = None  # fmt: skip
    self_grid: Annotated[
        int | None,
        Option(
            "Largest self-attention grid that is used, in pixels. [a quarter of the latent's height and width]",
            low=1, group="Advanced",
        ),
    ] = None  # fmt: skip
    joint: Annotated[
        Span | None,
        Option(
            "Fraction or range of the steps in which the source's image tokens are used, in networks with joint "
            "attention. [by the kind of edit: 0.2 or less]",
            low=0, high=1, metavar="FRACTION",
        ),
    ] = None  # fmt: skip
    blocks: Annotated[
        tuple[str, ...] | None,
        Option(
            "Name or role (masked, global, vital) of joint layers to edit. [all]",
            group="Advanced", flag="--block", metavar="NAME",
        ),
    ] = None  # fmt: skip
    weights: Annotated[
        Mapping[str, Number] | None,
        Option(
            "Factor on the attention to a word.", low=-LARGEST, high=LARGEST,
            group="What changes", flag="--weight", short="w", metavar="WORD=FACTOR",
        ),
    ] = None  # fmt: skip
    blend: Annotated[
        Sequence[str] | str, Option("Restrict changes to the region of this word.", group="Where", metavar="WORD")
    ] = ()
    subtract: Annotated[
        Sequence[str] | str, Option("Word whose region must not change.", group="Where", metavar="WORD")
    ] = ()
    threshold: Annotated[
        Number,
        Option("Fraction of a map's maximum above which it belongs to the region.", low=0, high=1, group="Where"),
    ] = 0.3
    blend_start: Annotated[
        Number, Option("Fraction of the steps after which the local blend starts.", low=0, high=1, group="Where")
    ] = 0.2
    mask: Annotated[
        Sequence[Sequence[float]] | None,
        Option(
            "Mask of the region in which the image may change (white, or 1).", low=0, high=1, group="Where", mask=True
        ),
    ] = None
    combine: Annotated[
        Combine,
        Option("How the mask and the region of the words are combined.", group="Where"),
    ] = "intersection"
    shared_start: Annotated[
        Number | None, Option("Fraction of the steps that all prompts share with the source.", low=0, high=1)
    ] = None
    strength: Annotated[
        Number | None,
        Option("Of flow, uniedit, kvedit and inpaint: fraction of the steps that act. [as published]", low=0, high=1),
    ] = None
    source_guidance: Annotated[
        Number | None, Option("For kind flow: guidance scale of the source. [as published]", low=0, group="Advanced")
    ] = None
    target_guidance: Annotated[
        Number | None,
        Option("For kinds flow and uniedit: guidance scale of the targets. [as published]", low=0, group="Advanced"),
    ] = None
    omega: Annotated[
        Number, Option("For kind uniedit: how far the difference of the velocities is followed.", low=0)
    ] = 5.0
    inject: Annotated[
        Span,
        Option(
            "For kind directedit: fraction or range of the steps that use the source's values.",
            low=0, high=1, metavar="FRACTION",
        ),
    ] = 0.1  # fmt: skip
    reinitialise: Annotated[bool, Option("For kind kvedit: start inside the region from new noise.")] = False
    structure: Annotated[
        Number, Option("For kind consist: fraction of the steps in which the object's shape is kept.", low=0, high=1)
    ] = 0.3
    resamplings: Annotated[
        int, Option("For kind inpaint: how often each jump is made (RePaint); 1: none.", low=1, high=1000)
    ] = 1
    jump: Annotated[
        int, Option("For kind inpaint with resamplings: steps of a jump back.", low=1, high=10_000, group="Advanced")
    ] = 10  # fmt: skip
    reference_compat: Annotated[
        bool, Option("Maps, windows and regions as in the authors' code.", group="Advanced")
    ] = False
    two_pass: Annotated[
        bool,
        Option("Algorithm 1 of the paper to the letter: a separate pass for the target's maps.", group="Advanced"),
    ] = False

    def __post_init__(self) -> None:
        for name, value in read_options(PromptToPrompt, vars(self)).items():
            object.__setattr__(self, name, value)

    def build(self, model: Model, recipe: Recipe) -> tuple[Control, ...]:
        """The controls: injection for each target, then weights, then the local blend."""
        made = self.controls([model.words(prompt) for prompt in recipe.prompts], recipe.steps)
        if masked(model) is None or self.mask is None or self.kind == "inpaint":
            return made
        return (self._made(Inpaint), *made)  # the network reads the mask, whatever else edits

    def controls(self, words: Sequence[Words], steps: int) -> tuple[Control, ...]:
        """The controls that edit the first prompt into the others, in a run of so many steps."""
        groups: dict[tuple[type[Control], Strengths], list[int]] = {}
        for row, target in enumerate(words[1:], 1):
            found = suggest(words[0], target)
            if found == "same" and not self.weights and self.kind != "inpaint":
                raise NoEffect(
                    f"Target {row} has the source's words, {words[0].prompt!r}. Change a word or give a weight."
                )
            kind = KINDS.get(self.kind) or (Refine if found == "refine" else Replace)
            groups.setdefault((kind, self._usual(words[0], target, steps)), []).append(row)
        if self.kind in ALONE:
            return (self._made(KINDS[self.kind]),)
        if self.kind in WHOLE:
            made = [self._made(KINDS[self.kind])]
        else:
            made = [
                self._injected(kind, words, rows, usual, alone=len(groups) == 1)
                for (kind, usual), rows in groups.items()
            ]
        made += (
            [self._made(Reweight, **({"window": self._compat} if self.reference_compat else {}))]
            if self.weights
            else []
        )
        made += [self._made(SharedStart)] if self.shared_start is not None else []
        drawn = self.mask is not None and self.kind != "inpaint"
        made += [self._made(LocalBlend)] if self.blend or drawn else []
        return tuple(made)

    @property
    def _compat(self) -> Span | Mapping[str, Span]:
        """The window of cross-attention, as the authors' code has it."""
        return PUBLISHED.cross if self.cross is None else self.cross

    def _usual(self, source: Words, target: Words, steps: int) -> Strengths:
        """The strengths of a target for windows that were not given; as published with `reference_compat`."""
        if self.reference_compat or None not in (self.cross, self.self_attention, self.joint):
            return PUBLISHED
        return usual_strengths(source, target, steps, weighted_words(self.weights))[1]

    def _injected(
        self, kind: type[Control], words: Sequence[Words], rows: Sequence[int], usual: Strengths, *, alone: bool
    ) -> Control:
        """The injection for some targets, without the windows of words that only other targets have."""
        cross = usual.cross if self.cross is None else self.cross
        if isinstance(cross, Mapping):
            having = {word: {row for row, target in enumerate(words) if row and _has(target, word)} for word in cross}
            cross = {word: span for word, span in cross.items() if not having[word] or having[word] & set(rows)}
        windows = {name: value for name, value in usual.windows.items() if getattr(self, name) is None}
        return self._made(kind, **{**windows, "cross": cross, "targets": None if alone else tuple(rows)})

    def _made(self, kind: type[Control], **more: Any) -> Control:
        """A control with the options that it has a field for; for an option that is None its own default."""
        values = {field: getattr(self, option) for option, field in FIELDS[kind].items()}
        return kind(**{**{field: value for field, value in values.items() if value is not None}, **more})


def _has(words: Words, word: str) -> bool:
    """Whether a prompt contains a word; ambiguous words are reported by the controls."""
    try:
        words.find(word)
    except WordNotFound:
        return False
    except ValueError:
        return True
    return True


class EditOptions(RunOptions, total=False):
    """The fields of `PromptToPrompt` and of `Settings` as keyword arguments."""

    kind: Kind
    cross: Span | Mapping[str, Span] | None
    self_attention: Span | None
    self_grid: int | None
    joint: Span | None
    blocks: tuple[str, ...] | None
    weights: Mapping[str, Number] | None
    blend: Sequence[str] | str
    subtract: Sequence[str] | str
    threshold: Number
    blend_start: Number
    mask: Any  # what `masks.read_mask` reads, such as rows of zeros and ones, a path or an array; or a way to find one
    combine: Combine
    shared_start: Number | None
    strength: Number | None
    source_guidance: Number | None
    target_guidance: Number | None
    omega: Number
    inject: Span
    reinitialise: bool
    structure: Number
    resamplings: int
    jump: int
    reference_compat: bool
    two_pass: bool
