"""The joint-attention stage: text encoders and transformer of `toybox-dit`, trained by flow matching.

Three things make it cheap. Padding tokens are identical, so one token stands for all of them, with the logarithm of
their number added to its logits, which gives the same attention (see `counts`); likewise for the zeros that replace the
omitted T5 encoder, in half of the batches. Most of the training uses patches of 2 x 2 latents, a quarter of the tokens,
before it continues with single latents (see `build_joint.finer`). There `toybox` is the teacher: its prediction
replaces the single scene behind noisy latents as the target, with the same mean and a much smaller variance.
"""

from __future__ import annotations

import copy
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptweave.models.embedded import JOINT
from promptweave.models.joint import JointTap
from promptweave.models.sd3 import T5_LENGTH
from promptweave.world import build, build_joint
from promptweave.world.muon import Muon
from promptweave.world.train_diffusion import (
    AVERAGE_DECAY,
    TIME_CENTRE,
    TIME_SPREAD,
    Diffusion,
    batches,
    encode_scenes,
    sample_grid,
    scenes_of,
    tokenizer_of,
)
from promptweave.world.training import (
    Clock,
    Log,
    Training,
    Watch,
    checkpoint,
    clip,
    precision_of,
    rate_at,
    save_checkpoint,
)

EXPORTED = JOINT
MUON_RATE = 20  # times the rate of AdamW


class CountedAttention:
    """Joint attention in which each of the last keys stands for several identical ones; `bias`: float [keys]."""

    def __init__(self) -> None:
        self.bias = torch.zeros(0)

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        q, k, v = JointTap.project(attn, hidden_states, encoder_hidden_states, flux=False)
        output = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias.expand(q.shape[2], -1))
        output = output.transpose(1, 2).flatten(2)
        image, text = output.split([hidden_states.shape[1], encoder_hidden_states.shape[1]], dim=1)
        return attn.to_out[0](image), text if attn.context_pre_only else attn.to_add_out(text)


def counts(tokens: int, places: int) -> list[int]:
    """How many tokens each text token stands for: `tokens` of CLIP's 77 are read, and one stands for T5's `places`.

    >>> counts(5, 256), counts(5, 0)
    ([1, 1, 1, 1, 73, 256], [1, 1, 1, 1, 73])
    """
    return [1] * (tokens - 1) + [build.MAXIMUM_LENGTH - tokens + 1] + [places] * bool(places)


