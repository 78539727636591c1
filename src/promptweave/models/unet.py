"""Stable Diffusion 1.x and 2.x, and all pipelines of the same classes, such as the embedded model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

from promptweave.core.control import Text
from promptweave.core.features import Block
from promptweave.core.gradient_memory import GradientMemory
from promptweave.core.precision import precision
from promptweave.core.site import Place, Site, Sites
from promptweave.core.tapping import Tap
from promptweave.models.control_net import ControlPicture
from promptweave.models.copies import ALL_DIFFERENT, Copies
from promptweave.models.dry_run import FusedAttention, kept_bytes, without_weights
from promptweave.models.image_prompt import ImagePrompt
from promptweave.models.pipeline import PipelineModel, on_device
from promptweave.models.prefix import prefix, shared
from promptweave.models.residual import altered, residual_blocks
from promptweave.models.skipping import skipped
from promptweave.models.switched import is_compiled, one_at_a_time
from promptweave.models.tap import as_made, installed
from promptweave.words import Words

SLOWEST = math.log(10000)  # of an embedded guidance, the logarithm of the longest period
FINEST_MAP = 16  # words are well localised on 16 x 16 maps, and on a quarter of the latent where that is finer


class UNetModel(PipelineModel):
    """A StableDiffusionPipeline, or one with the same parts, as a `models.base.Model`."""

    chunkable = True

    def __init__(self, pipeline: Any, name: str) -> None:
        super().__init__(pipeline, name, pipeline.unet)
        self.unet: Any = pipeline.unet
        self.text_encoder: Any = getattr(pipeline, self.encoders[0])
        self.control: ControlPicture | None = None
        self.image_prompt: ImagePrompt | None = None

    @property
    def parts(self) -> tuple[Any, ...]:
        controlnet = getattr(self.pipeline, "controlnet", None)
        return super().parts if controlnet is None else (*super().parts, controlnet)

    def fingerprint(self) -> str:
        pictures = [part.digest() for part in (self.control, self.image_prompt) if part is not None]
        if not pictures:
            return super().fingerprint()
        return hashlib.sha256(b"".join([super().fingerprint().encode(), *pictures])).hexdigest()[:16]

    @property
    def guided(self) -> bool:
        return self.unet.config.time_cond_proj_dim is None

    def _read_words(self, prompt: str, allow_empty: bool) -> Words:
        return self.reading.words(prompt, self.tokenizer, allow_empty=allow_empty)

    def _encode(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        text = self._text(prompts, negative)
        return text if self.image_prompt is None else self.image_prompt.join(text)

    def _text(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        """The encoded prompts."""
        texts = [self.reading.encode(part, self.tokenizer, self._states)[0] for part in (prompts, negative)]
        return Text(texts[0], texts[1])

    def _states(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """The encoder's states of token ids, and no pooled vector."""
        mask = None
        if getattr(self.text_encoder.config, "use_attention_mask", False):
            mask = (ids != self.tokenizer.pad_token_id).long().to(self.device)
        states = self.text_encoder(ids.to(self.device), attention_mask=mask)
        return states.last_hidden_state.to(self.dtype), None

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
        if latent_grid not in self._sites:
            self._sites[latent_grid] = self._list_sites(latent_grid)
        return self._sites[latent_grid]

    @cached_property
    def _sites(self) -> dict[tuple[int, int], tuple[Site, ...]]:
        return {}

    def _list_sites(self, latent_grid: tuple[int, int]) -> tuple[Site, ...]:
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
                Site(
                    f"{place}_{kind}_{number}_res_{side}",
                    kind,
                    place,
                    index,
                    layer.heads,
                    (height, width),
                    path,
                    dim=layer.inner_dim // layer.heads,
                )
            )
        return tuple(sites)

    @cached_property
    def _layers(self) -> dict[str, Attention]:
        """Attention layers by path, in execution order."""
        return {path: layer for path, _, _, layer in self._blocks}

    def _by_path(self, latent_grid: tuple[int, int]) -> dict[str, Site]:
        return {site.path: site for site in self.sites(latent_grid)}

    def blocks(self) -> tuple[Block, ...]:
        return self._residual

    @cached_property
    def _residual(self) -> tuple[Block, ...]:
        return residual_blocks(self.unet)

    def map_grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        height, width = (max(side // 4, min(FINEST_MAP, side)) for side in latent_grid)
        grids = {site.grid for site in self.sites(latent_grid) if site.kind == "cross"}
        return min(grids, key=lambda grid: abs(grid[0] - height) + abs(grid[1] - width))

    def map_sites(self, latent_grid: tuple[int, int]) -> Sites:
        return Sites("cross", grid=self.map_grid(latent_grid))

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
        pictures: list[Tensor] = []
        if self.image_prompt is not None and pooled is not None:
            pooled, pictures = self.image_prompt.split(pooled)
        elif getattr(self.unet.config, "encoder_hid_dim_type", None) == "ip_image_proj":
            raise ValueError(
                "A pipeline with an IP-Adapter needs an image prompt. Received none. Load it with "
                "load(pipeline, image_prompt=image)."
            )
        x, added, time = z.to(self.dtype), self._added(z, pooled), _time(t, z.device)
        controlled: dict[str, Any] = {}
        if getattr(self.pipeline, "controlnet", None) is not None:
            if self.control is None:
                raise ValueError(
                    "A ControlNet pipeline needs a control image. Received none. Load it with "
                    "load(pipeline, control=image)."
                )
            controlled = self.control.residuals(x, time, context, added, self.factor)
        if pictures:
            added = {**(added or {}), "image_embeds": pictures}

        def run() -> Tensor:
            return self.unet(
                x,
                time,
                encoder_hidden_states=context,
                timestep_cond=self._guidance_input(guidance, len(z)),
                added_cond_kwargs=added,
                **controlled,
            ).sample.to(z.dtype)

        features = tap is not None and tap.features
        modules, last = prefix(self.unet) if copies.some and not features else ([], "")
        compiled = is_compiled(self.unet)
        if tap is None or (tap.resting and (compiled or not as_made(self._layers))):
            layer = [self.unet.get_submodule(last)] if last else []
            with shared([*modules, *layer], copies):
                return run()
        sites = self._by_path((z.shape[-2], z.shape[-1]))
        blocks = self.blocks() if features else ()
        passed = skipped(self.unet, tuple(sites.values()), tap)
        with (
            installed(self._layers, sites, tap, last, copies, compiled),
            shared(modules, copies),
            altered(self.unet, blocks, tap),
            passed,
        ):
            return tap.run(run, z)

    def _guidance_input(self, guidance: int | float | Tensor, rows: int) -> Tensor | None:
        """The embedding of guidance for networks distilled to take it as an input (LCM, Luo et al. 2023)."""
        if self.guided:
            return None
        scale = on_device(guidance, self.device, precision(self.dtype)).expand(rows) - 1
        half, odd = divmod(self.unet.config.time_cond_proj_dim, 2)
        # As diffusers, in single precision; its own function copies this number to the device in every step.
        lowest = float(np.float32(SLOWEST) / np.float32(half - 1))
        places = torch.arange(half, dtype=scale.dtype, device=scale.device)
        angles = (1000.0 * scale)[:, None] * torch.exp(places * -lowest)
        return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, odd)).to(self.dtype)

    def gradient_memory(self, latent_grid: tuple[int, int]) -> GradientMemory | None:
        """The memory of a gradient by the text, for one image with latents of this (height, width); nothing is
        computed. None for networks with further inputs (image prompts)."""
        if self.unet.config.encoder_hid_dim_type is not None:
            return None
        network, config = without_weights(self.unet), self.unet.config
        z = torch.empty(1, config.in_channels, *latent_grid, device="meta", dtype=self.dtype)
        width = config.cross_attention_dim
        text = torch.empty(
            1, self.words("a").limit, width if isinstance(width, int) else width[0], device="meta", dtype=self.dtype,
            requires_grad=True,
        )  # fmt: skip
        pooled = None
        if config.addition_embed_type == "text_time":
            joined = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            pooled = torch.empty(1, joined, device="meta", dtype=self.dtype)
        time = torch.empty(1, device="meta", dtype=torch.int64)

        def call(network: Any) -> Any:
            with FusedAttention():
                return network(z, time, encoder_hidden_states=text, added_cond_kwargs=self._added(z, pooled)).sample

        weights = sum(p.numel() * p.element_size() for part in self.parts for p in part.parameters())
        return GradientMemory(weights, *(kept_bytes(network, call, checkpointing=on) for on in (False, True)))

    def _added(self, z: Tensor, pooled: Tensor | None) -> dict[str, Any] | None:
        """Further conditions beside the text: none here."""
        return None


def _time(t: int | float | Tensor, device: torch.device) -> Tensor:
    """What diffusers makes of a number, filled in on the device: a copy from the host would wait for it."""
    if isinstance(t, Tensor):
        return t
    kinds = (torch.int32, torch.float32) if device.type in ("mps", "npu") else (torch.int64, torch.float64)
    return torch.full((1,), t, dtype=kinds[isinstance(t, float)], device=device)


def _layers(block: Any) -> Iterator[Attention]:
    """The attention layers of a block's transformers, in the order in which they run."""
    for transformer in getattr(block, "attentions", None) or ():
        for inner in getattr(
            transformer, "transformer_blocks", ()
        ):  # attention outside a transformer block reads no text
            yield inner.attn1
            if inner.attn2 is not None:
                yield inner.attn2
