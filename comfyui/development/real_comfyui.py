"""Tiny random networks in ComfyUI's own classes, with the weights of tiny pipelines of diffusers; needs ComfyUI's code.

For `check.py` and `picture.py` beside this file. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch

PACK = Path(__file__).resolve().parents[1]


class _Absent(types.ModuleType):
    """A module in which every name stands for something that nobody uses."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def prepare(comfyui: Path) -> None:
    """Make ComfyUI importable from its folder. ComfyUI imports torchvision and torchaudio, for other models
    than these; where they are not installed, empty modules stand in."""
    from diffusers import FluxPipeline, StableDiffusionPipeline  # noqa: F401 - before they could find the empty modules
    from transformers.utils import is_torchvision_available

    is_torchvision_available()  # remembered
    for package in ("torchvision", "torchaudio"):
        if importlib.util.find_spec(package) is None:
            for name in (package, f"{package}.transforms"):
                sys.modules[name] = _Absent(name)
    sys.path.insert(0, str(comfyui))


def on_cpu() -> None:
    """Have ComfyUI compute on the CPU, and take nothing from the command line."""
    import comfy.options

    comfy.options.args_parsing = False
    from comfy.cli_args import args

    args.cpu = True


def pack() -> Any:
    """The pack, loaded from its folder as ComfyUI does."""
    name = "promptweave_comfyui"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class _Times(float):
    """A factor such as 1.5, whose product with a number of channels is one."""

    def __mul__(self, channels: Any) -> Any:
        return int(float(self) * channels)

    __rmul__ = __mul__


def unet_model(unet: Any, *, heads: int, kind: Any = None, config: dict[str, Any] | None = None) -> Any:
    """ComfyUI's MODEL with the weights of a UNet of diffusers; `heads`: channels of a head."""
    import comfy.supported_models
    import comfy.utils

    given = unet.config
    levels = len(given.block_out_channels)
    crossed = [int("Cross" in name) for name in given.down_block_types]
    depths = given.transformer_layers_per_block
    depths = [depths] * levels if isinstance(depths, int) else list(depths)
    deep = [a * b for a, b in zip(crossed, depths, strict=True)]
    layers = given.layers_per_block
    settings = {
        "image_size": 32,
        "in_channels": given.in_channels,
        "out_channels": given.out_channels,
        "model_channels": given.block_out_channels[0],
        "channel_mult": [_Times(x / given.block_out_channels[0]) for x in given.block_out_channels],
        "num_res_blocks": [layers] * levels,
        "transformer_depth": [d for d in deep for _ in range(layers)],
        "transformer_depth_output": [d for d in deep for _ in range(layers + 1)],
        "transformer_depth_middle": depths[-1],
        "num_heads": -1,
        "num_head_channels": heads,
        "use_spatial_transformer": True,
        "context_dim": given.cross_attention_dim,
        "use_linear_in_transformer": given.use_linear_projection,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "dtype": torch.float32,
        **(config or {}),
    }
    settings_of = (kind or comfy.supported_models.SD15)(settings)
    settings_of.unet_config = settings  # without the true model's own number of heads
    model = settings_of.get_model({}, "", device=torch.device("cpu"))
    for module in model.diffusion_model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = given.norm_num_groups
    names = comfy.utils.unet_to_diffusers(settings)
    weights = {names[name]: value for name, value in unet.state_dict().items() if name in names}
    return patcher(model, weights)


def flux_model(transformer: Any, channels: int) -> Any:
    """ComfyUI's MODEL with the weights of a FLUX transformer of diffusers, for latents of so many channels."""
    import comfy.latent_formats
    import comfy.supported_models
    import comfy.utils

    given = transformer.config
    width = given.attention_head_dim * given.num_attention_heads
    settings = {
        "image_model": "flux",
        "in_channels": channels,
        "out_channels": channels,
        "vec_in_dim": given.pooled_projection_dim,
        "context_in_dim": given.joint_attention_dim,
        "hidden_size": width,
        "mlp_ratio": 4.0,
        "num_heads": given.num_attention_heads,
        "depth": given.num_layers,
        "depth_single_blocks": given.num_single_layers,
        "axes_dim": list(given.axes_dims_rope),
        "theta": 10000,
        "patch_size": 2,
        "qkv_bias": True,
        "guidance_embed": given.guidance_embeds,
        "dtype": torch.float32,
    }
    settings_of = comfy.supported_models.Flux(settings)
    format_of = comfy.latent_formats.LatentFormat()
    format_of.latent_channels = channels
    settings_of.latent_format = format_of
    model = settings_of.get_model({}, "", device=torch.device("cpu"))
    weights = model.diffusion_model.state_dict()
    names = comfy.utils.flux_to_diffusers(settings)
    for name, value in transformer.state_dict().items():
        where = names[name]
        if isinstance(where, str):
            weights[where] = value
            continue
        key, part, *change = where
        value = change[0](value) if change else value
        if part is None:
            weights[key] = value
        else:
            weights[key].narrow(*part).copy_(value)
    return patcher(model, weights)


