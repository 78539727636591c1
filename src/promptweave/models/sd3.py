"""Stable Diffusion 3 and 3.5: joint attention over [image ; text], where the text is CLIP's tokens, then T5's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from promptweave.core.control import Text
from promptweave.core.site import Site, Sites
from promptweave.core.tapping import Tap
from promptweave.models.copies import ALL_DIFFERENT, Copies
from promptweave.models.joint import BEST_BLOCKS, SD3_ROLES, joint_installed, middle, roles_of
from promptweave.models.pipeline import PipelineModel, on_device
from promptweave.models.shift import shift
from promptweave.models.skipping import skipped
from promptweave.models.switched import one_at_a_time
from promptweave.words import Words

T5_LENGTH = 256  # text tokens of the T5 encoder, which are zero if it is left out
T5_ATTRIBUTE = "t5_length"  # set on a pipeline that reads another number of them


class SD3Model(PipelineModel):
    """A StableDiffusion3Pipeline as a `models.base.Model`."""

    usual = (28, 7.0)
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")

    def __init__(self, pipeline: Any, name: str) -> None:
        super().__init__(pipeline, name, pipeline.transformer)
        self.transformer: Any = pipeline.transformer
        self.patch: int = self.transformer.config.patch_size
        self.t5_length: int = getattr(pipeline, T5_ATTRIBUTE, T5_LENGTH)

    @property
    def multiple(self) -> int:
        return self.factor * self.patch

    @property
    def clip_length(self) -> int:
        """Number of CLIP's tokens, which come before T5's."""
        return int(self.pipeline.tokenizer_max_length)

    def timetable(self, steps: int, latent_grid: tuple[int, int]) -> dict[str, Any]:
        if not self.sampler.config.get("use_dynamic_shifting"):
            return {}
        height, width = self.map_grid(latent_grid)
        return {"mu": shift(height * width, self.sampler.config)}

    def _read_words(self, prompt: str, allow_empty: bool) -> Words:
        given: dict[str, Any] = {"allow_empty": allow_empty, "vectors": False}  # its pipeline writes no vectors out
        clip = Words(prompt, self.tokenizer, at_most=self.clip_length, **given)
        if self.pipeline.text_encoder_3 is None:
            return clip.padded(self.t5_length)
        return clip.beside(Words(prompt, self.pipeline.tokenizer_3, at_most=self.t5_length, **given))

    def _encode(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        keys, uncond, pooled, uncond_pooled = self.pipeline.encode_prompt(
            list(prompts), None, None, device=self.device, negative_prompt=list(negative),
            max_sequence_length=self.t5_length,
        )  # fmt: skip
        keys, uncond, pooled, uncond_pooled = (x.to(self.dtype) for x in (keys, uncond, pooled, uncond_pooled))
        return Text(keys, uncond, pooled, uncond_pooled)

    @cached_property
    def layers(self) -> dict[str, Any]:
        """Attention layers by path, in execution order."""
        found: dict[str, Any] = {}
        for index, block in enumerate(self.transformer.transformer_blocks):
            found[f"transformer_blocks.{index}.attn"] = block.attn
            if block.use_dual_attention:
                found[f"transformer_blocks.{index}.attn2"] = block.attn2
        return found

    def sites(self, latent_grid: tuple[int, int]) -> tuple[Site, ...]:
        grid = self.map_grid(latent_grid)
        pixels, tokens = grid[0] * grid[1], self.clip_length + self.t5_length
        image, text = slice(0, pixels), slice(pixels, pixels + tokens)
        dim: int = self.transformer.config.attention_head_dim
        known = SD3_ROLES.get(self._shape, {})
        sites: list[Site] = []
        for index, (path, layer) in enumerate(self.layers.items()):
            number = path.split(".")[1]
            if path.endswith("attn2"):
                sites.append(Site(f"stream_self_{number}", "self", "stream", index, layer.heads, grid, path, dim=dim))
            else:
                name = f"stream_joint_{number}"
                sites.append(
                    Site(
                        name,
                        "joint",
                        "stream",
                        index,
                        layer.heads,
                        grid,
                        path,
                        text,
                        image,
                        dim,
                        roles_of(int(number), known),
                    )
                )
        return tuple(sites)

    @property
    def _shape(self) -> tuple[int, bool]:
        """Number of blocks, and whether some have dual attention."""
        blocks = self.transformer.transformer_blocks
        return len(blocks), any(block.use_dual_attention for block in blocks)

    def map_grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        return latent_grid[0] // self.patch, latent_grid[1] // self.patch

    def map_sites(self, latent_grid: tuple[int, int]) -> Sites:
        best = BEST_BLOCKS.get(self._shape, middle(self._shape[0]))
        return Sites("joint", names=tuple(f"stream_joint_{number}" for number in best))

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
        times = on_device(t, z.device, z.dtype).expand(len(z))

        def run() -> Tensor:
            output = self.transformer(
                hidden_states=z.to(self.dtype),
                timestep=times,
                encoder_hidden_states=context,
                pooled_projections=pooled,
            ).sample
            return output.to(z.dtype)

        if tap is None or tap.resting:
            return run()
        sites = self.sites((z.shape[-2], z.shape[-1]))
        with joint_installed(self.transformer, self.layers, sites, tap), skipped(self.transformer, sites, tap):
            return tap.run(run, z)
