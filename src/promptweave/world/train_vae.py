"""Stage one of `toybox`: the autoencoder, and later its decoder alone."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from promptweave.world import build
from promptweave.world.muon import Muon
from promptweave.world.scene import random_scene
from promptweave.world.training import (
    Clock,
    Log,
    Training,
    Watch,
    ahead,
    checkpoint,
    pixels,
    precision_of,
    rate_at,
    save_checkpoint,
)

CODE_NOISE = (
    0.02  # deviation of the noise on the codes that the decoder alone is trained on: sampled codes are not exact
)


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the right and lower neighbours."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the pixels plus that of their differences."""
    loss = F.l1_loss(output, target) + 2 * F.mse_loss(output, target)
    return loss + sum(F.l1_loss(a, b) for a, b in zip(edges(output), edges(target), strict=True))


def _rendered(recipe: Training, start: int) -> Iterator[Tensor]:
    """Endless batches of rendered scenes, beginning after `start` samples."""
    rng = random.Random(recipe.seed + start)
    batches = ([random_scene(rng, seen_only=False) for _ in range(recipe.vae_batch)] for _ in count())
    return ahead(pixels, batches, 2 * recipe.workers + 2, recipe.workers)


def train_vae(
    folder: Path,
    recipe: Training,
    minutes: int | float,
    device: str,
    *,
    decoder_only: bool = False,
    watch: Watch | None = None,
) -> None:
    """Train the autoencoder, or with `decoder_only` improve the decoder for fixed latents."""
    name = "decoder" if decoder_only else "vae"
    vae: Any = build.build_vae()
    vae = vae.to(device, memory_format=torch.channels_last)
    log, path = Log(folder, watch), folder / f"{name}.pt"
    state = checkpoint(path, spent=0.0, samples=0)
    if "model" in state:
        vae.load_state_dict(state["model"])
    elif decoder_only:
        vae.load_state_dict(checkpoint(folder / "codes.pt"))
    else:
        torch.manual_seed(recipe.seed)
    frozen = ("encoder", "quant_conv") if decoder_only else ()
    trained = [p for n, p in vae.named_parameters() if not n.startswith(frozen)]
    kernels, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim == 1]
    optimisers = Muon(kernels, lr=recipe.vae_rate), torch.optim.AdamW(vectors, lr=2e-3, weight_decay=0.0)
    rates = [group["lr"] for o in optimisers for group in o.param_groups]
    clock, samples = Clock(minutes, state["spent"]), state["samples"]
    saved = time.time()
    for x in _rendered(recipe, samples):
        if clock.progress >= 1:
            break
        x = x.to(device).contiguous(memory_format=torch.channels_last)
        with precision_of(recipe, device):
            posterior = vae.encode(x).latent_dist
            if decoder_only:
                z = posterior.mode().detach().float()
                z = z + CODE_NOISE * torch.randn_like(z)
            else:
                z = posterior.sample().float()
            output = vae.decode(z).sample.float()
        loss = reconstruction_loss(output, x)
        if not decoder_only:
            loss = loss + 3e-4 * posterior.kl().float().mean() / z[0].numel()
        loss.backward()
        factor = rate_at(clock.progress, 0.6) * min(1.0, (samples + 1) / (50 * recipe.vae_batch))
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad()
        samples += recipe.vae_batch
        error = F.mse_loss(output.detach().clamp(-1, 1), x).item() / 4
        log(stage=name, samples=samples, minutes=clock.used, loss=loss.item(), psnr=-10 * math.log10(error))
        if time.time() - saved > 120:
            save_checkpoint(path, {"model": vae.state_dict(), "spent": clock.used, "samples": samples})
            saved = time.time()
    save_checkpoint(path, {"model": vae.state_dict(), "spent": clock.used, "samples": samples})
    if not decoder_only:
        standardise(vae, recipe)
        save_checkpoint(folder / "codes.pt", vae.state_dict())
    log(stage=name, samples=samples, minutes=clock.used, psnr=vae_psnr(vae), force=True)


@torch.no_grad()
def vae_psnr(vae: Any, scenes: int = 96, seed: int = 10**6) -> float:
    """Mean PSNR (dB) of reconstructions of unseen scenes."""
    rng, device = random.Random(seed), next(vae.parameters()).device
    x = pixels([random_scene(rng, seen_only=False) for _ in range(scenes)]).to(device)
    output = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in x.split(16)])
    errors = (output.clamp(-1, 1) - x).square().mean((1, 2, 3)) / 4
    return float((-10 * errors.log10()).mean())


@torch.no_grad()
def standardise(vae: Any, recipe: Training) -> None:
    """Fold mean and deviation of each latent channel into the 1x1 convolutions: latents get mean 0, variance 1."""
    rng, device = random.Random(recipe.seed + 1), next(vae.parameters()).device
    x = pixels([random_scene(rng) for _ in range(256)]).to(device)
    z = torch.cat([vae.encode(part).latent_dist.mode() for part in x.split(16)])
    mean, deviation, channels = z.mean((0, 2, 3)), z.std((0, 2, 3)), z.shape[1]
    vae.quant_conv.weight[:channels] /= deviation[:, None, None, None]
    vae.quant_conv.bias[:channels] = (vae.quant_conv.bias[:channels] - mean) / deviation
    vae.quant_conv.bias[channels:] -= 2 * deviation.log()
    weight = vae.post_quant_conv.weight
    vae.post_quant_conv.bias += torch.einsum("oiyx,i->o", weight, mean)
    weight *= deviation[None, :, None, None]
