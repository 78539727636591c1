"""What the nodes use of ComfyUI, in miniature, around networks of diffusers, so that the tests need no ComfyUI.

`comfyui/development/check.py` runs the same edits against ComfyUI itself, which calls the nodes as this does: attention
by `optimized_attention_override`, conditions by `extra_conds` and `process_cond`, networks by `apply_model`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from promptweave.models.joint import JointTap
from promptweave.models.unet import UNetModel as DiffusersUNet

PACK = Path(__file__).parents[2] / "comfyui"


def _development() -> Any:
    spec = importlib.util.spec_from_file_location("real_comfyui", PACK / "development" / "real_comfyui.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


real = _development()
pack = real.pack()


class Interrupted(Exception):
    """The user cancelled."""


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **named: Any) -> Tensor:
    """ComfyUI's attention function: an override, if there is one, is called once with the function to replace."""
    options = named.get("transformer_options") or {}
    if "optimized_attention_override" in options and "_inside_attn_wrapper" not in named:
        return options["optimized_attention_override"](attention, q, k, v, heads, **named, _inside_attn_wrapper=True)
    if not named.get("skip_reshape"):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    output = nn.functional.scaled_dot_product_attention(q, k, v)
    return output if named.get("skip_output_reshape") else output.transpose(1, 2).flatten(2)


class _UNetLayer:
    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        text = x if encoder_hidden_states is None else encoder_hidden_states
        parts = attn.to_q(x), attn.to_k(text), attn.to_v(text)
        options = self.network.options
        return attn.to_out[0](attention(*parts, attn.heads, attn_precision=None, transformer_options=options))


class _FluxLayer:
    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(
        self, attn: Any, x: Tensor, encoder_hidden_states: Any = None, mask: Any = None, pe: Any = None
    ) -> Any:
        q, k, v = JointTap.project(attn, x, encoder_hidden_states, True)
        q, k = (apply_rotary_emb(part, pe, sequence_dim=2) for part in (q, k))
        options = self.network.options
        made = attention(q, k, v, attn.heads, skip_reshape=True, mask=None, transformer_options=options)
        if encoder_hidden_states is None:
            return made
        text, image = made.split([encoder_hidden_states.shape[1], x.shape[1]], 1)
        return attn.to_out[0](image), attn.to_add_out(text)


class Downsample(nn.Identity):
    """Marks where the grid is halved."""


class Upsample(nn.Identity):
    """Marks where the grid is doubled."""


class UNetModel:
    """ComfyUI's blocks, made of those of a UNet of diffusers."""

    def __init__(self, unet: Any) -> None:
        self.unet, self.options, self.num_classes = unet, {}, None
        unet.set_attn_processor(_UNetLayer(self))
        for module in unet.modules():
            for layer in (getattr(module, "attn1", None), getattr(module, "attn2", None)):
                if layer is not None:
                    layer.dim_head = layer.inner_dim // layer.heads
        first, last = len(unet.down_blocks) - 1, len(unet.up_blocks) - 1
        self.input_blocks: list[list[Any]] = [[unet.conv_in]]
        for level, block in enumerate(unet.down_blocks):
            self.input_blocks += [[layer] for layer in block.attentions]
            self.input_blocks += [[Downsample()]] if level < first else []
        self.middle_block = list(unet.mid_block.attentions)
        self.output_blocks: list[list[Any]] = []
        for level, block in enumerate(unet.up_blocks):
            self.output_blocks += [[layer] for layer in block.attentions]
            self.output_blocks[-1] += [Upsample()] if level < last else []

    def __call__(self, x: Tensor, t: Tensor, given: dict[str, Any]) -> Tensor:
        return self.unet(x, t, encoder_hidden_states=given["c_crossattn"]).sample


class Flux:
    """ComfyUI's blocks, made of those of a FLUX transformer of diffusers."""

    patch_size = 2

    def __init__(self, network: Any) -> None:
        self.network, self.options = network, {}
        self.transformer = network.transformer
        self.transformer.set_attn_processor(_FluxLayer(self))
        heads = SimpleNamespace(num_heads=self.transformer.config.num_attention_heads)
        self.hidden_size = heads.num_heads * self.transformer.config.attention_head_dim
        self.double_blocks = [heads] * len(self.transformer.transformer_blocks)
        self.single_blocks = [heads] * len(self.transformer.single_transformer_blocks)

    def __call__(self, x: Tensor, t: Tensor, given: dict[str, Any]) -> Tensor:
        return self.network.predict(
            x, 1000 * t, given["c_crossattn"], pooled=given["y"], guidance=given["guidance"]
        )  # without a tap


