"""The commands perceive and perceive-train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from promptweave.apps.common import Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import Terminal, table
from promptweave.core.fields import Option
from promptweave.core.file_names import numbered

OPENING = Flags(Opening, without=("scheduler", "chunks", "prompt_weights"))  # no prompt is read, and no step made
Task = Literal["segment", "refer", "depth"]


@dataclass(frozen=True)
class Asking:
    """What is asked of an image."""

    task: Annotated[Task, Option("What to find out.", group="What changes")] = "segment"
    phrase: Annotated[
        str | None, Option("With --task refer: what is meant, such as 'the red car'.", group="What changes")
    ] = None
    words: Annotated[
        str | None,
        Option(
            "With --task segment: look for these words, with commas between, in attention maps, without a head.",
            group="What changes", metavar="WORD,...",
        ),
    ] = None  # fmt: skip
    kind: Annotated[
        str | None, Option("Class of the scene, for depth heads that read one.", group="What changes", metavar="NAME")
    ] = None
    weights: Annotated[
        Path | None,
        Option("Head trained by perceive-train. [the package's, for toybox]", group="Model", metavar="FILE"),
    ] = None
    flip: Annotated[
        bool | None,
        Option(
            "Also look at the mirror image and take the mean. [if the head has learned from such]", group="Advanced"
        ),
    ] = None
    output: Annotated[Path, Option("Folder of the results.", group="Output", short="o")] = Path("out/perceive")
    force: Annotated[bool, Option("Replace earlier results in the folder.", group="Output", short="f")] = False

    def apart(self) -> Asking:
        """The same beside earlier results: for folders that the user did not choose."""
        return self if self.force else replace(self, output=numbered(self.output))


@command(
    asking=Flags(Asking),
    opening=OPENING,
    speaking=Flags(Speaking),
)
def perceive(
    image: Annotated[Path, Parameter(help="An image file.")], /, *, asking: Asking, opening: Opening, speaking: Speaking
) -> None:
    """Segment an image, find what a phrase refers to, or estimate depth (VPD)."""
    from promptweave.core.files import check_folder
    from promptweave.perception.perceive import check_free
    from promptweave.perception.perceive import perceive as answer

    terminal = speaking.terminal
    check_folder(asking.output)
    check_free(asking.task, asking.output, asking.force)
    words = None if asking.words is None else asking.words.split(",")
    found = answer(
        image, asking.task, phrase=asking.phrase, words=words, kind=asking.kind, weights=asking.weights,
        model=opening.load(), flip=asking.flip,
    )  # fmt: skip
    files = found.save(asking.output, force=True)
    facts = found.facts
    terminal.give({"task": found.task, **facts, "files": [str(path) for path in files]})
    shown = facts.get("shares", facts)
    terminal.say(
        *(
            f"  {name}: {value:.1%}" if asking.task != "depth" else f"  {name}: {value:.2f}"
            for name, value in shown.items()
        )
    )
    terminal.say(*(f"wrote {path}" for path in files))


@dataclass(frozen=True)
class Data:
    """Examples and head."""

    data: Annotated[
        Path | None,
        Option(
            "Folder of ADE20K (segment), RefCOCO (refer) or NYUv2 (depth). [scenes of the embedded world]",
            group="What changes", metavar="FOLDER",
        ),
    ] = None  # fmt: skip
    split: Annotated[str, Option("Split of the training examples.", group="What changes", metavar="NAME")] = "train"
    measured: Annotated[
        str | None, Option("Split to measure afterwards. [val; unseen scenes]", group="What changes", metavar="NAME")
    ] = None
    collection: Annotated[
        str, Option("With refer: refcoco, refcoco+ or refcocog.", group="What changes", metavar="NAME")
    ] = "refcoco"
    split_by: Annotated[
        str, Option("With refer: who made the split, unc, umd or google.", group="What changes", metavar="NAME")
    ] = "unc"
    scenes: Annotated[int | None, Option("Without --data: scenes of training. [3000]", low=1, group="What changes")] = (
        None
    )
    unseen: Annotated[
        int | None, Option("Examples to measure; 0: none. [400 scenes; the whole split]", low=0, group="What changes")
    ] = None
    width: Annotated[
        int | None,
        Option("With --data: width of the head. [256, 640 with refer, 1536 with depth]", low=16, group="Model"),
    ] = None
    size: Annotated[
        tuple[int, int] | None, Option("With --data: pixels of a window. [the model's own]", group="Image")
    ] = None
    time: Annotated[float, Option("With --data: t of the features, of 1000.", low=0, high=1000, group="Model")] = 1.0
    published_scale: Annotated[
        bool, Option("With --data: latents without the autoencoder's scale, as published.", group="Model")
    ] = False
    maps: Annotated[bool, Option("Read attention maps.", group="Model")] = True
    folder: Annotated[
        Path | None, Option("Folder of checkpoint, log, plot and weights. [runs/perceive/TASK]", group="Output")
    ] = None


@command(
    data=Flags(Data), lessons=Flags("promptweave.perception.lessons:Lessons"), opening=OPENING,
    speaking=Flags(Speaking),
)  # fmt: skip
def perceive_train(
    task: Annotated[Task, Parameter(help="segment, refer or depth.")],
    /,
    *,
    data: Data,
    lessons: Mapping[str, Any],
    opening: Opening,
    speaking: Speaking,
) -> None:
    """Train a head for segmentation, referring segmentation or depth on the features of a model."""
    from dataclasses import asdict

    from promptweave.perception.courses import Course, run_course
    from promptweave.perception.learning import FILE
    from promptweave.perception.lessons import Lessons

    terminal = speaking.terminal
    folder = data.folder or Path("runs/perceive") / task
    asked = {name: value for name, value in asdict(data).items() if name != "folder" and value is not None}
    with _bar(terminal) as watch:
        figures = run_course(opening.load(), Course(task=task, **asked), Lessons(**lessons), folder, watch)
    terminal.give({"weights": str(folder / FILE), "figures": figures})
    if figures:
        terminal.say(table(f"{task}: unseen examples", ("", ""), [(k, f"{v:.4f}") for k, v in figures.items()]))
    terminal.say(f"wrote {folder / FILE}; log and plot of the loss are beside it")


@contextmanager
def _bar(terminal: Terminal) -> Iterator[Any]:
    """A progress bar of the training on standard error."""
    with terminal.bar() as bar:
        tasks: dict[str, Any] = {}

        def watch(values: Mapping[str, Any]) -> None:
            stage = str(values["stage"])
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            loss = f" loss {values['loss']:.3f}" if "loss" in values else ""
            bar.update(tasks[stage], completed=values["share"], description=f"{stage}{loss}")

        yield watch
