"""The strength finder against fixed strengths, on the world's counterfactual pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from promptweave.benchmarks.judging import oracle
from promptweave.editing.edit import edit, record
from promptweave.editing.record import Recording
from promptweave.evaluate.metrics import layout, psnr
from promptweave.finding.demands import Demands
from promptweave.finding.find import find
from promptweave.finding.ladders import joint
from promptweave.models.base import Model
from promptweave.words.edit_kinds import change, region_words
from promptweave.world.counterfactuals import KINDS, Counterfactual, counterfactuals

FIXED, BLENDED, USUAL, FOUND = "fixed", "fixed, local blend", "default of its kind", "found"
PUBLISHED = {False: {"cross": 0.8, "self_attention": 0.4}, True: {"joint": 0.2}}  # by joint attention


@dataclass(frozen=True)
class Tried:
    """An edit of a pair. `success`: the oracle sees it. `kept`: PSNR in dB to the source, of what should stay (NaN: the
    pair has no such pixels); `edges`: correlation of the edges with the source's; `goal`: PSNR in dB to the image as it
    should become, for drawn sources. `cost`: rows of the network over those of one plain edit. `settings`: in words."""

    number: int
    kind: str
    how: str
    success: bool
    kept: int | float
    edges: int | float
    goal: int | float
    cost: int | float
    settings: str


def bench_find(
    model: Model,
    *,
    split: str = "tuning",
    kinds: Sequence[str] = (),
    first: int = 0,
    count: int | None = 16,
    steps: int | None = None,
    generated: bool = False,
    judge: str = "oracle",
    seed: int = 7000,
    progress: Callable[..., None] | None = None,
) -> Iterator[Tried]:
    """Each pair of a split (`count` of them from the `first`) with fixed strengths, with those of its kind, and found.

    The sources are the drawn scenes, inverted, or images `generated` from the prompts, with what should stay as the
    oracle sees it. Nothing may be chosen by what the split "test" gives.
    """
    for pair in counterfactuals(split, kinds=tuple(kinds) or tuple(KINDS), first=first, count=count):
        start: dict[str, Any] = {"seed": seed + pair.number} if generated else {"image": pair.drawn}
        recording = record(
            pair.source, model=model, steps=steps, cross=1.0, self_attention=1.0, joint=1.0,
            place="cpu" if model.device.type == "cpu" else "device", **start,
        )  # fmt: skip
        targets = [] if pair.weights else [pair.target]
        more: dict[str, Any] = {"weights": dict(pair.weights)} if pair.weights else {}
        fixed = {**PUBLISHED[joint(model)], **more}
        words = model.words(pair.source), model.words(pair.target)
        region = region_words(change(*words, [word for word, _ in pair.weights]), words[1])
        ways = {FIXED: fixed, USUAL: more} | ({BLENDED: {**fixed, "blend": region}} if region else {})
        for how, options in ways.items():
            made = edit(recording, *targets, model=model, **options)
            yield _tried(pair, how, recording, np.asarray(made.edited), 1.0, "", generated)
        found = find(recording, *targets, model=model, judge=judge, **more)  # pyright: ignore[reportArgumentType]
        yield _tried(
            pair, FOUND, recording, np.asarray(found.result.edited), found.cost, found.pick.said, generated
        )  # fmt: skip
        if progress:
            progress()


def _tried(
    pair: Counterfactual,
    how: str,
    recording: Recording,
    made: np.ndarray,
    cost: int | float,
    settings: str,
    generated: bool,
) -> Tried:
    source = recording.track.pictures[0]
    before, after = oracle().look(np.stack([source, made]))
    stays, success = ~pair.region, pair.success(after)
    if generated:
        demands = Demands.of(pair.source, pair.target, dict(pair.weights))
        assert demands is not None
        stays, success = demands.stays(before, after), demands.score(after) > 0.5
    goal = math.nan if generated else float(psnr(pair.wanted, made))
    kept = float(psnr(source, made, stays))
    return Tried(pair.number, pair.kind, how, bool(success), kept, layout(source, made), goal, cost, settings)


def table_of(rows: Sequence[Tried]) -> list[tuple[str, ...]]:
    """A line for each kind and way: success, kept in dB, edges, goal in dB, rows over a plain edit's, pairs."""
    lines: list[tuple[str, ...]] = []
    for kind in dict.fromkeys(row.kind for row in rows):
        for how in dict.fromkeys(row.how for row in rows):
            some = [row for row in rows if row.kind == kind and row.how == how]
            if some:
                lines.append((kind, how, f"{np.mean([r.success for r in some]):.0%}", *_means(some), str(len(some))))
    return lines


def _means(rows: Sequence[Tried]) -> tuple[str, ...]:
    found: list[str] = []
    for name, form in (("kept", ".1f"), ("edges", ".2f"), ("goal", ".1f"), ("cost", ".2f")):
        values = [asdict(row)[name] for row in rows]
        known = [value for value in values if not math.isnan(value)]
        found.append(format(float(np.mean(known)), form) if known else "")
    return tuple(found)


COLUMNS = ("kind", "strengths", "success", "kept, dB", "edges", "goal, dB", "edits' work", "pairs")
