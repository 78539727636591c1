"""A translator between any two experts, trained on examples of yours or on what a generator draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptweave.translation.experts import Expert, write_tensors
from promptweave.translation.flow import ConditionalFlow, FlowSizes
from promptweave.translation.foreign_experts import GeneratorExpert
from promptweave.translation.train_flows import FlowTraining, fit, seeded
from promptweave.translation.translator import Translator
from promptweave.world.training import Log, Watch

BATCH = 64


@dataclass(frozen=True)
class Shape:
    """The flow's sizes beside those of the experts (see `FlowSizes`)."""

    embedding: int = 64
    blocks: int = 8
    hidden: int = 128
    depth: int = 1


def join(
    source: Expert,
    target: Expert,
    examples: Sequence[tuple[Any, Any]] | int,
    folder: Path | str,
    *,
    recipe: FlowTraining | None = None,
    shape: Shape | None = None,
    device: str = "cpu",
    watch: Watch | None = None,
) -> Translator:
    """Train a flow between two frozen experts, resuming from `folder`, and return their translator.

    `examples`: pairs of what the source reads and what the target encodes, such as (caption, image); or, for a target
    that only generates, the number of codes to draw: the source then reads their images, as the paper's GANs are
    described by a captioner. `recipe`: flow steps, batch, rate and seed, of which the rest is not read. The weights are
    also written to `flow.safetensors`. Raises Diverged, CannotWrite, and ValueError for fewer than two examples.
    """
    recipe, shape, folder = recipe or FlowTraining(), shape or Shape(), Path(folder)
    count = examples if isinstance(examples, int) else len(examples)
    if count < 2:
        raise ValueError(f"A flow is trained on at least two examples, better on thousands. Received {count}.")
    said, codes = (
        _drawn(source, target, count, recipe.seed) if isinstance(examples, int) else _encoded(source, target, examples)
    )
    sizes = FlowSizes(target.dim, source.dim, **asdict(shape))
    with seeded(recipe.seed):
        flow = ConditionalFlow(sizes, recipe.seed).to(device)
    exact = torch.full_like(codes, float("-inf"))
    fit(
        folder / "flow.pt",
        flow,
        (codes.to(device), exact.to(device)),
        said[:, None],
        recipe,
        Log(folder, watch),
        "flow",
    )
    write_tensors(folder / "flow.safetensors", "flow", asdict(sizes), flow.state_dict())
    return Translator(flow.cpu(), source, target, f"from {source.name} to {target.name}")


def _encoded(source: Expert, target: Expert, examples: Sequence[tuple[Any, Any]]) -> tuple[Tensor, Tensor]:
    parts = [examples[i : i + BATCH] for i in range(0, len(examples), BATCH)]
    said = [source.encode([one for one, _ in part]) for part in parts]
    return torch.cat(said), torch.cat([target.encode([other for _, other in part]) for part in parts])


def _drawn(source: Expert, target: Expert, count: int, seed: int) -> tuple[Tensor, Tensor]:
    if not isinstance(target, GeneratorExpert):
        raise ValueError(
            f"A number of examples asks a generator for codes. Received {count} for {target.name}, which encodes: give "
            "pairs of what the source reads and an image."
        )
    codes = target.draw(count, torch.Generator().manual_seed(seed))
    return torch.cat([source.encode(list(target.decode(part))) for part in codes.split(BATCH)]), codes
