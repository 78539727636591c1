"""Stable Diffusion 1.x and 2.x, and every pipeline of the same classes, the embedded model among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from promptweave.core.control import Text
from promptweave.core.schedule import Schedule
from promptweave.core.site import Place, Site
from promptweave.models.base import Tap
from promptweave.models.tap import check_processors, installed
from promptweave.words import Words

FINEST_MAP = 16  # words are well localised on 16 x 16 maps, and on a quarter of the latent where that is finer


class UNetModel:
    """A StableDiffusionPipeline behind the door of `models.base.Model`."""

    def __init__(self, pipeline: StableDiffusionPipeline, name: str) -> None:
        self.pipeline, self.name = pipeline, name
        self.unet, self.vae = pipeline.unet, pipeline.vae
        self.tokenizer, self.text_encoder = pipeline.tokenizer, pipeline.text_encoder
        for part in (self.unet, self.vae, self.text_encoder):
            part.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def factor(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def default_size(self) -> tuple[int, int]:
        side = self.unet.config.sample_size
        height, width = side if isinstance(side, tuple | list) else (side, side)
        return height * self.factor, width * self.factor

    @property
    def channels(self) -> int:
        return self.unet.config.in_channels

    @property
    def schedule(self) -> Schedule:
        """The pipeline's noise schedule, walked by DDIM."""
        return self._schedule

    @cached_property
    def _schedule(self) -> Schedule:
        config = self.pipeline.scheduler.config
        if config.get("clip_sample") or config.get("thresholding") or config.get("rescale_betas_zero_snr"):
            raise ValueError(
                "Schedules with clip_sample, thresholding or rescale_betas_zero_snr are not supported. "
                f"Received {dict(config)}. Load the model with a scheduler that has these switched off."
            )
        alphas = self.pipeline.scheduler.alphas_cumprod.double().cpu()
        return Schedule(
            alphas,
            config.get("prediction_type", "epsilon"),
            config.get("timestep_spacing", "leading"),
            int(config.get("steps_offset", 0)),
            1.0 if config.get("set_alpha_to_one", True) else float(alphas[0]),
        )

    def words(self, prompt: str) -> Words:
        return Words(prompt, self.tokenizer)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        texts = [self._encode(list(part)) for part in (prompts, negative)]
        return Text(texts[0], texts[0], texts[1])

    def _encode(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.text_encoder.device) if uses_mask else None
        states = self.text_encoder(tokens.input_ids.to(self.text_encoder.device), attention_mask=mask)
        return states.last_hidden_state.to(self.dtype)

    @cached_property
    def _blocks(self) -> tuple[tuple[str, Place, int, Attention], ...]:
        """(path, place, level, layer) in execution order: down, mid, up; self before cross in each block."""
        paths = {id(module): path for path, module in self.unet.named_modules()}
        down, up = self.unet.down_blocks, self.unet.up_blocks
        stages: list[tuple[Place, int, Any]] = []
        stages.extend(("down", level, block) for level, block in enumerate(down))
        stages.append(("mid", len(down) - 1, self.unet.mid_block))
        stages.extend(("up", len(down) - 1 - index, block) for index, block in enumerate(up))
        return tuple((paths[id(layer)], place, level, layer) for place, level, b in stages for layer in _layers(b))

    def sites(self, latent_grid: tuple[int, int]) -> tuple[Site, ...]:
        sites: list[Site] = []
        counts: dict[tuple[str, str], int] = {}
        for index, (path, place, level, layer) in enumerate(self._blocks):
            height, width = latent_grid
            for _ in range(level):  # each level halves with stride 2 and padding 1, which rounds up
                height, width = (height + 1) // 2, (width + 1) // 2
            kind = "cross" if path.endswith("attn2") else "self"
            number = counts[place, kind] = counts.get((place, kind), -1) + 1
            side = str(height) if height == width else f"{height}x{width}"
            sites.append(
                Site(f"{place}_{kind}_{number}_res_{side}", kind, place, index, layer.heads, (height, width), path)
            )
        return tuple(sites)

    def map_grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        height, width = (max(side // 4, min(FINEST_MAP, side)) for side in latent_grid)
        grids = {site.grid for site in self.sites(latent_grid) if site.kind == "cross"}
        return min(grids, key=lambda grid: abs(grid[0] - height) + abs(grid[1] - width))

    def predict(self, z: Tensor, t: int, context: Tensor, tap: Tap | None = None) -> Tensor:
        def run() -> Tensor:
            return self.unet(z.to(self.dtype), t, encoder_hidden_states=context).sample.to(z.dtype)

        if tap is None:
            return run()
        layers = {path: layer for path, _, _, layer in self._blocks}
        sites = {site.path: site for site in self.sites((z.shape[-2], z.shape[-1]))}
        with installed(layers, sites, tap):
            return run()

    def check(self) -> None:
        """Raise if a layer carries a processor that controls would have to drop."""
        check_processors({path: layer for path, _, _, layer in self._blocks})

    @torch.no_grad()
    def to_latent(self, pictures: Tensor) -> Tensor:
        x = pictures.permute(0, 3, 1, 2).to(self.vae.device, self.vae.dtype) * 2 - 1
        z = self.vae.encode(x).latent_dist.mode()
        return z.to(torch.promote_types(z.dtype, torch.float32)) * self.vae.config.scaling_factor

    @torch.no_grad()
    def to_image(self, z: Tensor) -> Tensor:
        x = self.vae.decode((z / self.vae.config.scaling_factor).to(self.vae.device, self.vae.dtype)).sample
        return (x.to(torch.promote_types(x.dtype, torch.float32)) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu()

    @cached_property
    def _hash(self) -> str:
        digest = hashlib.sha256()
        for part in (self.text_encoder, self.unet, self.vae):
            for name, tensor in sorted(part.state_dict().items()):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(tensor.detach().cpu().half().numpy()).tobytes())
        return digest.hexdigest()[:16]

    def fingerprint(self) -> str:
        return self._hash


def _layers(block: Any) -> Iterator[Attention]:
    """The attention layers of a block's transformers, in the order in which they run."""
    for transformer in getattr(block, "attentions", None) or ():
        for inner in getattr(transformer, "transformer_blocks", ()):  # a bare attention layer has no text to steer
            yield inner.attn1
            if inner.attn2 is not None:
                yield inner.attn2
