"""What controls cost where a device waits for its host: operations and host time of a step, on any machine.

Networks with the layers of Stable Diffusion 1.5 and XL but 32 channels have next to no arithmetic, so that what is left
is what a GPU of any speed waits for. The operations are counted exactly; the time of a step is the difference between
runs of few and of more steps, so that what a run costs once stands apart.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from promptweave.benchmarks.bench_speed import MAPS, PROMPTS
from promptweave.core.control import Control
from promptweave.methods import LocalBlend, Refine, Replace, Reweight

FEW, MORE = 2, 6  # steps of the two runs
COUNTED = 2, 3  # steps of the runs whose operations are counted
SIZE = (64, 64)
REFINED = "a photo of a big cat riding a bike"
DIFFUSERS, PLAIN, FRESH, RECORDED = "diffusers", "plain", "a fresh edit", "a target on a recording"
WINDOWS: dict[str, Any] = {"cross": 1.0, "self_attention": 1.0}  # open in all steps, so that every step is alike
VARIANTS: dict[str, tuple[Control, ...]] = {
    PLAIN: (),
    "word swap": (Replace(**WINDOWS),),
    "word swap, local blend": (Replace(**WINDOWS), LocalBlend("lion", start=0.0)),
    "word maps": MAPS["word maps"],
    "refine": (Refine(**WINDOWS),),
    "re-weight": (Reweight({"bike": 2.0}),),
}
# What only says how memory is to be read, and launches nothing.
VIEWS = (
    "view", "_unsafe_view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "slice", "select", "expand",
    "split", "detach", "t.", "alias", "unflatten", "chunk", "unbind", "as_strided", "lift_fresh",
)  # fmt: skip
Run = Callable[[int], Any]


class Operations(TorchDispatchMode):
    """Counts operations, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.__name__.startswith(VIEWS)
        return func(*args, **(kwargs or {}))


def runs(pipeline: Any) -> dict[str, Run]:
    """Runs of a number of steps by name."""
    from promptweave.editing.edit import edit, record
    from promptweave.models.load import load
    from promptweave.sampling.loop import noise_for, sample

    pipeline.set_progress_bar_config(disable=True)
    model = load(pipeline)
    noise = noise_for(model, 0, 1, SIZE)
    source, target = PROMPTS
    settings: dict[str, Any] = {"model": model, "size": SIZE, "guidance": 7.5}
    recording: Any = cache(lambda steps: record(source, **settings, steps=steps, **WINDOWS))
    for steps in COUNTED:  # not counted below; nor is what a model makes when it is first used
        recording(steps)

    def theirs(steps: int) -> Any:
        return pipeline(
            prompt=list(PROMPTS), num_inference_steps=steps, guidance_scale=7.5, height=SIZE[0], width=SIZE[1],
            output_type="np",
        )  # fmt: skip

    def ours(name: str, steps: int) -> Any:
        prompts = (source, REFINED) if name == "refine" else PROMPTS
        return sample(model, prompts, noise=noise, steps=steps, guidance=7.5, controls=VARIANTS[name])

    return {
        DIFFUSERS: theirs,
        **{name: partial(ours, name) for name in VARIANTS},
        FRESH: lambda steps: edit(source, target, **settings, steps=steps, **WINDOWS),
        RECORDED: lambda steps: edit(recording(steps), target, model=model, **WINDOWS),
    }


def operations(run: Run) -> int:
    """Operations of the third step, which is like all behind it: a run's first two make what the run keeps."""
    counted: list[int] = []
    for steps in COUNTED:
        with Operations() as seen:
            run(steps)
        counted.append(seen.count)
    return counted[1] - counted[0]


def built() -> dict[str, Any]:
    """The pipelines by family."""
    from promptweave.benchmarks.random_pipelines import narrow_sd15, narrow_sdxl

    torch.manual_seed(0)
    return {"sd15": narrow_sd15(), "sdxl": narrow_sdxl()}


def bench_host(
    pipelines: Mapping[str, Any] | None = None, *, repeats: int = 7, progress: Callable[..., Any] | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """By family and run: `step` and `run`, milliseconds of process time (of one thread) for a step and once a run, and
    `operations` of a step. `step over`: the step over that of diffusers' own pipeline, `operations over`: the
    operations over those of our plain run; of a target on a recording, both over a fresh edit. Medians of alternating
    runs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        known = built() if pipelines is None else pipelines
        return {name: _family(pipeline, repeats, progress or (lambda *_: None)) for name, pipeline in known.items()}
    finally:
        torch.set_num_threads(threads)


def _family(pipeline: Any, repeats: int, progress: Callable[..., Any]) -> dict[str, dict[str, float]]:
    work = runs(pipeline)
    counted = {name: operations(run) for name, run in work.items()}  # which warms up, too
    for steps in (FEW, MORE):
        work[RECORDED](steps)  # the recording is made
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for repeat in range(repeats):
        names = list(work)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            few, more = (_seconds(work[name], steps) for steps in (FEW, MORE))
            taken[name].append((few, more))
            progress()
    figures: dict[str, dict[str, float]] = {}
    for name, pairs in taken.items():
        few, more = (1000 * statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        step = (more - few) / (MORE - FEW)
        figures[name] = {"step": step, "run": few - FEW * step, "operations": counted[name]}
    for name, found in figures.items():
        base = FRESH if name == RECORDED else DIFFUSERS
        found["step over"] = found["step"] / figures[base]["step"]
        found["operations over"] = found["operations"] / figures[FRESH if name == RECORDED else PLAIN]["operations"]
    return figures


def _seconds(run: Run, steps: int) -> float:
    begin = time.process_time()
    run(steps)
    return time.process_time() - begin
