"""Find and load a model: the embedded one, a folder, a single file, a hub id or a ready pipeline."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from promptweave.models.quiet import quiet
from promptweave.models.unet import UNetModel

EMBEDDED = "toybox"
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


class ModelError(ValueError):
    """A model that cannot be found, read or used."""


def toybox_folder() -> Path:
    """The folder of the embedded model in the installed package."""
    return Path(str(resources.files("promptweave.models").joinpath(EMBEDDED)))


def load(
    model: Any = EMBEDDED, *, device: str = "auto", dtype: torch.dtype | None = None, offline: bool = False
) -> UNetModel:
    """Load a model for sampling.

    `model`: "toybox" (the embedded model), a folder or a .safetensors file of a Stable Diffusion pipeline, a hub id, or
    a ready StableDiffusionPipeline. `device` "auto" takes a GPU if there is one; `dtype` is float32 on a CPU and
    float16 on a GPU unless given. The embedded model and folders never touch the network; with `offline` a hub id is
    looked for in the cache only. A ready pipeline is taken as it is: device and dtype are its own.
    """
    if not isinstance(model, str | Path):
        return UNetModel(_checked(model), type(model).__name__)
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    dtype = dtype or (torch.float32 if place == "cpu" else torch.float16)
    pipeline = _read(str(model), dtype, offline)
    try:
        pipeline = _checked(pipeline).to(place)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"Device {device!r} cannot be used: {str(error).splitlines()[0]} Choose cpu or auto."
        ) from error
    return UNetModel(pipeline, str(model))


@lru_cache(maxsize=2)
def load_cached(model: str = EMBEDDED) -> UNetModel:
    """`load` with default settings, kept for the next call."""
    return load(model)


def _read(model: str, dtype: torch.dtype, offline: bool) -> Any:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    path = toybox_folder() if model == EMBEDDED else Path(model).expanduser()
    options: dict[str, Any] = {"torch_dtype": dtype, "safety_checker": None, "requires_safety_checker": False}
    safe = {**options, "use_safetensors": True, "low_cpu_mem_usage": find_spec("accelerate") is not None}
    if model == EMBEDDED and not path.is_dir():
        raise ModelError(
            f"The embedded model is missing from this installation: no folder {path}. Install the package anew."
        )
    if path.suffix in PICKLES:
        raise ModelError(
            f"{path} is a pickle file, which can run any code when it is read. Convert it to .safetensors first."
        )
    try:
        with quiet():
            if path.is_dir():
                if not (path / "model_index.json").is_file():
                    raise ModelError(
                        f"A model folder holds model_index.json. {path} has none: is it a pipeline folder?"
                    )
                return StableDiffusionPipeline.from_pretrained(path, local_files_only=True, **safe)
            if path.suffix == ".safetensors":
                if not path.is_file():
                    raise ModelError(f"There is no file {path}.")
                return StableDiffusionPipeline.from_single_file(str(path), local_files_only=offline, **options)
            if model.count("/") != 1 or model.startswith((".", "/", "~")):
                raise ModelError(
                    f"{model!r} is neither 'toybox', a folder, a .safetensors file nor a hub id like 'owner/name'."
                )
            return StableDiffusionPipeline.from_pretrained(model, local_files_only=offline, **safe)
    except ModelError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The model {model!r} could not be read: {reason} Check that the folder is complete, or, for a hub id, "
            "that it is in the cache or the network can be reached."
        ) from error


def _checked(pipeline: Any) -> Any:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    if not isinstance(pipeline, StableDiffusionPipeline):
        raise ModelError(
            f"promptweave steers pipelines of class StableDiffusionPipeline. Received {type(pipeline).__name__}."
        )
    if not getattr(pipeline.tokenizer, "is_fast", True):
        raise ModelError("Words are found with a fast tokenizer's offsets. Load the pipeline with CLIPTokenizerFast.")
    return pipeline
