"""What each inversion and each editor of a given image costs: passes of the network, seconds and memory, a step.

No autoencoder and no image: an inversion begins at latents, and a run ends with them. Passes are counted at the network
itself, so that nothing that a method asks for on the side is missed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from promptweave.benchmarks.bench_speed import PROMPTS, joint_attention, status
from promptweave.benchmarks.editors import BLENDED, EDITORS, INJECTED, PLAIN, Editor, Known
from promptweave.core.control import FirstPass
from promptweave.editing.inversions import inversions_of, read_inversion
from promptweave.editing.plan import recipe_for
from promptweave.editing.settings import Settings
from promptweave.editing.start import Held, invert_latents
from promptweave.methods import Inpaint
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, latent_grid, noise_for, sample_jobs
from promptweave.sampling.walk import Progress

COLUMNS = ("", "passes a step", "rows a step", "with gradients", "seconds a step", "peak MB")
SOURCE, TARGET = PROMPTS
SHOWN = 0.7  # what an image's latents are of noise
# By what they are called: NAME[:OPTIONS] of inversions, which are followed by an edit. Without early stopping, the
# passes of null-text inversion do not depend on the weights.
GRADIENTS = {"null-text": "null-text:tolerance=0", "null-latent": "null-latent:tolerance=0"}
CHECKPOINTED = "null-text:tolerance=0,checkpointing=true"


COSTED = {  # what is measured of each kind of network: by joint attention, name -> editor
    False: {
        **{name: EDITORS[name] for name in (PLAIN, INJECTED)},
        "Prompt-to-Prompt, local blend": EDITORS[BLENDED].with_(word="lion"),
        **{name: EDITORS[name] for name in ("MasaCtrl", "Plug-and-Play")},
        "pix2pix-zero": EDITORS["pix2pix-zero"].with_(inversion="regularised"),
        "SEGA": EDITORS["SEGA"].with_(away=False),
        **{name: EDITORS[name] for name in ("DDS", "CDS", "inpainting")},
        "RePaint": EDITORS["inpainting"].with_(resamplings=10, jump=1),
    },
    True: {
        PLAIN: EDITORS[PLAIN],
        "joint injection": EDITORS[INJECTED],
        **{name: EDITORS[name] for name in ("FlowEdit", "Consist", "UniEdit", "DirectEdit")},
        "KV-Edit": EDITORS["KV-Edit, mask"],
        "inpainting": EDITORS["inpainting"],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a step of the run takes: calls of the network, their rows in all, calls for a gradient, and seconds.

    `peak`: megabytes at the most, above what was taken before. `failed`: why there are no figures.
    """

    name: str
    passes: float = 0.0
    rows: float = 0.0
    gradients: float = 0.0
    seconds: float = 0.0
    peak: float = 0.0
    failed: str = ""


def editors(model: Model) -> dict[str, Editor]:
    """The editors of a model's kind, by name."""
    return COSTED[joint_attention(model)]


def inversions(model: Model) -> list[str]:
    """The inversions of a model's kind, with the options with which they are measured."""
    known = [GRADIENTS.get(name, name) for name in inversions_of(model) if name != "auto"]
    return [*known, CHECKPOINTED] if "null-text:tolerance=0" in known else known


