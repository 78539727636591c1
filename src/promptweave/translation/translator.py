"""Translate between two frozen networks: sample images for a condition, and exchange the condition of an image.

The three uses of a conditional invertible network in arXiv:2005.13580: samples z = T^-1(v | c) with v drawn; the
residual v = T(z | c) of an image that the condition describes; and the exchange z' = T^-1(v | c'), which keeps what the
condition does not say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from promptweave.core.files import Write, check_folder, write_files
from promptweave.core.shown import brief
from promptweave.core.typed import checked
from promptweave.translation.conditional_vae import ConditionalVae
from promptweave.translation.experts import (
    DOMAINS,
    Expert,
    LabelExpert,
    LatentExpert,
    NotAnExpert,
    PromptExpert,
    SummaryExpert,
    read_tensors,
    write_tensors,
)
from promptweave.translation.flow import ConditionalFlow, FlowSizes
from promptweave.translation.refining import Refiner
from promptweave.view.sheet import sheet

RECORD = "net2net.json"  # written last: it says that a run is there
TRANSLATORS = ("text", "domains")

Number = int | float


@dataclass(frozen=True, eq=False)
class Translated:
    """Images of a translation, in rows and columns, with their labels, residuals and codes.

    `record`: what was asked for, as JSON values.
    """

    pictures: UInt8[np.ndarray, "rows columns height width 3"]
    labels: tuple[tuple[str, ...], ...]
    residuals: Float[Tensor, "rows columns dim"]
    codes: Float[Tensor, "rows columns dim"]
    record: dict[str, Any]

    def __repr__(self) -> str:
        rows, columns, height, width = self.pictures.shape[:4]
        return brief(self, f"{rows} x {columns} images of {width}x{height} pixels")

    def sheet(self) -> Image.Image:
        """All images with their labels."""
        return sheet([list(row) for row in self.pictures], self.labels)

    def images(self) -> list[list[Image.Image]]:
        """The images in rows and columns."""
        return [[Image.fromarray(one) for one in row] for row in self.pictures]

    def save(self, folder: Path | str, *, force: bool = False) -> list[Path]:
        """Write sheet.png, the single images as ROW-COLUMN.png and net2net.json: either all of them or none.

        Raises FileExistsError if the folder holds such a run and `force` is not given, and CannotWrite.
        """
        folder = Path(folder)
        check_run(folder, force=force)
        files: dict[str, Write] = {
            f"{row + 1}-{column + 1}.png": Image.fromarray(one).save
            for row, line in enumerate(self.pictures)
            for column, one in enumerate(line)
        }
        text = json.dumps({**self.record, "labels": self.labels}, indent=1) + "\n"
        files |= {"sheet.png": self.sheet().save, RECORD: lambda path: path.write_text(text, "utf-8")}
        return write_files(folder, files, without=("sheet.png", "[0-9]*-[0-9]*.png", RECORD) if force else ())


def check_run(folder: Path, *, force: bool = False) -> None:
    """Raise before any work is done if a translation cannot be written to `folder`."""
    if (folder / RECORD).exists() and not force:
        raise FileExistsError(
            f"{folder} already holds a translation. Choose another with -o, or replace it with --force."
        )
    check_folder(folder)


class Translator:
    """A flow between two experts: from `source`, which reads conditions, to `target`, which makes images.

    A `ConditionalVae` may take the flow's place, to compare them.
    """

    def __init__(
        self, flow: ConditionalFlow | ConditionalVae, source: Expert, target: Expert, name: str = "a translator"
    ) -> None:
        if (flow.sizes.condition, flow.sizes.dim) != (source.dim, target.dim):
            raise NotAnExpert(
                "A flow joins the experts that it was trained with. This one takes conditions of "
                f"{flow.sizes.condition} and codes of {flow.sizes.dim} numbers; {source.name} "
                f"has {source.dim} and {target.name} {target.dim}."
            )
        self.flow, self.source, self.target, self.name = flow.eval(), source, target, name

    def __repr__(self) -> str:
        return brief(self, self.name, f"{self.source.name} -> {self.target.name}")

    def save(self, path: Path | str) -> None:
        """Write the flow's weights in half precision. Raises CannotWrite."""
        from dataclasses import asdict

        write_tensors(Path(path), "flow", asdict(self.flow.sizes), self.flow.state_dict())

    @torch.no_grad()
    def residual(self, images: Sequence[Any], conditions: Sequence[str]) -> Float[Tensor, "n dim"]:
        """v = T(z | c): what images hold beyond the conditions that describe them."""
        return self.flow(self.target.encode(images), self.source.encode(conditions))[0]

    @torch.no_grad()
    def code(self, residuals: Float[Tensor, "n dim"], conditions: Sequence[Any]) -> Float[Tensor, "n dim"]:
        """z = T^-1(v | c): the target's codes for residuals and conditions, one of each."""
        return self.flow.inverse(residuals, self.source.encode(conditions))

    @checked
    def sample(self, *conditions: Any, count: int = 4, seed: int = 0, temperature: Number = 1.0) -> Translated:
        """`count` images for each condition; a column has the same residual in every row.

        `temperature`: the standard deviation of the residuals; 0 gives the one image of residual zero. Raises
        ValueError for what the experts cannot read, and for no condition.
        """
        if not conditions or count < 1 or not 0 <= temperature < float("inf"):
            raise ValueError(
                "Sampling takes at least one condition, a count of at least 1 and a temperature of at least 0. "
                f"Received {len(conditions)} conditions, count {count} and temperature {temperature}."
            )
        noise = torch.randn(count, self.target.dim, generator=torch.Generator().manual_seed(seed))
        v = (noise * temperature).expand(len(conditions), -1, -1)
        named = [[one if isinstance(one, str) else f"image {i + 1}"] * count for i, one in enumerate(conditions)]
        codes = self.code(v.flatten(0, 1), [one for one in conditions for _ in range(count)])
        record = {"conditions": [row[0] for row in named], "count": count, "seed": seed, "temperature": temperature}
        return self._translated(v, codes.unflatten(0, v.shape[:2]), named, record)

    @checked
    def exchange(
        self, image: Any, before: str, *after: str, seed: int = 0, count: int = 4, temperature: Number = 1.0
    ) -> Translated:
        """The same residual under new conditions: what `before` does not say stays.

        `image`: one image that `before` describes, or a list of such images; None: images sampled for `before`, `count`
        of them, with `seed` and `temperature`. Each row: the image under `before` (for a given image, as the target's
        code holds it), then under each of `after`; a given image stands first. Raises NoEffect if a new condition is
        the old one.
        """
        if not after:
            raise ValueError("An exchange takes a new condition. Received none. Give what the image is to become.")
        if any(one == before for one in after):
            from promptweave.core.control import NoEffect

            raise NoEffect(f"An exchange of a condition for itself changes nothing. Received {before!r} twice.")
        conditions = [before, *after]
        record: dict[str, Any] = {"before": before, "after": list(after)}
        if image is None:
            made = self.sample(before, count=count, seed=seed, temperature=temperature)
            v, shown = made.residuals[0], []
            record |= {"seed": seed, "count": count, "temperature": temperature}
        else:
            shown = list(image) if isinstance(image, list | tuple) else [image]
            v = self.residual(shown, [before] * len(shown))
            record |= {"images": [str(one) if isinstance(one, str | Path) else "an image" for one in shown]}
        residuals = v[:, None].expand(-1, len(conditions), -1)
        codes = self.code(residuals.flatten(0, 1), conditions * len(v)).unflatten(0, residuals.shape[:2])
        made = self._translated(residuals, codes, [conditions] * len(v), record)
        return made if image is None else self._beside(shown, made)

    def _translated(
        self, v: Tensor, codes: Tensor, labels: Sequence[Sequence[str]], record: dict[str, Any]
    ) -> Translated:
        pictures = self.target.decode(codes.flatten(0, 1))
        shaped = pictures.reshape(*codes.shape[:2], *pictures.shape[1:])
        return Translated(shaped, tuple(map(tuple, labels)), v, codes, {"translator": self.name, **record})

    def _beside(self, shown: Sequence[Any], made: Translated) -> Translated:
        """The given images before those of the translation; their residuals and codes are those of the next column."""
        from promptweave.editing.picture import Picture

        height, width = made.pictures.shape[2:4]
        given = np.stack([np.asarray(Picture.of(one, (height, width)).image()) for one in shown])
        return Translated(
            np.concatenate([given[:, None], made.pictures], 1),
            tuple(("given image", *row) for row in made.labels),
            torch.cat([made.residuals[:, :1], made.residuals], 1),
            torch.cat([made.codes[:, :1], made.codes], 1),
            made.record,
        )


