"""Files and folders that are no whole model: named for what they are, with what takes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from promptweave.models.base import ModelError

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
HEAD = 512  # bytes that tell what a file is
UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".aria2", ".download")
AGAIN = "Download it again."
PAGE = "The server answered with a page instead of the file: log in, or use the file's own download link."
BEGINNINGS: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    ((b"version https://git-lfs",), "a Git LFS pointer, which stands for the weights",
     "Fetch them in the folder that was cloned: git lfs pull."),
    ((b"<!doctype html", b"<html", b"<?xml", b"<head"), "a web page", PAGE),
    ((b"{\"error", b"{ \"error", b"access to", b"invalid username", b"entry not found", b"repository not found"),
     "the message of a server that refused the download", PAGE),
    ((b"gguf",), "a GGUF file, a single network in quantised form",
     "Build a pipeline of it with diffusers (GGUFQuantizationConfig), and give that: load(pipeline)."),
    ((b"pk\x03\x04",), "a zip archive", "Unpack it, and give the file or folder inside."),
    ((b"\x1f\x8b", b"7z\xbc\xaf", b"rar!", b"(\xb5/\xfd", b"bzh", b"\xfd7zxz"), "a compressed archive",
     "Unpack it, and give the file or folder inside."),
    ((b"\x89png", b"\xff\xd8\xff", b"gif8", b"riff"), "a picture", "Give it with --image (image=), beside a model."),
    ((b"\x89hdf",), "an HDF5 file of Keras", "promptweave reads diffusers' pipelines and .safetensors files."),
    ((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a pickle, which can run any code when it is read",
     "Convert it to .safetensors or, if you trust its source, name it .ckpt and allow it with --allow-pickle "
     "(allow_pickle=True)."),
    ((b"%pdf",), "a PDF", "promptweave reads diffusers' pipelines and .safetensors files."),
)  # fmt: skip
ENDINGS = {
    ".onnx": "an ONNX network", ".ort": "an ONNX network", ".tflite": "a TensorFlow Lite network",
    ".mlmodel": "a Core ML network", ".mlpackage": "a Core ML network", ".mlmodelc": "a Core ML network",
    ".engine": "a TensorRT network", ".plan": "a TensorRT network", ".trt": "a TensorRT network",
    ".msgpack": "a Flax network", ".h5": "a Keras network", ".xml": "an OpenVINO network",
}  # fmt: skip
COMPILED = (
    "Its attention cannot be reached: give the PyTorch pipeline that it was made of, a folder with model_index.json or "
    "a .safetensors file."
)
# Parts of a tensor's name that only this kind of file has; what it is; what takes it.
PARTS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("ip_adapter.", "to_k_ip.", "image_proj."), "an IP-Adapter",
     "Add it to a pipeline: pipeline.load_ip_adapter(...), then load(pipeline, image_prompt=image)."),
    (("lora_", ".lora.", "lora.down", "lora.up", "hada_w1", "lokr_w", ".oft_", ".diff_b"),
     "a LoRA, an addition to a model's weights",
     "Add it to a pipeline: pipeline.load_lora_weights(file), pipeline.fuse_lora(), then load(pipeline)."),
    (("control_model.", "controlnet_", "input_hint_block."), "a ControlNet",
     "Put it into a pipeline with diffusers (StableDiffusionControlNetPipeline), then load(pipeline, control=image)."),
    (("motion_modules.",), "a motion module of AnimateDiff", "promptweave edits single images: give an image model."),
    (("adapter.body.", "adapter.conv_in."), "a T2I-Adapter", "It is not supported. Use a ControlNet instead."),
)  # fmt: skip
# Beginnings of the names of all tensors.
WHOLES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("encoder.down", "encoder.mid", "encoder.conv", "encoder.norm", "decoder.", "quant_conv.", "post_quant_conv.",
      "first_stage_model.", "quantize."),
     "a VAE, the autoencoder of a model",
     "Put it into a pipeline: pipeline.vae = AutoencoderKL.from_single_file(file), then load(pipeline)."),
    (("text_model.", "vision_model.", "transformer.resblocks.", "text_projection", "logit_scale", "token_embedding.",
      "positional_embedding", "ln_final.", "visual_projection", "visual.", "cond_stage_model.", "final_layer_norm"),
     "a CLIP encoder, which reads prompts or images for a model",
     "It is a part of a pipeline: give the pipeline's folder, or load(pipeline)."),
    (("encoder.block.", "shared.", "encoder.final_layer_norm.", "encoder.embed_tokens.", "decoder.block."),
     "a T5 encoder, which reads prompts for a model",
     "It is a part of a pipeline: give the pipeline's folder, or load(pipeline)."),
)  # fmt: skip
# By a part of the class's name in a config.
CLASSES = {"ControlNet": PARTS[2], "Autoencoder": WHOLES[0], "CLIP": WHOLES[1], "T5": WHOLES[2]}
NETWORK = (
    "the denoising network of a model alone, without its autoencoder and text encoder",
    "Give the folder of its pipeline, or build one with diffusers (from_single_file of the network, from_pretrained of "
    "the pipeline), then load(pipeline).",
)
SMALL = 2**20  # bytes: a pickle below is no model
EMBEDDING = (
    "A file of this size is rather a textual inversion, the embedding of a word: add it to a pipeline with "
    "pipeline.load_textual_inversion(file), then load(pipeline)."
)
NETWORKS = ("input_blocks.", "down_blocks.", "double_blocks.", "joint_blocks.", "transformer_blocks.")
INVERSIONS = ("emb_params", "string_to_param", "clip_l", "clip_g")
COMFY = ("checkpoints", "diffusion_models", "text_encoders", "clip", "clip_vision", "loras", "controlnet")


def told(path: Path) -> tuple[str, str] | None:
    """What a file is, by its name and first bytes, and what to do; None if it may be a checkpoint."""
    if path.suffix.lower() in UNFINISHED:
        return "an unfinished download", AGAIN
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return ("empty", AGAIN) if path.suffix.lower() not in PICKLES else None
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signs, what, how in BEGINNINGS:
        pickled = what.startswith(("a zip", "a pickle")) and path.suffix.lower() in (
            ".ckpt",
            ".pt",
            ".pth",
            ".bin",
            ".pkl",
        )
        if begin.startswith(signs) and not pickled:
            return what, how
    if path.suffix.lower() in ENDINGS:
        return ENDINGS[path.suffix.lower()], COMPILED
    return None


def header(path: Path) -> dict[str, Any]:
    """The header of a .safetensors file: for each tensor its shape and place. Raises ValueError for a damaged one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"{path} is incomplete or no .safetensors file: its header ends behind its {size} bytes.")
        try:
            found = json.loads(file.read(length))
            places = [entry["data_offsets"][1] for name, entry in found.items() if name != "__metadata__"]
            whole = 8 + length + max(places, default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(f"{path} is no .safetensors file: its header cannot be read.") from error
    if size < whole:
        raise ValueError(f"{path} is incomplete: it has {size} of {whole} bytes. {AGAIN}")
    return found


def check_address(model: str) -> None:
    """Raise ModelError for an address on the web, of which the end may be a hub id."""
    if "://" in model:
        given = [part for part in model.partition("://")[2].split("/") if part][1:3]
        instead = f"the hub id {'/'.join(given)!r}" if len(given) == 2 else "a hub id like 'owner/name', or a file"
        raise ModelError(f"Addresses are not fetched. Received {model}. Give {instead}.")


def check_file(path: Path) -> None:
    """Raise ModelError for a file that is no whole checkpoint, named for what it is."""
    try:
        found = told(path) or (part_of(header(path)) if path.suffix == ".safetensors" else None)
    except OSError as error:
        raise ModelError(f"{path} cannot be opened ({error.strerror}). Check its permissions.") from error
    except ValueError as error:
        raise ModelError(f"The model could not be read: {error}") from error
    if found is None and path.suffix not in (".safetensors", *PICKLES):
        found = f"a {path.suffix or 'nameless'} file", "A model is a folder, a .safetensors file or a hub id."
    if found is not None:
        raise ModelError(f"{path} is {found[0]}, not a model. {found[1]}")


def part_of(tensors: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a .safetensors file is that is no whole checkpoint, and what takes it; None if it may be one."""
    if "promptweave" in (tensors.get("__metadata__") or {}):
        return "a recording", "Edit it: promptweave edit --recording FILE TARGET (Recording.load(file))."
    names = [name for name in tensors if name != "__metadata__"]
    if any(name.startswith(("first_stage_model.", "vae.")) for name in names) and any(
        name.startswith("model.diffusion_model.") for name in names
    ):
        return None
    for signs, what, how in PARTS:
        if any(sign in name for sign in signs for name in names):
            return what, how
    for signs, what, how in WHOLES:
        if names and all(name.startswith(signs) for name in names):
            return what, how
    if names and (set(names) <= set(INVERSIONS) or all(_small(tensors[name]) for name in names) and len(names) <= 4):
        how = "Add it to a pipeline: pipeline.load_textual_inversion(file), then load(pipeline)."
        return "a textual inversion, the embedding of a word", how
    return NETWORK if any(name.removeprefix("model.diffusion_model.").startswith(NETWORKS) for name in names) else None


def _small(entry: Mapping[str, Any]) -> bool:
    """Whether a tensor has the shape of word embeddings [words, dim]."""
    shape = entry.get("shape") or [0]
    return len(shape) in (1, 2) and shape[-1] >= 256 and (len(shape) == 1 or shape[0] <= 128)


def told_folder(path: Path) -> str:
    """What a folder without model_index.json is, and what to do."""
    entries = sorted(path.iterdir())
    names = {entry.name for entry in entries}
    folders = {entry.name for entry in entries if entry.is_dir()}
    checkpoints = [entry.name for entry in entries if entry.suffix in (".safetensors", ".ckpt")]
    if not entries:
        return "It is empty."
    if any(name.startswith("models--") for name in (path.name, *folders)) or "snapshots" in names:
        found = sorted(path.rglob("model_index.json"))
        return f"It is a cache of a hub. Give {found[0].parent if found else 'a folder under snapshots'}."
    if "models" in folders and len(set(COMFY) & {entry.name for entry in (path / "models").iterdir()}) > 1:
        return f"It is the folder of ComfyUI. Give a file of {path / 'models' / 'checkpoints'}."
    if "Stable-diffusion" in names or (path / "models" / "Stable-diffusion").is_dir():
        return "It is the folder of a web interface. Give a file of its Stable-diffusion folder."
    inside = sorted(entry for entry in entries if (entry / "model_index.json").is_file())
    if inside:
        return f"Pipelines are one level below: {', '.join(map(str, inside[:3]))}."
    if len(set(COMFY) & folders) > 1:
        some = [entry for entry in _files(path / "checkpoints", (".safetensors", ".ckpt"))]
        such = f", such as {some[0]}" if some else ""
        return f"It is the models folder of ComfyUI. Give a file of its checkpoints{such}."
    if {"adapter_config.json", "pytorch_lora_weights.safetensors"} & names:
        return f"It is {PARTS[1][1]}. {PARTS[1][2].replace('file', 'folder')}"
    if "config.json" in names or "scheduler_config.json" in names:
        whole = path.parent if (path.parent / "model_index.json").is_file() else None
        called = _class_of(path)
        alone = [found for sign, found in CLASSES.items() if sign in called]
        if alone and whole is None:
            return f"It is {alone[0][1]}. {alone[0][2]}"
        what = f"a part of a pipeline, {called}" if called else "a part of a pipeline"
        return f"It is {what}. Give {whole or 'the folder of the pipeline'}."
    if any(entry.suffix in ENDINGS for entry in entries) or list(path.glob("*/*.onnx")):
        return f"It holds compiled networks. {COMPILED}"
    if checkpoints:
        return f"It holds checkpoints. Give one of them: {', '.join(str(path / name) for name in checkpoints[:3])}."
    if {"unet", "transformer", "vae", "text_encoder"} & folders:
        return "It is an incomplete download: its parts are there. Download model_index.json, too."
    return "Choose the folder of a pipeline."


def _class_of(path: Path) -> str:
    """The class that the config of a part names."""
    for name in ("config.json", "scheduler_config.json"):
        try:
            config = json.loads((path / name).read_text("utf-8"))
            return str(config.get("_class_name") or (config.get("architectures") or [""])[0])
        except (OSError, ValueError, AttributeError, TypeError, IndexError):
            continue
    return ""


def _files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    return sorted(entry for entry in folder.glob("*") if entry.suffix in suffixes)
