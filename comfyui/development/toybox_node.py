"""A node that loads an embedded model of promptweave into ComfyUI's own classes, to try the pack without a checkpoint.

For development: link this file into ComfyUI's `custom_nodes`, beside the pack.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import real_comfyui as real


class Toybox:
    """MODEL, CLIP and VAE of an embedded model."""

    CATEGORY, FUNCTION = "promptweave/development", "run"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": (["toybox", "toybox-fast"],)}}

    def run(self, name: str) -> tuple[Any, ...]:
        import comfy.latent_formats
        import comfy.model_base
        import comfy.supported_models

        from promptweave.models.load import load

        pipeline: Any = load(name).pipeline

        class Embedded(comfy.supported_models.SD15):
            latent_format = comfy.latent_formats.LatentFormat

            def model_type(self, state_dict: Any, prefix: str = "") -> Any:
                return comfy.model_base.ModelType.V_PREDICTION

            def inpaint_model(self) -> bool:
                return False  # though it has more channels than Stable Diffusion

        model = real.unet_model(pipeline.unet, heads=32, kind=Embedded)
        model.model.latent_format.latent_channels = pipeline.unet.config.in_channels
        alphas = pipeline.scheduler.alphas_cumprod
        model.model.model_sampling.set_sigmas(((1 - alphas) / alphas) ** 0.5)
        folder = pipeline.tokenizer.name_or_path
        return model, real.clip_of(pipeline.text_encoder, folder), real.PipelineVae(pipeline.vae)


NODE_CLASS_MAPPINGS = {"PromptweaveToybox": Toybox}
NODE_DISPLAY_NAME_MAPPINGS = {"PromptweaveToybox": "Embedded model of promptweave"}
