"""What edits cost on a GPU, at the families' true sizes: time and peak memory, against diffusers' own pipelines."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any

import torch

from promptweave.benchmarks.bench_speed import MAPS, PROMPTS, VARIANTS, WARM
from promptweave.core.control import Control

Run = Callable[[], Any]  # what is timed
Prepare = Callable[[int], Run]  # a run of so many steps, with what it needs made ready
DIFFUSERS, EXPLICIT = "diffusers", "diffusers, explicit matrices"
TARGETS = (1, 4, 8)
PLACES = ("device", "cpu")
CONTROLS: dict[str, tuple[Control, ...]] = {
    "plain": VARIANTS["plain"],
    "word swap": VARIANTS["edit"],
    "word swap, local blend": VARIANTS["edit + local blend"],
    "word maps": MAPS["word maps"],
    "word swap, explicit matrices": VARIANTS["explicit matrices"],
}


@dataclass(frozen=True)
class Case:
    """A family with random weights and how it is run: height and width in pixels, steps, guidance, repeats."""

    build: Callable[[], Any]
    size: tuple[int, int]
    steps: int
    guidance: float
    repeats: int


@dataclass(frozen=True)
class Figure:
    """The median of some runs, or why there is none."""

    family: str
    name: str
    seconds: float | None = None
    growth: float | None = None  # MB of device memory above what was taken before; None without a GPU
    over_diffusers: float | None = None
    over_plain: float | None = None
    failed: str = ""


def cases() -> dict[str, Case]:
    """The families at their true size and depth."""
    from promptweave.benchmarks import random_pipelines as made

    return {
        "sd15": Case(made.random_sd15, (512, 512), 20, 7.5, 5),
        "sdxl": Case(made.random_sdxl, (1024, 1024), 8, 7.5, 3),
        "sd3-medium": Case(partial(made.random_sd3, 24), (1024, 1024), 10, 7.0, 3),
        "flux-dev": Case(partial(made.random_flux, 19, 38), (1024, 1024), 10, 3.5, 2),
    }


FAMILIES = ("sd15", "sdxl", "sd3-medium", "flux-dev")
COLUMNS = ("", "seconds", "over diffusers", "over plain", "peak growth MB")


def gpu() -> torch.device:
    """The GPU; raises a ValueError where there is none."""
    if not torch.cuda.is_available():
        raise ValueError(
            "This benchmark needs a GPU, and torch sees none here. Run it on a machine with one, or count operations "
            "and host time on this one: promptweave bench host."
        )
    return torch.device("cuda")


def bench_gpu(
    families: Sequence[str] = FAMILIES,
    *,
    quick: bool = False,
    repeats: int | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.bfloat16,
    known: Mapping[str, Case] | None = None,
    progress: Callable[..., Any] | None = None,
) -> Iterator[list[Figure]]:
    """The figures of one family after the other: medians of alternating runs in this process.

    `quick`: one repeat, and neither explicit matrices nor recordings nor several targets. `repeats`: of each run, else
    as many as `known` says, the families by name (`cases()`). A run that fails gets a figure that says why, and the
    others go on.
    """
    where, known = device or gpu(), cases() if known is None else known
    strange = [name for name in families if name not in known]
    if strange:
        raise ValueError(f"There is no family {strange[0]!r}. Choose of {', '.join(known)}.")
    for name in families:
        case = replace(known[name], repeats=repeats or (1 if quick else known[name].repeats))
        yield _Bench(name, case, where, dtype, quick, progress or (lambda *_: None)).figures()
        gc.collect()
        if where.type == "cuda":
            torch.cuda.empty_cache()


def built(case: Case, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline, with weights drawn on the device in its own precision."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with device:
            pipeline = case.build()
    finally:
        torch.set_default_dtype(before)
    pipeline.to(device, dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class _Bench:
    """The runs of one family."""

    def __init__(
        self, family: str, case: Case, device: torch.device, dtype: torch.dtype, quick: bool, progress: Any
    ) -> None:
        from promptweave.models.load import load

        self.family, self.case, self.device, self.progress = family, case, device, progress
        self.pipeline = built(case, device, dtype)
        self.model = load(self.pipeline)
        self.work = self._work(quick)
        self._recordings: dict[str, tuple[int, Any]] = {}

    def figures(self) -> list[Figure]:
        """The medians of all runs, in the order of the table."""
        failed: dict[str, str] = {}
        taken: dict[str, list[tuple[float, float | None]]] = {name: [] for name in self.work}
        for repeat in range(-1, self.case.repeats):  # the first, of few steps, only warms up
            names = list(self.work)
            turn = max(repeat, 0) % len(names)
            for name in names[turn:] + names[:turn]:
                if name in failed:
                    continue
                try:
                    measured = self._measured(
                        self.work[name](min(WARM, self.case.steps) if repeat < 0 else self.case.steps)
                    )
                except Exception as error:
                    failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
                    continue
                if repeat >= 0:
                    taken[name].append(measured)
                self.progress()
        return self._compared(taken, failed)

    def _compared(self, taken: dict[str, list[tuple[float, float | None]]], failed: dict[str, str]) -> list[Figure]:
        seconds = {name: statistics.median(s for s, _ in runs) for name, runs in taken.items() if runs}
        figures: list[Figure] = []
        for name, runs in taken.items():
            if name in failed or name not in seconds:
                figures.append(Figure(self.family, name, failed=failed.get(name, "not reached")))
                continue
            growths = [growth for _, growth in runs if growth is not None]
            theirs, plain = (
                seconds[name] / seconds[base] if base in seconds else None for base in (DIFFUSERS, "plain")
            )
            growth = statistics.median(growths) if growths else None
            figures.append(Figure(self.family, name, seconds[name], growth, theirs, plain))
        return figures

    def _measured(self, run: Run) -> tuple[float, float | None]:
        """Seconds, and megabytes at the peak above what was taken before."""
        on = self.device.type == "cuda"
        if on:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before, begin = (torch.cuda.memory_allocated() if on else 0), time.perf_counter()
        run()
        if on:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        return seconds, (torch.cuda.max_memory_allocated() - before) / 1e6 if on else None

    def _work(self, quick: bool) -> dict[str, Prepare]:
        work: dict[str, Prepare] = {DIFFUSERS: self._theirs}
        if hasattr(self.pipeline, "unet") and not quick:
            work[EXPLICIT] = self._theirs_explicitly
        for name, controls in CONTROLS.items():
            if not (quick and "explicit" in name):
                work[name] = partial(self._ours, controls)
        if not quick:
            work |= {f"{count} target{'s' * (count > 1)}": partial(self._targets, count) for count in TARGETS}
            work |= {f"a target on a recording ({place})": partial(self._recorded, place) for place in PLACES}
        return work

    def _theirs(self, steps: int) -> Run:
        """Diffusers' own pipeline, which makes the same two images."""
        height, width = self.case.size
        return lambda: self.pipeline(
            prompt=list(PROMPTS), num_inference_steps=steps, guidance_scale=self.case.guidance,
            height=height, width=width, output_type="np",
        )  # fmt: skip

    def _theirs_explicitly(self, steps: int) -> Run:
        """The same with every attention matrix built: the least that code which reads the matrices costs."""
        from diffusers.models.attention_processor import AttnProcessor

        run = self._theirs(steps)

        def explicit() -> None:
            before = self.pipeline.unet.attn_processors
            self.pipeline.unet.set_attn_processor(AttnProcessor())
            try:
                run()
            finally:
                self.pipeline.unet.set_attn_processor(before)

        return explicit

    def _ours(self, controls: tuple[Control, ...], steps: int) -> Run:
        from promptweave.sampling.loop import noise_for, sample

        noise = noise_for(self.model, 0, 1, self.case.size)
        return lambda: sample(
            self.model, PROMPTS, noise=noise, steps=steps, guidance=self.case.guidance, controls=controls
        )

    def _settings(self, steps: int) -> dict[str, Any]:
        return {"model": self.model, "steps": steps, "guidance": self.case.guidance, "size": self.case.size}

    def _targets(self, count: int, steps: int) -> Run:
        from promptweave.editing.edit import edit

        source, target = PROMPTS
        return lambda: edit(source, *[target] * count, **self._settings(steps))

    def _recorded(self, place: str, steps: int) -> Run:
        from promptweave.editing.edit import edit, record

        made, recording = self._recordings.get(place, (0, None))
        if made != steps:
            settings: dict[str, Any] = {**self._settings(steps), "place": place}
            self._recordings[place] = steps, (recording := record(PROMPTS[0], **settings))
        assert recording is not None
        return lambda: edit(recording, PROMPTS[1], model=self.model)


