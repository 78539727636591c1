"""Every method of the library that edits, with its main strength: what `bench world` and `bench curves` measure.

A method makes of a pair of the world and a strength the `Setup` of an edit. Words, where a method needs some, are those
of the things that change; a mask, where it needs one, is where the two drawn images differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptweave.benchmarks.editors import EDITORS, Known
from promptweave.core.control import Control, NoEffect
from promptweave.editing.masks import rows as rows_of
from promptweave.methods import LocalBlend, Refine, Replace, Reweight
from promptweave.models.base import Model
from promptweave.sampling.guidance import effective
from promptweave.sampling.loop import FLOW
from promptweave.words import suggest
from promptweave.world.counterfactuals import Counterfactual

FEW = 10  # most steps of TurboEdit
FRACTIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PARTS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of methods that edit nothing at 0
SKIPPED = (0.0, 0.2, 0.4, 0.6, 0.8)
NO_CONTROL, NO_EDIT, TRUE_MASK = "no control", "no edit", "inpainting, true mask"
REFERENCES = (NO_EDIT, NO_CONTROL, TRUE_MASK)


@dataclass(frozen=True)
class Setup:
    """An edit of one pair. `inversion`: of a given image; `given`: the method edits given images only, so a generated
    source is given to it. `same`: the target has the source's prompt. `row`: the row of the run that is judged."""

    controls: tuple[Control, ...] = ()
    inversion: str = "direct"
    given: bool = False
    same: bool = False
    row: int = 1


Make = Callable[[Model, Counterfactual, float], Setup]


@dataclass(frozen=True)
class Method:
    """A method and the sweep of its main `strength`: its `values`, of which `usual` is the library's default.

    `fixed`: settings that stay. `flow`: for flow models (True), for the others (False) or for both (None).
    """

    name: str
    strength: str
    values: tuple[float, ...]
    usual: float
    make: Make
    flow: bool | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    most: int | None = None  # steps
    guided: bool = False  # needs classifier-free guidance
    masked: bool = False  # needs the true region, which is known of drawn sources only
    together: bool = False  # its strengths can be targets of one run, as its controls act on rows alone

    def suits(self, model: Model, steps: int, guidance: int | float) -> bool:
        """Whether the method can edit with this model in so many steps."""
        fits = self.flow is None or self.flow == (model.scheduler == FLOW)
        free = model.guided and effective(model, guidance) != 1
        return fits and (self.most is None or steps <= self.most) and (free or not self.guided)

    def settings(self, value: float) -> dict[str, Any]:
        """What is set, by name."""
        return {**({self.strength: value} if self.strength else {}), **self.fixed}

    @property
    def all_values(self) -> tuple[float, ...]:
        """The values of the sweep, the usual one among them."""
        return tuple(sorted({*self.values, self.usual}))


def injection(model: Model, pair: Counterfactual) -> type[Replace] | type[Refine]:
    """The kind of Prompt-to-Prompt that fits the two prompts."""
    return Refine if suggest(model.words(pair.source), model.words(pair.target)) == "refine" else Replace


def _weights(pair: Counterfactual) -> tuple[Control, ...]:
    return (Reweight(dict(pair.weights)),) if pair.weights else ()


def _prompt_to_prompt(model: Model, pair: Counterfactual, **windows: Any) -> tuple[Control, ...]:
    """Injection with these windows, if any is open, and the weights of the pair."""
    inject = injection(model, pair) if pair.source != pair.target else Replace
    opened = (inject(**windows),) if any(windows.values()) else ()
    return (*opened, *_weights(pair))


def _cross(model: Model, pair: Counterfactual, value: float) -> Setup:
    return Setup(_prompt_to_prompt(model, pair, cross=value, self_attention=0.0))


def _self(model: Model, pair: Counterfactual, value: float) -> Setup:
    return Setup(_prompt_to_prompt(model, pair, cross=0.8, self_attention=value))


def _blend(model: Model, pair: Counterfactual, value: float) -> Setup:
    if not pair.nouns:
        raise NoEffect("A background and a style have no word whose region could be blended.")
    word = (pair.new or pair.old)[0].noun
    return Setup((*_prompt_to_prompt(model, pair, cross=0.8, self_attention=0.4), LocalBlend(word, threshold=value)))


def _joint(model: Model, pair: Counterfactual, value: float) -> Setup:
    return Setup(_prompt_to_prompt(model, pair, joint=value))


def _known(pair: Counterfactual) -> Known:
    """What an editor may know of a pair; its mask is the true region."""
    old, new = (things[0].noun if things else "" for things in (pair.old, pair.new or pair.old))
    return Known(pair.source, pair.target, old, new, lambda: rows_of(pair.region))


def _swept(name: str, option: str, off: float | None = None, **fixed: Any) -> Make:
    """An editor of the table by a value of one option; without controls at the value `off`."""
    editor = EDITORS[name].with_(**fixed)

    def make(model: Model, pair: Counterfactual, value: float) -> Setup:
        given: dict[str, Any] = {option: round(value) if option == "rounds" else value}
        controls = () if value == off else editor.controls(_known(pair), **given)
        return Setup(controls, editor.inversion or "direct", same=editor.own_prompt)

    return make


