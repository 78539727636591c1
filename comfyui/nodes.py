"""The nodes: each one a call of the library with what ComfyUI has loaded."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import promptweave as pw

from .comfy_model import ComfyModel

CATEGORY = "promptweave"
KINDS = ["auto", "replace", "refine"]
LAST_SEED = 2**63 - 1
Options = dict[str, Any]


def _models() -> dict[str, Any]:
    return {"model": ("MODEL",), "clip": ("CLIP",), "vae": ("VAE",)}


def _run() -> dict[str, Any]:
    """The settings of a run, under the names of ComfyUI's KSampler."""
    import comfy.samplers

    side = {"default": 512, "min": 16, "max": 16384, "step": 8}
    return {
        "seed": ("INT", {"default": 0, "min": 0, "max": LAST_SEED, "control_after_generate": True}),
        "steps": ("INT", {"default": 20, "min": 1, "max": 1000}),
        "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1}),
        "scheduler": (list(comfy.samplers.KSampler.SCHEDULERS),),
        "width": ("INT", side),
        "height": ("INT", side),
        "negative": ("STRING", {"multiline": True, "default": ""}),
    }


def _prompt(tooltip: str) -> tuple[str, dict[str, Any]]:
    return "STRING", {"multiline": True, "tooltip": tooltip}


def _fraction(default: float) -> tuple[str, dict[str, Any]]:
    return "FLOAT", {"default": default, "min": 0.0, "max": 1.0, "step": 0.01}


OPTIONS = {"options": ("PROMPTWEAVE_OPTIONS",)}
TARGETS = _prompt("The changed prompt; further lines are further edits. Empty: re-weight the words of the source.")


def lines(text: str, separators: str = "\n") -> list[str]:
    """The parts of a text that are not blank."""
    return [part.strip() for part in re.split(f"[{separators}]", text) if part.strip()]


def factors(text: str) -> dict[str, float]:
    """Factors of words, "red=2" each, in lines or between commas. Raises ValueError."""
    found: dict[str, float] = {}
    for part in lines(text, "\n,"):
        word, _, number = part.rpartition("=")
        try:
            found[word.strip()] = float(number)
        except ValueError:
            word = ""
        if not word.strip():
            raise ValueError(f"weights has a line WORD=FACTOR for each word, such as red=2. Received {part!r}.")
    if not found:
        raise ValueError("weights needs at least one line WORD=FACTOR, such as red=2. Received none.")
    return found


def joined(options: Options | None, more: Options) -> Options:
    """Options with further ones. Raises ValueError for one that is given twice."""
    twice = set(options or {}) & set(more)
    if twice:
        raise ValueError(f"Each option is set by one node. Received two for {sorted(twice)[0]}. Remove one of them.")
    return {**(options or {}), **more}


class Watched:
    """What a run tells ComfyUI: its progress; and that it is to stop, if the user cancels."""

    def __init__(self) -> None:
        import comfy.model_management
        import comfy.utils

        self.stop = comfy.model_management.throw_exception_if_processing_interrupted
        self.bar: Any = None
        self.make = comfy.utils.ProgressBar

    def __call__(self, step: Any, z: Tensor) -> None:
        self.stop()
        self.bar = self.bar or self.make(step.count)
        self.bar.update_absolute(step.index + 1, step.count)


def settings(values: Options) -> Options:
    """The library's names of a run's settings."""
    return {
        "seed": values["seed"],
        "steps": values["steps"],
        "guidance": values["cfg"],
        "size": (values["height"], values["width"]),
        "negative": values["negative"],
    }


def images(pictures: np.ndarray) -> Tensor:
    """ComfyUI's IMAGE [n, height, width, 3] of images uint8 [n, height, width, 3]."""
    return torch.from_numpy(pictures.astype(np.float32) / 255)


def outputs(result: Any, network: ComfyModel) -> tuple[Any, ...]:
    """Source, edits, the latents of all, and the result for further nodes."""
    pictures, latents = result.sample.pictures[:, 0], result.sample.latents[:, 0]
    return images(pictures[:1]), images(pictures[1:]), {"samples": network.saved(latents)}, result


