"""Training-Free Structured Diffusion Guidance for Compositional Synthesis (Feng et al. 2023, arXiv 2212.05032).

In the encoding c_0 of a whole prompt every token depends on all words before it, so "a red car and a blue bike" can
make the bike red too. A noun phrase encoded alone depends on its own words only. So each phrase is encoded separately,
and c_j is c_0 with the phrase's own rows at the phrase's positions (start, end and padding stay). In the conditional
half of all cross-attention layers and steps, with k phrases, either the values come from all encodings
(`variant="values"`, section 3.2),

    O = softmax(Q K(c_0)^T) (1 / (k + 1)) sum over j = 0 .. k of V(c_j),

which is one attention call with the mean encoding, as V is linear; or the keys do (`variant="keys"`, for conjunctions),

    O = (1 / (k + 1)) sum over j = 0 .. k of softmax(Q K(c_j)^T) V(c*),

where c* is c_0 with all phrases at their positions, inner ones over outer ones.

Differs from the authors' code: theirs writes c* into c_0 itself, so that the first keys are K(c*); phrases are found by
character offsets, so words may have several tokens in both variants; the default parser is spaCy's dependency parser
(theirs is a constituency parser).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Control, Hooks, NoEffect, Run, Text
from promptweave.core.encoded import Conditioned
from promptweave.core.fields import Command, Option
from promptweave.core.pattern import Pattern
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.words import Words
from promptweave.words.parts import part
from promptweave.words.phrases import noun_phrases

Encoding = Float[Tensor, "tokens dim"]


def aligned(whole: Encoding, phrase: Float[Tensor, "own dim"], places: Sequence[int]) -> Encoding:
    """c_j: `whole` with the phrase's own rows, those after its start token, at `places`."""
    return whole.index_copy(0, torch.tensor(places, device=whole.device), phrase[1 : 1 + len(places)].to(whole))


@dataclass(frozen=True)
class StructuredDiffusion(Control):
    """Bind every adjective to its own noun (Structured Diffusion Guidance).

    `phrases`: the noun phrases, as text or as character offsets (start, end), outer ones before inner ones; None: those
    that spaCy finds in each prompt. `variant`: what comes from several encodings, "values" or "keys". `prompts`: the
    rows, None: all. Raises ValueError for models without cross-attention, NoParser if spaCy is needed and missing,
    WordNotFound for a phrase that a prompt lacks, and NoEffect if every phrase is a whole prompt.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"cross"})
    command: ClassVar[Command] = Command(
        "compose",
        "Encode noun phrases separately, so that colours stay with their things (Structured Diffusion Guidance).",
        example='"a red car and a blue bike"',
    )
    phrases: Annotated[
        tuple[str | tuple[int, int], ...] | None,
        Option(
            "Noun phrase to encode separately. [those in brackets, or found by spaCy]",
            group="What changes",
            flag="--phrase",
            metavar="PHRASE",
        ),
    ] = None
    variant: Annotated[
        str, Option("What comes from several encodings: values, or keys for conjunctions.", metavar="values|keys")
    ] = "values"
    prompts: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        if self.variant not in ("values", "keys"):
            raise ValueError(f"variant is 'values' or 'keys'. Received {self.variant!r}.")
        if not any(site.kind == "cross" for site in run.sites):
            raise ValueError(
                "StructuredDiffusion gives cross-attention keys and values from different texts, and in this model's "
                "joint layers the text itself changes from layer to layer. Choose Stable Diffusion 1, 2 or XL."
            )
        rows = run.chosen(self.prompts)
        found = {row: self._found(run.words[row]) for row in rows}
        if self.phrases and not any(found.values()):
            raise NoEffect(
                "A phrase must be a part of its prompt; the whole prompt is encoded anyway. "
                f"Received {', '.join(map(repr, self.phrases))}."
            )
        return _Composing(run, {row: phrases for row, phrases in found.items() if phrases}, self.variant)

    def _found(self, words: Words) -> list[tuple[str, tuple[int, ...]]]:
        """The text of each phrase, as a prompt of its own, and its token positions."""
        selectors = noun_phrases(words.prompt) if self.phrases is None else self.phrases
        found: list[tuple[str, tuple[int, ...]]] = []
        for selector in selectors:
            places = words.find(selector)
            units = [unit for unit in words.units if set(unit.tokens) & set(places)]
            if len(units) < len(words.units):
                found.append((part(words, units[0].start, units[-1].end), places))
        return found


@dataclass
class _Composing(Hooks):
    run: Run
    phrases: dict[int, list[tuple[str, tuple[int, ...]]]]
    variant: str
    keys: dict[int, Float[Tensor, "phrases tokens dim"]] = field(default_factory=dict[int, Tensor])
    texts: Conditioned = field(default_factory=Conditioned)

    @cached_property
    def encodings(self) -> dict[str, Float[Tensor, "own dim"]]:
        """Each phrase, encoded alone: its start token and its words."""
        texts = list(dict.fromkeys(text for phrases in self.phrases.values() for text, _ in phrases))
        own = [[token for unit in self.run.read(text).units for token in unit.tokens] for text in texts]
        made = self.run.encode(texts).cond if texts else ()
        return {text: rows[[0, *tokens]] for text, rows, tokens in zip(texts, made, own, strict=True)}

    def condition(self, step: Step, text: Text) -> Text:
        return self.texts(text, lambda: self._composed(text))

    def _composed(self, text: Text) -> Text:
        values = list(text.values.unbind(0))
        for row, phrases in self.phrases.items():
            if self.variant == "values":
                parts = [aligned(values[row], self.encodings[name], places) for name, places in phrases]
                values[row] = torch.stack([values[row], *parts]).mean(0)
                continue
            whole = text.keys[row]
            self.keys[row] = torch.stack([aligned(whole, self.encodings[name], places) for name, places in phrases])
            for name, places in phrases:
                values[row] = aligned(values[row], self.encodings[name], places)
        return text.with_values(torch.stack(values)) if self.phrases else text

    def state(self, step: Step) -> bool:
        return bool(self.keys)

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if site.kind != "cross":
            return rows
        for row, contexts in self.keys.items():
            own, fraction = rows["cond"][row], 1 / (len(contexts) + 1)
            pattern = own.pattern * fraction
            for k in rows.keys_of(contexts):
                pattern = pattern + Pattern.of(own.q, k.expand_as(own.k)) * fraction
            rows = rows.put("cond", row, pattern=pattern)
        return rows

    def report(self) -> dict[str, Any]:
        return {"phrases": {str(row): [name for name, _ in phrases] for row, phrases in self.phrases.items()}}
