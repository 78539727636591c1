"""The training of the translators of the world: a summary of the latents, then a flow for prompts and one for domains.

Every stage is seeded step by step, writes checkpoints and resumes from them with the same result, and adds a line a
minute to `log.jsonl`. The rate rises in the first hundred steps and falls to zero over the last part.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from promptweave.core.fields import Option
from promptweave.models.load import load
from promptweave.translation.conditional_vae import ConditionalVae
from promptweave.translation.experts import write_tensors
from promptweave.translation.flow import ConditionalFlow, FlowSizes
from promptweave.translation.pairs import FILE, Pairs, make_pairs
from promptweave.translation.summary import Summary, SummarySizes
from promptweave.world.training import Clock, Diverged, Log, Watch, checkpoint, rate_at, save_checkpoint

STAGES = ("pairs", "summary", "text", "domains")
WARM_UP, DECAY, SAVE_SECONDS = 100, 0.6, 60
BETAS = (0.9, 0.99)
SOFTNESS = 0.1  # of codes, whose deviation over scenes is about 1; latents then lose 4 % more
DIVERGENCE = 0.01  # weight of the summary's KL divergence per latent number
FLOWS = {
    "text": {"embedding": 64, "blocks": 7, "hidden": 112, "depth": 1},
    "domains": {"embedding": 16, "blocks": 6, "hidden": 48, "depth": 1},
}


@dataclass(frozen=True)
class FlowTraining:
    """How the translators are trained; the defaults are for two CPU cores."""

    scenes: Annotated[int, Option("Training scenes.", low=16, group="What changes")] = 5000
    summary_steps: Annotated[int, Option("Steps of the summary.", low=1)] = 1200
    flow_steps: Annotated[int, Option("Steps of each flow.", low=1)] = 1600
    batch: Annotated[int, Option("Batch size of the flows; that of the summary is a quarter of it.", low=4)] = 128
    dim: Annotated[int, Option("Size of an image's code.", low=2)] = 64
    width: Annotated[int, Option("Channels of the summary's coarsest level, a multiple of 16.", low=16)] = 96
    rate: Annotated[float, Option("Maximum learning rate.", low=0)] = 1e-3
    seed: Annotated[int, Option("Seed of scenes, weights and batches.", low=0, short="s")] = 0


def train_flows(
    folder: Path,
    recipe: FlowTraining,
    stages: Collection[str] = STAGES,
    device: str = "auto",
    watch: Watch | None = None,
) -> None:
    """Run the stages into `folder`, each resuming from its checkpoint; finished ones are not repeated.

    Raises ValueError for an unknown stage, Diverged at the first loss or gradient that is not finite, and CannotWrite.
    """
    unknown = set(stages) - set(STAGES)
    if unknown:
        raise ValueError(f"Stages are {', '.join(STAGES)}. Received {', '.join(sorted(unknown))}.")
    log = Log(folder, watch)
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    pairs = _pairs(folder, recipe, place, log)
    if "summary" in stages:
        _train_summary(folder, recipe, pairs, place, log)
    for name in ("text", "domains"):
        if name in stages:
            codes = codes_of(folder, recipe, pairs, place)
            with seeded(recipe.seed):
                flow = ConditionalFlow(sizes_of(name, codes[0].shape[1], pairs), recipe.seed).to(place)
            fit(folder / f"{name}.pt", flow, *conditions(name, codes, pairs), recipe, log, name)
            write_tensors(folder / f"{name}.safetensors", "flow", asdict(flow.sizes), flow.state_dict())


def sizes_of(name: str, dim: int, pairs: Pairs) -> FlowSizes:
    """The sizes of the flow of this name for codes of `dim` numbers."""
    condition = pairs.prompts.shape[2] if name == "text" else pairs.labels.shape[1]
    return FlowSizes(dim, condition, **FLOWS[name])


def _pairs(folder: Path, recipe: FlowTraining, place: torch.device, log: Log) -> Pairs:
    path, about = folder / FILE, {"scenes": str(recipe.scenes), "seed": str(recipe.seed)}
    if path.exists():
        pairs, said = Pairs.load(path)
        if said != about:
            raise ValueError(
                f"A training folder belongs to one set of scenes. {folder} has {said}, and {about} was asked for. Give "
                "--folder another name, or the same --scenes and --seed."
            )
        return pairs
    clock = Clock(0)
    pairs = make_pairs(
        load("toybox", device=str(place), dtype=torch.float32), recipe.scenes, recipe.seed,
        lambda done: log(stage="pairs", samples=done, minutes=clock.used, share=done / recipe.scenes),
    )  # fmt: skip
    pairs.save(path, about)
    return pairs


def _summary(recipe: FlowTraining, pairs: Pairs) -> Summary:
    _, channels, grid, _ = pairs.latents.shape
    return Summary(SummarySizes(recipe.dim, recipe.width, channels, grid))


def _train_summary(folder: Path, recipe: FlowTraining, pairs: Pairs, place: torch.device, log: Log) -> None:
    with seeded(recipe.seed):
        summary = _summary(recipe, pairs).to(place)
    latents = pairs.latents.to(place)

    def loss(step: int, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(_mixed(recipe.seed, step))
        chosen = torch.randint(len(latents), (count,), generator=generator).to(place)
        return summary.loss(latents[chosen].float(), generator, DIVERGENCE)

    run(folder / "summary.pt", summary, loss, recipe.summary_steps, recipe.batch // 4, recipe, log, "summary")
    write_tensors(folder / "summary.safetensors", "summary", asdict(summary.sizes), summary.state_dict())


@torch.no_grad()
def codes_of(folder: Path, recipe: FlowTraining, pairs: Pairs, place: torch.device) -> tuple[Tensor, Tensor]:
    """Means and log-variances of the codes of all scenes, with a deviation of at least `SOFTNESS`.

    A summary's own deviation is far less (0.02), and a flow would learn its scenes one by one.
    """
    kept = folder / "summary.pt"
    if not kept.exists():
        raise FileNotFoundError(
            f"{kept} does not exist yet, and flows are trained on its codes. Train the summary first."
        )
    summary = _summary(recipe, pairs).to(place)
    summary.load_state_dict(checkpoint(kept)["model"])
    summary.eval()
    found = [summary.posterior(part.to(place).float()) for part in pairs.latents.split(256)]
    return torch.cat([mean for mean, _ in found]), torch.cat([log_variance for _, log_variance in found]).clamp(
        min=2 * math.log(SOFTNESS)
    )


def conditions(name: str, codes: tuple[Tensor, Tensor], pairs: Pairs) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Codes, and one or several conditions [scenes, wordings, condition] of each, for the flow of this name."""
    if name == "text":
        return codes, pairs.prompts
    known = pairs.labels.sum(1) > 0
    mean, log_variance = codes
    return (mean[known.to(mean.device)], log_variance[known.to(mean.device)]), pairs.labels[known][:, None]


