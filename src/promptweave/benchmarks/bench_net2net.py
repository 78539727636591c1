"""Flows against conditional autoencoders of equal size: trained alike on the same codes, judged alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from promptweave.benchmarks.measure_net2net import measure_domains, measure_text
from promptweave.translation.conditional_vae import ConditionalVae, VaeSizes
from promptweave.translation.experts import DOMAINS, LabelExpert, PromptExpert, SummaryExpert
from promptweave.translation.flow import ConditionalFlow
from promptweave.translation.pairs import FILE, Pairs
from promptweave.translation.refining import Refiner
from promptweave.translation.train_flows import FlowTraining, codes_of, conditions, fit, seeded, sizes_of
from promptweave.translation.translator import Translator
from promptweave.world.training import Log

KINDS = ("flow", "conditional VAE")
MEASURES = {"text": measure_text, "domains": measure_domains}


def trained(
    folder: Path, recipe: FlowTraining, name: str, kind: str, seed: int, device: str = "cpu", watch: Any = None
) -> Translator:
    """A flow or its rival, trained on the codes of a training folder from this seed; it resumes from its checkpoint."""
    if not (folder / FILE).exists():
        raise FileNotFoundError(
            f"{folder / FILE} does not exist yet. Train first: promptweave net2net train --folder {folder}"
        )
    pairs, place = Pairs.load(folder / FILE)[0], torch.device(device)
    recipe = dataclasses.replace(recipe, seed=seed)
    codes = codes_of(folder, recipe, pairs, place)
    sizes = sizes_of(name, codes[0].shape[1], pairs)
    with seeded(seed):
        network = ConditionalFlow(sizes, seed) if kind == KINDS[0] else ConditionalVae(VaeSizes.like(sizes))
    path = folder / "compared" / f"{name}-{kind.replace(' ', '-')}-{seed}.pt"
    fit(path, network.to(place), *conditions(name, codes, pairs), recipe, Log(path.parent, watch), name)
    target = SummaryExpert.load(folder / "summary.safetensors", refiner=Refiner())
    source = PromptExpert(target.latent.model) if name == "text" else LabelExpert(DOMAINS)
    return Translator(network.cpu(), source, target, f"{kind}, seed {seed}")


def bench_net2net(
    folder: Path,
    recipe: FlowTraining,
    *,
    count: int,
    repeats: int,
    device: str = "cpu",
    progress: Callable[[], Any] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Translator -> kind -> mean and standard deviation of each figure over `repeats` seeds of weights and batches."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, measure in MEASURES.items():
        for kind in KINDS:
            figures = [
                measure(trained(folder, recipe, name, kind, seed, device), count=count, seed=1, progress=progress)
                for seed in range(repeats)
            ]
            found.setdefault(name, {})[kind] = spread(figures)
    return found


def spread(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means and standard deviations of figures over repeats."""
    means = {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}
    return means | {f"{name} +-": float(np.std([one[name] for one in figures])) for name in figures[0]}
