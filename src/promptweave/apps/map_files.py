"""The files of `promptweave maps`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


from promptweave.apps.forms import byte_count, number
from promptweave.apps.telling import line
from promptweave.core.fields import Option
from promptweave.core.files import check_place, write_together

Files = dict[Path, Callable[[Path], Any]]  # path -> function that writes it


@dataclass(frozen=True)
class Ask:
    """The options of `promptweave maps`; `output`: the main file, beside which the others are written."""

    special: Annotated[bool, Option("Also show the start and end tokens.", group="What changes")] = False
    alone: Annotated[bool, Option("Draw the maps without the image below.", group="Output")] = False
    grid: Annotated[
        str | None,
        Option(
            "Grid of the maps, such as 16 or 8x16, or all, resized and averaged. [the grid that localises words best]",
            group="Where",
        ),
    ] = None
    renormalise: Annotated[bool, Option("Normalise over the words.", group="Where")] = False
    steps_shown: Annotated[
        str | None,
        Option("Also draw maps at these steps, such as 0,5,10,25,50.", group="What changes", metavar="STEPS"),
    ] = None
    layers: Annotated[
        tuple[str, ...],
        Option("Also draw maps by layer: all, down, up_cross_2 ...", group="What changes", metavar="NAMES"),
    ] = ()
    heads: Annotated[bool, Option("With --layers: each head separately.", group="What changes")] = False
    words: Annotated[
        tuple[str, ...],
        Option(
            "With --layers or --files: this word alone. [all words]",
            group="What changes",
            flag="--word",
            metavar="WORD",
        ),
    ] = ()
    animate: Annotated[bool, Option("Also write a GIF and a WebP over all steps.", group="Output")] = False
    video: Annotated[bool, Option("Also write an MP4 (extra 'video').", group="Output")] = False
    self_attention: Annotated[
        tuple[str, ...],
        Option(
            "Also draw self-attention: components, or pixel=x,y.",
            group="What changes",
            metavar="components|pixel=X,Y",
        ),
    ] = ()
    self_grid: Annotated[str | None, Option("With --self-attention: its grid, such as 16.", group="Where")] = None
    concepts: Annotated[
        tuple[str, ...],
        Option(
            "Also draw where these are, named in the prompt or not, such as cat,grass,sky (joint attention).",
            group="What changes", metavar="WORDS",
        ),
    ] = ()  # fmt: skip
    concept_space: Annotated[
        Literal["output", "cross"],
        Option("With --concepts: what is compared, outputs of attention or queries and keys.", group="Where"),
    ] = "output"
    stats: Annotated[
        Path | None,
        Option(
            "Also write entropy, fraction and overlap of each word to this .csv or .json file.",
            group="Output",
            metavar="FILE",
        ),
    ] = None
    masks: Annotated[
        tuple[str, ...],
        Option(
            "With --stats: word=FILE, a mask image that is white where the thing is.",
            group="Where",
            flag="--mask",
            metavar="WORD=FILE",
        ),
    ] = ()
    files: Annotated[Path | None, Option("Folder for single maps as files.", group="Output", metavar="FOLDER")] = None
    blend: Annotated[
        tuple[str, ...], Option("Restrict changes to the region of this word.", group="Where", metavar="WORD")
    ] = ()
    budget: Annotated[str, Option("Maximum memory for maps, such as 500M.", group="Advanced", metavar="BYTES")] = "2G"
    output: Path = Path("out/maps.png")

    @property
    def on_picture(self) -> bool:
        """Whether maps are drawn over the image."""
        return not self.alone

    def check(self, target: str | None) -> None:
        """Raise ValueError for options that do not go together, before anything is computed."""
        alone = {
            "--steps-shown": self.steps_shown, "--layers": self.layers, "--animate": self.animate, "--grid": self.grid,
            "--self-attention": self.self_attention, "--stats": self.stats, "--files": self.files,
            "--special": self.special, "--renormalise": self.renormalise, "--video": self.video,
            "--concepts": self.concepts,
        }  # fmt: skip
        unfit = [name for name, value in alone.items() if value]
        if target is not None and unfit:
            raise ValueError(f"{unfit[0]} works with a single prompt. Received two. Leave one of them out.")
        needs = (
            ("--blend", self.blend, "a target prompt", target),
            ("--concept-space", self.concept_space != "output", "--concepts", self.concepts),
            ("--heads", self.heads, "--layers", self.layers),
            ("--word", self.words, "--layers or --files", self.layers or self.files),
            ("--self-grid", self.self_grid, "--self-attention", self.self_attention),
            ("--mask", self.masks, "--stats", self.stats),
            ("--files", self.files, "--steps-shown or --layers", self.steps_shown or self.layers),
        )
        for name, given, other, there in needs:
            if given and not there:
                raise ValueError(f"{name} needs {other}. Received {name} alone. Add {other}, or leave {name} out.")
        if self.stats is not None and self.stats.suffix not in (".csv", ".json"):
            raise ValueError(f"--stats writes .csv or .json. Received {self.stats}.")

    def beside(self, name: str, suffix: str = ".png") -> Path:
        """The path of a further file next to `output`."""
        return self.output.with_name(f"{self.output.stem}-{name}{suffix}")


def views(ask: Ask, prompt: str, general: Mapping[str, Any]) -> tuple[Files, dict[str, Any]]:
    """Run, and return the files to write with their writers."""
    from promptweave.maps.gallery import plain
    from promptweave.maps.look import look
    from promptweave.maps.statistics import statistics, write_statistics
    from promptweave.view.animate import check_video, save_animation

    if ask.video:
        check_video()
    masks = _masks(ask.masks, general)
    pixels = [_pixel(text) for text in ask.self_attention if text != "components"]
    seen = look(
        prompt,
        steps_shown=None if ask.steps_shown is None else _steps(ask.steps_shown),
        layers=tuple(name for text in ask.layers for name in text.split(",")),
        heads=ask.heads,
        every_step=ask.animate or ask.video or ask.stats is not None,
        self_attention=_grid(ask.self_grid, "--self-grid") or bool(ask.self_attention),
        grid="all" if ask.grid == "all" else _grid(ask.grid, "--grid"),
        special=ask.special,
        concepts=tuple(name for text in ask.concepts for name in text.split(",")),
        concept_space=ask.concept_space,
        budget=byte_count(ask.budget),
        **general,
    )
    words = seen.words.renormalised() if ask.renormalise else seen.words
    files: Files = {ask.output: _png(words.strip(on_picture=ask.on_picture))}
    if seen.by_step is not None:
        files[ask.beside("steps")] = _png(seen.by_step.sheet(on_picture=ask.on_picture))
    if seen.gallery is not None:
        for word in ask.words or dict(seen.gallery.words):
            files[ask.beside(f"layers-{plain(word)}")] = _png(seen.gallery.sheet(word, on_picture=ask.on_picture))
    suffixes = [*([".gif", ".webp"] if ask.animate else []), *([".mp4"] if ask.video else [])]
    if seen.every_step is not None and suffixes:
        frames = seen.every_step.frames()
        for suffix in suffixes:
            files[ask.output.with_suffix(suffix)] = lambda path: save_animation(frames, path)
    if seen.every_step is not None and ask.stats is not None:
        rows = statistics(seen.every_step, masks=masks)
        files[ask.stats] = lambda path: write_statistics(rows, path)
    if seen.self_attention is not None:
        if "components" in ask.self_attention:
            files[ask.beside("components")] = _png(seen.self_attention.component_sheet())
        if pixels:
            files[ask.beside("pixels")] = _png(seen.self_attention.pixel_sheet(*pixels))
    if seen.concepts is not None:
        files[ask.beside("concepts")] = _png(seen.concepts.strip(on_picture=ask.on_picture))
    apart = seen.gallery or seen.by_step
    if ask.files is not None and apart is not None:
        single = apart.images(words=ask.words, on_picture=ask.on_picture)
        files |= {ask.files / name: _png(image) for name, image in single.items()}
    notes = list(apart.notes) if apart is not None else []
    return files, {"words": [name for name, _ in words.words], "notes": notes}


def told(written: Sequence[Path], folder: Path | None) -> list[str]:
    """What was written: every file, but those of a folder of single maps in one line."""
    inside = [path for path in written if folder is not None and path.parent == folder]
    lines = [f"wrote {path}" for path in written if path not in inside]
    if inside:
        lines.append(f"wrote {len(inside)} single maps to {folder}, {inside[0].name} to {inside[-1].name}")
    return lines


def beside(ask: Ask, source: str, target: str, general: Mapping[str, Any]) -> tuple[Files, dict[str, Any]]:
    """Edit, and return the files of source beside target with their writers."""
    from dataclasses import asdict

    from promptweave.editing.edit import edit
    from promptweave.maps.edit_maps import edit_maps

    options = {**general, "blend": ask.blend} if ask.blend else general
    seen = edit_maps(edit(source, target, maps=True, **options))
    files: Files = {
        ask.output: _png(seen.sheet()),
        ask.beside("own"): _png(seen.sheet(own=True)),
        ask.beside("alignment"): _png(seen.alignment_picture()),
    }
    if seen.masks:
        files[ask.beside("masks")] = _png(seen.mask_sheet())
    return files, {"pairs": [asdict(pair) for pair in seen.pairs()]}


def write(files: Files, force: bool) -> list[Path]:
    """Write either all files or none. Raises FileExistsError if one exists and may not be replaced."""
    for path in files:
        if path.is_file() and not force:
            raise FileExistsError(f"{path} exists. Choose another file, or replace it with --force.")
        check_place(path, "Choose another file.")
    write_together(files)
    return list(files)


def _png(image: Image.Image) -> Callable[[Path], Any]:
    from promptweave.editing.drawn_sheet import sheet_writer

    return sheet_writer(image, "drawn from attention maps of a run", line())


def _steps(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--steps-shown takes whole numbers, such as 0,5,10. Received {text!r}.") from None


def _grid(text: str | None, option: str) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    return int(number(height, option)), int(number(width or height, option))


def _pixel(text: str) -> tuple[int, int]:
    name, _, place = text.partition("=")
    x, comma, y = place.partition(",")
    if name != "pixel" or not comma:
        raise ValueError(f"--self-attention takes components, or a pixel of the image as pixel=x,y. Received {text!r}.")
    return int(number(x, "--self-attention pixel")), int(number(y, "--self-attention pixel"))


def _masks(texts: Sequence[str], general: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The masks of "word=FILE", in the frame of the run with these options; checked before it."""
    import numpy as np

    from promptweave.editing.masks import Frame, read_mask
    from promptweave.editing.plan import recipe_for

    read: dict[str, Any] = {}
    for text in texts:
        word, _, path = text.rpartition("=")
        if not word:
            raise ValueError(f"--mask takes word=PICTURE. Received {text!r}.")
        read[word] = read_mask(Path(path).expanduser(), "--mask")
    if not read:
        return {}
    options = {name: value for name, value in general.items() if name not in ("model", "progress", "times", "noises")}
    frame = Frame.of(recipe_for(general["model"], "a", (), **options), general["model"])
    return {word: np.asarray(frame.mask(mask, f"--mask of {word}")) > 0.5 for word, mask in read.items()}