def surroundings(device: torch.device) -> str:
    """Card, date and versions."""
    import diffusers

    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, no GPU"
    return f"{card}; torch {torch.__version__}, diffusers {diffusers.__version__}; {date.today()}"


def markdown(figures: Sequence[Figure], device: torch.device, known: Mapping[str, Case] | None = None) -> str:
    """One table with what it was measured on above it."""
    known = cases() if known is None else known
    lines = [
        f"{surroundings(device)}. Two prompts, random weights of the true shapes, medians of alternating runs.",
        "",
    ]
    lines += ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    before = ""
    for figure in figures:
        case = known[figure.family]
        about = f"{figure.family}, {case.size[0]} x {case.size[1]}, {case.steps} steps"
        lines.append("| " + " | ".join([about if figure.family != before else "", *cells(figure)]) + " |")
        before = figure.family
    return "\n".join(lines) + "\n"


def cells(figure: Figure) -> tuple[str, ...]:
    """A line of the table after the family's name."""
    if figure.failed:
        return figure.name, f"failed: {figure.failed.replace('|', '/')}", "", "", ""
    ratios = ("" if x is None else f"{x:.2f}" for x in (figure.over_diffusers, figure.over_plain))
    return figure.name, f"{figure.seconds:.3f}", *ratios, "" if figure.growth is None else f"{figure.growth:.0f}"
