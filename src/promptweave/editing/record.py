"""Record a run once and edit it many times; recordings can be saved and loaded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from promptweave.core.pattern import Pattern, Softmax, Term
from promptweave.core.precision import precision
from promptweave.core.rows import Row
from promptweave.editing.recipe import BrokenRecipe, Recipe
from promptweave.editing.start import start
from promptweave.editing.values import as_json
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, latent_grid, noise_for, sample
from promptweave.sampling.recording import Capture, Captured, Kept, Key, Place, Track
from promptweave.sampling.walk import Progress

FORMAT = 1


class TooLarge(ValueError):
    """The data to keep would exceed its budget."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A recorded image, the source of edits: row `row` of a run of `recipe`; `hash` identifies the model's weights."""

    recipe: Recipe
    row: int
    track: Track
    hash: str

    @property
    def prompt(self) -> str:
        """The prompt of the recorded image."""
        return self.recipe.prompts[self.row]

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.track.bytes

    def check(self, model: Model) -> None:
        """Raise ValueError unless `model` is the one that made the recording."""
        if model.fingerprint() != self.hash or model.scheduler != self.recipe.scheduler:
            raise ValueError(
                f"A recording is edited with the model that made it, {self.recipe.model} with weights {self.hash} "
                f"and scheduler {self.recipe.scheduler}. Received {model.name}, {model.fingerprint()}, "
                f"{model.scheduler}. Load that model, or record anew."
            )

    def save(self, path: Path | str) -> Path:
        """Write a .safetensors file."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"A recording is saved as a .safetensors file. Received {path}.")
        tensors: dict[str, Tensor] = {}
        names: dict[int, str] = {}

        def name(x: Tensor | None) -> str | None:
            if x is None:
                return None
            if id(x) not in names:
                names[id(x)] = f"t{len(names)}"
                tensors[names[id(x)]] = x.detach().cpu().contiguous()
            return names[id(x)]

        rows: list[Any] = []
        for (step, call, site), row in self.track.rows.items():
            terms = None
            if row.edited is not None:
                terms = [
                    [name(t.kernel.q), name(t.kernel.k), name(t.tokens), name(t.gate)]
                    for t in row.edited.terms
                    if isinstance(t.kernel, Softmax)
                ]
            rows.append([step, call, site, name(row.q), name(row.k), name(row.values), terms])
        tensors["path"] = torch.stack([x.cpu() for x in self.track.path])
        tensors["pictures"] = torch.from_numpy(self.track.pictures.copy())
        record = {
            "format": FORMAT, "recipe": self.recipe.as_dict(), "row": self.row, "hash": self.hash, "rows": rows,
            "kept": asdict(self.track.kept),
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        save_file(tensors, partial, metadata={"promptweave": as_json(record)})
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> Recording:
        """Load a memory-mapped recording. `device`: where the edits will run. Raises BrokenRecipe."""
        try:
            with safe_open(str(path), framework="pt") as file:
                record = json.loads((file.metadata() or {}).get("promptweave", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except OSError:
            raise
        except Exception as error:
            raise BrokenRecipe(f"{path} is not a recording: {error}. Record anew.") from error
        if record.get("format") != FORMAT:
            raise BrokenRecipe(f"{path} is not a recording of format {FORMAT}. Record anew.")

        def get(name: str | None) -> Tensor | None:
            return None if name is None else tensors[name]

        rows: dict[Key, Row] = {}
        for step, call, site, q, k, v, terms in record["rows"]:
            edited = None
            if terms is not None:
                edited = Pattern(tuple(Term(Softmax(tensors[a], tensors[b]), get(c), get(d)) for a, b, c, d in terms))
            rows[step, call, site] = Row(tensors[q], tensors[k], get(v), edited)
        kept: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record["kept"].items()
        }
        track = Track(Kept(**kept), list(tensors["path"]), rows, tensors["pictures"].numpy(), torch.device(device))
        return cls(Recipe.from_dict(record["recipe"]), record["row"], track, record["hash"])


def estimate(model: Model, recipe: Recipe, kept: Kept, *, row: int = 0) -> int:
    """Size in bytes of a recording of one row, latents included (chained edits that add terms take more)."""
    noise = noise_for(model, recipe.seed, recipe.images, recipe.size)
    job = Job(recipe.prompts, noise, recipe.steps, recipe.guidance, truncate=recipe.truncate)
    run, _ = job.bind(model)
    solver = job.solver(model)
    calls = max(len(solver.calls(step)) for step in solver.steps)
    attention = kept.estimate(run, torch.empty((), dtype=model.dtype).element_size(), calls)
    return attention + (recipe.steps + 1) * noise.numel() * precision(model.dtype).itemsize


def record_run(
    recipe: Recipe,
    model: Model,
    *,
    row: int = 0,
    kept: Kept | None = None,
    place: Place = "cpu",
    budget: int | None = None,
    progress: Progress | None = None,
    source: Track | None = None,
) -> Recording:
    """Run a recipe and record one of its rows. Raises TooLarge before the run if it exceeds `budget` bytes."""
    recipe.check()
    kept = kept or Kept()
    needed = estimate(model, recipe, kept, row=row)
    if budget is not None and needed > budget:
        raise TooLarge(
            f"A recording must fit into its budget of {megabytes(budget)}. This one needs {megabytes(needed)}. "
            "Narrow its windows (cross, self_attention, joint), leave out maps, or allow more."
        )
    begin = start(recipe, model, source, progress)
    alone = bool(begin.controls) and len(recipe.prompts) == 1 and not recipe.controls and model.guided
    made = sample(
        model,
        recipe.prompts,
        noise=begin.noise,
        steps=recipe.steps,
        guidance=1 if alone else recipe.guidance,  # edits read only the conditional half of a pinned source
        controls=[*begin.controls, *recipe.controls, Capture(kept, row, place)],
        negative=recipe.negative,
        seed=recipe.seed,
        source=source,
        progress=progress,
        truncate=recipe.truncate,
    )
    captured = made.hooks[-1]
    assert isinstance(captured, Captured)
    return Recording(recipe, row, captured.track(made.pictures[row]), model.fingerprint())


def megabytes(count: int) -> str:
    """Bytes as readable text."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def recipe_of(recording: Recording, targets: tuple[str, ...]) -> Recipe:
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
    everything = Kept(1.0, 1.0, 1.0, latent_pixels(model, recipe))
    return record_run(
        recipe.base, model, row=recipe.base_row, kept=everything, progress=progress,
        source=None if below is None else below.track,
    )  # fmt: skip


def latent_pixels(model: Model, recipe: Recipe) -> int:
    """Pixels of the latent, the largest attention grid of a run."""
    height, width = latent_grid(model, recipe.size)
    return height * width
