"""Find and load a model: the embedded one, a folder, a single file, a hub id or a ready pipeline."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from promptweave.core.typed import checked
from promptweave.models.agreement import misfits
from promptweave.models.base import ModelError as ModelError
from promptweave.models.configs import INDEX, check_configs, culprit, read_index
from promptweave.models.control_net import ControlPicture
from promptweave.models.embedded import (
    EMBEDDED,
    GUIDANCE,
    NAMES,
    T5_PLACES,
    borrowed,
    embedded_folder,
    finish,
    pipeline_folder,
)
from promptweave.models.families import CHECKED, FAMILIES, Loaded
from promptweave.models.foreign import EMBEDDING, PICKLES, SMALL, check_address, check_file, part_of, told_folder
from promptweave.models.hub import reach
from promptweave.models.image_prompt import ImagePrompt
from promptweave.models.long_text import Reading
from promptweave.models.pipeline import GUIDANCE_ATTRIBUTE, dtype_named
from promptweave.models.quiet import quiet
from promptweave.models.sd3 import T5_ATTRIBUTE
from promptweave.models.single_file import pipeline_class, tensors_of, trained_as, with_training
from promptweave.models.solvers import scheduler_name, with_scheduler
from promptweave.models.unet import UNetModel
from promptweave.models.weights import check_weights, variant

CALLED: set[str] = set()  # the models that this program has named so far; a recipe may name them, too


@checked
def load(
    model: Any = EMBEDDED,
    *,
    device: str = "auto",
    dtype: torch.dtype | str | None = "auto",
    offline: bool = False,
    scheduler: str | None = None,
    allow_pickle: bool = False,
    config: Path | str | None = None,
    control: Any = None,
    control_scale: int | float = 1.0,
    image_prompt: Any = None,
    chunks: int = 1,
    prompt_weights: bool = False,
) -> Loaded:
    """Load a model for sampling.

    `model`: "toybox", "toybox-dit" or "toybox-fast" (the embedded models), a pipeline's folder, a single .safetensors
    file, a hub id, or a ready pipeline of one of the classes in FAMILIES, whose device and dtype stay as they are.
    `device`: "auto" takes a GPU if there is one. `dtype`: torch's or its name, such as "bfloat16"; "auto" and None:
    float32 on a CPU and for the embedded models, float16 elsewhere. The embedded models and folders never access the
    internet; `offline` looks for a hub id in the local cache only. `scheduler`: a name in `models.solvers.NAMES`; None:
    the model's own. `allow_pickle`: also read weights from pickle files, which can run any code; only for files that
    you trust. `config`: the pipeline folder that describes the parts of a single file, instead of the hub's. `control`:
    the image that a ControlNet reads, in any form that diffusers takes, and `control_scale`, its strength.
    `image_prompt`: the image that an IP-Adapter reads, or a list with one for each adapter. `chunks`: read prompts of
    up to so many times the encoder's length; `prompt_weights`: read the prompt syntax of the web user interfaces,
    (word:1.3), [word], [cat:dog:0.5], [cat|dog] and BREAK; both for Stable Diffusion 1, 2 and XL. Raises ModelError if
    the model cannot be found, read or used in this way, and UnknownScheduler for a scheduler that is not supported.
    """
    reading = Reading(chunks, prompt_weights)
    if not isinstance(model, str | Path):
        made = _steered(model, type(model).__name__, scheduler)
        return _reading(_pictured(_controlled(made, control, control_scale), image_prompt), reading)
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    kind = dtype_named(dtype) or usual_dtype(str(model), place)
    pipeline = _read(str(model), kind, offline, allow_pickle, config)
    found = _steered(pipeline, str(model), scheduler)
    CALLED.add(str(model))
    wrong = next(misfits(found), None)
    if wrong is not None:
        raise ModelError(f"The model {str(model)!r} cannot be used: {wrong}")
    try:
        pipeline.to(place)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"Device {device!r} cannot be used: {str(error).splitlines()[0]} Choose cpu or auto."
        ) from error
    return _reading(_pictured(_controlled(found, control, control_scale), image_prompt), reading)


def _reading(model: Loaded, reading: Reading) -> Loaded:
    """The model, set to read prompts in this way."""
    if reading.plain:
        return model
    if not model.chunkable:
        raise ModelError(
            "Chunks and prompt weights need the CLIP encoders of Stable Diffusion 1, 2 or XL. "
            f"Received {type(model.pipeline).__name__}, which reads {model.words('a').limit} tokens."
        )
    model.reading = reading
    return model


def _controlled(model: Loaded, control: Any, scale: int | float) -> Loaded:
    """The model with the image that its ControlNet reads."""
    if control is None:
        return model
    if not isinstance(model, UNetModel) or getattr(model.pipeline, "controlnet", None) is None:
        raise ModelError(
            f"A control image needs a pipeline with a ControlNet. Received {type(model.pipeline).__name__}."
        )
    model.control = ControlPicture(model.pipeline, control, float(scale))
    return model


def _pictured(model: Loaded, pictures: Any) -> Loaded:
    """The model with the images that its IP-Adapters read."""
    if pictures is None:
        return model
    if not isinstance(model, UNetModel) or getattr(model.unet, "encoder_hid_proj", None) is None:
        raise ModelError(
            "An image prompt needs a UNet pipeline with an IP-Adapter. Received "
            f"{type(model.pipeline).__name__} without one. Add it with pipeline.load_ip_adapter(...)."
        )
    model.image_prompt = ImagePrompt(model.pipeline, pictures)
    return model


@lru_cache(maxsize=2)
def load_cached(
    model: str = EMBEDDED, scheduler: str | None = None, chunks: int = 1, prompt_weights: bool = False
) -> Loaded:
    """`load` with these settings; the model is cached for the next call."""
    return load(model, scheduler=scheduler, chunks=chunks, prompt_weights=prompt_weights)


def usual_dtype(model: str, device: str) -> torch.dtype:
    """float16 where it saves memory and time; `toybox-dit` overflows in it, and the embedded models are small."""
    return torch.float32 if device == "cpu" or model in NAMES else torch.float16


def place_of(model: str, allow_pickle: bool = False) -> Path:
    """The folder or file of a model, which is not there for a hub id. Raises ModelError for what no model can be."""
    check_address(model)
    path = embedded_folder(model) if model in NAMES else Path(model).expanduser()
    if model in NAMES and not path.is_dir():
        raise ModelError(f"{model} is missing from this installation: no folder {path}. Reinstall the package.")
    path = pipeline_folder(model) if model in NAMES else path
    if path.is_file():
        check_file(path)
    if path.suffix in PICKLES and not allow_pickle:
        raise ModelError(
            f"{path} is a pickle file, which can run any code when it is read. Convert it to .safetensors or, if you "
            "trust its source, allow it with allow_pickle=True (--allow-pickle)."
            + (f" {EMBEDDING}" if path.is_file() and 0 < path.stat().st_size < SMALL else "")
        )
    single = path.suffix in (".safetensors", *PICKLES)
    if not path.is_dir() and not single and (model.count("/") != 1 or model.startswith((".", "/", "~"))):
        raise ModelError(
            f"{model!r} is neither an embedded model ({', '.join(NAMES)}), a folder, a .safetensors file nor a hub id "
            "like 'owner/name'."
        )
    if single and not path.is_file():
        raise ModelError(f"There is no file {path}. Check the path.")
    return path


def _read(model: str, dtype: torch.dtype, offline: bool, allow_pickle: bool, config: Path | str | None) -> Any:
    path = place_of(model, allow_pickle)
    local = path.is_dir() or config is not None
    try:
        with quiet(), reach(offline=offline or local):
            if path.suffix in (".safetensors", *PICKLES):
                return _read_file(path, dtype, offline or local, Path(config).expanduser() if config else None)
            if not path.is_dir():
                return _read_hub(model, dtype, offline, allow_pickle)
            pipeline = _read_folder(path, dtype, allow_pickle)
            finish(model, pipeline)
            return pipeline
    except ModelError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The model {model!r} could not be read: {reason.rstrip('.')}. Check that the folder is complete, or, for "
            "a hub id, that it is in the cache or the hub can be reached."
        ) from error


def _read_file(path: Path, dtype: torch.dtype, offline: bool, config: Path | None) -> Any:
    """The pipeline of a single checkpoint, with the prediction and the schedule that it says it was trained for."""
    if config is not None:
        check_configs(config, _index(config))
    tensors = tensors_of(path)
    found = part_of(tensors)
    if found is not None:  # in a pickle; other files have been looked at
        raise ModelError(f"{path} is {found[0]}, not a model. {found[1]}")
    made, changes = pipeline_class(path, config), trained_as(tensors)
    pipeline = made.from_single_file(
        str(path), torch_dtype=dtype, local_files_only=offline,
        **({"config": str(config)} if config else {}), **_unsafe(made.__name__),
    )  # fmt: skip
    pipeline.scheduler = with_training(pipeline.scheduler, changes)
    return pipeline


def _options(dtype: torch.dtype, allow_pickle: bool) -> dict[str, Any]:
    return {
        "torch_dtype": dtype, "low_cpu_mem_usage": find_spec("accelerate") is not None,
        "use_safetensors": None if allow_pickle else True,
    }  # fmt: skip


def _read_hub(model: str, dtype: torch.dtype, offline: bool, allow_pickle: bool) -> Any:
    import diffusers

    anything: Any = getattr(diffusers, "DiffusionPipeline")  # noqa: B009 - its lazy module exports nothing
    config = anything.load_config(model, local_files_only=offline)
    options = {**_options(dtype, allow_pickle), **_absent(config)}
    return _class(config.get("_class_name", "")).from_pretrained(model, local_files_only=offline, **options)


def _index(folder: Path) -> dict[str, Any]:
    """The checked `model_index.json` of a folder."""
    if not (folder / INDEX).is_file():
        raise ModelError(f"A model folder contains model_index.json, and {folder} does not. {told_folder(folder)}")
    return read_index(folder)


def _read_folder(path: Path, dtype: torch.dtype, allow_pickle: bool) -> Any:
    config = _index(path)
    made = _class(config["_class_name"])
    given = borrowed(config, dtype)
    own_parts = {name: value for name, value in config.items() if name not in given}
    check_configs(path, own_parts)
    check_weights(path, own_parts, allow_pickle)
    own = {
        key: attribute
        for key, attribute in ((T5_PLACES, T5_ATTRIBUTE), (GUIDANCE, GUIDANCE_ATTRIBUTE))
        if key in config
    }
    for key in own:
        if isinstance(config[key], bool) or not isinstance(config[key], int | float) or not 0 <= config[key] < 10**4:
            raise ModelError(f"{path / INDEX}: {key} must be a number from 0 on. Received {config[key]!r}.")
    options = {**_options(dtype, allow_pickle), **_absent(config), **given, **variant(path, own_parts)}
    try:
        pipeline = made.from_pretrained(path, local_files_only=True, **options)
    except Exception as error:
        found = culprit(path, own_parts)
        if found is None:
            raise
        raise ModelError(f"The model {str(path)!r} could not be read: {found}.") from error
    for key, attribute in own.items():
        setattr(pipeline, attribute, config[key])
    return pipeline


def _class(name: str) -> Any:
    import diffusers

    if name not in FAMILIES:
        raise ModelError(f"promptweave steers pipelines of the classes {', '.join(FAMILIES)}. Received {name or None}.")
    return getattr(diffusers, name)


def _absent(config: dict[str, Any]) -> dict[str, Any]:
    """Options that leave out the parts that a pipeline was saved without, and the safety checker."""
    parts = {name: None for name, value in config.items() if value == [None, None]}
    return {**parts, **_unsafe(config.get("_class_name", ""))}


def _unsafe(kind: str) -> dict[str, Any]:
    """Options that leave out the safety checker of Stable Diffusion 1, a classifier of finished images."""
    return {"safety_checker": None, "requires_safety_checker": False} if kind in CHECKED else {}


def _steered(pipeline: Any, name: str, scheduler: str | None) -> Loaded:
    kind = type(pipeline).__name__
    if kind not in FAMILIES:
        raise ModelError(f"promptweave steers pipelines of the classes {', '.join(FAMILIES)}. Received {kind}.")
    for part in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        tokenizer = getattr(pipeline, part, None)
        if tokenizer is not None and not getattr(tokenizer, "is_fast", True):
            raise ModelError(
                f"Words are found by the offsets of a fast tokenizer. Received {type(tokenizer).__name__} as {part}. "
                f"Load the pipeline with {type(tokenizer).__name__}Fast."
            )
    made = FAMILIES[kind](pipeline, name)
    if scheduler is not None:
        made.sampler = with_scheduler(pipeline.scheduler, scheduler)
    scheduler_name(made.sampler)  # raises UnknownScheduler
    return made