def _features(model: Model, pair: Counterfactual, value: float) -> Setup:
    """Plug-and-Play whose attention is injected as much shorter as by default."""
    known = EDITORS["Plug-and-Play"]
    return Setup(known.controls(_known(pair), features=value, attention=0.625 * value) if value else ())


def _inverted(template: str) -> Make:
    """An inversion that is the method."""
    return lambda model, pair, value: Setup(inversion=template.format(f"{value:g}"), given=True)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(NO_EDIT, "", (0.0,), 0.0, lambda model, pair, value: Setup(row=0)),
        Method(NO_CONTROL, "", (0.0,), 0.0, lambda model, pair, value: Setup(_weights(pair))),
        Method(TRUE_MASK, "strength", PARTS, 1.0, _swept("inpainting", "strength"), masked=True),
        Method(
            "Prompt-to-Prompt, cross", "cross", FRACTIONS, 0.8, _cross, False, {"self": 0.0}, together=True,
        ),
        Method("Prompt-to-Prompt, self", "self", FRACTIONS, 0.4, _self, False, {"cross": 0.8}, together=True),
        Method(
            "Prompt-to-Prompt, blend", "threshold", (0.1, 0.2, 0.3, 0.45, 0.6, 0.8), 0.3, _blend, False,
            {"cross": 0.8, "self": 0.4}, together=True,
        ),
        Method(
            "Prompt-to-Prompt, joint", "joint", (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0), 0.2, _joint, True, together=True,
        ),
        Method("shared start", "share", SKIPPED, 0.2, _swept("shared start", "share", 0.0), together=True),
        Method("re-noising (SDEdit)", "strength", PARTS, 0.6, _swept("re-noising", "strength")),
        Method(
            "MasaCtrl", "start", (0.0, 0.08, 0.2, 0.4, 0.6, 0.8), 0.08, _swept("MasaCtrl", "start"), False,
            together=True,
        ),
        Method(
            "Plug-and-Play", "features", FRACTIONS, 0.8,
            _features, False, {"attention": "0.625 of features"}, together=True,
        ),
        Method("pix2pix-zero", "guidance", (0.0, 0.03, 0.1, 0.3, 1.0), 0.1,
               _swept("pix2pix-zero", "attention_guidance"), False),
        Method("SEGA", "concepts", (0.5, 1.0, 2.0, 3.5, 5.0, 8.0), 5.0,
               _swept("SEGA", "strength", sentences=True), False, guided=True),
        Method("edit-friendly", "skip", (0.0, 0.24, 0.4, 0.6, 0.8), 0.24, _inverted("edit-friendly:skip={}"), False),
        Method("InfEdit", "skip", SKIPPED, 0.0, _inverted("infedit:skip={}"), False),
        Method("TurboEdit", "skip", SKIPPED, 0.2, _inverted("turbo-edit:skip={}"), False, most=FEW),
        Method("DDS", "rounds", (1.0, 2.0, 4.0, 8.0), 4.0, _swept("DDS", "rounds"), False),
        Method(
            "CDS", "rounds", (1.0, 2.0, 4.0, 8.0), 4.0, _swept("CDS", "rounds"), False
        ),
        Method(
            "FlowEdit", "strength", (0.2, 0.4, 0.5, 0.66, 0.8, 0.95), 0.66, _swept("FlowEdit", "strength"), True
        ),
        Method(
            "Consist", "structure", FRACTIONS, 0.3,
            _swept("Consist", "structure"), True, together=True,
        ),
        Method(
            "UniEdit", "strength", PARTS, 0.6,
            _swept("UniEdit", "strength"), True, {"omega": 5.0},
        ),
        Method(
            "UniEdit, omega", "omega", (1.0, 2.0, 3.5, 5.0, 8.0), 5.0,
            _swept("UniEdit", "omega"), True, {"strength": 0.6},
        ),
        Method(
            "DirectEdit", "inject", (0.1, 0.2, 0.4, 0.6, 0.8, 1.0), 0.1,
            _swept("DirectEdit", "inject"), True, together=True,
        ),
        Method(
            "KV-Edit, word", "strength", PARTS, 24 / 28,
            _swept("KV-Edit, word", "strength"), True,
        ),
        Method(
            "KV-Edit, true mask", "strength", PARTS, 24 / 28, _swept("KV-Edit, mask", "strength"), True, masked=True
        ),
        Method("RF-Inversion", "stop", (0.0, 0.1, 0.25, 0.4, 0.6, 0.8), 0.25, _inverted("rf-inversion:stop={}"), True),
    )
}  # fmt: skip


def methods_of(model: Model, steps: int, guidance: int | float, names: Sequence[str] = ()) -> tuple[Method, ...]:
    """The methods of these names (none: all that suit the model). Raises ValueError for one that is unknown or does not
    suit the model or the steps."""
    able = {name: method for name, method in METHODS.items() if method.suits(model, steps, guidance)}
    for name in names:
        if name not in METHODS:
            raise ValueError(f"Methods that can be measured: {'; '.join(METHODS)}. Received {name}. Name one of these.")
        if name not in able:
            raise ValueError(
                f"{name} cannot edit with {model.name} in {steps} steps with guidance {guidance:g}. Of these one can: "
                f"{'; '.join(able)}."
            )
    return tuple(method for name, method in able.items() if not names or name in names)
