"""What controls cost where a device waits for its host: operations and host time of a step, on any machine.

Networks with the layers of Stable Diffusion 1.5 and XL but 32 channels have next to no arithmetic, so that what is left
is what a GPU of any speed waits for. The operations are counted exactly. The runs take turns step by step, each in a
thread of its own, so that a machine that is busy for a while is as busy for all of them.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from promptweave.benchmarks.bench_speed import MAPS, PROMPTS
from promptweave.core.control import Control
from promptweave.methods import LocalBlend, MasaCtrl, PlugAndPlay, Refine, Replace, Reweight

WARM = 2  # steps, the first of a run, that make what it keeps
COUNTED = 3  # steps of the runs whose operations are counted
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
    "MasaCtrl": (MasaCtrl(start=0.0),),
    "plug-and-play": (PlugAndPlay(features=1.0, attention=1.0),),
}
# What only says how memory is to be read, and launches nothing.
VIEWS = (
    "view", "_unsafe_view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "slice", "select", "expand",
    "split", "detach", "t.", "alias", "unflatten", "chunk", "unbind", "as_strided", "lift_fresh",
)  # fmt: skip
Mark = Callable[[], Any]
Run = Callable[[int, Mark], Any]  # of a number of steps; the mark is told of the end of each


class Operations(TorchDispatchMode):
    """Counts operations, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.__name__.startswith(VIEWS)
        return func(*args, **(kwargs or {}))


def runs(pipeline: Any) -> dict[str, Run]:
    """The runs by name."""
    from promptweave.editing.edit import edit, record
    from promptweave.models.load import load
    from promptweave.sampling.loop import noise_for, sample

    pipeline.set_progress_bar_config(disable=True)
    model = load(pipeline)
    noise = noise_for(model, 0, 1, SIZE)
    source, target = PROMPTS
    settings: dict[str, Any] = {"model": model, "size": SIZE, "guidance": 7.5}
    recording: Any = cache(lambda steps: record(source, **settings, steps=steps, **WINDOWS))
    recording(COUNTED)  # not counted below; nor is what a model makes when it is first used

    def theirs(steps: int, mark: Mark) -> Any:
        def ended(pipeline: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
            mark()
            return values

        return pipeline(
            prompt=list(PROMPTS), num_inference_steps=steps, guidance_scale=7.5, height=SIZE[0], width=SIZE[1],
            output_type="np", callback_on_step_end=ended,
        )  # fmt: skip

    def ours(name: str, steps: int, mark: Mark) -> Any:
        prompts = (source, REFINED) if name == "refine" else PROMPTS
        return sample(
            model, prompts, noise=noise, steps=steps, guidance=7.5, controls=VARIANTS[name],
            progress=lambda *_: mark(),
        )  # fmt: skip

    def edited(given: Any, steps: int, mark: Mark) -> Any:
        begin, more = (recording(steps), {"model": model}) if given is None else (given, {**settings, "steps": steps})
        return edit(begin, target, **more, **WINDOWS, progress=lambda *_: mark())

    return {
        DIFFUSERS: theirs,
        **{name: partial(ours, name) for name in VARIANTS},
        FRESH: partial(edited, source),
        RECORDED: partial(edited, None),
    }


def operations(run: Run) -> int:
    """Operations of the third step, which is like all behind it: a run's first two make what the run keeps."""
    at: list[int] = []
    with Operations() as seen:
        run(COUNTED, lambda: at.append(seen.count))
    return at[2] - at[1]


def built() -> dict[str, Any]:
    """The pipelines by family."""
    from promptweave.benchmarks.random_pipelines import narrow_sd15, narrow_sdxl

    torch.manual_seed(0)
    return {"sd15": narrow_sd15(), "sdxl": narrow_sdxl()}


def bench_host(
    pipelines: Mapping[str, Any] | None = None, *, steps: int = 24, progress: Callable[..., Any] | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """By family and run: `step`, milliseconds of a thread's CPU time for a step, `run`, those before its second step
    but for one, and `operations` of a step. `step over`: the step over that of diffusers' own pipeline, `operations
    over`: the operations over those of our plain run; of a target on a recording, both over a fresh edit. Medians over
    `steps`, without the first two; `over` is the median of the ratios of single turns.

    Raises ValueError for fewer than three steps.
    """
    if steps <= WARM:
        raise ValueError(f"The first {WARM} steps are not counted: ask for more. Received {steps}.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        known = built() if pipelines is None else pipelines
        return {name: _family(pipeline, steps, progress or (lambda *_: None)) for name, pipeline in known.items()}
    finally:
        torch.set_num_threads(threads)


def _family(pipeline: Any, steps: int, progress: Callable[..., Any]) -> dict[str, dict[str, float]]:
    work = runs(pipeline)
    counted = {name: operations(run) for name, run in work.items()}  # which warms up, too
    work[RECORDED](steps, lambda: None)  # the recording is made
    taken = in_turns(work, steps, progress)
    figures: dict[str, dict[str, float]] = {}
    for name, times in taken.items():
        base = FRESH if name == RECORDED else DIFFUSERS
        step, plain = statistics.median(times[WARM:]), FRESH if name == RECORDED else PLAIN
        figures[name] = {
            "step": 1000 * step,
            "run": 1000 * (times[0] - step),
            "operations": counted[name],
            "step over": statistics.median(
                own / its for own, its in zip(times[WARM:], taken[base][WARM:], strict=True)
            ),
            "operations over": counted[name] / counted[plain],
        }
    return figures


def in_turns(work: Mapping[str, Run], steps: int, progress: Callable[..., Any]) -> dict[str, list[float]]:
    """Seconds of CPU time of each step of runs, which take turns after every step."""
    mine = {name: threading.Semaphore(0) for name in work}
    back, failed = threading.Semaphore(0), list[BaseException]()
    taken: dict[str, list[float]] = {name: [] for name in work}

    def go(name: str) -> None:
        mine[name].acquire()
        begin = time.thread_time()

        def mark() -> None:
            nonlocal begin
            taken[name].append(time.thread_time() - begin)
            back.release()
            mine[name].acquire()
            begin = time.thread_time()

        try:
            work[name](steps, mark)
        except BaseException as error:
            failed.append(error)
        back.release()

    threads = {name: threading.Thread(target=go, args=(name,), daemon=True) for name in work}
    for thread in threads.values():
        thread.start()
    for _ in range(steps + 1):  # after the last step there is the image
        for name in work:
            mine[name].release()
            back.acquire()
            if failed:
                raise failed[0]
            progress()
    for thread in threads.values():
        thread.join()
    return taken