class Edit:
    """Prompt-to-Prompt: generate the source and, from the same noise, each target."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Prompt-to-Prompt: an image, and the same image with a changed prompt (arXiv 2208.01626)."
    RETURN_TYPES = ("IMAGE", "IMAGE", "LATENT", "PROMPTWEAVE_RESULT")
    RETURN_NAMES = ("source", "edited", "latents", "result")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prompts = {"source": _prompt("The prompt of the image to edit."), "targets": TARGETS}
        required = {**_models(), **prompts, "kind": (KINDS,), **_run(), "maps": ("BOOLEAN", {"default": True})}
        return {"required": required, "optional": OPTIONS}

    def run(
        self,
        model: Any,
        clip: Any,
        vae: Any,
        source: str,
        targets: str,
        kind: str,
        scheduler: str,
        maps: bool,
        options: Options | None = None,
        **values: Any,
    ) -> tuple[Any, ...]:
        network = ComfyModel(model, clip, vae, scheduler)
        given = {**(options or {}), **settings(values)} | ({} if kind == "auto" else {"kind": kind})
        result = pw.edit(source, *lines(targets), model=network, maps=maps, progress=Watched(), **given)
        return outputs(result, network)


class Record:
    """Generate an image and keep its attention, so that edits compute their targets only."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Generate an image and keep its attention; edits of it then compute the changed image only."
    RETURN_TYPES = ("PROMPTWEAVE_RECORDING", "IMAGE", "LATENT")
    RETURN_NAMES = ("recording", "image", "latents")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kept = {"cross": _fraction(0.8), "self_attention": _fraction(0.4), "joint": _fraction(0.2)}
        return {"required": {**_models(), "prompt": _prompt("The prompt of the image to edit."), **_run(), **kept}}

    def run(
        self,
        model: Any,
        clip: Any,
        vae: Any,
        prompt: str,
        scheduler: str,
        cross: float,
        self_attention: float,
        joint: float,
        **values: Any,
    ) -> tuple[Any, ...]:
        network = ComfyModel(model, clip, vae, scheduler)
        kept = {"cross": cross, "self_attention": self_attention, "joint": joint}
        recording = pw.record(prompt, model=network, progress=Watched(), **kept, **settings(values))
        track = recording.track
        return (recording, scheduler), images(track.pictures), {"samples": network.saved(track.path[-1])}


class EditRecording:
    """Edit a recorded image, with the settings of its recording."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Edit a recorded image by a changed prompt, with the settings of its recording."
    RETURN_TYPES, RETURN_NAMES = Edit.RETURN_TYPES, Edit.RETURN_NAMES

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        given = {"recording": ("PROMPTWEAVE_RECORDING",), "targets": TARGETS, "kind": (KINDS,)}
        return {"required": {**_models(), **given, "maps": ("BOOLEAN", {"default": True})}, "optional": OPTIONS}

    def run(
        self,
        model: Any,
        clip: Any,
        vae: Any,
        recording: tuple[Any, str],
        targets: str,
        kind: str,
        maps: bool,
        options: Options | None = None,
    ) -> tuple[Any, ...]:
        track, scheduler = recording
        network = ComfyModel(model, clip, vae, scheduler)
        given = {**(options or {})} | ({} if kind == "auto" else {"kind": kind})
        result = pw.edit(track, *lines(targets), model=network, maps=maps, progress=Watched(), **given)
        return outputs(result, network)


class Chained:
    """A node that sets options of an edit; several are chained."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    RETURN_TYPES, RETURN_NAMES = ("PROMPTWEAVE_OPTIONS",), ("options",)


