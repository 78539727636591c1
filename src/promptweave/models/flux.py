"""FLUX.1: joint attention over [text ; image] in double and single blocks; the text tokens are T5's alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptweave.core.control import Text
from promptweave.core.precision import precision
from promptweave.core.site import Site, Sites
from promptweave.core.tapping import Tap
from promptweave.models.copies import ALL_DIFFERENT, Copies
from promptweave.models.joint import FLUX_BLOCKS, FLUX_ROLES, joint_installed, middle, roles_of
from promptweave.models.pipeline import PipelineModel, on_device
from promptweave.models.shift import shift
from promptweave.models.skipping import skipped
from promptweave.models.switched import one_at_a_time
from promptweave.words import Words

PATCH = 2  # latent cells along a side that make one token


class FluxModel(PipelineModel):
    """A FluxPipeline as a `models.base.Model`.

    FLUX.1-dev takes guidance as an input and has no unconditional half; -schnell has no guidance at all. True
    classifier-free guidance is not supported. CLIP contributes only a pooled vector, which has no word positions.
    """

    encoders = ("text_encoder", "text_encoder_2")

    def __init__(self, pipeline: Any, name: str) -> None:
        super().__init__(pipeline, name, pipeline.transformer)
        self.transformer: Any = pipeline.transformer
        self.tokenizer = pipeline.tokenizer_2
        self.usual = (28, 3.5) if self.transformer.config.guidance_embeds else (4, 1.0)
        self.length = min(512, int(self.tokenizer.model_max_length))

    @property
    def guided(self) -> bool:
        return False

    @property
    def multiple(self) -> int:
        return self.factor * PATCH

    @property
    def channels(self) -> int:
        return self.transformer.config.in_channels // PATCH**2

    @property
    def default_size(self) -> tuple[int, int]:
        side = self.pipeline.default_sample_size * self.factor
        return side, side

    def timetable(self, steps: int, latent_grid: tuple[int, int]) -> dict[str, Any]:
        height, width = self.map_grid(latent_grid)
        mu = (
            {"mu": shift(height * width, self.sampler.config)}
            if self.sampler.config.get("use_dynamic_shifting")
            else {}
        )
        if self.sampler.config.get("use_flow_sigmas"):
            return mu
        return {"sigmas": np.linspace(1.0, 1 / steps, steps).tolist(), **mu}

    def _read_words(self, prompt: str, allow_empty: bool) -> Words:
        return Words(prompt, self.tokenizer, at_most=self.length, allow_empty=allow_empty)

    def _encode(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        if any(prompt.strip() for prompt in negative):
            raise ValueError(
                "FLUX takes guidance as an input and has no negative prompt. "
                f"Received the negative prompt {negative[0]!r}. Leave it out."
            )
        keys, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), None, device=self.device, max_sequence_length=self.length
        )
        keys, pooled = keys.to(self.dtype), pooled.to(self.dtype)
        return Text(keys, keys, pooled, pooled)  # no unconditional half reads `uncond`

    @cached_property
    def layers(self) -> dict[str, Any]:
        """Attention layers by path, in execution order: double blocks, then single ones."""
        kinds = ("transformer_blocks", "single_transformer_blocks")
        return {
            f"{kind}.{index}.attn": block.attn
            for kind in kinds
            for index, block in enumerate(getattr(self.transformer, kind))
        }

    def sites(self, latent_grid: tuple[int, int]) -> tuple[Site, ...]:
        grid = self.map_grid(latent_grid)
        text, image = slice(0, self.length), slice(self.length, self.length + grid[0] * grid[1])
        dim: int = self.transformer.config.attention_head_dim
        depths = len(self.transformer.transformer_blocks), len(self.transformer.single_transformer_blocks)
        known = FLUX_ROLES.get(depths, {})
        sites: list[Site] = []
        for index, (path, layer) in enumerate(self.layers.items()):
            kind, number = path.split(".")[:2]
            block = f"{'single' if kind.startswith('single') else 'double'}_{number}"
            named = f"stream_{block}", "joint", "stream", index, layer.heads, grid, path
            sites.append(Site(*named, text, image, dim, roles_of(block, known)))
        return tuple(sites)

    def map_grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        return latent_grid[0] // PATCH, latent_grid[1] // PATCH

    def map_sites(self, latent_grid: tuple[int, int]) -> Sites:
        depth = len(self.transformer.transformer_blocks)
        best = FLUX_BLOCKS if depth > max(FLUX_BLOCKS) else middle(depth)
        return Sites("joint", names=tuple(f"stream_double_{number}" for number in best))

    @one_at_a_time
    def predict(
        self,
        z: Tensor,
        t: int | float | Tensor,
        context: Tensor,
        tap: Tap | None = None,
        *,
        pooled: Tensor | None = None,
        guidance: int | float | Tensor = 1.0,
        copies: Copies = ALL_DIFFERENT,
    ) -> Tensor:
        rows, (height, width) = len(z), self.map_grid((z.shape[-2], z.shape[-1]))
        scale = on_device(guidance, z.device, precision(self.dtype)).expand(rows)
        times = on_device(t, z.device, torch.float32).expand(rows).to(self.dtype)

        def run() -> Tensor:
            output = self.transformer(
                hidden_states=pack(z).to(self.dtype),
                timestep=times / 1000,
                guidance=scale if self.transformer.config.guidance_embeds else None,
                pooled_projections=pooled,
                encoder_hidden_states=context,
                txt_ids=torch.zeros(context.shape[1], 3, device=z.device, dtype=self.dtype),
                img_ids=places(height, width, z.device).to(self.dtype),
            ).sample
            return unpack(output, height, width).to(z.dtype)

        if tap is None or tap.resting:
            return run()
        sites = self.sites((z.shape[-2], z.shape[-1]))
        with joint_installed(self.transformer, self.layers, sites, tap), skipped(self.transformer, sites, tap):
            return tap.run(run, z)


def pack(z: Tensor) -> Tensor:
    """[n, c, 2h, 2w] to tokens [n, h w, 4c]; a token's channels are (c, dy, dx)."""
    blocks = z.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))  # n c h dy w dx
    return blocks.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for a grid of height x width tokens."""
    blocks = tokens.unflatten(1, (height, width)).unflatten(-1, (-1, PATCH, PATCH))  # n h w c dy dx
    return blocks.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def places(height: int, width: int, device: torch.device) -> Tensor:
    """Rotary ids of the image tokens [h w, 3]: 0, row, column."""
    sides = torch.arange(height, device=device), torch.arange(width, device=device)
    rows, columns = torch.meshgrid(*sides, indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1)
