"""A perceiver: the extractor in a model, its text adapter and a head, trained for one task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptweave.core.files import write_file
from promptweave.models.base import Model
from promptweave.perception.extractor import Extractor, Seen, TextAdapter
from promptweave.perception.tasks import Plan

STRIDE = 2 / 3  # of a window's side between windows: 341 of 512 pixels
MOST_WINDOWS = 256
SHIPPED = Path(__file__).parent / "weights"
PLAN, NETWORK = "plan", "network"  # keys of a file's metadata


class BadWeights(ValueError):
    """A file that holds no perceiver, or one for another model."""


class Perceiver(nn.Module):
    """`plan` carried out in `model`, whose networks are frozen unless `plan.fine_tuned`."""

    def __init__(self, model: Model, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.extractor = Extractor(model, t=plan.t, published_scale=plan.published_scale)
        mapped = self.extractor.has_maps(plan.size) if plan.with_maps else (False,) * len(self.extractor.levels)
        channels = [
            count + (plan.vectors if has else 0) for count, has in zip(self.extractor.channels, mapped, strict=True)
        ]
        self.adapter = TextAdapter(self.extractor.dim)
        self.head = plan.head(channels)
        self.to(self.extractor.model.device)

    @property
    def network(self) -> Any:
        """The diffusion network."""
        return self.extractor.network

    @cached_property
    def _named(self) -> Tensor:
        """The vectors of the classes, or of the kinds of scene, [names, dim]."""
        plan, extractor = self.plan, self.extractor
        return extractor.vectors(plan.classes or plan.kinds, plan.templates, plan.text == "word")

    @cached_property
    def _start(self) -> Tensor:
        return self.extractor.start

    def context(
        self, rows: int, phrases: Sequence[str] | None = None, kinds: Sequence[str | None] | None = None
    ) -> Tensor:
        """The context of so many images before the adapter, [rows, vectors, dim]."""
        plan = self.plan
        if plan.task == "refer":
            if phrases is None or len(phrases) != rows:
                raise ValueError("Referring segmentation needs a phrase for each image. Give phrase= (--phrase).")
            return self.extractor.phrases(phrases, plan.tokens)
        if plan.classes:
            text = self._named if not plan.sink else torch.cat([self._named, self._start[None]])
            return text[None].expand(rows, -1, -1)
        if not plan.kinds:
            return self.extractor.phrases([""] * rows, 1)
        names = list(kinds or [None] * rows)
        for name in names:
            if name is not None and name not in plan.kinds:
                raise ValueError(f"kind must be one of {', '.join(plan.kinds)}. Received {name!r}.")
        mean = self._named.mean(0)
        return torch.stack([mean if n is None else self._named[plan.kinds.index(n)] for n in names])[:, None]

    def adapted(self, context: Tensor) -> Tensor:
        """The context as the network reads it."""
        return self.adapter(context.to(self.extractor.model.device))

    def joined(self, seen: Seen) -> list[Tensor]:
        """What the head reads of the features; maps of the sink are left out."""
        maps = tuple(None if map is None else map[:, : self.plan.vectors] for map in seen.maps)
        return [x.float() for x in Seen(seen.levels, maps).joined(self.plan.with_maps)]

    def output(
        self, pictures: Tensor, phrases: Sequence[str] | None = None, kinds: Sequence[str | None] | None = None
    ) -> Tensor:
        """The head's output for images [n, height, width, 3] of the plan's size, enlarged to theirs."""
        context = self.adapted(self.context(len(pictures), phrases, kinds))
        seen = self.extractor.see(self.extractor.latents(pictures), context)
        return F.interpolate(
            self.head(self.joined(seen)), pictures.shape[1:3], mode="bilinear", align_corners=self.plan.task == "refer"
        )

    @torch.no_grad()
    def answer(
        self, picture: Tensor, *, phrase: str | None = None, kind: str | None = None, flip: bool | None = None
    ) -> Tensor:
        """The answer [height, width] for an image [height, width, 3] of any size, in [0, 1].

        Segmentation and depth look through windows of the training size, two thirds of a side apart, at the image
        scaled so that its shorter side is a window's; overlapping windows are averaged. Referring segmentation looks at
        the whole image, stretched. `flip`: the mean with the mirrored image; None: if the head has learned from such.
        Raises ValueError for mirror images with a phrase, which may say left.
        """
        self.eval()
        logits = self._whole(picture, phrase, kind)
        if flip and self.plan.task == "refer":
            raise ValueError(
                "A phrase may say left or right, so referring does not look at the mirror image. Received flip=True. "
                "Leave it out."
            )
        if self.plan.mirrored if flip is None else flip:
            logits = (logits + self._whole(picture.flip(1), phrase, kind).flip(-1)) / 2
        full = F.interpolate(logits, picture.shape[:2], mode="bilinear", align_corners=False)
        return self.plan.answer(full)[0]

    def _whole(self, picture: Tensor, phrase: str | None, kind: str | None) -> Tensor:
        """The mean output of all windows, on the grid of the scaled image."""
        (high, wide), (height, width) = self.plan.size, picture.shape[:2]
        x = picture.permute(2, 0, 1)[None].float()
        if self.plan.task == "refer":
            x = F.interpolate(x, (high, wide), mode="bilinear", antialias=True)
            return self.output(x.permute(0, 2, 3, 1), [phrase or ""], [kind])
        scale = max(high / height, wide / width)
        tall, broad = max(high, round(height * scale)), max(wide, round(width * scale))
        tops, lefts = places(tall, high), places(broad, wide)
        if len(tops) * len(lefts) > MOST_WINDOWS:
            raise ValueError(
                f"An image of {height} x {width} pixels needs {len(tops) * len(lefts)} windows, and at most "
                f"{MOST_WINDOWS} are looked through. Crop it to a less extreme shape."
            )
        x = F.interpolate(x, (tall, broad), mode="bilinear", antialias=True)
        total, count = None, torch.zeros(1, 1, tall, broad)
        for top in tops:
            for left in lefts:
                window = x[..., top : top + high, left : left + wide].permute(0, 2, 3, 1)
                here = self.output(window, kinds=[kind]).float().cpu()
                total = torch.zeros(1, here.shape[1], tall, broad) if total is None else total
                total[..., top : top + high, left : left + wide] += here
                count[..., top : top + high, left : left + wide] += 1
        assert total is not None
        return total / count

    def weights(self) -> dict[str, Tensor]:
        """The trained weights: adapter and head, and the network's if it was fine-tuned."""
        found = dict(self.state_dict())
        if self.plan.fine_tuned:
            found |= {f"{NETWORK}.{name}": value for name, value in self.network.state_dict().items()}
        return found

    def put(self, weights: dict[str, Tensor]) -> None:
        """Take over what `weights` gave. Raises RuntimeError for weights of another shape."""
        own = {name: value for name, value in weights.items() if not name.startswith(f"{NETWORK}.")}
        self.load_state_dict(own)
        if self.plan.fine_tuned:
            prefix = f"{NETWORK}."
            network = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
            self.network.load_state_dict(network)

    def save(self, path: Path | str, dtype: torch.dtype = torch.float16) -> Path:
        """Write plan and weights to a .safetensors file. Raises CannotWrite."""
        from safetensors.torch import save_file

        weights = {
            k: (v.to(dtype) if v.is_floating_point() else v).contiguous().cpu() for k, v in self.weights().items()
        }
        marks = {PLAN: self.plan.written(), NETWORK: self.extractor.model.fingerprint()}
        return write_file(Path(path), lambda fresh: save_file(weights, fresh, marks))

    @classmethod
    def load(cls, path: Path | str, model: Model) -> Perceiver:
        """The perceiver of a file, in the model that it was trained in. Raises FileNotFoundError and BadWeights."""
        marks, weights = read_weights(path)
        plan = Plan.read(marks.get(PLAN, ""))
        made = cls(model, plan)
        if not plan.fine_tuned and marks.get(NETWORK) != made.extractor.model.fingerprint():
            raise BadWeights(
                f"{path} was trained on the features of another model than {made.extractor.model.name!r}: their "
                "weights differ. Load the model that it was trained in, or train again."
            )
        try:
            made.put(weights)
        except RuntimeError as error:
            raise BadWeights(f"{path} does not fit the model {made.extractor.model.name!r}: {error}") from error
        return made.eval()


def read_weights(path: Path | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors (single precision) of a .safetensors file. Raises FileNotFoundError and BadWeights."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"There are no weights at {path}. Train them with promptweave perceive-train.")
    try:
        with safe_open(path, framework="pt") as file:
            marks = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except SafetensorError as error:
        raise BadWeights(f"{path} is no complete .safetensors file: {error}. Train or copy it again.") from error
    if PLAN not in marks:
        raise BadWeights(
            f"{path} holds no perceiver: its metadata has no {PLAN!r}. Train one with promptweave perceive-train."
        )
    return marks, {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def places(length: int, window: int) -> list[int]:
    """Where windows begin along a side, evenly covering it.

    >>> places(128, 128), places(200, 128), places(1000, 512)
    ([0], [0, 72], [0, 341, 488])
    """
    step = max(1, round(window * STRIDE))
    found = list(range(0, max(1, length - window + 1), step))
    return found if found[-1] + window >= length else [*found, length - window]