class JointDiffusion(nn.Module):
    """Two text encoders and a transformer, trained jointly to predict the velocity noise - code (Esser et al. 2024)."""

    alpha_bar: Tensor

    def __init__(self, folder: Path, patch: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer_of(folder)
        self.first, self.second = build_joint.build_encoders(self.tokenizer)
        self.transformer = build_joint.build_transformer(patch)
        if patch > 1:
            build_joint.coarse_positions(self.transformer)
        self.attention = CountedAttention()
        self.register_buffer("alpha_bar", build.build_scheduler().alphas_cumprod, persistent=False)

    def begin_like(self, taught: Diffusion) -> None:
        """Initialise the text encoders with the UNet's."""
        self.first.load_state_dict(taught.text_encoder.state_dict(), strict=False)

    def read(self, captions: list[str], places: int) -> tuple[Tensor, Tensor, Tensor]:
        """Text [batch, tokens, 256], pooled [batch, 256], and the logarithms of the tokens' counts."""
        ids = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        longest = int((ids != self.tokenizer.pad_token_id).sum(1).max()) + 1  # end token included
        ids = ids[:, : 8 * math.ceil(longest / 8)].to(self.alpha_bar.device)
        read = [encoder(ids, output_hidden_states=True) for encoder in (self.first, self.second)]
        text = torch.cat([output.hidden_states[-2] for output in read], -1)
        pooled = torch.cat([output.text_embeds for output in read], -1)
        many = torch.tensor(counts(ids.shape[1], places), device=text.device, dtype=text.dtype).log()
        return F.pad(text, (0, 0, 0, len(many) - text.shape[1])), pooled, many

    def velocity(self, x: Tensor, sigma: Tensor, captions: list[str], places: int = 0) -> Tensor:
        """The prediction at noise levels `sigma` [batch], with `places` zero tokens for T5."""
        text, pooled, many = self.read(captions, places)
        patch = build_joint.patch_of(self.transformer)
        self.attention.bias = torch.cat([many.new_zeros(x.shape[-1] * x.shape[-2] // patch**2), many])
        blocks: Any = self.transformer.transformer_blocks
        for block in blocks:
            block.attn.processor = self.attention
        return self.transformer(x, text, pooled, 1000 * sigma).sample

    def loss(
        self, z: Tensor, captions: list[str], generator: torch.Generator, teacher: Diffusion | None = None
    ) -> Tensor:
        """Squared error of the velocity at random times; the target is the teacher's, if there is one."""
        place = torch.randn(len(z), generator=generator) * TIME_SPREAD + TIME_CENTRE
        t = (place.sigmoid() * len(self.alpha_bar)).long().to(z.device)
        noise = torch.randn(z.shape, generator=generator).to(z.device)
        alpha, beta = self.alpha_bar[t].sqrt().view(-1, 1, 1, 1), (1 - self.alpha_bar[t]).sqrt().view(-1, 1, 1, 1)
        sigma = beta / (alpha + beta)  # the noise level of the straight path with the same signal-to-noise ratio
        target = noise - z
        if teacher is not None:
            with torch.no_grad():
                x = alpha * z + beta * noise
                v = teacher.unet(x, t, teacher.text_encoder(teacher.ids(captions)).last_hidden_state).sample
                target = (beta * x + alpha * v) - (alpha * x - beta * v)
        places = T5_LENGTH * int(
            torch.randint(2, (), generator=generator)
        )  # with zeros for T5 as in diffusers, and without
        x = (1 - sigma) * z + sigma * noise
        return (self.velocity(x, sigma.flatten(), captions, places) - target).square().mean()


def optimisers_of(model: JointDiffusion, recipe: Training) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices in the blocks, AdamW for the rest, each with its learning rate."""
    blocks = model.transformer.transformer_blocks
    inside = [p for name, p in blocks.named_parameters() if p.ndim == 2 and "norm" not in name]
    chosen = {id(p) for p in inside}
    text = [*model.first.parameters(), *model.second.parameters()]
    chosen |= {id(p) for p in text}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    adam = {"betas": (0.9, 0.98), "weight_decay": 0.01}
    return [
        (Muon(inside, lr=MUON_RATE * recipe.joint_rate), MUON_RATE * recipe.joint_rate),
        (torch.optim.AdamW(rest, lr=recipe.joint_rate, **adam), recipe.joint_rate),
        (torch.optim.AdamW(text, lr=recipe.joint_rate / 4, **adam), recipe.joint_rate / 4),
    ]


def teacher_of(folder: Path, device: str) -> Diffusion | None:
    """The UNet of the diffusion stage, if it is trained."""
    path = folder / "diffusion.pt"
    if not path.exists():
        return None
    made = Diffusion(folder).requires_grad_(False).eval()
    made.load_state_dict(checkpoint(path)["average"])
    placed: Any = made
    return placed.to(device, memory_format=torch.channels_last)


def train_joint(
    folder: Path, recipe: Training, minutes: int | float, device: str, *, watch: Watch | None = None
) -> None:
    """Train on coarse tokens for the fraction `recipe.coarse_share` of the time, then on fine ones with the teacher."""
    codes, scenes = encode_scenes(folder, recipe, device, watch), scenes_of(recipe)
    log, path, teacher = Log(folder, watch), folder / "joint.pt", teacher_of(folder, device)
    state = checkpoint(path, spent=0.0, samples=0, patch=2)
    run = Run(folder, recipe, device, state, teacher)
    clock, samples, saved, mean = Clock(minutes, state["spent"]), state["samples"], time.time(), None
    generator = torch.Generator().manual_seed(recipe.seed + samples)

    def save() -> None:
        save_checkpoint(path, {**run.state(), "spent": clock.used, "samples": samples})
        export_joint(folder, run.average)
        sample_grid(folder, samples, recipe.grid_steps, EXPORTED)

    for z, texts in batches(codes, scenes, recipe, samples, recipe.joint_batch):
        if clock.progress >= 1:
            break
        if run.patch > 1 and clock.progress >= recipe.coarse_share:
            run = Run(folder, recipe, device, {"patch": 1, "coarse": run.average}, teacher)
        factor = rate_at(clock.progress, recipe.decay_share) if run.patch == 1 else 1.0
        loss = run.step(z.to(device), texts, generator, factor)
        samples += len(z)
        mean = loss if mean is None else 0.98 * mean + 0.02 * loss
        log(stage="joint", samples=samples, minutes=clock.used, loss=mean, patch=run.patch, rate=factor)
        if time.time() - saved > recipe.save_seconds:
            save()
            saved = time.time()
    save()


class Run:
    """The network with one patch size, its weight average and its optimisers."""

    def __init__(
        self, folder: Path, recipe: Training, device: str, state: dict[str, Any], teacher: Diffusion | None
    ) -> None:
        self.patch: int = state["patch"]
        torch.manual_seed(recipe.seed)
        model = JointDiffusion(folder, self.patch)
        if "coarse" in state:
            coarse: JointDiffusion = state["coarse"]
            model.first.load_state_dict(coarse.first.state_dict())
            model.second.load_state_dict(coarse.second.state_dict())
            model.transformer = build_joint.finer(coarse.transformer)
        elif "model" in state:
            model.load_state_dict(state["model"])
        elif teacher is not None:
            model.begin_like(teacher)
        self.model = model.to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimisers = optimisers_of(self.model, recipe)
        self.steps: int = state.get("steps", 0)
        self.warm_up, self.teacher = recipe.warm_up // 4, teacher if self.patch == 1 else None
        self.precision = partial(precision_of, recipe, device)
        if "model" in state:
            self.average.load_state_dict(state["average"])
        if "optimisers" in state:
            for (optimiser, _), kept in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(kept)

    def state(self) -> dict[str, Any]:
        """Its part of a checkpoint."""
        return {
            "patch": self.patch,
            "steps": self.steps,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser, _ in self.optimisers],
        }

    def step(self, z: Tensor, texts: list[str], generator: torch.Generator, factor: int | float) -> float:
        """One step on a batch, with the learning rates times `factor`; returns the loss before it."""
        with self.precision():
            loss = self.model.loss(z, texts, generator, self.teacher)
        loss.backward()
        clip(self.model)
        self.steps += 1
        for optimiser, rate in self.optimisers:
            optimiser.param_groups[0]["lr"] = rate * factor * min(1, self.steps / self.warm_up)
            optimiser.step()
            optimiser.zero_grad()
        decay = min(AVERAGE_DECAY, self.steps / (self.steps + 10))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        return loss.item()


def export_joint(folder: Path, model: JointDiffusion) -> None:
    """Write a pipeline folder with the averaged weights."""
    parts = copy.deepcopy(model).cpu()
    build_joint.save_joint_pipeline(folder / EXPORTED, parts.transformer, (parts.first, parts.second), model.tokenizer)
