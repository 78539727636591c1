"""What all pipelines have in common as implementations of `models.base.Model`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptweave.core.control import Text
from promptweave.core.features import Block
from promptweave.core.schedule import Schedule
from promptweave.core.shown import brief, short
from promptweave.models.autoencoder import Autoencoder
from promptweave.models.base import ModelError, Solver
from promptweave.models.long_text import Reading
from promptweave.models.solvers import (
    SchedulerSolver,
    Settings,
    few_steps,
    published_without_guidance,
    scheduler_name,
)
from promptweave.models.switched import Formats, begin_run, kernels, one_at_a_time, refuse_caches
from promptweave.words import Words
from promptweave.words.lengths import check_length, quoted

KEPT = 256  # prompts whose words are kept
DTYPES = ("auto", "float32", "float16", "bfloat16", "float64")
GUIDANCE_ATTRIBUTE = "usual_guidance"  # set on a pipeline whose guidance is not that of its family


class PipelineModel:
    """A diffusers pipeline: its network, text encoders, tokenizers, scheduler and autoencoder."""

    usual: Settings = (50, 7.5)
    chunkable = False  # whether `reading` may have chunks and weights
    encoders: tuple[str, ...] = ("text_encoder",)
    autoencoder: str = "vae"

    def __init__(self, pipeline: Any, name: str, network: Any) -> None:
        self.pipeline, self.name, self.network = pipeline, name, network
        self.vae = getattr(pipeline, self.autoencoder)
        self.tokenizer = pipeline.tokenizer
        self.sampler: Any = pipeline.scheduler
        self.reading = Reading()
        for part in self.parts:
            part.eval().requires_grad_(False)

    def __repr__(self) -> str:
        return brief(self, short(self.name).strip("'"), str(self.dtype).removeprefix("torch."), str(self.device))

    @property
    def parts(self) -> tuple[Any, ...]:
        """The networks, in the order of the fingerprint."""
        encoders = (getattr(self.pipeline, name, None) for name in self.encoders)
        return tuple(part for part in (*encoders, self.network, self.vae) if part is not None)

    @property
    def device(self) -> torch.device:
        """The device of the computation, also under offload, which keeps weights in main memory until they are used."""
        where = next(self.network.parameters()).device
        offloaded = where.type in ("cpu", "meta") and torch.accelerator.is_available()
        return self.pipeline._execution_device if offloaded or where.type == "meta" else where

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in, also where its weights are stored in another format."""
        return self._formats.dtype

    def check(self) -> None:
        refuse_caches(self.network)
        begin_run(self.network)

    def kernels(self) -> dict[str, Any]:
        return kernels(self.network)

    @cached_property
    def _formats(self) -> Formats:
        return Formats(self.network)

    @cached_property
    def _autoencoder(self) -> Autoencoder:
        return Autoencoder(self.vae)

    @property
    def factor(self) -> int:
        return self._autoencoder.factor

    @property
    def multiple(self) -> int:
        return self.factor

    @property
    def default_size(self) -> tuple[int, int]:
        side = self.network.config.sample_size
        height, width = side if isinstance(side, tuple | list) else (side, side)
        return height * self.factor, width * self.factor

    @property
    def channels(self) -> int:
        return self.network.config.in_channels

    @property
    def guided(self) -> bool:
        return True

    @property
    def scheduler(self) -> str:
        return scheduler_name(self.sampler)

    @property
    def defaults(self) -> Settings:
        steps, guidance = self.usual
        if not self.guided:
            return (4, 8.0) if self.scheduler == "lcm" else (steps, self._own_guidance(guidance))
        few = self._few_steps
        return (steps, self._own_guidance(guidance)) if few is None else (few, 1.0)

    def _own_guidance(self, usual: int | float) -> int | float:
        """The guidance that suits the model, `usual` for its family."""
        return getattr(self.pipeline, GUIDANCE_ATTRIBUTE, usual)

    @property
    def _few_steps(self) -> int | None:
        """The steps that suit the model if it is distilled; a ready pipeline knows where it was loaded from."""
        kept = (getattr(part, "config", {}) for part in (self.pipeline, self.network))
        places = [self.name, *(str(config.get("_name_or_path") or "") for config in kept)]
        return few_steps(places, self.sampler)

    @property
    def distilled(self) -> bool:
        return not self.guided or self._few_steps is not None or published_without_guidance(self.sampler)

    def schedule(self) -> Schedule:
        return self._schedule

    @cached_property
    def _schedule(self) -> Schedule:
        config = self.sampler.config
        switched = [key for key in ("clip_sample", "thresholding") if config.get(key)]
        if switched:
            raise ValueError(
                f"A latent must not be clipped, as {switched[0]} of this model's scheduler does with what each step "
                f'predicts. Received {switched[0]}=True. Load the model with scheduler="ddim" (--scheduler ddim), '
                "which switches it off."
            )
        alphas = getattr(self.sampler, "alphas_cumprod", None)
        if alphas is None:
            raise ValueError(
                "Only diffusion models have a table of noise levels, which is needed here. Received "
                f"{type(self.sampler).__name__}, the scheduler of {self.name}, a flow model. Choose a diffusion model."
            )
        alphas = alphas.double().cpu()
        if float(alphas.min()) <= 0 and config.get("prediction_type", "epsilon") == "epsilon":
            raise ValueError(
                "Steps from a signal of zero (rescale_betas_zero_snr) need a network that predicts v or the image. "
                "Received prediction_type='epsilon' in the scheduler's config. Set it to 'v_prediction' if the network "
                "was trained so, or switch rescale_betas_zero_snr off."
            )
        return Schedule(
            alphas,
            config.get("prediction_type", "epsilon"),
            config.get("timestep_spacing", "leading"),
            int(config.get("steps_offset", 0)),
            1.0 if config.get("set_alpha_to_one", True) else float(alphas[0]),
        )

    def solver(self, steps: int, shape: tuple[int, ...], prompts: int, seed: int) -> Solver | None:
        if self.scheduler == "ddim":
            return None
        timetable = self.timetable(steps, (shape[-2], shape[-1]))
        return SchedulerSolver(self.sampler, steps, shape, prompts, seed, self.device, **timetable)

    def timetable(self, steps: int, latent_grid: tuple[int, int]) -> dict[str, Any]:
        """Further arguments of the scheduler's `set_timesteps`."""
        return {}

    def blocks(self) -> tuple[Block, ...]:
        return ()

    def words(self, prompt: str) -> Words:
        last = self.at_end(prompt)
        words = self._words(last, False)
        return words if last == prompt else words.scheduled(prompt)

    def at_end(self, prompt: str) -> str:
        return self.reading.at_end(prompt)

    def phases(self, prompt: str, steps: int) -> tuple[str, ...]:
        return self.reading.phases(prompt, steps)

    @one_at_a_time  # a tokenizer keeps how it cuts and pads between its calls
    def _words(self, prompt: str, allow_empty: bool) -> Words:
        """The words of a prompt, which may be empty if `allow_empty`; read once while tokenizers and reading stay."""
        names = ("tokenizer", "tokenizer_2", "tokenizer_3")
        sizes = tuple(len(part) for name in names if (part := getattr(self.pipeline, name, None)) is not None)
        return self._known(prompt, allow_empty or bool(prompt.strip()), self.reading, sizes)

    @cached_property
    def _known(self) -> Callable[..., Words]:
        return lru_cache(maxsize=KEPT)(lambda prompt, allow_empty, *_: self._read_words(prompt, allow_empty))

    def _read_words(self, prompt: str, allow_empty: bool) -> Words:
        """The words of a prompt, which may be empty if `allow_empty`."""
        raise NotImplementedError

    def check_length(self, text: str, name: str, steps: int = 1) -> None:
        for phase in dict.fromkeys(self.phases(text, steps)):
            check_length(self._words(phase, True), name, chunks=self.chunkable)

    @one_at_a_time
    @torch.no_grad()
    def encode(self, prompts: Sequence[str], negative: Sequence[str], *, truncate: bool = False) -> Text:
        for text in () if truncate else dict.fromkeys((*prompts, *negative)):
            check_length(self._words(text, True), quoted(text), chunks=self.chunkable)
        return self._encode(prompts, negative)

    def _encode(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        """The encoded prompts, of which everything is read that fits."""
        raise NotImplementedError

    def to_latent(self, pictures: Tensor) -> Tensor:
        return self._autoencoder.to_latent(pictures, self.device)

    def to_image(self, z: Tensor) -> Tensor:
        return self._autoencoder.to_image(z, self.device)

    @cached_property
    def _hash(self) -> str:
        digest = hashlib.sha256()
        for part in self.parts:
            for name, tensor in sorted(_weights(part).items()):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(tensor.detach().cpu().half().numpy()).tobytes())
        return digest.hexdigest()[:16]

    def fingerprint(self) -> str:
        return self._hash


def _weights(part: Any) -> dict[str, Tensor]:
    """The tensors of a network, even if sequential offload has replaced them by placeholders."""
    weights: dict[str, Tensor] = part.state_dict()
    if not any(tensor.is_meta for tensor in weights.values()):
        return weights
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    return get_state_dict_offloaded_model(part)


def on_device(value: int | float | Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A number as a tensor: filled in there, so that nothing waits for the device, which a copy from the host does."""
    return value.to(device, dtype) if isinstance(value, Tensor) else torch.full((), value, device=device, dtype=dtype)


def dtype_named(given: torch.dtype | str | None) -> torch.dtype | None:
    """The precision of this name; None for "auto"."""
    if given is None or isinstance(given, torch.dtype):
        return given
    if given not in DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}. Received {given!r}.")
    return None if given == "auto" else getattr(torch, given)
