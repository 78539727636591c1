"""A model that ComfyUI has loaded, behind the library's protocol for models (`promptweave.models.base.Model`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from promptweave.core.control import Text
from promptweave.core.features import Block
from promptweave.core.site import Site, Sites
from promptweave.core.tapping import Tap
from promptweave.models.base import ModelError
from promptweave.models.joint import FLUX_BLOCKS, middle
from promptweave.models.long_text import Reading
from promptweave.models.unet import UNetModel
from promptweave.words import Words
from promptweave.words.lengths import check_length

from .comfy_sites import AttentionOverride, check_tap, flux_sites, rows_of, unet_sites
from .comfy_solver import ComfyEuler

T5_TOKENS = 256  # ComfyUI pads the text of FLUX to so many tokens
# What nodes may put into a MODEL that acts in ComfyUI's sampler, which these nodes do not use.
SAMPLER_PATCHES = (
    "sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function", "model_function_wrapper",
    "sampler_calc_cond_batch_function", "context_handler",
)  # fmt: skip


class ComfyModel:
    """ComfyUI's MODEL, CLIP and VAE of Stable Diffusion 1, 2, XL or FLUX.1.

    Weights stay where ComfyUI manages them; its patches of weights (LoRA), of noise levels and of features stay in
    force. `scheduler`: ComfyUI's name for the noise levels of a run ("normal", "karras", ...). Raises ModelError for
    other networks, and for a MODEL with patches that would not act here.
    """

    def __init__(self, patcher: Any, clip: Any, vae: Any, scheduler: str = "normal") -> None:
        self.patcher, self.clip, self.vae, self.levels = patcher, clip, vae, scheduler
        self.network = patcher.model
        self.diffusion = self.network.diffusion_model
        kind = type(self.diffusion).__name__
        if kind not in ("UNetModel", "Flux"):
            raise ModelError(
                "These nodes edit with Stable Diffusion 1, 2 and XL and with FLUX.1. Received a MODEL with the network "
                f"{kind}. Load one of those."
            )
        self.flux = kind == "Flux"
        self.name = f"{type(self.network.model_config).__name__} in ComfyUI"
        self.reading = Reading(weights=True)
        read = self.network.model_config.unet_config.get("in_channels", self.channels)
        if read != self.channels:
            raise ModelError(
                f"The network must read latents alone. Received {self.name} with {read} channels instead of "
                f"{self.channels}, as inpainting models have. Load the model without inpainting."
            )
        part = "t5xxl" if self.flux else next((n for n in ("clip_l", "clip_h") if hasattr(clip.tokenizer, n)), "")
        if not hasattr(clip.tokenizer, part or "clip_l") or self.flux != hasattr(clip.tokenizer, "t5xxl"):
            raise ModelError(
                f"The CLIP must be that of the MODEL, {self.name}. Received {type(clip.tokenizer).__name__}. Connect "
                "the CLIP of its checkpoint."
            )
        self.key = part.removeprefix("clip_")
        reader = getattr(clip.tokenizer, part)
        self.tokenizer, self.limit = reader.tokenizer, T5_TOKENS if self.flux else int(reader.max_length)
        self._loaded = False
        self._known: dict[tuple[str, bool], Words] = {}

    # --- what the library asks about a model ---

    @property
    def device(self) -> torch.device:
        return torch.device(self.patcher.load_device)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32  # of the latents; the network casts for itself

    @property
    def scheduler(self) -> str:
        return "flow-euler" if self.flux else "euler"

    @property
    def guided(self) -> bool:
        return not self.flux

    @property
    def distilled(self) -> bool:
        return self.flux

    @property
    def defaults(self) -> tuple[int, int | float]:
        return (20, 3.5) if self.flux else (20, 8.0)

    @property
    def factor(self) -> int:
        return int(self.vae.spacial_compression_encode())

    @property
    def multiple(self) -> int:
        return self.factor * (self.diffusion.patch_size if self.flux else 1)

    @property
    def default_size(self) -> tuple[int, int]:
        side = 128 if self.flux or getattr(self.diffusion, "num_classes", None) is not None else 64
        return side * self.factor, side * self.factor

    @property
    def channels(self) -> int:
        return self.network.latent_format.latent_channels

    def fingerprint(self) -> str:
        """ComfyUI's identifiers of the loaded weights and their patches, which last as long as its process."""
        return f"{self.patcher.patches_uuid}-{self.clip.patcher.patches_uuid}-{self.levels}"

    def kernels(self) -> dict[str, Any]:
        return {}

    def check(self) -> None:
        options = self.patcher.model_options
        found = [name for name in SAMPLER_PATCHES if options.get(name)]
        acting = options.get("transformer_options", {})
        found += [name for name in ("patches_replace", "optimized_attention_override") if acting.get(name)]
        found += [name for name in ("hook_patches", "forced_hooks") if getattr(self.patcher, name, None)]
        wrappers = getattr(self.patcher, "wrappers", {})
        found += [f"wrapper {name}" for name, added in wrappers.items() if any(added.values())]
        if found:
            raise ModelError(
                "A MODEL must come without patches of the sampler and of attention, which would not act here. Received "
                f"{found[0]}. Connect the MODEL from before the node that set it."
            )

    def schedule(self) -> Any:
        raise ValueError(
            f"This asks for the training noise levels of a model of diffusers. Received {self.name}. Use the library "
            "without ComfyUI for it."
        )

    def solver(self, steps: int, shape: tuple[int, ...], prompts: int, seed: int) -> ComfyEuler:
        import comfy.samplers

        sampling = self.patcher.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, self.levels, steps).to(self.device)
        return ComfyEuler(sampling, sigmas, flow=self.flux)

    # --- layers ---

    def sites(self, latent_grid: tuple[int, int]) -> tuple[Site, ...]:
        if self.flux:
            return flux_sites(self.diffusion, latent_grid, self.limit)
        return unet_sites(self.diffusion, latent_grid)

    def blocks(self) -> tuple[Block, ...]:
        return ()

    def map_grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        if self.flux:
            return self.sites(latent_grid)[0].grid
        return UNetModel.map_grid(self, latent_grid)  # pyright: ignore[reportArgumentType] - it reads `sites` alone

    def map_sites(self, latent_grid: tuple[int, int]) -> Sites:
        if not self.flux:
            return Sites("cross", grid=self.map_grid(latent_grid))
        depth = len(self.diffusion.double_blocks)
        best = FLUX_BLOCKS if depth > max(FLUX_BLOCKS) else middle(depth)
        return Sites("joint", names=tuple(f"stream_double_{number}" for number in best))

    # --- text ---

    def words(self, prompt: str) -> Words:
        return self._words(prompt)

    def _words(self, prompt: str, allow_empty: bool = False) -> Words:
        key = prompt, allow_empty or bool(prompt.strip())
        if key not in self._known:
            read = self.reading.parse(prompt)
            self._known[key] = Words(
                read.text, self.tokenizer, at_most=self.limit, allow_empty=allow_empty, vectors=False,
                strengths=read.strengths,
            )  # fmt: skip
        return self._known[key]

    def at_end(self, prompt: str) -> str:
        return prompt

    def phases(self, prompt: str, steps: int) -> tuple[str, ...]:
        return (prompt,) * steps

    def check_length(self, text: str, name: str, steps: int = 1) -> None:
        check_length(self._words(text, True), name)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], negative: Sequence[str], *, truncate: bool = False) -> Text:
        self._loaded = False  # ComfyUI may make room for the encoder
        made = {text: self._encoded(text) for text in dict.fromkeys((*prompts, *negative))}
        cond, uncond = (torch.cat([made[text][0] for text in texts]) for texts in (prompts, negative))
        if any(pooled is None for _, pooled in made.values()):
            return Text(cond, uncond)
        pooled, uncond_pooled = (torch.cat([made[text][1] for text in texts]) for texts in (prompts, negative))
        return Text(cond, uncond, pooled, uncond_pooled)

    def _encoded(self, text: str) -> tuple[Tensor, Any]:
        """States [1, tokens, dim] and pooled vector of ComfyUI's encoders, whose tokens must be those of the words."""
        tokens = self.clip.tokenize(text)
        batches, words = tokens[self.key], self._words(text, True)
        ids = [pair[0] for pair in batches[0]][: words.length]
        if len(batches) > 1 or len(batches[0]) > self.limit:
            check_length(words, f'The text "{text[:60]}"')
        if len(ids) < words.length or any(
            isinstance(a, Tensor) or a != b for a, b in zip(ids, words.ids, strict=False)
        ):
            raise ValueError(
                "ComfyUI and these nodes must read a prompt as the same tokens. Received one that they read "
                f"differently: {text!r}. Leave out embeddings, square brackets and BREAK; weights such as "
                "(red:1.2) are read alike."
            )
        found = dict(self.clip.encode_from_tokens(tokens, return_pooled=True, return_dict=True))
        cond, pooled = found.pop("cond"), found.pop("pooled_output")
        if found:
            raise ModelError(
                f"A CLIP must give text alone. Received one that also gives {', '.join(found)}. Connect the CLIP from "
                "before the node that set it."
            )
        return cond.to(self.device), None if pooled is None else pooled.to(self.device)

    # --- the network ---

    def predict(
        self,
        z: Tensor,
        t: int | float | Tensor,
        context: Tensor,
        tap: Tap | None = None,
        *,
        pooled: Tensor | None = None,
        guidance: int | float | Tensor = 1.0,
        copies: Any = None,
    ) -> Tensor:
        """The denoised latents for `z` at the noise level `t`, by ComfyUI's `apply_model`."""
        self._load(z)
        rows, height, width = len(z), z.shape[-2] * self.factor, z.shape[-1] * self.factor
        conditions = self.network.extra_conds(
            cross_attn=context, pooled_output=pooled, noise=z, device=z.device, height=height, width=width,
            guidance=float(torch.as_tensor(guidance).flatten()[0]), prompt_type="positive",
        )  # fmt: skip
        given = {name: cond.process_cond(batch_size=rows, area=None).cond for name, cond in conditions.items()}
        sigma, options = rows_of(t, rows, z.device), self._options()
        options["sigmas"] = sigma[:1]

        def run() -> Tensor:
            return self.network.apply_model(z, sigma, transformer_options=options, **given)

        if tap is None:
            return run()
        check_tap(tap)
        override = AttentionOverride(self.sites((z.shape[-2], z.shape[-1])), tap, context.shape[1])
        options["optimized_attention_override"] = override

        def tapped() -> Tensor:
            output = run()
            override.finish()
            return output

        return tap.run(tapped, z)

    def _options(self) -> dict[str, Any]:
        """The MODEL's own options for its layers, in a copy: networks write into them."""
        return {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in self.patcher.model_options.get("transformer_options", {}).items()
        }

    def _load(self, z: Tensor) -> None:
        """Have ComfyUI bring the network to its device, unless it is there."""
        if self._loaded:
            return
        import comfy.model_management

        needed = self.network.memory_required(list(z.shape))
        comfy.model_management.load_models_gpu([self.patcher], memory_required=needed)
        self._loaded = True

    # --- images ---

    def to_latent(self, pictures: Tensor) -> Tensor:
        self._loaded = False
        return self.network.process_latent_in(self.vae.encode(pictures.float().cpu()))

    def to_image(self, z: Tensor) -> Tensor:
        self._loaded = False
        return self.vae.decode(self.saved(z)).float().cpu().clamp(0, 1)

    def saved(self, z: Tensor) -> Tensor:
        """Latents as ComfyUI's LATENT holds them."""
        return self.network.process_latent_out(z.float()).cpu()
