"""The recipe of the embedded model: an autoencoder, then text encoder and UNet together.

Every stage is seeded, writes checkpoints and goes on from them, and adds a line a minute to `log.jsonl`. The learning
rate follows the clock: constant, then down to zero over the last part of the minutes asked for, so that any length of
training ends in a finished model.
"""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from promptweave.models import build
from promptweave.world.caption import caption
from promptweave.world.muon import Muon
from promptweave.world.render import SIDE, render
from promptweave.world.scene import Scene, random_scene

SPLIT_WORDS = ("skateboard", "hamburger", "squirrel")  # left out when the tokenizer is learnt: they come in several pieces
DROPPED_PROMPTS = 0.10
SIGNAL_LIMIT = 5.0  # gamma of min-SNR weighting (Hang et al. 2023)
AVERAGE_DECAY = 0.9985


@dataclass(frozen=True)
class Recipe:
    """Everything a training run is made of, apart from the time it is given."""

    seed: int = 0
    scenes: int = 30_000
    vae_batch: int = 12
    vae_rate: float = 0.02
    batch: int = 48
    rate: float = 1.2e-3
    warm_up: int = 200
    decay_share: float = 0.3


def pixels(scenes: list[Scene]) -> Tensor:
    """Pictures of the scenes, float [scenes, 3, side, side] in [-1, 1]."""
    pictures = np.stack([render(scene)[0] for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


class Log:
    """Lines of JSON in `log.jsonl`, a line at most every `every` seconds, and the same on the terminal."""

    def __init__(self, folder: Path, every: float = 60) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.every, self.last = folder / "log.jsonl", every, 0.0

    def __call__(self, *, force: bool = False, **values: object) -> None:
        if force or time.time() - self.last >= self.every:
            self.last = time.time()
            line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()})
            print(line, flush=True)
            with self.path.open("a") as file:
                file.write(line + "\n")


def rate_at(progress: float, decay_share: float) -> float:
    """Factor on the learning rate: one, then linearly to zero over the last `decay_share` of the run."""
    return min(1.0, max(0.0, (1 - progress) / decay_share))


class Clock:
    """Minutes spent in a stage, over all its runs."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.minutes, self.spent, self.started = minutes, spent, time.time()

    @property
    def used(self) -> float:
        return self.spent + (time.time() - self.started) / 60

    @property
    def progress(self) -> float:
        return self.used / max(self.minutes, 1e-9)


# Stage 1: the autoencoder.


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the neighbour on the right and below."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the pixels plus that of their differences."""
    loss = F.l1_loss(output, target) + 2 * F.mse_loss(output, target)
    return loss + sum(F.l1_loss(a, b) for a, b in zip(edges(output), edges(target), strict=True))


def train_vae(folder: Path, recipe: Recipe, minutes: float, device: str, *, decoder_only: bool = False) -> None:
    """Train the autoencoder, or with `decoder_only` improve its decoder for the codes that it has."""
    name = "decoder" if decoder_only else "vae"
    vae = build.build_vae().to(device, memory_format=torch.channels_last)
    log, path = Log(folder), folder / f"{name}.pt"
    state = torch.load(path) if path.exists() else {"spent": 0.0, "samples": 0}
    if "model" in state:
        vae.load_state_dict(state["model"])
    elif decoder_only:
        vae.load_state_dict(torch.load(folder / "codes.pt"))
    else:
        torch.manual_seed(recipe.seed)
    frozen = ("encoder", "quant_conv") if decoder_only else ()
    trained = [p for n, p in vae.named_parameters() if not n.startswith(frozen)]
    kernels, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim == 1]
    optimisers = Muon(kernels, lr=recipe.vae_rate), torch.optim.AdamW(vectors, lr=2e-3, weight_decay=0.0)
    rates = [group["lr"] for o in optimisers for group in o.param_groups]
    clock, samples = Clock(minutes, state["spent"]), state["samples"]
    rng, saved = random.Random(recipe.seed + samples), time.time()
    while clock.progress < 1:
        x = pixels([random_scene(rng, seen_only=False) for _ in range(recipe.vae_batch)]).to(device)
        x = x.contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        z = posterior.mode().detach() if decoder_only else posterior.sample()
        output = vae.decode(z).sample
        loss = reconstruction_loss(output, x) + (0 if decoder_only else 3e-4 * posterior.kl().mean() / z[0].numel())
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
            torch.save({"model": vae.state_dict(), "spent": clock.used, "samples": samples}, path)
            saved = time.time()
    torch.save({"model": vae.state_dict(), "spent": clock.used, "samples": samples}, path)
    if not decoder_only:
        standardise(vae, recipe)
        torch.save(vae.state_dict(), folder / "codes.pt")
    log(stage=name, samples=samples, minutes=clock.used, psnr=vae_psnr(vae), force=True)


