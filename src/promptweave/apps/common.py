"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from promptweave.apps.flags import Flags
from promptweave.apps.telling import line, tell_memory
from promptweave.apps.terminal import Terminal
from promptweave.core.fields import Option
from promptweave.core.file_names import numbered

Prompt = Annotated[str, Parameter(help="Prompt of the image.")]
Source = Annotated[str, Parameter(help="Prompt of the source image.")]
MaybePrompt = Annotated[str | None, Parameter(help="Prompt of the image; none with --caption.")]
MaybeTarget = Annotated[str | None, Parameter(help="Edited prompt.")]
Targets = Annotated[str, Parameter(help="Edited prompts.")]

SETTINGS = Flags("promptweave.editing.settings:Settings")


@dataclass(frozen=True)
class Opening:
    """Which model, and how it is loaded."""

    model: Annotated[
        str,
        Option("toybox, toybox-fast, toybox-dit, a folder, a .safetensors file or a hub id.", group="Model", short="m"),
    ] = "toybox"
    device: Annotated[str, Option("auto, cpu, cuda ...", group="Model", metavar="DEVICE")] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        Option("Precision of the networks. [float32 on a CPU and embedded, else float16]", group="Model"),
    ] = "auto"
    scheduler: Annotated[
        str | None, Option("ddim, euler, dpm++, heun ... [the model's own]", group="Model", metavar="NAME")
    ] = None
    allow_pickle: Annotated[
        bool, Option("Load pickled weights, which can run code. Only for files that you trust.", group="Model")
    ] = False
    chunks: Annotated[int, Option("Maximum prompt length, as a multiple of the model's.", low=1, group="Model")] = 1
    prompt_weights: Annotated[
        bool,
        Option(
            "Read the prompt syntax of the web interfaces: (word:1.3), [word], [cat:dog:0.5], [cat|dog], BREAK.",
            group="Model",
        ),
    ] = False
    given: frozenset[str] = frozenset()  # the names of the options that were given

    def load(self, made: Any = None) -> Any:
        """Load the model; `made`: the recipe of a recording, whose own model it is if no other was named."""
        from promptweave.models.load import load

        if made is not None:
            from promptweave.editing.own_model import trusted

            chosen = replace(
                self, model=self.model if "model" in self.given else trusted(made), chunks=made.chunks,
                scheduler=self.scheduler or made.scheduler, prompt_weights=made.prompt_weights,
            )  # fmt: skip
            return chosen.load()
        return load(
            self.model, device=self.device, dtype=self.dtype, scheduler=self.scheduler, allow_pickle=self.allow_pickle,
            chunks=self.chunks, prompt_weights=self.prompt_weights,
        )  # fmt: skip


@dataclass(frozen=True)
class Speaking:
    """The output of a command."""

    json: Annotated[bool, Option("Print one JSON document, for scripts.", group="Output")] = False
    quiet: Annotated[bool, Option("Print errors only.", group="Output", short="q")] = False

    @cached_property
    def terminal(self) -> Terminal:
        """The terminal to print to."""
        return Terminal(self.json, self.quiet)


@dataclass(frozen=True)
class Folder:
    """The folder of a run."""

    output: Annotated[
        Path, Option("Folder of the results; without it, a new one for each run.", group="Output", short="o")
    ] = Path("out")
    force: Annotated[bool, Option("Replace an earlier run in the folder.", group="Output", short="f")] = False
    report: Annotated[bool, Option("Also write report.html, a page about the run.", group="Output")] = False
    usual: Path | None = None  # where the results would be if nothing were there

    def apart(self) -> Folder:
        """The same beside earlier results: for folders that the user did not choose."""
        return replace(self, output=self.output if self.force else numbered(self.output), usual=self.output)


@dataclass(frozen=True)
class Output(Speaking, Folder):
    """The folder of the results, and the output of the command."""

    def check(self) -> None:
        """Raise before any work is done if results cannot be written."""
        from promptweave.editing.result import check_output

        check_output(self.output, force=self.force)

    def check_folder(self) -> None:
        """Raise before any work is done if no folders can be made in the output folder."""
        from promptweave.core.files import check_folder

        check_folder(self.output)

    def save(self, made: Any, pictures: Mapping[str, Any] | None = None, stems: Sequence[str] = ()) -> None:
        """Write a result, its page if requested, and further images; print their paths. `stems`: see `Result.save`."""
        from promptweave.core.files import write_files
        from promptweave.editing.drawn_sheet import sheet_writer
        from promptweave.maps.html_report import html_report

        pages = {"report.html": html_report(made)} if self.report else {}
        files = made.save(self.output, force=self.force, pages=pages, stems=stems)
        more = {
            f"{name}.png": sheet_writer(picture, f"{name} of a run, whose images beside it have their recipes", line())
            for name, picture in (pictures or {}).items()
        }
        files += write_files(self.output, more) if more else []
        self.terminal.give({"files": [str(path) for path in files], **made.record})
        self.terminal.say(*(f"wrote {path}" for path in files))


