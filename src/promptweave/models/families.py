"""Which pipelines of diffusers are steered, by class, and by which model."""

from __future__ import annotations

from promptweave.models.flux import FluxModel
from promptweave.models.ldm import LDMModel
from promptweave.models.mask_channels import FluxFill, InpaintingUNet, InpaintingXL
from promptweave.models.sd3 import SD3Model
from promptweave.models.sdxl import SDXLModel
from promptweave.models.unet import UNetModel

Loaded = UNetModel | SD3Model | FluxModel
FAMILIES: dict[str, type[UNetModel] | type[SD3Model] | type[FluxModel]] = {
    "StableDiffusionPipeline": UNetModel,
    "LatentConsistencyModelPipeline": UNetModel,
    "StableDiffusionXLPipeline": SDXLModel,
    "StableDiffusionControlNetPipeline": UNetModel,
    "StableDiffusionXLControlNetPipeline": SDXLModel,
    "StableDiffusionInpaintPipeline": InpaintingUNet,
    "StableDiffusionXLInpaintPipeline": InpaintingXL,
    "LDMTextToImagePipeline": LDMModel,
    "StableDiffusion3Pipeline": SD3Model,
    "FluxPipeline": FluxModel,
    "FluxFillPipeline": FluxFill,
}
CHECKED = (  # these bring a safety checker
    "StableDiffusionPipeline", "StableDiffusionControlNetPipeline", "StableDiffusionInpaintPipeline",
)  # fmt: skip
