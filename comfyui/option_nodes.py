"""The nodes that set options of an edit, one chained to the next."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .node_fields import CATEGORY, OPTIONS, Options, factors, fraction_field, joined, lines, prompt_field


class Chained:
    """A node that sets options of an edit; several are chained."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    RETURN_TYPES, RETURN_NAMES = ("PROMPTWEAVE_OPTIONS",), ("options",)


class Reweight(Chained):
    """Factors on the attention to words."""

    DESCRIPTION = "Strengthen or weaken words: one line WORD=FACTOR each, such as fluffy=2."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"weights": prompt_field("One line WORD=FACTOR for each word.")}, "optional": OPTIONS}

    def run(self, weights: str, options: Options | None = None) -> tuple[Options]:
        return (joined(options, {"weights": factors(weights)}),)


class LocalBlend(Chained):
    """Where the edit may change the image."""

    DESCRIPTION = "Restrict the edit to the region of words, or to a mask, or to both."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {
            "words": ("STRING", {"default": "", "tooltip": "Words of any of the prompts, with commas between them."}),
            "subtract": ("STRING", {"default": "", "tooltip": "Words whose region must not change."}),
            "threshold": fraction_field(0.3),
            "start": fraction_field(0.2),
        }
        return {"required": required, "optional": {"mask": ("MASK",), **OPTIONS}}

    def run(
        self,
        words: str,
        subtract: str,
        threshold: float,
        start: float,
        mask: Tensor | None = None,
        options: Options | None = None,
    ) -> tuple[Options]:
        named = {"blend": lines(words, "\n,"), "subtract": lines(subtract, "\n,")}
        more: Options = {name: found for name, found in named.items() if found}
        if more:
            more |= {"threshold": threshold}
        if mask is not None:
            flat = mask.reshape(-1, *mask.shape[-2:])
            if len(flat) != 1:
                raise ValueError(f"A local blend takes one mask. Received {len(flat)}. Choose one of the batch.")
            more["mask"] = flat[0].cpu().numpy()
        if not more:
            raise ValueError("A local blend needs words, words to subtract, or a mask. Received none.")
        return (joined(options, {**more, "blend_start": start}),)


class Windows(Chained):
    """In which steps the source's attention is used, in networks with cross- and self-attention."""

    DESCRIPTION = "Fractions of the steps that use the source's attention, in Stable Diffusion 1, 2 and XL."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"cross": fraction_field(0.8), "self_attention": fraction_field(0.4)}, "optional": OPTIONS}

    def run(self, cross: float, self_attention: float, options: Options | None = None) -> tuple[Options]:
        return (joined(options, {"cross": cross, "self_attention": self_attention}),)


class JointWindow(Chained):
    """In which steps the source's attention is used, in networks with joint attention."""

    DESCRIPTION = "Fraction of the steps that use the source's attention, in FLUX."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"joint": fraction_field(0.2)}, "optional": OPTIONS}

    def run(self, joint: float, options: Options | None = None) -> tuple[Options]:
        return (joined(options, {"joint": joint}),)