@dataclass(frozen=True)
class OneFile:
    """The path of a single file."""

    output: Annotated[
        Path, Option("File to write; without it, a new one.", group="Output", short="o", metavar="FILE")
    ] = Path("out")
    force: Annotated[bool, Option("Replace files.", group="Output", short="f")] = False

    def apart(self) -> OneFile:
        """The same beside earlier files: for paths that the user did not choose."""
        return self if self.force else replace(self, output=numbered(self.output))


@dataclass(frozen=True)
class FileOutput(Speaking, OneFile):
    """The path of the result, and the output of the command."""

    def check(self) -> None:
        """Raise FileExistsError if the file exists and may not be replaced, CannotWrite if it could not be written."""
        from promptweave.core.files import check_place

        if self.output.is_file() and not self.force:
            raise FileExistsError(f"{self.output} exists. Choose another file with -o, or replace it with --force.")
        check_place(self.output)


@dataclass(frozen=True)
class Captioning:
    """Who says what an input image shows."""

    caption: Annotated[
        bool,
        Option(
            "Without a source prompt: an image-to-text model that is on this machine says what --image shows (for "
            "embedded models the oracle of their world).",
            group="Image",
        ),
    ] = False
    captioner: Annotated[
        str | None,
        Option(
            "Image-to-text model for --caption: a folder, or a name in the local cache.", group="Image", metavar="MODEL"
        ),
    ] = None

    def first(
        self, image: Any, prompts: Sequence[str], opening: Opening, terminal: Terminal, settings: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """The prompts, with the caption of the image before them if it is asked for."""
        if not self.caption:
            if self.captioner is not None:
                raise ValueError("--captioner names the model of --caption, and there is none. Give --caption, too.")
            return tuple(prompts)
        if image is None:
            raise ValueError("--caption says what --image shows, and there is none. Give --image FILE, or a prompt.")
        from promptweave.perception.captioning import captioned

        text, who = captioned(image, opening.model, self.captioner, settings.get("fit"))
        terminal.say(f"source prompt, by {who}: {text}")
        return text, *prompts


@dataclass(frozen=True)
class Given(Captioning):
    """An input image, edited instead of a generated one."""

    image: Annotated[
        Path | None,
        Option("Input image to edit, described by the source prompt.", group="Image", metavar="FILE"),
    ] = None
    inversion: Annotated[
        str | None,
        Option(
            "How --image is inverted: direct, ddim, negative-prompt, null-text ... [direct]",
            group="Advanced", metavar="NAME[:OPTION=VALUE,...]",
        ),
    ] = None  # fmt: skip

    @property
    def options(self) -> dict[str, Any]:
        """The options that were given, as keywords of `edit`."""
        given = {"image": self.image, "inversion": self.inversion}
        return {name: value for name, value in given.items() if value is not None}

    def announce(self, terminal: Terminal, network: Any, settings: Mapping[str, Any]) -> None:
        """Print what the inversion of the input image will need, if that is much."""
        if self.image is not None:
            tell_memory(terminal, self.inversion or "direct", network, settings)

    def passes(self, steps: int) -> int:
        """Steps for the progress bar, with those of the inversion of an input image."""
        if self.image is None:
            return steps
        from promptweave.editing.inversions import read_inversion

        return steps + read_inversion(self.inversion or "direct").passes(steps)


@dataclass(frozen=True)
class Comparing:
    """Whether to generate the targets also without controls."""

    compare: Annotated[bool, Option("Also generate the targets without controls.", group="Output")] = False


def folder(name: str) -> Flags:
    """The options of a command whose results go to out/NAME."""
    return Flags(Output, {"output": Path("out") / name})


def steps_of(settings: Mapping[str, Any], network: Any) -> int:
    """The steps of a run: those given, else the model's default."""
    steps: int | None = settings.get("steps")
    return network.defaults[0] if steps is None else steps


def recipe_of(network: Any, prompt: str, targets: tuple[str, ...], settings: Mapping[str, Any], **more: Any) -> Any:
    """A checked recipe without controls."""
    from promptweave.editing.plan import check_lengths, recipe_for

    recipe = recipe_for(network, prompt, targets, **settings, **more)
    recipe.check()
    check_lengths(recipe, network)
    return recipe
