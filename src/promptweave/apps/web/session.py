"""A visitor's session: images, edits, maps and sweeps, in plain Python without Gradio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

from PIL import Image
from torch import Tensor

from promptweave.apps.web.limits import TooMuch
from promptweave.apps.web.restoring import restored
from promptweave.apps.web.settings import Form, selectors
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.tree import Node, Tree
from promptweave.apps.web.uploads import read_upload
from promptweave.core.clock import Number, Step
from promptweave.editing.inversions import read_inversion
from promptweave.editing.picture import Picture
from promptweave.editing.pixels import Opened
from promptweave.editing.plan import recipe_for
from promptweave.editing.report import distance_of
from promptweave.editing.settings import Settings
from promptweave.editing.sweep import Sweep, sweep
from promptweave.editing.usual_strengths import PUBLISHED
from promptweave.editing.values import as_json
from promptweave.finding.found import Found
from promptweave.maps.html_report import write_report
from promptweave.view.heat import over
from promptweave.words import alignment, suggest

Watch = Callable[[int, int, Tensor | None], None]  # (steps done, total steps, latents)


class Cancelled(Exception):
    """The visitor stopped the run."""


class NothingYet(ValueError):
    """An action needs an image, and there is none yet."""


class Session:
    """`stop` may be set from another thread to end the run at its next step; `gone` says whether the visitor left.

    The recordings of a session go with it, unless it is `passing`, that of a single call: those go by their age.
    """

    def __init__(
        self,
        studio: Studio,
        model: str | None = None,
        gone: Callable[[], bool] = lambda: False,
        *,
        passing: bool = False,
    ) -> None:
        self.studio, self.gone, self.passing = studio, gone, passing
        self.model = model or studio.names[0]
        self.tree = Tree(studio.limits.history, studio.limits.held * 1_000_000)
        self.stop = Event()
        self.swept: Sweep | None = None
        self.found: Found | None = None
        self.fronts: dict[int, int] = {}  # of the points of its front, their images in the tree
        self.looked: str | None = None
        self.canvas: Any = None  # what a region is painted on (`view.canvas_of`)
        self.key = ""  # by which a page that is loaded anew finds it (`SessionKeys`)
        self.user: str | None = None
        self.skipped: set[Any] = set()  # runs that were given up while they waited
        self.batch: tuple[int, ...] = ()  # the images of the last run of several
        self.drafts: dict[str, Any] = {}  # what the fields held when they were last read
        self.filled: dict[str, Any] = {}  # texts that a run used, or that the page put into its fields
        self.usual: dict[str, Number] = dict(PUBLISHED.windows)  # strengths that the page put on its sliders

    @property
    def shown(self) -> Node:
        """The image on the page."""
        if self.tree.shown is None:
            raise NothingYet("There is no image yet. Generate one first.")
        return self.tree.nodes[self.tree.shown]

    @property
    def base(self) -> Node:
        """The image that edits start from."""
        if self.tree.base is None:
            raise NothingYet("There is no image to edit yet. Generate one first.")
        return self.tree.nodes[self.tree.base]

    def generate(
        self, prompt: str, seed: int, steps: int, watch: Watch | None = None, more: Settings | None = None
    ) -> Node:
        """Generate an image, the root of a new tree of edits; `more`: further settings."""
        network = self.studio.network(self.model)
        self.studio.limits.text(prompt)
        self.studio.limits.check(recipe := recipe_for(network, prompt, (), more, seed=seed, steps=steps))
        recipe.check()
        with self.running():
            made = self.studio.make(self.model, recipe, None, self.progress(watch), self.holder)
        return self.tree.add(made, 0, self.model, None)

    def several(
        self, prompt: str, seed: int, images: int, steps: int, watch: Watch | None = None, more: Settings | None = None
    ) -> Node:
        """Generate images of the seeds `seed`, `seed + 1`, ...: each the root of a tree; the first is shown."""
        most = self.studio.limits.images
        if not 1 <= images <= most:
            raise TooMuch(f"A run may have 1 to {most} images. Received {images}. Ask for fewer.")
        made = [self.generate(prompt, seed + number, steps, watch, more) for number in range(images)]
        self.batch = tuple(node.number for node in made)
        return made[0] if images == 1 else self.tree.show(made[0].number)

    def bring(
        self, picture: Picture | Image.Image | Opened, prompt: str, seed: int, steps: int, watch: Watch | None = None,
        more: Settings | None = None, inversion: str | None = None,
    ) -> Node:  # fmt: skip
        """Use an input image, described by the prompt, as the root of a new tree of edits; `more`: size, fit and
        whether the original is kept."""
        network = self.studio.network(self.model)
        self.studio.limits.text(prompt)
        recipe = recipe_for(
            network, prompt, (), more, seed=seed, steps=steps, image=picture, inversion=inversion or None
        )  # fmt: skip
        self.studio.limits.check(recipe)
        recipe.check()
        total = recipe.steps + read_inversion(recipe.inversion).passes(recipe.steps)
        with self.running():
            made = self.studio.make(self.model, recipe, None, self.progress(watch, total=total), self.holder)
        return self.tree.add(made, 0, self.model, None)

    def edit(self, settings: Form, watch: Watch | None = None) -> Node:
        """Edit the base image; its recording replaces the source's rows."""
        base = self.base
        with self.running():
            made = self.studio.edited(
                base.model, base.recipe, base.row, settings.target, self._options(settings, base),
                self.progress(watch), self.holder, free=settings.free(self.studio.joint(base.model)),
            )  # fmt: skip
        return self.tree.add(made, 1, base.model, base.number)

    def _options(self, form: Form, base: Node) -> dict[str, Any]:
        return form.options(self.studio.joint(base.model))

    def further(self) -> Node:
        """Make the image on the page the source of the next edits."""
        return self.tree.show(self.shown.number, self.shown.number)

    def sweep(
        self, settings: Form, first: Sequence[Number], second: Sequence[Number], watch: Watch | None = None
    ) -> Sweep:
        """The edit over a grid of windows, from the base's recording: `first` for cross-, `second` for self-attention.

        With joint attention, `first` is its only window, and `second` is not read.
        """
        base = self.base
        self.room(first, second)
        columns, rows = ("cross", first), ("self_attention", second)
        if self.studio.joint(base.model):
            columns, rows = ("joint", first), ("seed", (base.recipe.seed,))
        with self.running():
            recording = self.studio.recording(base.model, base.recipe, base.row, self.progress(watch), self.holder)
            if recording is None:
                raise TooMuch("A sweep needs a recording, and this image's is too large. Use fewer steps.")
            options = self._options(settings, base)
            fixed = {name: value for name, value in options.items() if name not in (rows[0], columns[0])}
            self.swept = sweep(
                recording, settings.target, rows=rows, columns=columns, model=self.studio.network(base.model),
                **fixed,
                progress=self.progress(watch, total=recording.recipe.steps * len(columns[1]) * len(rows[1])),
            )  # fmt: skip
        return self.swept

    def room(self, first: Sequence[Number], second: Sequence[Number]) -> None:
        """Raise TooMuch for the axes of a sweep with too many images."""
        most, height = self.studio.limits.cells, 1 if self.studio.joint(self.model) else len(second)
        if len(first) * height > most:
            raise TooMuch(f"A grid may have {most} images. Received {len(first)} x {height}. Give fewer.")

    def adopt(self, index: int, watch: Watch | None = None) -> Node:
        """Show the edit of a cell of the sweep, counted row by row."""
        if self.swept is None:
            raise NothingYet("There is no sweep yet. Run one first.")
        row, column = divmod(index, len(self.swept.columns[1]))
        recipe, base = self.swept.cells[row][column].recipe, self.base
        with self.running():
            recording = self.studio.recording(base.model, base.recipe, base.row, self.progress(watch), self.holder)
            made = self.studio.make(base.model, recipe, recording, self.progress(watch), self.holder)
        return self.tree.add(made, 1, base.model, base.number)

    def open(
        self, path: Path | str, prompt: str, seed: int, steps: int, watch: Watch | None = None,
        more: Settings | None = None, inversion: str | None = None,
    ) -> tuple[Node, str]:  # fmt: skip
        """Open an upload: regenerate it from its recipe, or else make it the source, described by the prompt.

        Returns the node and a sentence for the visitor. Raises BadUpload, BrokenRecipe and TooMuch.
        """
        upload = read_upload(path, self.studio.limits)
        if upload.recipe is None:
            node = self.bring(upload.opened, prompt, seed, steps, watch, more, inversion)
            return node, "Your image is the source. Describe it in the source prompt."
        return restored(self, upload.recipe, upload.record, upload.picture, watch)

    def go(self, number: int) -> Node:
        """Show the image with this number in the history, in order of creation."""
        if number not in self.tree.nodes:
            raise NothingYet(f"There is no image {number} in the history. Choose one that is shown there.")
        node = self.tree.show(number)
        self.model = node.model
        return node

    def undo(self) -> Node:
        """Show the previous image."""
        node = self.tree.undo()
        if node is None:
            raise NothingYet("There is nothing to undo.")
        self.model = node.model
        return node

    def before(self) -> Node:
        """The image that the one on the page was edited from, or that one itself."""
        parent = self.shown.parent
        return self.tree.nodes[parent] if parent in self.tree.nodes else self.shown

    def distance(self) -> Mapping[str, Any]:
        """How far the image on the page is from the one that it was made from."""
        node = self.shown
        if node.row:
            return node.result.report["distance"][node.row - 1][0]
        return distance_of(self.before().pixels, node.pixels)

    def heat(self, word: str) -> Image.Image:
        """The image on the page with a word's map drawn over it; `looked` keeps the word for the next image."""
        node = self.shown
        known = selectors(self.studio.words(node.model, node.prompt))
        if word not in known:
            raise ValueError(f"{word!r} is not a word of this image's prompt. Choose one of {', '.join(known)}.")
        self.looked = word
        return Image.fromarray(over(node.maps.attention[..., list(known[word])].sum(-1), node.pixels))

    def matched(self, source: str, target: str) -> dict[str, Any]:
        """The alignment of source and target, and the kind of edit that it suggests."""
        old, new = self.studio.words(self.model, source), self.studio.words(self.model, target)
        return {"kind": suggest(old, new), "pairs": [asdict(pair) for pair in alignment(old, new)]}

    def names(self, prompt: str) -> list[str]:
        """The words of a prompt, as named by sliders and blends."""
        return list(selectors(self.studio.words(self.model, prompt))) if prompt.strip() else []

    def save(self, folder: Path) -> tuple[Path, Path]:
        """The image on the page as a PNG that carries its recipe, and the recipe as JSON."""
        node = self.shown
        picture, recipe = folder / f"promptweave-{node.number}.png", folder / f"promptweave-{node.number}.json"
        node.result.save_picture(picture, node.row, 0)
        recipe.write_text(as_json(node.result.record, indent=1) + "\n", "utf-8")
        return picture, recipe

    def report(self, folder: Path) -> Path:
        """Write the HTML report of the image, with all word maps; this takes a fraction of a second."""
        node = self.shown
        return write_report(node.result, folder / f"promptweave-{node.number}.html")

    @property
    def holder(self) -> Session | None:
        return None if self.passing else self

    def running(self) -> Any:
        self.stop.clear()
        return self.studio.lock

    def progress(self, watch: Watch | None = None, total: int | None = None) -> Callable[[Step, Tensor], None]:
        """What a run calls after each step: it ends the run of a visitor who stopped it or left."""
        done = 0

        def after(step: Step, z: Tensor) -> None:
            nonlocal done
            if self.stop.is_set() or self.gone():
                raise Cancelled("Stopped. Nothing was changed.")
            done += 1
            if watch is not None:
                watch(min(done, total) if total else step.index + 1, total or step.count, z)

        return after
