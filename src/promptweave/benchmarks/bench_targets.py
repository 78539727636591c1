"""The cost of more targets in one run, and the savings of a recording."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from promptweave.benchmarks.bench_speed import PROMPTS, Size, joint_attention, load_for_speed

COUNTS = (1, 2, 4, 8)


def seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """Wall-clock time of one call, in seconds."""
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def bench_targets(
    model: str = "toybox",
    *,
    steps: int = 20,
    repeats: int = 3,
    size: Size = None,
    counts: Sequence[int] = COUNTS,
    progress: Any = None,
) -> dict[str, dict[str, float]]:
    """Medians of alternating runs: `seconds`, `ratio` to a baseline, and the `least` ratio, by the number of rows.

    "N targets": one run with N targets over N runs with one target; least (1 + N) / 2N. "on a recording": an edit of a
    recording over an edit without it; least 1/2. "recording": making it over generating the source.
    """
    import promptweave as pw

    network = load_for_speed(model)
    source, target = PROMPTS
    settings: dict[str, Any] = {"model": network, "steps": steps, "size": size}
    window: dict[str, Any] = {"joint": 0.4} if joint_attention(network) else {}
    recording = pw.record(source, **settings, **window)

    def together(count: int) -> Any:
        return pw.edit(source, *[target] * count, **settings, **window)

    work: dict[str, Callable[[], Any]] = {f"{count} targets": lambda count=count: together(count) for count in counts}
    work["on a recording"] = lambda: pw.edit(recording, target, model=network, **window)
    work["recording"] = lambda: pw.record(source, **settings, **window)
    work["source alone"] = lambda: pw.generate(source, model=network, steps=steps, size=size)
    work["1 target"] = lambda: together(1)
    times: dict[str, list[float]] = {name: [] for name in work}
    for name in ("1 target", "on a recording", "source alone"):
        work[name]()
    for repeat in range(repeats):
        names = list(work)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            times[name].append(seconds(network.device, work[name]))
            if progress:
                progress()
    median = {name: statistics.median(values) for name, values in times.items()}
    one = median["1 target"]
    figures = {
        f"{count} targets in one run": {
            "seconds": median[f"{count} targets"],
            "ratio": median[f"{count} targets"] / (count * one),
            "least": (1 + count) / (2 * count),
        }
        for count in counts
    }
    figures["a target on a recording"] = {
        "seconds": median["on a recording"], "ratio": median["on a recording"] / one, "least": 0.5,
    }  # fmt: skip
    figures["making the recording"] = {
        "seconds": median["recording"], "ratio": median["recording"] / median["source alone"], "least": 1.0,
    }  # fmt: skip
    return figures
