"""Do edits change what they should and keep the rest? Seeded pairs of scenes, judged by the oracle."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from promptweave.benchmarks.judging import oracle, share
from promptweave.benchmarks.swept import injection
from promptweave.core.control import Control
from promptweave.core.files import Write, write_files
from promptweave.editing.plan import usual
from promptweave.evaluate.metrics import psnr
from promptweave.methods import Consist, FlowEdit, LocalBlend, Reweight
from promptweave.models.base import Model
from promptweave.sampling.loop import FLOW, Job, noise_for, sample_jobs
from promptweave.view.sheet import sheet
from promptweave.world.counterfactuals import KINDS, MARGIN, Counterfactual, drawn, grown
from promptweave.world.oracle import Sight

CONTROLLED, BLENDED, FREE = 1, 2, 3  # rows of a run: the edit, the edit with local blend, no control
EDITS = ("edit", "edit + local blend", "no control", "FlowEdit", "Consist")  # the last two for flow models


@dataclass(frozen=True)
class Shares:
    """The fractions of the steps in which the source's cross-, self- or joint attention is used."""

    cross: int | float = 0.8
    self_attention: int | float = 0.4
    joint: int | float = 0.2


def blended(pair: Counterfactual) -> bool:
    """Whether the pair has a word for a local blend."""
    return bool(pair.nouns) and not pair.weights


def controls_of(model: Model, pair: Counterfactual, shares: Shares) -> list[Control]:
    """Injection for rows 1 and 2, local blend for row 2; row 3 has no controls."""
    inject = injection(model, pair)
    made: list[Control] = [
        inject(shares.cross, shares.self_attention, joint=shares.joint, targets=(CONTROLLED, BLENDED))
    ]
    if pair.weights:
        made.append(Reweight(dict(pair.weights), targets=(CONTROLLED, BLENDED)))
    if blended(pair):
        made.append(LocalBlend((pair.new or pair.old)[0].noun, targets=(BLENDED,)))
    return made


@dataclass(frozen=True)
class Row:
    """One measured pair: images [source, edits ...], and for each edit success and the PSNR of what should stay."""

    pair: Counterfactual
    pictures: np.ndarray
    success: tuple[bool, ...]
    kept: tuple[float, ...]


def flow_jobs(model: Model, pair: Counterfactual, seed: int, steps: int, guidance: int | float) -> list[Job]:
    """The editing methods for flow models, each with a source and a target."""
    if model.scheduler != FLOW or pair.weights:
        return []
    prompts, changed = (pair.source, pair.target), pair.nouns[:1]
    made: list[Sequence[Control]] = [(FlowEdit(),)]
    if changed and changed[0] in pair.source.split():
        keeps_shape = bool(pair.old and pair.new) and pair.nouns == changed  # another colour, not another thing
        made.append((Consist(changed, structure=1.0 if keeps_shape else 0.3),))
    return [Job(prompts, noise_for(model, seed), steps, guidance, controls, seed=seed) for controls in made]


def measure(model: Model, pair: Counterfactual, seed: int, steps: int, guidance: int | float, shares: Shares) -> Row:
    """Run all edits of one pair from the same noise."""
    prompts = [pair.source, pair.target, pair.target, pair.target]
    job = Job(prompts, noise_for(model, seed), steps, guidance, controls_of(model, pair, shares), seed=seed)
    first, *others = sample_jobs(model, [job, *flow_jobs(model, pair, seed, steps, guidance)])
    made = np.concatenate([first.pictures[:, 0], *(other.pictures[1:, 0] for other in others)])
    sights = oracle().look(made)
    success, kept = [], []
    for row in range(1, len(made)):
        success.append(pair.success(sights[row]))
        outside = beyond(pair.nouns, sights[0], sights[row]) if pair.nouns else _things(sights[0])
        kept.append(psnr(made[0], made[row], outside))
    return Row(pair, made, tuple(success), tuple(kept))


def beyond(nouns: Sequence[str], *sights: Sight) -> np.ndarray:
    """The area outside the dilated regions of some things in all images."""
    return ~grown(np.any([sight.regions[noun] for sight in sights for noun in nouns], axis=0), MARGIN)


def _things(sight: Sight) -> np.ndarray:
    """The regions of all things, which background and style edits should keep."""
    return np.any(
        [region for noun, region in sight.regions.items() if sight.has(noun)] or [np.zeros((128, 128), bool)], axis=0
    )


def bench_edits(
    model: Model,
    *,
    pairs: int = 50,
    steps: int | None = None,
    guidance: int | float | None = None,
    shares: Shares = Shares(),
    seed: int = 2000,
    kinds: Sequence[str] = (),
    progress: Callable[..., None] | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, list[Row]]]:
    """Figures by kind of edit (`kinds`, None for all), and the measured rows. The defaults are the model's.

    The pairs of a kind do not depend on which others are measured. Raises ValueError for unknown kinds."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"Kinds of edits are {', '.join(map(repr, KINDS))}. Received {', '.join(map(repr, unknown))}.")
    steps, guidance = usual(model, steps, guidance)
    figures: dict[str, dict[str, float]] = {}
    rows: dict[str, list[Row]] = {}
    for name in kinds or KINDS:
        rng = random.Random(f"{name} {seed}")
        rows[name] = []
        for number in range(pairs):
            pair = drawn(name, rng, number, "test")
            rows[name].append(measure(model, pair, seed + number, steps, guidance, shares))
            if progress:
                progress()
        figures[name] = _figures(rows[name])
    return figures, rows


def _figures(rows: Sequence[Row]) -> dict[str, float]:
    made: dict[str, float] = {}
    for place, name in enumerate(EDITS[: len(rows[0].success)]):
        if name == EDITS[BLENDED - 1] and not blended(rows[0].pair):
            continue
        made[f"{name}: success"] = share([row.success[place] for row in rows])
        known = [row.kept[place] for row in rows if not np.isnan(row.kept[place])]
        made[f"{name}: PSNR"] = float(np.mean(known)) if known else float("nan")
    return made


def examples(rows: Sequence[Row], count: int = 12) -> Image.Image:
    """The first pairs, not selected: source, edit, edit with local blend (if any), no control."""
    pictures, labels = [], []
    for row in rows[:count]:
        places = [0, CONTROLLED, *([BLENDED] if blended(row.pair) else []), *range(FREE, len(row.pictures))]
        target = row.pair.target + "".join(f" [{word} x {factor:g}]" for word, factor in row.pair.weights)
        names = {0: row.pair.source, **dict(enumerate(EDITS, 1)), CONTROLLED: f"edit: {target}"}
        pictures.append([row.pictures[place] for place in places])
        labels.append([names[place] for place in places])
    half = -(-len(pictures) // 2)
    paired = [[*pictures[i], *(pictures[i + half] if i + half < len(pictures) else [])] for i in range(half)]
    named = [[*labels[i], *(labels[i + half] if i + half < len(labels) else [])] for i in range(half)]
    return sheet(paired, named)


def save(folder: Path, rows: dict[str, list[Row]]) -> list[Path]:
    """Write the example sheets."""
    files: dict[str, Write] = {}
    for name, measured in rows.items():
        shown = examples(measured)
        files[f"edits-{name.replace(' ', '-').replace('--', '-minus-')}.webp"] = partial(shown.save, quality=88)
    return write_files(folder, files)