class Reweight(Chained):
    """Factors on the attention to words."""

    DESCRIPTION = "Strengthen or weaken words: one line WORD=FACTOR each, such as fluffy=2."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"weights": _prompt("One line WORD=FACTOR for each word.")}, "optional": OPTIONS}

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
            "threshold": _fraction(0.3),
            "start": _fraction(0.2),
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
        return {"required": {"cross": _fraction(0.8), "self_attention": _fraction(0.4)}, "optional": OPTIONS}

    def run(self, cross: float, self_attention: float, options: Options | None = None) -> tuple[Options]:
        return (joined(options, {"cross": cross, "self_attention": self_attention}),)


class JointWindow(Chained):
    """In which steps the source's attention is used, in networks with joint attention."""

    DESCRIPTION = "Fraction of the steps that use the source's attention, in FLUX."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"joint": _fraction(0.2)}, "optional": OPTIONS}

    def run(self, joint: float, options: Options | None = None) -> tuple[Options]:
        return (joined(options, {"joint": joint}),)


class WordMaps:
    """The attention maps of a result's words."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Where the words of an edit look: the maps of each prompt, and those before and after the edit."
    RETURN_TYPES = ("IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("source", "edited", "difference")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        target = ("INT", {"default": 1, "min": 1, "max": 64, "tooltip": "The number of the target."})
        return {"required": {"result": ("PROMPTWEAVE_RESULT",), "target": target}}

    def run(self, result: Any, target: int) -> tuple[Tensor, ...]:
        check_row(result, target)
        made = pw.edit_maps(result)
        sheets = made.maps[0].strip(), made.maps[target].strip(), made.sheet(target)
        return tuple(images(np.asarray(sheet.convert("RGB"))[None]) for sheet in sheets)


class WordMask:
    """The map of a word as a mask for other nodes."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "The map of a word, from 0 to 1; above a threshold of more than 0 it is 1, and elsewhere 0."
    RETURN_TYPES, RETURN_NAMES = ("MASK",), ("mask",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        row = ("INT", {"default": 0, "min": 0, "max": 64, "tooltip": "0: the source; 1: the first target."})
        word = ("STRING", {"default": ""})
        return {"required": {"result": ("PROMPTWEAVE_RESULT",), "word": word, "row": row, "threshold": _fraction(0.0)}}

    def run(self, result: Any, word: str, row: int, threshold: float) -> tuple[Tensor]:
        check_row(result, row)
        found = pw.edit_maps(result).maps[row].of(word.strip()).float()
        found = found / found.max().clamp(min=1e-12)
        size = result.sample.pictures.shape[2:4]
        large = F.interpolate(found[None, None], size, mode="bilinear", align_corners=False)[0].cpu()
        return (large if threshold == 0 else (large > threshold).float(),)


def check_row(result: Any, row: int) -> None:
    """Raise ValueError unless a result has this prompt, and maps."""
    if not result.watched:
        raise ValueError("Word maps are kept if the edit's maps are on. Received a result without. Switch them on.")
    if row >= len(result.recipe.prompts):
        raise ValueError(f"This edit has the targets 1 to {len(result.recipe.prompts) - 1}. Received {row}.")


NODE_CLASS_MAPPINGS = {
    "PromptweaveEdit": Edit,
    "PromptweaveRecord": Record,
    "PromptweaveEditRecording": EditRecording,
    "PromptweaveReweight": Reweight,
    "PromptweaveLocalBlend": LocalBlend,
    "PromptweaveWindows": Windows,
    "PromptweaveJointWindow": JointWindow,
    "PromptweaveWordMaps": WordMaps,
    "PromptweaveWordMask": WordMask,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "PromptweaveEdit": "Prompt-to-Prompt edit",
    "PromptweaveRecord": "Record image (Prompt-to-Prompt)",
    "PromptweaveEditRecording": "Edit recorded image (Prompt-to-Prompt)",
    "PromptweaveReweight": "Re-weight words",
    "PromptweaveLocalBlend": "Local blend",
    "PromptweaveWindows": "Attention windows (SD 1, 2, XL)",
    "PromptweaveJointWindow": "Attention window (FLUX)",
    "PromptweaveWordMaps": "Word maps",
    "PromptweaveWordMask": "Mask of a word",
}
