"""Record a run once and edit it many times; recordings can be saved and loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from promptweave.core.kept import NOTHING, together
from promptweave.core.precision import precision
from promptweave.core.rows import Row
from promptweave.core.shown import brief
from promptweave.core.site import Site
from promptweave.editing.computed import Computed
from promptweave.editing.inverted_file import InvertedImage, check_maker
from promptweave.editing.recipe import BrokenRecipe, Recipe
from promptweave.editing.recording_file import read_recording, write_recording
from promptweave.editing.start import start
from promptweave.evaluate.metrics import psnr
from promptweave.inversion import Inverted
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, latent_grid, noise_for, sample
from promptweave.sampling.recording import Capture, Captured, Kept, Place, Track
from promptweave.sampling.walk import Progress
from promptweave.view.html_image import as_html


class TooLarge(ValueError):
    """The data to keep would exceed its budget."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A recorded image, the source of edits: row `row` of a run of `recipe`; `hash` identifies the model's weights."""

    recipe: Recipe
    row: int
    track: Track
    hash: str
    inverted: Inverted | None = None  # of the input image
    computed: Computed = Computed()

    def __repr__(self) -> str:
        row = f"row {self.row}" if self.row else ""
        return brief(self, self.recipe.told, row, megabytes(self.bytes))

    def _repr_html_(self) -> str:
        return as_html(Image.fromarray(self.track.pictures[0]), f"{self.prompt} (a recording, {megabytes(self.bytes)})")

    @property
    def prompt(self) -> str:
        """The prompt of the recorded image."""
        return self.recipe.prompts[self.row]

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.track.bytes

    @property
    def psnr(self) -> float | None:
        """The PSNR of the recorded source to its input image in dB; None without one."""
        picture = self.recipe.picture
        return None if picture is None or self.row else round(psnr(picture.pixels(), self.track.pictures[0]), 3)

    def check(self, model: Model) -> None:
        """Raise ValueError unless `model` is the one that made the recording."""
        check_maker(model, self.recipe, self.hash, "A recording", "record")
        grid = latent_grid(model, self.recipe.size)
        sites, images = {site.name: site for site in model.sites(grid)}, self.recipe.images
        fits = self.track.path[0].shape == (images, model.channels, *grid)
        for (step, _, name), row in self.track.rows.items():
            site = sites.get(name)
            fits &= site is not None and step < self.recipe.steps and _fits(row, site, images)
        if not fits:
            raise BrokenRecipe("This recording is damaged: its tensors are not those of its model. Record it again.")

    def save(self, path: Path | str) -> Path:
        """Write a .safetensors file."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"A recording is saved as a .safetensors file. Received {path}.")
        write_recording(path, self.recipe, self.row, self.track, self.hash, self.inverted, self.computed)
        return path

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> Recording:
        """Load a memory-mapped recording. `device`: where the edits will run. Raises BrokenRecipe."""
        return cls(*read_recording(path, device))


def _fits(row: Row, site: Site, images: int) -> bool:
    """Whether the tensors of a row can be those of a site."""
    queries = site.queries + (0 if site.text is None else site.text.stop - site.text.start)
    shape = (images, site.heads, queries, site.dim)
    keys = [x.shape for x in (row.k, row.values) if x is not None]
    same = len({x[2] for x in keys}) == 1 and (site.kind == "cross" or keys[0][2] == queries)
    return row.q.shape == shape and same and all((*x[:2], x[3]) == (*shape[:2], shape[3]) for x in keys)


def estimate(model: Model, recipe: Recipe, kept: Kept, *, row: int = 0) -> int:
    """Size in bytes of a recording of one row, latents included (chained edits that add terms take more)."""
    job = _job(recipe, model)
    run, _ = job.bind(model)
    solver = job.solver(model)
    calls = max(len(solver.calls(step)) for step in solver.steps)
    attention = kept.estimate(run, torch.empty((), dtype=model.dtype).element_size(), calls)
    return attention + (recipe.steps + 1) * job.noise.numel() * precision(model.dtype).itemsize


def reads_values(recipe: Recipe, model: Model) -> bool:
    """Whether a control of the recipe reads the source's values, which recordings keep only if they are asked to."""
    run, _ = _job(recipe, model).bind(model)
    return any(control.reads(run).values for control in recipe.controls)