class Meter:
    """Counts calls of a network; its clock stops, and its peak is taken, at the last call of `stop`."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network, self.cuda = network, next(network.parameters()).is_cuda
        self.calls: list[tuple[int, bool]] = []  # rows, and whether a gradient is wanted
        self.begin = self.end = self.before = self.most = 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if self.cuda:
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 1e6
        else:
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
            self.before = status("VmRSS")
        hook = self.network.register_forward_pre_hook(self._called, with_kwargs=True)
        self.begin = time.perf_counter()
        try:
            yield
        finally:
            hook.remove()

    def _called(self, _: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        latents = given[0] if given else named["hidden_states"]
        self.calls.append((len(latents), torch.is_grad_enabled()))

    def stop(self, *_: Any) -> None:
        """A step has ended; it may have been the last one."""
        if self.cuda:
            torch.cuda.synchronize()
        self.end = time.perf_counter()
        self.most = torch.cuda.max_memory_allocated() / 1e6 if self.cuda else status("VmHWM")

    def cost(self, name: str, steps: int) -> Cost:
        """The figures for one of so many steps."""
        rows, wanted = sum(count for count, _ in self.calls), sum(gradient for _, gradient in self.calls)
        spent = self.end - self.begin
        return Cost(name, len(self.calls) / steps, rows / steps, wanted / steps, spent / steps, self.most - self.before)


@dataclass(frozen=True, eq=False)
class Costs:
    """The measurements of a model: a run of `steps` at `size` (height, width) under `guidance`."""

    model: Any  # a Model with a network
    steps: int
    guidance: float
    size: tuple[int, int] | None = None

    def inversion(self, name: str) -> tuple[Cost, Any]:
        """What it takes to invert the image, and what is found."""
        meter = Meter(self.model.network)
        with meter():
            made = self.inverted(name, meter.stop)
            meter.stop()
        return meter.cost(name, self.steps), made

    def edit(self, name: str, editor: Editor, made: Any) -> Cost:
        """What a run of the source and one target takes, after the inversion."""
        noise = noise_for(self.model, 0, 1, self.size)
        meter = Meter(self.model.network)
        height, width = latent_grid(self.model, self.size)
        half = tuple(tuple(float(column < width / 2) for column in range(width)) for _ in range(height))
        edit = Known(SOURCE, TARGET, "cat", "lion", lambda: half)
        controls = editor.controls(edit)
        # where nobody reads the source's attention, the image stands in for it and is not computed
        keeps_image = any(isinstance(control, Inpaint) for control in controls)
        job = Job(
            (SOURCE, editor.prompt(edit)), noise if made is None else made.noise, self.steps, self.guidance,
            (*(() if made is None else made.controls), *controls), progress=meter.stop, inverted=made,
            first_pass=FirstPass(self._latents()) if made is None else None,
            source=self._held(noise.shape) if keeps_image else None,
        )  # fmt: skip
        with meter():
            sample_jobs(self.model, [job])
        return meter.cost(name, self.steps)

    def inverted(self, name: str, progress: Progress | None = None) -> Any:
        """What an inversion finds."""
        size = self.size or self.model.default_size
        blank = np.zeros((*size, 3), np.uint8)  # only the latents are read
        recipe = recipe_for(
            self.model, SOURCE, (), Settings(steps=self.steps, guidance=self.guidance, size=size), image=blank,
            inversion=name,
        )  # fmt: skip
        return invert_latents(recipe, self.model, self._latents(), progress)

    def _latents(self) -> torch.Tensor:
        return SHOWN * noise_for(self.model, 1, 1, self.size).to(self.model.device, self.model.dtype)

    def _held(self, shape: Sequence[int]) -> Held:
        height, width = (side * self.model.factor for side in shape[-2:])
        return Held(self._latents(), np.zeros((1, height, width, 3), np.uint8))


def bench_costs(
    model: Any,
    names: Sequence[str] = (),
    *,
    steps: int = 10,
    guidance: float = 7.5,
    size: tuple[int, int] | None = None,
    progress: Callable[[], Any] | None = None,
) -> Iterator[Cost]:
    """The cost of each inversion, followed by that of an edit on it, and of each editor; `names`: only these.

    What fails gets a figure that says why, and the others go on. Raises ValueError for unknown names.
    """
    costs, known = Costs(model, steps, guidance, size), editors(model)
    chosen = check_names(model, names)
    injection = known.get("Prompt-to-Prompt") or known["joint injection"]
    _tried("", lambda: costs.edit("", injection, costs.inversion("direct")[1]))  # warms up
    for name in chosen:
        if name in known:
            editor = known[name]

            def edited(name: str = name, editor: Editor = editor) -> Cost:
                made = None if editor.inversion is None else costs.inverted(editor.inversion)
                return costs.edit(name, editor, made)

            yield _tried(name, edited)
        else:
            kept: list[Any] = []

            def inverted(name: str = name, kept: list[Any] = kept) -> Cost:
                cost, made = costs.inversion(name)
                kept.append(made)
                return cost

            yield _tried(name, inverted)
            if kept:
                called = f"{name}, then an edit"
                yield _tried(called, lambda called=called, kept=kept: costs.edit(called, injection, kept[0]))
        if progress:
            progress()


def check_names(model: Model, names: Sequence[str]) -> list[str]:
    """The inversions and editors to measure. Raises ValueError for one that is unknown."""
    known, listed = editors(model), inversions(model)
    for name in names:
        if name not in known:
            try:
                read_inversion(name)
            except ValueError as error:
                raise ValueError(f"{error} Editors that can be measured: {'; '.join(known)}.") from None
    return list(names) or [*listed, *known]


def _tried(name: str, measure: Callable[[], Cost]) -> Cost:
    try:
        return measure()
    except Exception as error:  # too little memory, or a model for which it is not
        return Cost(name, failed=f"{type(error).__name__}: {' '.join(str(error).split())[:120]}")


def cells(cost: Cost) -> tuple[str, ...]:
    """A line of the table."""
    if cost.failed:
        return cost.name, f"failed: {cost.failed}", "", "", "", ""
    counts = (f"{value:.3g}" for value in (cost.passes, cost.rows, cost.gradients))
    return cost.name, *counts, f"{cost.seconds:.3g}", f"{cost.peak:.0f}"


def load_for_costs(model: str, device: str = "auto", dtype: str = "auto") -> Any:
    """The model to measure: a name for `load`, or one of `random_pipelines.RANDOM`, with a small autoencoder."""
    from promptweave.benchmarks.random_pipelines import RANDOM, narrow_vae
    from promptweave.models.load import load, usual_dtype
    from promptweave.models.pipeline import dtype_named

    if model not in RANDOM:
        return load(model, device=device, dtype=dtype)
    pipeline = RANDOM[model]()
    if hasattr(pipeline, "unet"):
        pipeline.vae = narrow_vae()
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    pipeline.to(where, dtype_named(dtype) or usual_dtype(model, where))
    return load(pipeline)