class Sampling:
    """Noise levels: of a diffusion model from its alphas; of a flow model with a shift."""

    def __init__(self, alphas: Tensor | None) -> None:
        self.flow = alphas is None
        times = torch.arange(1, 10_001) / 10_000
        shifted = torch.tensor(1.15).exp() / (torch.tensor(1.15).exp() + 1 / times - 1)
        self.sigmas = shifted if alphas is None else ((1 - alphas) / alphas) ** 0.5
        self.sigma_max = self.sigmas[-1]

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma if self.flow else (self.sigmas[:, None] - sigma.flatten()).abs().argmin(0).view(sigma.shape)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, image: Tensor, full: bool) -> Tensor:
        if self.flow:
            return sigma * noise + (1 - sigma) * image
        return noise * ((1 + sigma**2) ** 0.5 if full else sigma) + image


class Condition:
    def __init__(self, cond: Any) -> None:
        self.cond = cond

    def process_cond(self, batch_size: int, area: Any) -> Condition:
        return Condition(self.cond.expand(batch_size, *self.cond.shape[1:]))


class BaseModel:
    def __init__(self, diffusion_model: Any, alphas: Tensor | None, channels: int) -> None:
        self.diffusion_model, self.model_sampling = diffusion_model, Sampling(alphas)
        self.model_config = SimpleNamespace(unet_config={"in_channels": channels})
        self.latent_format = SimpleNamespace(latent_channels=channels)

    def process_latent_in(self, z: Tensor) -> Tensor:
        return z * 0.5

    def process_latent_out(self, z: Tensor) -> Tensor:
        return z / 0.5

    def memory_required(self, shape: list[int]) -> int:
        return 4 * shape[0]

    def extra_conds(self, **given: Any) -> dict[str, Condition]:
        assert {"noise", "device", "height", "width", "prompt_type"} <= set(given)
        guidance = torch.tensor([given["guidance"]])
        return {
            "c_crossattn": Condition(given["cross_attn"]), "y": Condition(given["pooled_output"]),
            "guidance": Condition(guidance),
        }  # fmt: skip

    def apply_model(self, x: Tensor, sigma: Tensor, *, transformer_options: dict[str, Any], **given: Any) -> Tensor:
        """The denoised latents."""
        flow, level = self.model_sampling.flow, sigma.view(-1, 1, 1, 1)
        self.diffusion_model.options = transformer_options
        times = self.model_sampling.timestep(sigma)
        output = self.diffusion_model(x if flow else x / (level**2 + 1) ** 0.5, times, given)
        return x - output * level


class Patcher:
    """A MODEL."""

    def __init__(self, model: BaseModel) -> None:
        self.model, self.load_device = model, torch.device("cpu")
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.patches_uuid = "0"
        self.wrappers: dict[str, Any] = {}

    def get_model_object(self, name: str) -> Any:
        return getattr(self.model, name)


def model_of(network: Any) -> Patcher:
    """The MODEL of a model of the library, whose network it takes over."""
    if isinstance(network, DiffusersUNet):
        made: Any = UNetModel(network.unet)
        return Patcher(BaseModel(made, network.sampler.alphas_cumprod, network.channels))
    return Patcher(BaseModel(Flux(network), None, network.channels))


def simple(sampling: Sampling, name: str, steps: int) -> Tensor:
    """ComfyUI's levels "simple"."""
    assert name == "simple"
    count = len(sampling.sigmas)
    places = [count - 1 - int(step * count / steps) for step in range(steps)]
    return torch.tensor([*(float(sampling.sigmas[place]) for place in places), 0.0])


class Bar:
    shown: list[tuple[int, int]] = []

    def __init__(self, total: int) -> None:
        self.total = total

    def update_absolute(self, value: int, total: int) -> None:
        Bar.shown.append((value, total))


def install(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Put the modules of ComfyUI that the nodes import in place; what they were asked for is noted."""
    noted = SimpleNamespace(loads=[], interrupted=False)
    Bar.shown = noted.bar = []

    def stop() -> None:
        if noted.interrupted:
            raise Interrupted

    modules = {
        "comfy": {},
        "comfy.samplers": {
            "KSampler": SimpleNamespace(SCHEDULERS=["simple", "normal"]), "calculate_sigmas": simple,
        },
        "comfy.model_management": {
            "load_models_gpu": lambda models, memory_required: noted.loads.append((models, memory_required)),
            "throw_exception_if_processing_interrupted": stop,
        },
        "comfy.utils": {"ProgressBar": Bar},
    }  # fmt: skip
    for name, content in modules.items():
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)
        if "." in name:
            monkeypatch.setattr(sys.modules["comfy"], name.split(".")[1], made, raising=False)
    return noted
