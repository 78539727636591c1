"""ConceptAttention (Helbling et al. 2025, arXiv 2502.04320): where concepts are that the prompt need not name.

In joint networks a third stream rides along: one token for each concept. In each block that has a stream for the text,
its states c are normalised, projected and updated by the text's weights, and with q, k, v those of concepts (c) and
image (x),

    o_c = softmax(q_c [k_c; k_x]^T / sqrt(d)) [v_c; v_x],

while image and text run as ever. The map of concept j at pixel p is the softmax over the concepts of <o_c[j], o_x[p]>,
the outputs of attention before their projection, heads concatenated; averaged over layers and steps. `space="cross"`
takes q_x[p] . k_c[j] / sqrt(d) instead, averaged over heads: what attention itself would give the concepts.

The stream is modulated by the time and an empty pooled text. A concept is encoded alone. Its token is its first piece
in T5, which reads in both directions, and its last in CLIP, which reads from left to right; of a phrase, that of the
last word.

Differs from the authors' code: the cross-attention maps take keys of concepts and turned queries of the image (theirs
are products of queries), and Stable Diffusion 3 keeps its prompt (theirs puts the concepts in its place, which gives
another image).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Control, Hooks, Run
from promptweave.core.kept import NOTHING, Kept
from promptweave.core.riders import Ride, Riders
from promptweave.core.site import Site, Sites
from promptweave.editing.result import Result
from promptweave.maps.word_maps import WordMaps

Space = Literal["output", "cross"]
SHARE = 0.2  # of FLUX's double blocks, the last ones, whose maps are averaged: 15 to 18 of 19, as the authors have it


@dataclass(frozen=True)
class ConceptAttention(Control):
    """Record where `concepts` are; needs joint attention, and changes nothing.

    `sites`: the layers to average; None: the last double blocks of FLUX, elsewhere `run.map_sites`. `space`: see above.
    `prompts`: the rows, None: all that are computed. Raises ValueError for other networks, for fewer than two
    concepts (a map is a fraction among them: name what surrounds the thing, too) and for one that stands twice.
    """

    concepts: tuple[str, ...]
    sites: Sites | None = None
    space: str = "output"  # "output" or "cross"
    prompts: tuple[int, ...] | None = None

    def reads(self, run: Run) -> Kept:
        return NOTHING

    def bind(self, run: Run) -> ConceptMaps:
        check_concepts(self.concepts)
        if self.space not in ("output", "cross"):
            raise ValueError(f'space must be "output" or "cross". Received {self.space!r}.')
        streams = [site for site in run.sites if site.kind == "joint" and not site.name.startswith("stream_single")]
        if not streams:
            raise ValueError(
                "ConceptAttention needs the text stream of joint attention (Stable Diffusion 3, FLUX, toybox-dit). "
                "This network reads text by cross-attention. Name the concepts in the prompt, and read their word maps."
            )
        flux = len(streams) < sum(site.kind == "joint" for site in run.sites)
        last = streams[-max(1, round(SHARE * len(streams))) :]
        usual = last if flux else [site for site in streams if site in run.map_sites]
        chosen = [site for site in streams if site in self.sites] if self.sites is not None else usual
        if not chosen:
            raise ValueError(
                f"sites must be layers whose text has a stream of its own: {', '.join(s.name for s in streams)}. "
                f"Received {self.sites}."
            )
        return ConceptMaps(run, tuple(self.concepts), Sites(names=tuple(s.name for s in chosen)), self.space,
                           run.chosen(self.prompts))  # fmt: skip


class ConceptMaps(Hooks):
    """One run of `ConceptAttention`: sums of maps over layers and steps, for each prompt."""

    def __init__(self, run: Run, concepts: tuple[str, ...], sites: Sites, space: str, prompts: tuple[int, ...]) -> None:
        self.concepts, self.sites, self.space, self.prompts = concepts, sites, space, prompts
        self.images, self.first = run.images, run.recorded
        texts = run.encode(concepts).cond
        places = [place_of(run.read(concept)) for concept in concepts]
        self._riders = Riders(texts[range(len(places)), places], self._look)
        self._total: Tensor | None = None
        self._count = 0

    def riders(self, step: Step) -> Riders:
        return self._riders

    def _look(self, site: Site, ride: Ride) -> None:
        if site not in self.sites:
            return
        scores = similarity(ride, self.space).softmax(-1)
        scores = scores.unflatten(0, (-1, self.images)).unflatten(2, site.grid)
        self._total = scores if self._total is None else self._total + scores
        self._count += 1

    def mean(self, prompt: int) -> Float[Tensor, "images height width concepts"]:
        """The maps of a prompt's images, whose concepts sum to 1 at each pixel."""
        if prompt not in self.prompts or self._total is None:
            raise ValueError(f"Concepts were recorded for the prompts {self.prompts}. Received {prompt}.")
        return self._total[prompt - self.first] / self._count

    def report(self) -> dict[str, Any]:
        return {"concepts": list(self.concepts), "layers": list(self.sites.names or ())}


def similarity(ride: Ride, space: str) -> Float[Tensor, "rows pixels riders"]:
    """How near each pixel is to each concept, in single precision at least."""
    if space == "output":
        image, concepts = ride.image_outputs, ride.outputs
        kind = torch.promote_types(image.dtype, torch.float32)
        return image.to(kind) @ concepts.to(kind).transpose(-1, -2)
    q, k = ride.image_queries, ride.keys
    kind = torch.promote_types(q.dtype, torch.float32)
    return (q.to(kind) @ k.to(kind).transpose(-1, -2)).mean(1) * q.shape[-1] ** -0.5


def place_of(words: Any) -> int:
    """The column of a concept's token among those of its text (`words.Words`)."""
    own = words.own(words.words[-1]) if words.words else ()
    if not own:
        raise ValueError(f"A concept is a word or a phrase that the model can read. Received {words.prompt!r}.")
    beside = [column for column in own if column not in words.places]  # of T5, whose tokens follow CLIP's
    if beside:
        return beside[0]
    begins = any(words.places[0] in unit.tokens for unit in words.units)  # T5 has no start token
    return own[0] if begins else own[-1]


def check_concepts(concepts: Sequence[str]) -> None:
    """Raise ValueError for concepts that cannot be compared."""
    known = [" ".join(concept.lower().split()) for concept in concepts]
    if len(known) < 2 or not all(known) or len(set(known)) < len(known):
        raise ValueError(
            "Concepts are compared with each other at each pixel: give at least two different ones, such as the thing "
            f"and what surrounds it, cat,grass,sky. Received {list(concepts)}."
        )


def concepts_of(result: Result, row: int, *, recorder: int) -> WordMaps:
    """The maps of concepts of a run's first image, from its recorder."""
    hook = result.watched[recorder]
    assert isinstance(hook, ConceptMaps)
    names = tuple((concept, (place,)) for place, concept in enumerate(hook.concepts))
    picture = Image.fromarray(result.sample.pictures[row, 0])
    return WordMaps(result.sample.run.prompts[row], picture, hook.mean(row)[0].float().cpu(), names)
