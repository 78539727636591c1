"""The nodes that run a model: each is a call of the library with what ComfyUI has loaded."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import promptweave as pw

from .comfy_model import ComfyModel
from .node_fields import (
    CATEGORY,
    OPTIONS,
    TARGETS,
    Options,
    fraction_field,
    images,
    lines,
    models,
    prompt_field,
    run_fields,
    settings,
)

KINDS = ["auto", "replace", "refine"]


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
        prompts = {"source": prompt_field("The prompt of the image to edit."), "targets": TARGETS}
        required = {**models(), **prompts, "kind": (KINDS,), **run_fields(), "maps": ("BOOLEAN", {"default": True})}
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
        given: Options = {**(options or {}), **settings(values)} | ({} if kind == "auto" else {"kind": kind})
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
        kept = {"cross": fraction_field(0.8), "self_attention": fraction_field(0.4), "joint": fraction_field(0.2)}
        return {
            "required": {**models(), "prompt": prompt_field("The prompt of the image to edit."), **run_fields(), **kept}
        }

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
        kept: Options = {"cross": cross, "self_attention": self_attention, "joint": joint}
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
        return {"required": {**models(), **given, "maps": ("BOOLEAN", {"default": True})}, "optional": OPTIONS}

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
        given: Options = {**(options or {})} | ({} if kind == "auto" else {"kind": kind})
        result = pw.edit(track, *lines(targets), model=network, maps=maps, progress=Watched(), **given)
        return outputs(result, network)
