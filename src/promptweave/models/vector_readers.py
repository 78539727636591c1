"""Networks that read texts or images into one vector: CLIP and sentence encoders, from a folder or the local cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from promptweave.models.base import ModelError
from promptweave.models.quiet import quiet

# Mean and standard deviation of CLIP's pixels, for folders whose preprocessor_config.json does not say them.
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
Vectors = Float[Tensor, "n dim"]


class ClipReader:
    """CLIP: texts and images as vectors of the same space, of length one (Radford et al., 2021)."""

    def __init__(self, model: str | Path) -> None:
        from transformers import AutoTokenizer, CLIPModel

        self.name, self.network = f"CLIP in {model}", _read(CLIPModel, model, "CLIP model")
        self.tokenizer: Any = _read(AutoTokenizer, model, "tokenizer of CLIP")
        said = Path(model) / "preprocessor_config.json"
        values = json.loads(said.read_text("utf-8")) if said.is_file() else {}
        self.mean, self.deviation = values.get("image_mean", MEAN), values.get("image_std", DEVIATION)

    @property
    def dim(self) -> int:
        return int(self.network.config.projection_dim)

    @torch.no_grad()
    def texts(self, given: Sequence[str]) -> Vectors:
        """The vectors of texts; what goes beyond CLIP's limit is cut."""
        limit = self.network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(given), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        read = self.network.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return _unit(self.network.text_projection(read.pooler_output))

    @torch.no_grad()
    def images(self, given: Sequence[Image.Image]) -> Vectors:
        """The vectors of images: the shorter side is scaled to CLIP's, the middle is read."""
        side = self.network.config.vision_config.image_size
        pixels = torch.stack([self._pixels(one.convert("RGB"), side) for one in given])
        return _unit(self.network.visual_projection(self.network.vision_model(pixels).pooler_output))

    def _pixels(self, image: Image.Image, side: int) -> Tensor:
        scale = side / min(image.size)
        size = max(side, round(image.width * scale)), max(side, round(image.height * scale))
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        image = image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
        values = (np.asarray(image, dtype=np.float32) / 255 - self.mean) / self.deviation
        return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)


class SentenceReader:
    """A sentence encoder as sentence-transformers has them: the mean of a network's last layer over a text's tokens."""

    def __init__(self, model: str | Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.name = f"the sentence encoder in {model}"
        self.network, self.tokenizer = (_read(kind, model, "sentence encoder") for kind in (AutoModel, AutoTokenizer))

    @property
    def dim(self) -> int:
        return int(self.network.config.hidden_size)

    @torch.no_grad()
    def texts(self, given: Sequence[str]) -> Vectors:
        """The vectors of texts, of length one."""
        tokens = self.tokenizer(list(given), padding=True, truncation=True, return_tensors="pt")
        read = self.network(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].to(read)
        return _unit((read * mask).sum(1) / mask.sum(1))


def _unit(vectors: Tensor) -> Vectors:
    return (vectors / vectors.norm(dim=1, keepdim=True)).float()


def _read(kind: Any, model: str | Path, what: str) -> Any:
    """A part of transformers, from a folder or the local cache; nothing is downloaded."""
    try:
        with quiet():
            made = kind.from_pretrained(str(model), local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"A {what} is read from a folder of transformers or from the local cache, never from the network. "
            f"{str(model)!r} is neither: {str(error).splitlines()[0]}"
        ) from error
    return made.eval() if hasattr(made, "eval") else made