def patcher(model: Any, weights: dict[str, torch.Tensor]) -> Any:
    import comfy.model_patcher

    model.diffusion_model.load_state_dict(weights)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def clip_of(encoder: Any, tokenizer_folder: str) -> Any:
    """ComfyUI's CLIP with the weights of a text encoder of diffusers, whose end token is the last of its vocabulary."""
    import comfy.model_patcher
    import comfy.ops
    import comfy.sd
    import comfy.sd1_clip

    given = encoder.config
    ends = {"start": given.bos_token_id, "end": given.eos_token_id, "pad": given.eos_token_id}
    settings = {**given.to_dict(), "eos_token_id": given.eos_token_id}

    class Encoder(comfy.sd1_clip.SDClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
            super().__init__(
                device=device, dtype=dtype, textmodel_json_config=settings, special_tokens=ends,
                return_projected_pooled=False, model_options=model_options or {},
            )  # fmt: skip

    class Reader(comfy.sd1_clip.SDTokenizer):
        def __init__(self, **options: Any) -> None:
            super().__init__(tokenizer_folder, **options)

    clip = comfy.sd.CLIP(no_init=True)
    clip.cond_stage_model = comfy.sd1_clip.SD1ClipModel(clip_model=Encoder, dtype=torch.float32)
    own = clip.cond_stage_model.clip_l.transformer
    embedding = comfy.ops.manual_cast.Embedding(given.vocab_size, given.hidden_size, dtype=torch.float32)
    own.text_model.embeddings.token_embedding = embedding  # whose size is that of CLIP's vocabulary
    weights = {
        (name if name.startswith("text_model.") else f"text_model.{name}"): value
        for name, value in encoder.state_dict().items()
        if "position_ids" not in name
    }
    missing, unexpected = own.load_state_dict(weights, strict=False)
    assert not unexpected and all("text_projection" in name for name in missing), (missing, unexpected)
    clip.tokenizer = comfy.sd1_clip.SD1Tokenizer(tokenizer=Reader)
    cpu = torch.device("cpu")
    clip.patcher = comfy.model_patcher.ModelPatcher(clip.cond_stage_model, load_device=cpu, offload_device=cpu)
    clip.apply_hooks_to_conds, clip.layer_idx, clip.use_clip_schedule = None, None, False
    clip.tokenizer_options = {}
    return clip


class PipelineClip:
    """The text of a pipeline of diffusers (Stable Diffusion, SDXL or FLUX), asked as ComfyUI's CLIP is."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline, self.second = pipeline, getattr(pipeline, "tokenizer_2", None)
        self.flux = not hasattr(pipeline, "unet")
        made = {"clip_l": types.SimpleNamespace(tokenizer=pipeline.tokenizer, max_length=77)}
        if self.flux:
            made["t5xxl"] = types.SimpleNamespace(tokenizer=self.second, max_length=99999999)
        self.tokenizer = types.SimpleNamespace(**made)
        self.patcher = types.SimpleNamespace(patches_uuid="none")

    def tokenize(self, text: str) -> dict[str, Any]:
        def ids(tokenizer: Any, size: int) -> list[list[tuple[int, float]]]:
            found = tokenizer(text, padding="max_length", max_length=size, truncation=True)["input_ids"]
            return [[(token, 1.0) for token in found]]

        tokens = {"l": ids(self.pipeline.tokenizer, 77)}
        if self.second is not None:
            tokens |= {"t5xxl": ids(self.second, 256)} if self.flux else {"g": ids(self.second, 77)}
        return tokens

    @torch.no_grad()
    def encode_from_tokens(self, tokens: dict[str, Any], **_: Any) -> dict[str, torch.Tensor]:
        given = [torch.tensor([[token for token, _ in batches[0]]]) for batches in tokens.values()]
        first = self.pipeline.text_encoder(given[0], output_hidden_states=True)
        if len(given) == 1:
            return {"cond": first.last_hidden_state, "pooled_output": first.pooler_output}
        second = self.pipeline.text_encoder_2(given[1], output_hidden_states=True)
        if self.flux:
            return {"cond": second[0], "pooled_output": first.pooler_output}
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        return {"cond": states, "pooled_output": second[0]}


class PipelineVae:
    """The autoencoder of a pipeline of diffusers, asked as ComfyUI's VAE is. `model` gives the latents' own scale."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def spacial_compression_encode(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return (self.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(pixels.movedim(-1, 1) * 2 - 1).latent_dist.mode()
