"""Whether the parts of a model that was read fit together, as far as a run relies on it; errors name file and key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

LARGEST = 4096  # cells along a side of a latent
EXTRA = {
    9: "an inpainting model, which also reads a mask: in model_index.json, _class_name must be "
    "StableDiffusionInpaintPipeline, or StableDiffusionXLInpaintPipeline",
    8: "an InstructPix2Pix model, which also reads an image, and is not supported",
}
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")


def misfits(model: Any) -> Iterator[str]:
    """What does not fit, each as a sentence: "unet/config.json: sample_size must ..."."""
    pipeline, network = model.pipeline, model.network
    name = next((name for name, part in pipeline.components.items() if part is network), "network")
    yield from _size(f"{name}/config.json", network.config)
    autoencoder = f"{model.autoencoder}/config.json"
    yield from _autoencoder(autoencoder, model.vae.config)
    own, coded = model.channels, model.vae.config.get("latent_channels")
    if own != coded:
        what = f" It is {EXTRA[own]}." if own in EXTRA and coded == 4 else ""
        yield (
            f"{name}/config.json: in_channels must fit the {coded} channels of a latent. Received "
            f"{network.config.get('in_channels')}.{what}"
        )
    yield from _scheduler("scheduler/scheduler_config.json", model.sampler)
    yield from _tokenizers(model)


def _size(path: str, config: Any) -> Iterator[str]:
    if "sample_size" not in config:
        return
    size = config["sample_size"]
    sides = size if isinstance(size, tuple | list) and len(size) == 2 else [size]
    if not all(_whole(side, 1, LARGEST) for side in sides):
        yield f"{path}: sample_size must be a whole number from 1 to {LARGEST}, or two of them. Received {size!r}."


def _autoencoder(path: str, config: Any) -> Iterator[str]:
    scale, shift = config.get("scaling_factor", 1.0), config.get("shift_factor")
    if not _number(scale) or scale <= 0:
        yield f"{path}: scaling_factor must be a number above 0. Received {scale!r}."
    if shift is not None and not _number(shift):
        yield f"{path}: shift_factor must be a number, or null. Received {shift!r}."
    for key in ("latents_mean", "latents_std"):
        values, count = config.get(key), config.get("latent_channels")
        least = 0 if key == "latents_std" else -math.inf
        fits = isinstance(values, tuple | list) and len(values) == count
        if values is not None and not (fits and all(_number(v) and v > least for v in values)):
            above = " above 0" if least == 0 else ""
            yield f"{path}: {key} must be {count} numbers{above}, or null. Received {values!r}."


def _scheduler(path: str, scheduler: Any) -> Iterator[str]:
    config = scheduler.config
    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        yield f"{path}: prediction_type must be one of {', '.join(PREDICTIONS)}. Received {kind!r}."
    if not _whole(config.get("num_train_timesteps"), 1, 10**6):
        yield f"{path}: num_train_timesteps must be a whole number. Received {config.get('num_train_timesteps')!r}."
    if not _whole(config.get("steps_offset", 0) or 0, 0, 10**6):
        yield f"{path}: steps_offset must be a whole number. Received {config.get('steps_offset')!r}."
    if not _number(config.get("shift") or 1.0) or (config.get("shift") or 1.0) <= 0:
        yield f"{path}: shift must be a number above 0. Received {config.get('shift')!r}."
    levels = getattr(scheduler, "alphas_cumprod", None)
    if levels is not None and not bool(((levels >= 0) & (levels <= 1)).all()):
        said = ", ".join(
            f"{key}={config[key]!r}" for key in ("beta_start", "beta_end", "trained_betas") if key in config
        )
        yield f"{path}: beta_start and beta_end must give noise levels between 0 and 1. Received {said}."


def _tokenizers(model: Any) -> Iterator[str]:
    pipeline = model.pipeline
    for number in ("", "_2", "_3"):
        tokenizer = getattr(pipeline, f"tokenizer{number}", None)
        encoder = getattr(pipeline, f"text_encoder{number}", None)
        if tokenizer is None:
            continue
        path, length = f"tokenizer{number}/tokenizer_config.json", tokenizer.model_max_length
        most = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
        if (
            not isinstance(length, int)
            or isinstance(length, bool)
            or length < 3
            or (most is not None and length > most)
        ):
            to = f" to {most}" if most else ""
            yield f"{path}: model_max_length must be a whole number from 3{to}. Received {length!r}."
        size = getattr(getattr(encoder, "config", None), "vocab_size", None)
        if isinstance(size, int) and len(tokenizer) > size:
            yield (
                f"text_encoder{number}/config.json: vocab_size must be at least the tokenizer's {len(tokenizer)}. "
                f"Received {size}."
            )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