@torch.no_grad()
def vae_psnr(vae: nn.Module, count: int = 96, seed: int = 10**6) -> float:
    """Mean PSNR (dB) of reconstructions of scenes that no training saw."""
    rng, device = random.Random(seed), next(vae.parameters()).device
    x = pixels([random_scene(rng, seen_only=False) for _ in range(count)]).to(device)
    output = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in x.split(16)])
    errors = (output.clamp(-1, 1) - x).square().mean((1, 2, 3)) / 4
    return float((-10 * errors.log10()).mean())


@torch.no_grad()
def standardise(vae: nn.Module, recipe: Recipe) -> None:
    """Fold mean and deviation of each latent channel into the 1x1 convolutions, so that codes have mean 0, variance 1."""
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


# The training set: scenes and their codes.


def scenes_of(recipe: Recipe) -> list[Scene]:
    """The training scenes, always the same for a seed."""
    rng = random.Random(f"scenes {recipe.seed}")
    return [random_scene(rng) for _ in range(recipe.scenes)]


def _pictures(scenes: list[Scene]) -> np.ndarray:
    return np.stack([render(scene)[0] for scene in scenes])


@torch.no_grad()
def encode_scenes(folder: Path, recipe: Recipe, device: str) -> Tensor:
    """The codes of the training scenes, float16 [scenes, channels, h, w]; computed once and kept in `codes.npy`."""
    path = folder / "codes.npy"
    if not path.exists():
        vae = build.build_vae().to(device, memory_format=torch.channels_last).eval()
        vae.load_state_dict(torch.load(folder / "codes.pt"))
        scenes, parts = scenes_of(recipe), []
        chunks = [scenes[i : i + 32] for i in range(0, len(scenes), 32)]
        started = time.time()
        with ProcessPoolExecutor(1) as pool:
            for index, pictures in enumerate(pool.map(_pictures, chunks)):
                x = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1
                z = vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
                parts.append(z.half().cpu().numpy())
                if index % 100 == 0:
                    print(f"encoded {index * 32} of {len(scenes)} scenes in {time.time() - started:.0f} s", flush=True)
        np.save(folder / "codes.partial.npy", np.concatenate(parts))
        (folder / "codes.partial.npy").rename(path)
    return torch.from_numpy(np.load(path))


# Stage 2: text encoder and UNet.


class Diffusion(nn.Module):
    """Text encoder and UNet, trained jointly to predict v (Salimans & Ho 2022)."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = tokenizer_of(folder)
        self.text_encoder = build.build_text_encoder(self.tokenizer)
        self.unet = build.build_unet()
        self.register_buffer("alpha_bar", build.build_scheduler().alphas_cumprod, persistent=False)

    def ids(self, captions: list[str]) -> Tensor:
        """Token numbers, padded to 77."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return tokens.input_ids.to(self.alpha_bar.device)

    def loss(self, z: Tensor, captions: list[str], generator: torch.Generator) -> Tensor:
        """Min-SNR weighted squared error of v at random times."""
        t = torch.randint(0, len(self.alpha_bar), (len(z),), generator=generator).to(z.device)
        noise = torch.randn(z.shape, generator=generator).to(z.device)
        alpha = self.alpha_bar[t].view(-1, 1, 1, 1)
        context = self.text_encoder(self.ids(captions)).last_hidden_state
        output = self.unet(alpha.sqrt() * z + (1 - alpha).sqrt() * noise, t, context).sample
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * z
        signal = alpha / (1 - alpha)
        weight = signal.clamp(max=SIGNAL_LIMIT) / (signal + 1)
        return (weight * (output - target).square()).mean() / weight.mean()