def shipped() -> Path:
    """The folder of the translators that ship with the package."""
    return Path(str(resources.files("promptweave.translation").joinpath("weights")))


@checked
def net2net(translator: str = "text", *, folder: Path | str | None = None, refine: bool = True) -> Translator:
    """A translator of the synthetic world: "text", from prompts to images, or "domains", between photos and sketches
    and between day and night, whose conditions are labels such as "photo, night".

    `folder`: that of a training (`promptweave net2net train`); None: the weights that ship. `refine`: sharpen images
    by three steps of toybox-fast without a prompt. Raises ValueError for another name, and NotAnExpert for a folder
    without these weights.
    """
    if translator not in TRANSLATORS:
        raise ValueError(f"Translators are {', '.join(TRANSLATORS)}. Received {translator!r}.")
    place = shipped() if folder is None else Path(folder)
    sizes, tensors = read_tensors(place / f"{translator}.safetensors", "flow")
    flow = ConditionalFlow(FlowSizes(**sizes))
    flow.load_state_dict(tensors)
    latent = LatentExpert()
    source = PromptExpert(latent.model) if translator == "text" else LabelExpert(DOMAINS)
    target = SummaryExpert.load(place / "summary.safetensors", latent, Refiner() if refine else None)
    return Translator(flow, source, target, translator)
