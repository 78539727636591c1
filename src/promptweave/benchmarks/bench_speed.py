"""Time and memory of an edit, against the same run without controls and with explicit attention matrices."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from promptweave.core.clock import Step
from promptweave.core.control import Control, Hooks, Run
from promptweave.core.pattern import Dense, Pattern, Term
from promptweave.core.record_maps import RecordMaps
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites
from promptweave.methods import LocalBlend, Replace

Size = tuple[int, int] | None  # (height, width) in pixels; None for the model's own
PROMPTS = ("a photo of a cat riding a bike", "a photo of a lion riding a bike")


@dataclass(frozen=True)
class Explicit(Control):
    """Compute every attention matrix of every row, as the published code does; put it last in the list of controls."""

    def bind(self, run: Run) -> Hooks:
        return _Explicit()


class _Explicit(Hooks):
    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        for branch in rows.layout.branches:
            for prompt in range(rows.layout.prompts):
                matrix = rows[branch][prompt].pattern.dense
                rows = rows.put(branch, prompt, pattern=Pattern((Term(Dense(matrix)),)))
        return rows


VARIANTS: dict[str, tuple[Control, ...]] = {
    "plain": (),
    "edit": (Replace(),),
    "edit + local blend": (Replace(), LocalBlend("lion")),
    "explicit matrices": (Replace(), Explicit()),
}
WARM = 5  # steps that a window of joint attention needs
TOKENS = (tuple(range(10)),) * 2  # tokens recorded: words, start and end
MAPS: dict[str, tuple[Control, ...]] = {
    "plain": (),
    "word maps": (RecordMaps(columns=TOKENS),),
    "word maps of each step": (RecordMaps(columns=TOKENS, by_step=True),),
    "word maps of each layer": (RecordMaps(Sites("cross"), columns=TOKENS, by_site=True),),
}


def load_for_speed(model: str) -> Any:
    """The model to time: a name for `load`, or one of `random_pipelines.RANDOM`."""
    from promptweave.benchmarks.random_pipelines import RANDOM
    from promptweave.models.load import load

    if model not in RANDOM:
        return load(model)
    pipeline = RANDOM[model]()
    if torch.cuda.is_available():
        pipeline.to("cuda", torch.bfloat16)
    return load(pipeline)


def joint_attention(model: Any) -> bool:
    """Whether the network has joint attention, as Stable Diffusion 3 and FLUX have."""
    from promptweave.sampling.loop import latent_grid

    return any(site.kind == "joint" for site in model.sites(latent_grid(model)))


def warm_steps(model: Any) -> int:
    """Steps that reach into every window of an edit: more for joint attention, whose window is short."""
    return WARM if joint_attention(model) else 2


def once(model: Any, name: str, steps: int, size: Size = None) -> tuple[float, float]:
    """Wall-clock and process time of one run, in seconds."""
    from promptweave.sampling.loop import noise_for, sample

    noise, wall, cpu = noise_for(model, 0, 1, size), time.perf_counter(), time.process_time()
    sample(model, PROMPTS, noise=noise, steps=steps, controls={**VARIANTS, **MAPS}[name])
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak(model: str, name: str, steps: int, repeats: int, size: Size = None) -> float:
    """Growth of the peak memory (MB) of a warm process during a run; median over fresh processes."""
    code = f"from promptweave.benchmarks.bench_speed import child; child({model!r}, {name!r}, {steps}, {size!r})"
    # malloc maps tensors of 64 kB or more individually and frees them at once, so resident memory is memory in use.
    tight = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    command, values = [sys.executable, "-W", "ignore", "-c", code], []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **tight})
        if done.returncode:
            raise RuntimeError(f"The memory run of {name!r} failed: {done.stderr.strip()[-400:]}")
        values.append(float(json.loads(done.stdout.strip().splitlines()[-1])))
    return statistics.median(values)


def status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"Peak memory on a CPU is read from /proc/self/status, which has no {field} here. Use Linux.")


def child(model: str, name: str, steps: int, size: Size) -> None:
    """The main function of the process that `peak` starts."""
    network = load_for_speed(model)
    warm = warm_steps(network)
    once(network, "plain", 1, size)
    once(network, name, warm, size)
    gc.collect()
    if network.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 1e6
        once(network, name, steps, size)
        growth = torch.cuda.max_memory_allocated() / 1e6 - before
    else:
        Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
        before = status("VmRSS")
        once(network, name, steps, size)
        growth = status("VmHWM") - before
    print(json.dumps(growth))


def bench_speed(
    model: str = "toybox",
    *,
    steps: int = 50,
    repeats: int = 5,
    size: Size = None,
    maps: bool = False,
    progress: Any = None,
) -> dict[str, dict[str, float]]:
    """Medians of alternating runs: seconds, process seconds, peak growth (MB), and their ratios to `plain`.

    `maps`: time recorders of maps instead of edits. Raises ValueError if the steps are too few for every window.
    """
    from promptweave.benchmarks.random_pipelines import RANDOM

    network = load_for_speed(model)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in (MAPS if maps else VARIANTS)}
    warm = warm_steps(network)
    if steps < warm and not maps:
        raise ValueError(
            f"An edit in joint attention acts in the first fifth of the steps, so at least {warm} must be timed. "
            f"Received {steps}."
        )
    for name in times:
        once(network, name, warm, size)
    for repeat in range(repeats):
        names = list(times)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            times[name].append(once(network, name, steps, size))
            if progress:
                progress()
    figures: dict[str, dict[str, float]] = {}
    least = steps if maps else min(steps, max(4, warm))  # maps outlive a step
    for name, pairs in times.items():
        wall, cpu = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        figures[name] = {
            "seconds": wall,
            "process seconds": cpu,
            "peak growth MB": peak(model, name, least, 1 if model in RANDOM else min(repeats, 3), size),
        }
    plain = figures["plain"]
    return {name: {**f, **{f"{key} / plain": f[key] / plain[key] for key in plain}} for name, f in figures.items()}
