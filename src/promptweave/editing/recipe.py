"""Everything that determines an image, as data: written into every PNG and read back by `replay`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_type_hints

from PIL import Image

from promptweave import __version__
from promptweave.core.control import Control
from promptweave.core.fields import options_of
from promptweave.core.shown import brief, short, shown
from promptweave.editing.control_data import BrokenRecipe as BrokenRecipe
from promptweave.editing.control_data import control_as_dict as control_as_dict
from promptweave.editing.control_data import control_from_dict as control_from_dict
from promptweave.editing.inversions import read_inversion
from promptweave.editing.json_text import BadJson, read_json
from promptweave.editing.picture import BadPicture, Picture
from promptweave.editing.settings import Fit, Settings
from promptweave.editing.values import BadValue, nearest, read_option, read_value
from promptweave.sampling.loop import check_pixels, check_seed
from promptweave.sampling.starting_noise import PIXELS

FORMAT = 1
KEY = "promptweave"  # of the PNG's text chunk
IMAGES = 10_000  # of a run
CHAIN = 100  # edits of edits
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow")


@dataclass(frozen=True)
class Recipe:
    """A run: prompts, seed, schedule, controls.

    `size`: (height, width) in pixels, None for the model's own. `truncate` allows prompts longer than the model reads.
    `chunks` and `prompt_weights`: how prompts are read (see `load`). `base`: another run; the source is then its batch
    row `base_row`, as edited there, and not generated anew. `picture`: an input image; the source is then that image,
    turned into the start of a run by `inversion` (see `inversions`).
    """

    source: str
    targets: tuple[str, ...] = ()
    controls: tuple[Control, ...] = ()
    seed: int = 0
    images: int = 1
    steps: int = 50
    guidance: int | float = 7.5
    size: tuple[int, int] | None = None
    negative: str = ""
    model: str = "toybox"
    truncate: bool = False
    scheduler: str = "ddim"
    base: Recipe | None = None
    base_row: int = 0
    chunks: int = 1
    prompt_weights: bool = False
    picture: Picture | None = None
    inversion: str = "direct"

    @property
    def root(self) -> Recipe:
        """The first run of a chain of edits."""
        return self if self.base is None else self.base.root

    @property
    def prompts(self) -> tuple[str, ...]:
        """Source and targets."""
        return (self.source, *self.targets)

    @property
    def fit(self) -> Fit | None:
        """How the input image got its size; None without one."""
        picture = self.root.picture
        return None if picture is None else picture.fit

    @property
    def keep_original(self) -> bool:
        """Whether edits are put back into the input image at full size."""
        picture = self.root.picture
        return picture is not None and picture.original is not None

    @property
    def told(self) -> str:
        """The run in a few words: prompts, controls, seed, steps and model."""
        shown_targets = [short(target) for target in self.targets[:2]]
        more = [f"{len(self.targets) - 2} more"] if len(self.targets) > 2 else []
        prompts = short(self.source) + (f" -> {', '.join([*shown_targets, *more])}" if self.targets else "")
        names = ", ".join(dict.fromkeys(type(control).__name__ for control in self.controls))
        size = "" if self.size is None else f"{self.size[0]}x{self.size[1]}"
        seeds = f"seeds {self.seed} to {self.seed + self.images - 1}" if self.images > 1 else f"seed {self.seed}"
        of = "of an edit" if self.base is not None else "of an image" if self.picture is not None else ""
        parts = [prompts, of, names, seeds, f"{self.steps} steps", size, short(self.model).strip("'")]
        return ", ".join(part for part in parts if part)

    def __repr__(self) -> str:
        return brief(self, self.told)

    def check(self) -> None:
        """Raise ValueError for values that no model could run."""
        for number, prompt in enumerate(self.prompts, 1):
            if not prompt.strip():
                raise ValueError(f"Prompt {number} is empty. Describe the image.")
        check_seed(self.seed)
        if isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < 1:
            raise ValueError(f"images must be a whole number, at least 1. Received {self.images!r}.")
        if self.images > IMAGES:  # the system would end the process
            raise ValueError(f"images must be at most {IMAGES}. Received {self.images}. Make several runs.")
        if self.size is not None:
            check_pixels(self.size)
        check_seed(self.seed + self.images - 1)  # of the last image
        read_inversion(self.inversion)
        if self.root.picture is not None and self.images != 1:
            raise ValueError(f"An input image has a single result: images must be 1. Received {self.images}.")
        if self.picture is not None and self.size is not None and self.picture.size != self.size:
            raise ValueError(f"The input image must have the size {self.size}. Received {self.picture.size}.")
        if self.base is not None:
            self._check_base(self.base)

    def _check_base(self, base: Recipe) -> None:
        """Raise ValueError for a base that this run could not follow."""
        if not 0 <= self.base_row < len(base.prompts):
            raise ValueError(
                f"base_row is a row of the run before, 0 to {len(base.prompts) - 1}. Received {self.base_row}."
            )
        for name in (
            "seed",
            "images",
            "steps",
            "guidance",
            "size",
            "negative",
            "model",
            "scheduler",
            "chunks",
            "prompt_weights",
        ):
            ours, theirs = getattr(self, name), getattr(base, name)
            if ours != theirs:
                raise ValueError(f"An edit of another run has its {name}, {shown(theirs)}. Received {shown(ours)}.")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as values that JSON can hold."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "controls"}
        controls = [control_as_dict(c) for c in self.controls]
        base = None if self.base is None else self.base.as_dict()
        picture = None if self.picture is None else self.picture.as_text()
        return {**values, "targets": list(self.targets), "controls": controls, "base": base, "picture": picture}

    @classmethod
    def from_dict(cls, values: Any, *, allow_modules: Sequence[str] = ()) -> Recipe:
        """The inverse of `as_dict`, for data that anybody may have written: every field is checked.

        `allow_modules`: modules of your own controls that may be imported. Raises BrokenRecipe, which names the field.
        No model is loaded, and no file is read.
        """
        younger = ("scheduler", "base", "base_row", "chunks", "prompt_weights", "picture", "inversion")
        # the first version of recipes lacks these
        try:
            return _read(values, allow_modules, younger)
        except (BadValue, BadPicture) as error:
            raise BrokenRecipe(f"This recipe cannot be read: {error}") from error
        except RecursionError:
            raise BrokenRecipe("This recipe cannot be read: its lists are nested too deeply.") from None


def _read(values: Any, allow_modules: Sequence[str], younger: Sequence[str], chain: int = 1) -> Recipe:
    """The recipe of a JSON object. Raises BadValue, BadPicture and BrokenRecipe."""
    if not isinstance(values, Mapping):
        raise BrokenRecipe(f"A recipe is a JSON object. Received {shown(values)}.")
    if chain > CHAIN:
        raise BrokenRecipe(f"A recipe is a chain of at most {CHAIN} edits. This one is longer.")
    known = {field.name: field for field in fields(Recipe)}
    for name in values:
        if name not in known:
            raise BrokenRecipe(f"A recipe has no field {shown(name)}. {nearest(name, list(known))}")
    missing = [name for name in known if name not in values and name not in younger]
    if missing:
        raise BrokenRecipe(f"A recipe holds {', '.join(known)}. This one lacks {', '.join(missing)}.")
    values = {**{name: known[name].default for name in younger}, **values}
    plain = {name: read_value(hint, values[name], name) for name, hint in _hints_of_recipe().items()}
    ranged = {listed.name: listed for listed in options_of(Settings)}
    plain |= {name: read_option(ranged[name], value) for name, value in plain.items() if name in ranged}
    given = read_value(tuple[Any, ...], values["controls"], "controls")
    controls = tuple(control_from_dict(one, allow_modules) for one in given)
    base = None if values["base"] is None else _read(values["base"], allow_modules, younger, chain + 1)
    picture = None if values["picture"] is None else _picture(read_value(str, values["picture"], "picture"))
    recipe = Recipe(**plain, controls=controls, base=base, picture=picture)
    try:
        recipe.check()
    except BrokenRecipe:
        raise
    except ValueError as error:
        raise BrokenRecipe(f"This recipe cannot be read: {error}") from error
    return recipe


def _picture(text: str) -> Picture:
    """The input image in a recipe, decoded once to see that it can be. Raises BadPicture."""
    picture = Picture.from_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
        height, width = picture.size
        if height * width > PIXELS:
            raise BadPicture(f"An input image in a recipe has at most {PIXELS} pixels. Received {height} x {width}.")
        picture.pixels()
    if picture.original is not None:
        picture.check_original()
    return picture


def _hints_of_recipe() -> dict[str, Any]:
    """The types of a recipe's fields that are plain values."""
    return {name: hint for name, hint in get_type_hints(Recipe).items() if name not in ("controls", "base", "picture")}


def versions() -> dict[str, str]:
    """The versions of the packages that made the image."""
    found: dict[str, str] = {"promptweave": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def parse(text: str | bytes) -> dict[str, Any]:
    """Parse the record from a PNG's text chunk or from a JSON file. Raises BrokenRecipe."""
    try:
        record = read_json(text)
    except BadJson as error:
        raise BrokenRecipe(f"The recipe cannot be read. {error}") from error
    found = record.get("format") if isinstance(record, dict) else None
    if isinstance(found, bool) or found != FORMAT:
        raise BrokenRecipe(
            f"A recipe must have format {FORMAT}. Received {shown(found)}. Update promptweave, or make a new image."
        )
    return record
