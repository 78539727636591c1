"""The command inpaint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from promptweave.apps.common import SETTINGS, Comparing, Opening, Output, folder, steps_of
from promptweave.apps.flags import Flags, command
from promptweave.apps.telling import tell, tell_image
from promptweave.core.fields import Option

FOUND = ("mask",)


@dataclass(frozen=True)
class Masking:
    """Where the mask comes from."""

    mask: Annotated[
        str | None,
        Option(
            "Image that is white where the given one may change; or diffedit[:OPTION=VALUE,...], which finds the mask "
            "by what --source and the prompt make of the image (DiffEdit).",
            group="Where", metavar="FILE|diffedit",
        ),
    ] = None  # fmt: skip
    mask_words: Annotated[
        tuple[str, ...] | str,
        Option(
            "Word of --source (or of the prompt) where the mask is, by its attention.", group="Where", metavar="WORD"
        ),
    ] = ()
    mask_threshold: Annotated[
        float | None,
        Option(
            "For --mask-words: height of a map, from 0 at its minimum to 1, above which a cell is in. [0.4]", low=0,
            high=1, group="Where",
        ),
    ] = None  # fmt: skip
    mask_maps: Annotated[
        Literal["noised", "inversion"] | None,
        Option("For --mask-words: maps of the noised image, or along its inversion. [noised]", group="Where"),
    ] = None
    mask_grow: Annotated[
        int | None,
        Option("For --mask-words: cells of the latents by which the mask is widened. [0]", low=0, high=64,
               group="Where"),
    ] = None  # fmt: skip
    source: Annotated[
        str | None,
        Option("What the image shows now, for a mask that is found. [the prompt]", group="Where", metavar="PROMPT"),
    ] = None  # fmt: skip

    def chosen(self) -> Any:
        """What `inpaint` takes as mask. Raises ValueError unless exactly one way is asked for."""
        from promptweave.editing.found_masks import WordMask, finder_of
        from promptweave.editing.masks import read_mask

        if (self.mask is None) == (not self.mask_words):
            raise ValueError(
                "Inpainting needs one mask. "
                f"Received {'none' if self.mask is None else '--mask and --mask-words'}. Give --mask FILE, white where "
                "the image may change, --mask diffedit, or --mask-words WORD."
            )
        words = {name: getattr(self, f"mask_{name}") for name in ("threshold", "maps", "grow")}
        words = {name: value for name, value in words.items() if value is not None}
        if words and not self.mask_words:
            raise ValueError(f"--mask-{next(iter(words))} is about --mask-words, and there are none. Leave it out.")
        finder = finder_of(self.mask)
        if self.source is not None and finder is None and not self.mask_words:
            raise ValueError("--source is read by masks that are found, and --mask is a file. Leave it out.")
        if self.mask_words:
            return WordMask(self.mask_words, **words)
        return finder or read_mask(self.mask, "--mask")


@command(
    own=Flags("promptweave.methods.inpaint:Inpaint", without=FOUND), masking=Flags(Masking), settings=SETTINGS,
    comparing=Flags(Comparing), opening=Flags(Opening), output=folder("inpaint"),
)  # fmt: skip
def inpaint(
    image: Annotated[str, Parameter(help="Image file.")],
    prompt: Annotated[str, Parameter(help="What the whole image is to show.")],
    /, *, own: dict[str, Any], masking: Masking, settings: dict[str, Any], comparing: Comparing, opening: Opening,
    output: Output,
) -> None:  # fmt: skip
    """Regenerate what a mask covers in an image, and keep the rest."""
    if own.get("jump") is not None and own.get("resamplings", 1) < 2:
        raise ValueError("--jump is read with --resamplings of at least 2. Leave it out, or give --resamplings.")
    output.check()
    from promptweave.editing.inpainting import inpaint as make
    from promptweave.methods.inpaint import jumps

    mask = masking.chosen()
    network, terminal = opening.load(), output.terminal
    acting = int(steps_of(settings, network) * own.get("strength", 1))
    passes = len(jumps(max(acting, 1), own.get("jump", 10), own.get("resamplings", 1)))
    with terminal.progress("inpainting", passes) as advance:
        made = make(
            image, prompt, mask=mask, source=masking.source, model=network, compare=comparing.compare,
            maps=output.report, progress=advance, **own, **settings,
        )  # fmt: skip
    tell_image(terminal, made.report)
    tell(terminal, made.report)
    output.save(made, {"mask": made_mask(made)})


def made_mask(made: Any) -> Any:
    """The mask that was used, as an image in the size of the result."""
    import numpy as np
    from PIL import Image

    mask = np.array(made.recipe.controls[0].mask) > 0.5
    height, width = made.sample.pictures.shape[2:4]
    return Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