def read_by(recipe: Recipe, model: Model, maps: bool = False) -> Kept:
    """What a recording of a recipe's source has to hold for its controls. `maps`: recorders read word maps."""
    run, _ = _job(recipe, model).bind(model)
    read = [control.reads(run) for control in recipe.controls]
    return together([*read, replace(NOTHING, maps=maps)], run)


def recordable(recipe: Recipe, model: Model) -> bool:
    """Whether a usual recording, one without values, can take the source's place in an edit."""
    run, _ = _job(recipe, model).bind(model)
    return all(control.recordable(run) and not control.reads(run).values for control in recipe.controls)


def _job(recipe: Recipe, model: Model) -> Job:
    """The run of a recipe without its controls."""
    noise = noise_for(model, recipe.seed, recipe.images, recipe.size)
    return Job(recipe.prompts, noise, recipe.steps, recipe.guidance, truncate=recipe.truncate)


def record_run(
    recipe: Recipe,
    model: Model,
    *,
    row: int = 0,
    kept: Kept | None = None,
    place: Place = "cpu",
    budget: int | None = None,
    progress: Progress | None = None,
    source: Recording | InvertedImage | None = None,
    again: Computed | None = None,
) -> Recording:
    """Run a recipe and record one of its rows. Raises TooLarge before the run if it exceeds `budget` bytes.

    `again`: how such a recording was computed before, to compute it in the same passes.
    """
    recipe.check()
    kept = kept or Kept()
    needed = estimate(model, recipe, kept, row=row)
    if budget is not None and needed > budget:
        raise TooLarge(
            f"A recording must fit into its budget of {megabytes(budget)}. This one needs {megabytes(needed)}. "
            "Narrow its windows (cross, self_attention, joint), leave out maps, or allow more."
        )
    track, known = (None, None) if source is None else (source.track, source.inverted)
    begin = start(recipe, model, track, progress, inverted=known)
    pinned = begin.inverted is not None and begin.inverted.pinned and not begin.recorded
    alone = pinned and len(recipe.prompts) == 1 and not recipe.controls and model.guided and not (again and again.whole)
    made = sample(
        model,
        recipe.prompts,
        noise=begin.noise,
        steps=recipe.steps,
        guidance=1 if alone else recipe.guidance,  # edits read only the conditional half of a pinned source
        controls=[*begin.controls, *recipe.controls, Capture(kept, row, place)],
        negative=recipe.negative,
        seed=recipe.seed,
        source=track,
        inverted=begin.inverted,
        progress=progress,
        truncate=recipe.truncate,
        beside=() if again is None else again.beside,
    )
    captured = made.hooks[-1]
    assert isinstance(captured, Captured)
    computed = Computed(
        beside=made.beside, recording=source.computed if isinstance(source, Recording) else None, whole=not alone,
        prompts=len(recipe.prompts),
    )  # fmt: skip
    return Recording(recipe, row, captured.track(made.pictures[row]), model.fingerprint(), begin.inverted, computed)


def megabytes(count: int) -> str:
    """Bytes as readable text."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def recipe_of(recording: Recording | InvertedImage, targets: tuple[str, ...]) -> Recipe:
    """The recipe of an edit of a recording: one joint run, or a chained edit with the recorded run as its `base`."""
    recipe = recording.recipe
    if recording.row == 0 and recipe.base is None and not recipe.controls:
        return replace(recipe, targets=targets)
    return replace(
        recipe, source=recording.prompt, targets=targets, controls=(), base=recipe, base_row=recording.row, picture=None
    )


def base_of(recipe: Recipe, model: Model, progress: Progress | None = None) -> Recording | None:
    """The recording of a recipe's `base`, made anew; None if it has none."""
    if recipe.base is None:
        return None
    below = base_of(recipe.base, model, progress)
    values = reads_values(recipe, model)
    everything = Kept(1.0, 1.0, 1.0, latent_pixels(model, recipe), values=values)
    return record_run(
        recipe.base, model, row=recipe.base_row, kept=everything, progress=progress,
        source=below,
    )  # fmt: skip


def latent_pixels(model: Model, recipe: Recipe) -> int:
    """Pixels of the latent, the largest attention grid of a run."""
    height, width = latent_grid(model, recipe.size)
    return height * width