def tokenizer_of(folder: Path):  # noqa: ANN201
    """The tokenizer of a training folder, learnt from captions on first use."""
    rng = random.Random("tokenizer")
    sentences = (caption(random_scene(rng, seen_only=False), rng) for _ in range(6000))
    return build.build_tokenizer((s for s in sentences if not any(word in s for word in SPLIT_WORDS)), folder / "tokenizer", 700)


def batches(codes: Tensor, scenes: list[Scene], recipe: Recipe, start: int) -> Iterator[tuple[Tensor, list[str]]]:
    """Endless shuffled batches of codes with fresh wordings, beginning after `start` samples."""
    rng = random.Random(f"batches {recipe.seed} {start}")
    while True:
        order = rng.sample(range(len(scenes)), len(scenes))
        for begin in range(0, len(order) - recipe.batch + 1, recipe.batch):
            chosen = order[begin : begin + recipe.batch]
            texts = ["" if rng.random() < DROPPED_PROMPTS else caption(scenes[i], rng) for i in chosen]
            yield codes[chosen].float(), texts


def train_diffusion(folder: Path, recipe: Recipe, minutes: float, device: str) -> None:
    """Train text encoder and UNet on the codes of the scenes; the averaged weights are what is exported."""
    codes, scenes, log, path = encode_scenes(folder, recipe, device), scenes_of(recipe), Log(folder), folder / "diffusion.pt"
    torch.manual_seed(recipe.seed)
    model = Diffusion(folder).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    state = torch.load(path) if path.exists() else {"spent": 0.0, "samples": 0}
    if "model" in state:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
    clock, samples, saved, mean = Clock(minutes, state["spent"]), state["samples"], time.time(), None
    generator = torch.Generator().manual_seed(recipe.seed + samples)

    def save() -> None:
        parts = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save({**parts, "spent": clock.used, "samples": samples}, folder / "diffusion.partial.pt")
        (folder / "diffusion.partial.pt").rename(path)

    for z, texts in batches(codes, scenes, recipe, samples):
        if clock.progress >= 1:
            break
        loss = model.loss(z.to(device), texts, generator)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps = samples // recipe.batch + 1
        optimiser.param_groups[0]["lr"] = recipe.rate * rate_at(clock.progress, recipe.decay_share) * min(1, steps / recipe.warm_up)
        optimiser.step()
        optimiser.zero_grad()
        samples += recipe.batch
        with torch.no_grad():
            decay = min(AVERAGE_DECAY, steps / (steps + 10))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        log(stage="diffusion", samples=samples, minutes=clock.used, loss=mean, rate=optimiser.param_groups[0]["lr"])
        if time.time() - saved > 300:
            save()
            export(folder, folder / "pipeline", average)
            saved = time.time()
    save()
    export(folder, folder / "pipeline", average)


def export(folder: Path, target: Path, model: Diffusion) -> None:
    """Write the pipeline folder from the averaged weights and the best decoder so far."""
    vae = build.build_vae()
    decoder = folder / "decoder.pt"
    vae.load_state_dict(torch.load(decoder)["model"] if decoder.exists() else torch.load(folder / "codes.pt"))
    build.save_pipeline(target, vae, copy.deepcopy(model.unet).cpu(), copy.deepcopy(model.text_encoder).cpu(), model.tokenizer)


def grid(pictures: np.ndarray, columns: int = 8, gap: int = 4) -> Image.Image:
    """Pictures uint8 [n, h, w, 3] on one sheet."""
    n, h, w, _ = pictures.shape
    sheet = Image.new("RGB", (columns * (w + gap), math.ceil(n / columns) * (h + gap)))
    for index, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), ((index % columns) * (w + gap), index // columns * (h + gap)))
    return sheet