def fit(
    path: Path,
    flow: ConditionalFlow | ConditionalVae,
    codes: tuple[Tensor, Tensor],
    said: Tensor,
    recipe: FlowTraining,
    log: Log,
    name: str,
) -> None:
    """Train a flow by maximum likelihood (equation 6) on pairs of codes and conditions, resuming from `path`.

    `codes`: means and log-variances [pairs, dim] of the codes, which are drawn anew at each step; a log-variance of
    minus infinity for exact codes. `said`: conditions [pairs, wordings, condition], of which each step draws one.
    """
    mean, deviation = codes[0], (0.5 * codes[1]).exp()
    said = said.to(mean.device)

    def batch(step: int, count: int) -> tuple[Tensor, Tensor, torch.Generator]:
        generator = torch.Generator().manual_seed(_mixed(recipe.seed, step))
        chosen = torch.randint(len(mean), (count,), generator=generator).to(mean.device)
        wording = torch.randint(said.shape[1], (count,), generator=generator).to(mean.device)
        noise = torch.randn(count, mean.shape[1], generator=generator).to(mean.device)
        return mean[chosen] + deviation[chosen] * noise, said[chosen, wording].float(), generator

    if isinstance(flow, ConditionalFlow) and not flow.initialised:
        z, c, _ = batch(-1, max(256, recipe.batch))
        flow.initialise(z, c)

    def loss(step: int, count: int) -> Tensor:
        z, c, generator = batch(step, count)
        return flow.loss(z, c) if isinstance(flow, ConditionalFlow) else flow.loss(z, c, generator)

    run(path, flow, loss, recipe.flow_steps, recipe.batch, recipe, log, name)


def run(
    path: Path,
    network: nn.Module,
    loss: Callable[[int, int], Tensor],
    steps: int,
    batch: int,
    recipe: FlowTraining,
    log: Log,
    name: str,
) -> None:
    """The loop of every stage: `loss(step, batch)` down, from the checkpoint at `path` to the last step."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, betas=BETAS, weight_decay=1e-4)
    state = checkpoint(path, step=0)
    if "model" in state:
        _resume(path, network, optimiser, state)
    clock, saved, first = Clock(0), time.time(), int(state["step"])
    network.train()

    def save(step: int) -> None:
        values = {"model": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
        save_checkpoint(path, values)

    for step in range(first, steps):
        found = loss(step, batch)
        optimiser.zero_grad()
        found.backward()
        length = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        _check(name, step, float(found.detach()), float(length))
        optimiser.param_groups[0]["lr"] = recipe.rate * min(1.0, (step + 1) / WARM_UP) * rate_at(step / steps, DECAY)
        optimiser.step()
        log(
            stage=name, samples=(step + 1) * batch, minutes=clock.used, loss=float(found.detach()),
            share=(step + 1) / steps,
        )  # fmt: skip
        if time.time() - saved > SAVE_SECONDS:
            save(step + 1)
            saved = time.time()
    if first < steps:
        save(steps)
    network.eval()


def _resume(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    try:
        network.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"Training resumes only from a checkpoint of the same network. {path} has another: "
            f"{str(error).splitlines()[0]} Give --folder another name."
        ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the weights of new networks come from a seed; the program's own random numbers go on as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _check(name: str, step: int, loss: float, length: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(length)):
        raise Diverged(
            f"Training has diverged: at step {step + 1} of stage {name} the loss is {loss} and the norm of its "
            f"gradient {length}. The last checkpoint is kept, and training goes on from it. Lower the learning rate "
            "(--rate)."
        )


def _mixed(seed: int, step: int) -> int:
    """A seed for each step of each run."""
    return (seed * 1_000_003 + step + 1) * 2_654_435_761 % 2**63
