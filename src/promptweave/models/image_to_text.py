"""Models that say in words what an image shows (BLIP, BLIP-2, GIT, Florence-2), from a folder or the local cache.

Nothing is fetched: a model that is not on this machine is no model.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from promptweave.models.hub import reach
from promptweave.models.quiet import quiet

KINDS = ("blip", "blip-2", "git", "florence2")  # by `model_type` of config.json
USUAL = (  # looked for in the cache, in this order
    "Salesforce/blip-image-captioning-large", "Salesforce/blip-image-captioning-base",
    "florence-community/Florence-2-large", "florence-community/Florence-2-base",
    "microsoft/git-large-coco", "microsoft/git-base-coco",
)  # fmt: skip
TASK = {"florence2": "<CAPTION>"}  # what some models are asked with
TOKENS = 40  # of an answer, at most


class NoCaptioner(ValueError):
    """No image-to-text model is on this machine, or the one that was named cannot be used."""


def cached() -> str | None:
    """The first of the usual captioning models that is in the local cache; None if none is."""
    from huggingface_hub import try_to_load_from_cache

    return next((name for name in USUAL if isinstance(try_to_load_from_cache(name, "config.json"), str)), None)


def caption_of(image: Image.Image, name: str | Path) -> str:
    """What an RGB image shows, in the words of the model `name`, a folder or a name in the local cache.

    Raises NoCaptioner for one that is not there, is damaged or of another kind than `KINDS`.
    """
    processor, model = _loaded(str(name))
    kind = model.config.model_type
    text = {"text": TASK[kind]} if kind in TASK else {}
    given = processor(images=image, return_tensors="pt", **text).to(model.device)
    with torch.no_grad():
        answer = model.generate(**given, max_new_tokens=TOKENS, do_sample=False, num_beams=1)
    return " ".join(processor.batch_decode(answer, skip_special_tokens=True)[0].split()).rstrip(". ")


@lru_cache(1)
def _loaded(name: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with reach(offline=True), quiet():
            kind = AutoConfig.from_pretrained(name, **local).model_type
            if kind not in KINDS:
                raise NoCaptioner(
                    f"A captioner is an image-to-text model of the kinds {', '.join(KINDS)}. Received {name}, which "
                    f"is {kind}. Choose another, or type what the image shows as the source prompt."
                )
            processor = AutoProcessor.from_pretrained(name, **local)
            model = AutoModelForImageTextToText.from_pretrained(name, **local, use_safetensors=True)
    except NoCaptioner:
        raise
    except Exception as error:  # any error of the library on a missing or damaged model
        told = " ".join(str(error).split())[:200]
        reason = f"cannot be loaded: {told}" if Path(name).exists() else "is neither"
        raise NoCaptioner(
            f"A captioner is a folder with an image-to-text model, or the name of one in the local cache; nothing is "
            f"downloaded. {name} {reason}. Give another, or type what the image shows as the source prompt."
        ) from error
    return processor, model.eval()
